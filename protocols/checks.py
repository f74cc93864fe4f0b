"""Checks of the form's values and of the input movies before the run starts."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Tuple

from flexalign_plugin.errors import FlexAlignError, MovieError
from flexalign_plugin.motion.patches import MIN_ROOM
from flexalign_plugin.movies import Movie, load_corrections, open_movie
from flexalign_plugin.movies.counting import input_facts
from flexalign_plugin.sanity import InputFacts
from flexalign_plugin.output.corrected_star import polishing_obstacle
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
        for check in (
            lambda: settings.frame_ranges(n_frames, movie.path),
            lambda: settings.crop_window(ny, nx, movie.path),
            lambda: settings.check_field(ny, nx, movie.path),
            lambda: settings.check_control_points(ny, nx, movie.path),
            lambda: load_corrections(movie, settings),
        ):
            try:
                check()
            except FlexAlignError as error:
                errors.append(str(error))
    return errors


def hints(values: Dict[str, Any], shape: Tuple[int, int], paths: List[str]) -> List[str]:
    """Sentences about values that are valid but may not be intended; none if a value is invalid, see `problems`.

    Parameters
    ----------
    shape : (ny, nx) of the frames. paths : movie files; the first that can be read is compared with the values.
    """
    try:
        settings = Settings(**values)
    except FlexAlignError:
        return []
    sentences = input_doubts(settings, paths)
    if settings.do_apply_dose_filter and not settings.is_dose_weighted:
        sentences.append(
            "The dose per frame is not known, so no dose-weighted micrographs will be written: give the dose under "
            "*Dose weighting*, or set *Apply dose filter?* to No."
        )
    return sentences + room_hints(settings, shape)


def input_doubts(settings: Settings, paths: List[str]) -> List[str]:
    """What about the input makes no sense, after a line with what it amounts to; empty if all makes sense."""
    facts = input_facts_of(settings, paths)
    return [f"{facts.line}.", *facts.doubts] if facts is not None and facts.doubts else []


def input_facts_of(settings: Settings, paths: List[str]) -> Optional[InputFacts]:
    """What was typed and what the first readable movie holds; None if none can be read, or if that would take long."""
    try:
        with _first_readable(paths, settings) as movie:
            if movie.read_in_order:
                return None
            return input_facts(movie, settings, load_corrections(movie, settings).gain)
    except FlexAlignError:
        return None  # `problems` reports it


def room_hints(settings: Settings, shape: Tuple[int, int]) -> List[str]:
    """A sentence if the frames are too small to measure local motion. shape : (ny, nx) of the frames."""
    shorter_side = min(shape) * settings.pixel_size
    if not settings.do_local_alignment or shorter_side >= MIN_ROOM * settings.min_local_res:
        return []
    return [
        f"The shorter side of the frames is {shorter_side:.0f} A, too short for two patches of "
        f"{settings.min_local_res:g} A: local motion can't be measured, and the movies will be aligned as whole frames."
    ]


def polishing_hints(values: Dict[str, Any], movie: str) -> List[str]:
    """A sentence if Bayesian polishing in RELION can't use the outputs, which can't be repaired later.

    Parameters
    ----------
    movie : path of a movie. Its aligned frames must not be saved: polishing reads them as they are.
    """
    settings = Settings(**values)
    obstacle = polishing_obstacle(settings, movie)
    if not obstacle and (settings.crop_offset_x or settings.crop_offset_y):
        obstacle = (
            "they are cropped, and RELION's protocol in Scipion would look for each particle off by the crop's "
            "offset; to polish, align whole frames"
        )
    return [f"The micrographs can't be used for Bayesian polishing in RELION: {obstacle}."] if obstacle else []


def _first_readable(paths: List[str], settings: Settings) -> Movie:
    first_error = None
    for path in paths[:MOVIES_TRIED]:
        try:
            return open_movie(path, settings)
        except MovieError as error:
            first_error = first_error or error
    assert first_error is not None
    raise first_error
