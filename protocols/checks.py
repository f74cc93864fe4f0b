"""Checks of the form's values and of the input movies before the run starts."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Tuple

from flexalign_plugin.errors import FlexAlignError, MovieError
from flexalign_plugin.motion.patches import MIN_ROOM
from flexalign_plugin.movies import Movie, load_corrections, open_movie, settings_of_frames
from flexalign_plugin.movies.counting import input_facts
from flexalign_plugin.movies.exposure import contradictions
from flexalign_plugin.output.corrected_star import polishing_obstacle
from flexalign_plugin.sanity import InputFacts
from flexalign_plugin.settings import MIDDLE_MOST, Settings

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
    """What about the input makes no sense or contradicts the movie's own metadata, after a line with what the input
    amounts to; empty if all makes sense."""
    facts, contradicted = input_facts_of(settings, paths)
    doubts = contradicted + (facts.doubts if facts is not None else [])
    return [f"{facts.line}.", *doubts] if facts is not None and doubts else doubts


def input_facts_of(settings: Settings, paths: List[str]) -> Tuple[Optional[InputFacts], List[str]]:
    """What was typed and what the first readable movie holds, None if none can be read or if that would take long; and
    sentences on what contradicts the movie's own metadata."""
    try:
        with _first_readable(paths, settings) as movie:
            return (None, contradictions(movie, settings)) if movie.read_in_order else facts_of_movie(movie, settings)
    except FlexAlignError:
        return None, []  # `problems` reports it


def facts_of_movie(movie: Movie, settings: Settings) -> Tuple[InputFacts, List[str]]:
    """As `input_facts_of`, for an open movie. settings : as typed. Raises FlexAlignError if a file can't be read."""
    of_frames = settings_of_frames(movie, settings)
    return input_facts(movie, of_frames, load_corrections(movie, of_frames).gain), contradictions(movie, settings)


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
    try:
        settings = Settings(**values)
    except FlexAlignError:
        return []  # `problems` reports it
    obstacle = polishing_obstacle(settings, movie)
    if not obstacle and (settings.crop_offset_x or settings.crop_offset_y):
        obstacle = (
            "they are cropped, and RELION's protocol in Scipion would look for each particle off by the crop's "
            "offset; to polish, align whole frames"
        )
    if not obstacle and settings.reference_frame == MIDDLE_MOST:
        obstacle = (
            "they have the geometry of a middle frame, and RELION's protocol in Scipion takes it for that of the "
            "first; to polish, choose *first* as the reference frame"
        )
    if not obstacle and settings.eer_sampling > 1 and movie.lower().endswith(".eer"):
        obstacle = (
            "they are rendered finer than 4K, and RELION's protocol in Scipion knows only the pixel size of the 4K "
            "grid; to polish, render at 4K"
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
