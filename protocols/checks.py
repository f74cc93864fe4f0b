"""Checks of the form's values and of the input movies before the run starts."""

from __future__ import annotations

from typing import Any, Dict, List, Tuple

from flexalign_plugin.errors import FlexAlignError, MovieError
from flexalign_plugin.motion.patches import MIN_ROOM
from flexalign_plugin.movies import Movie, load_corrections, open_movie, settings_of_frames
from flexalign_plugin.movies.exposure import contradictions
from flexalign_plugin.settings import Settings

MOVIES_TRIED = 5  # the checks use the first of these that can be read


def problems(values: Dict[str, Any], paths: List[str]) -> List[str]:
    """One sentence for each error that would occur with every movie.

    Parameters
    ----------
    values : fields of Settings, unchecked.
    paths : movie files. The first one that can be read is checked, because a damaged movie must not stop the run.
    """
    try:
        settings = Settings(**values)
    except FlexAlignError as error:
        return [str(error)]
    if not paths:
        return []
    try:
        movie = _first_readable(paths, settings)
    except MovieError as error:
        return [str(error)]
    errors = []
    with movie:
        n_frames, ny, nx = movie.shape
        try:
            settings = settings_of_frames(movie, settings)
        except FlexAlignError as error:
            return [str(error)]
        for check in (
            lambda: settings.frame_ranges(n_frames, movie.path),
            lambda: settings.crop_window(ny, nx, movie.path),
            lambda: settings.check_control_points(ny, nx, movie.path),
            lambda: load_corrections(movie, settings),
        ):
            try:
                check()
            except FlexAlignError as error:
                errors.append(str(error))
    return errors


def hints(values: Dict[str, Any], shape: Tuple[int, int]) -> List[str]:
    """Sentences about values that are valid but may not be intended. shape : (ny, nx) of the frames."""
    settings = Settings(**values)
    sentences = []
    if settings.do_apply_dose_filter and not settings.is_dose_weighted:
        sentences.append(
            "The dose per frame is not known, so no dose-weighted micrographs will be written: give the dose under "
            "*Dose weighting*, or set *Apply dose filter?* to No."
        )
    return sentences + room_hints(settings, shape)


def movie_hints(values: Dict[str, Any], path: str) -> List[str]:
    """Sentences about pixel size and dose that contradict the movie's own metadata; none if it can't be read, which
    `problems` reports."""
    try:
        settings = Settings(**values)
        with open_movie(path, settings) as movie:
            return contradictions(movie, settings)
    except FlexAlignError:
        return []


def room_hints(settings: Settings, shape: Tuple[int, int]) -> List[str]:
    """A sentence if the frames are too small to measure local motion. shape : (ny, nx) of the frames."""
    shorter_side = min(shape) * settings.pixel_size
    if not settings.do_local_alignment or shorter_side >= MIN_ROOM * settings.min_local_res:
        return []
    return [
        f"The shorter side of the frames is {shorter_side:.0f} A, too short for two patches of "
        f"{settings.min_local_res:g} A: local motion can't be measured, and the movies will be aligned as whole frames."
    ]


def _first_readable(paths: List[str], settings: Settings) -> Movie:
    first_error = None
    for path in paths[:MOVIES_TRIED]:
        try:
            return open_movie(path, settings)
        except MovieError as error:
            first_error = first_error or error
    assert first_error is not None
    raise first_error
