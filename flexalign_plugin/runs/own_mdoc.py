"""The `.mdoc` that SerialEM saves with a movie: its dose is used if none is given, and compared with a given one."""

from __future__ import annotations

import dataclasses
import os
from typing import List, Optional, Tuple

from ..errors import MovieError, SettingsError
from ..movies import Movie, open_movie
from ..movies.exposure import total_dose
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
        if stated.dose is None:
            return settings, [], warnings
        if settings.eer_dose and not settings.dose_is_known:
            # The groups follow from the dose, so that it must be known before the movie is opened.
            settings = dataclasses.replace(settings, total_dose=stated.dose)
            return settings, [f"The dose of {stated.dose:.4g} e/A^2 is that of {name}."], warnings
        with open_movie(movie, settings) as opened:
            if settings.dose_is_known:
                return settings, [], warnings + _dose_warning(_given(settings, opened), stated.dose, name)
            doses = dose_settings(stated, opened.n_frames, opened.hardware_frames_per_frame)
            n_frames = opened.n_frames
        settings = dataclasses.replace(settings, **doses)
        return settings, [f"The dose of {stated.dose:.4g} e/A^2 in {n_frames} frames is that of {name}."], warnings
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


def _given(settings: Settings, movie: Movie) -> float:
    """Dose of the whole movie according to the settings, in e/A^2."""
    total = total_dose(movie, settings)
    return total if total is not None else sum(settings.doses(movie.n_frames) or [])


def _dose_warning(given: float, stated: float, name: str) -> List[str]:
    if stated <= 0 or abs(given / stated - 1) <= DIFFERENT_DOSE:
        return []
    return [f"The dose of the whole movie is {given:.4g} e/A^2 as given, but {name} states {stated:.4g}."]


def _pixel_warning(settings: Settings, stated: Tilt, name: str) -> List[str]:
    pixel = stated.pixel_size_A
    if not pixel or pixel <= 0 or abs(settings.pixel_size / pixel - 1) <= DIFFERENT_PIXEL:
        return []
    return [f"A pixel size of {settings.pixel_size:.4g} A was given, but {name} states {pixel:.4g}."]
