"""The `.mdoc` that SerialEM saves with a movie: its dose is used if none is given, and compared with a given one."""

from __future__ import annotations

import dataclasses
import os
from typing import List, Optional, Tuple

from ..errors import MovieError, SettingsError
from ..movies import open_movie
from ..settings import Settings
from .mdoc import Tilt, read_mdoc
from .tilt_doses import dose_settings

DIFFERENT_DOSE, DIFFERENT_PIXEL = 0.2, 0.05


def with_own_mdoc(settings: Settings, movie: str) -> Tuple[Settings, List[str], List[str]]:
    """The settings with the dose of the movie's `.mdoc`, and what to tell the user.

    Returns
    -------
    (settings, notes, warnings) : the same settings without sentences if the movie has no `.mdoc` of its own.
    """
    path = _path(movie)
    if path is None:
        return settings, [], []
    name = os.path.basename(path)
    try:
        stated = _of_movie(path, movie)
        if stated is None:
            return settings, [], []
        warnings = _pixel_warning(settings, stated, name)
        if settings.dose_per_frame is not None or settings.frame_doses is not None:
            return settings, [], warnings + _dose_warning(settings, stated, name)
        with open_movie(movie, settings) as opened:
            doses = dose_settings(stated, opened.n_frames, opened.hardware_frames_per_frame)
            n_frames = opened.n_frames
        if not doses:
            return settings, [], warnings
        settings = dataclasses.replace(settings, **doses)
        total = sum(settings.doses(n_frames) or [])
        return settings, [f"The dose of {total:.4g} e/A^2 in {n_frames} frames is that of {name}."], warnings
    except MovieError as error:
        # A damaged movie is reported when it is aligned.
        return settings, [], [] if str(error).startswith(f"{movie}:") else [f"{error} It is not used."]
    except SettingsError as error:
        return settings, [], [f"{path}: {error} It is not used."]


def _path(movie: str) -> Optional[str]:
    """`movie.tif.mdoc` or `movie.mdoc`."""
    candidates = (f"{movie}.mdoc", f"{os.path.splitext(movie)[0]}.mdoc")
    return next((path for path in candidates if os.path.exists(path)), None)


def _of_movie(path: str, movie: str) -> Optional[Tilt]:
    """The section of this movie; None if the file is about other movies, or about parts of this one."""
    tilts = read_mdoc(path).tilts
    named = [tilt for tilt in tilts if tilt.movie == os.path.basename(movie)]
    # A movie may have been renamed together with its .mdoc.
    found = named or (list(tilts) if len(tilts) == 1 and tilts[0].of_frames else [])
    return found[0] if len(found) == 1 and found[0].span is None else None


def _dose_warning(settings: Settings, stated: Tilt, name: str) -> List[str]:
    given = settings.dose_per_frame
    n_frames = sum(count for _, count in stated.frame_doses)
    if not given or not n_frames or stated.dose is None:
        return []
    each = stated.dose / n_frames
    if abs(given / each - 1) <= DIFFERENT_DOSE:
        return []
    return [
        f"A dose per frame of {given:.4g} e/A^2 was given, but {name} states {each:.4g} (mean of {n_frames} frames)."
    ]


def _pixel_warning(settings: Settings, stated: Tilt, name: str) -> List[str]:
    pixel = stated.pixel_size_A
    if not pixel or pixel <= 0 or abs(settings.pixel_size / pixel - 1) <= DIFFERENT_PIXEL:
        return []
    return [f"A pixel size of {settings.pixel_size:.4g} A was given, but {name} states {pixel:.4g}."]
