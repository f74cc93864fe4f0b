"""Checks of the form against the movies themselves, before anything runs."""

from __future__ import annotations

import math
from typing import Any, Dict, List, Tuple

from flexalign_plugin.errors import FlexAlignError, MovieError
from flexalign_plugin.motion.patches import MIN_ROOM
from flexalign_plugin.movies import Movie, load_corrections, open_movie
from flexalign_plugin.settings import Settings

MOVIES_TRIED = 5


def problems(values: Dict[str, Any], paths: List[str]) -> List[str]:
    """One sentence for each thing that would go wrong with every movie.

    Parameters
    ----------
    values : fields of Settings, unchecked.
    paths : movie files. One that can't be read is no reason to stop the others, so the first few are tried.
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
    found = []
    with movie:
        n_frames, ny, nx = movie.shape
        for check in (
            lambda: settings.frame_ranges(n_frames, movie.path),
            lambda: settings.crop_window(ny, nx, movie.path),
            lambda: load_corrections(movie, settings),
        ):
            try:
                check()
            except FlexAlignError as error:
                found.append(str(error))
    return found + _control_points(settings, ny, nx)


def hints(values: Dict[str, Any], shape: Tuple[int, int]) -> List[str]:
    """Things worth knowing before the run that are no mistakes."""
    settings = Settings(**values)
    found = []
    if settings.do_apply_dose_filter and not settings.is_dose_weighted:
        found.append(
            "The dose per frame is not known, so no dose-weighted micrographs will be made: give it under "
            "*Dose weighting*, or turn the dose filter off."
        )
    return found + room_hints(settings, shape)


def room_hints(settings: Settings, shape: Tuple[int, int]) -> List[str]:
    """What the size of the frames, (ny, nx), means for the local motion."""
    narrow = min(shape) * settings.pixel_size
    if not settings.do_local_alignment or narrow >= MIN_ROOM * settings.min_local_res:
        return []
    return [
        f"The movies are {narrow:.0f} A wide: no room for two patches of {settings.min_local_res:g} A, so local motion "
        "can't be measured, they will be aligned as whole frames."
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


def _control_points(settings: Settings, ny: int, nx: int) -> List[str]:
    """Control points set by hand need patches enough; Settings can't know how many automatic patches there will be."""
    if not settings.do_local_alignment or settings.auto_control_points or not settings.auto_patches:
        return []
    patch = settings.min_local_res / settings.pixel_size
    patches_x, patches_y = math.ceil(nx / patch), math.ceil(ny / patch)
    if patches_x >= settings.control_point_x - 1 and patches_y >= settings.control_point_y - 1:
        return []
    return [
        f"{settings.control_point_x} x {settings.control_point_y} control points need at least "
        f"{settings.control_point_x - 1} x {settings.control_point_y - 1} patches, but movies of {nx} x {ny} pixels "
        f"have room for {patches_x} x {patches_y} patches of {settings.min_local_res:g} A: use fewer control points "
        "or smaller patches."
    ]
