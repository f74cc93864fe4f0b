"""Pixel size and dose of a movie's frames, from the settings and from what the file itself says."""

from __future__ import annotations

import dataclasses
from typing import List, Optional

from ..errors import SettingsError
from ..sanity import PIXEL_TOLERANCE
from ..settings import Settings
from .eer import EerMovie
from .movie import Movie

# A nominal pixel size is a few percent off, and the camera does not count every electron. Beyond these factors a value
# that was typed and the file's own contradict each other.
DOSE_TOLERANCE = 1.5


def settings_of_frames(movie: Movie, settings: Settings) -> Settings:
    """The settings with the pixel size and the dose of the frames as `movie` returns them.

    The settings that a user gives refer to the movie as recorded. Frames of an EER movie may be rendered finer, and the
    dose may be known for the whole movie or for a hardware frame.

    Raises
    ------
    SettingsError : the dose of a hardware frame is given, but the movie is no EER movie.
    """
    return dataclasses.replace(
        settings,
        pixel_size=settings.pixel_size / movie.upsampling,
        dose_per_frame=_dose_per_frame(movie, settings),
        total_dose=None,
        dose_per_hardware_frame=None,
        eer_dose=0.0,
    )


def _dose_per_frame(movie: Movie, settings: Settings) -> Optional[float]:
    group = movie.hardware_frames_per_frame
    if settings.dose_per_hardware_frame is not None:
        if group is None:
            raise SettingsError(
                f"{movie.path}: the dose per hardware frame is given, but this is no EER movie: give the dose per "
                "frame or of the whole movie."
            )
        return settings.dose_per_hardware_frame * group
    if settings.total_dose is not None:
        return settings.total_dose * (group or 1) / movie.n_recorded
    return settings.dose_per_frame


def contradictions(movie: Movie, settings: Settings) -> List[str]:
    """A sentence for the pixel size and for the dose if an EER file's own metadata say something quite different."""
    if not isinstance(movie, EerMovie):
        return []
    sentences, own = [], movie.metadata
    if own.pixel_size_A is not None and _far(settings.pixel_size, own.pixel_size_A, PIXEL_TOLERANCE):
        advice = "check the pixel size"
        if movie.upsampling > 1 and not _far(settings.pixel_size * movie.upsampling, own.pixel_size_A, PIXEL_TOLERANCE):
            advice = "give that of the 4K grid, since the finer one follows from the rendering"
        sentences.append(
            f"The pixel size is {settings.pixel_size:.4g} A, but according to the movie's own metadata it is "
            f"{own.pixel_size_A:.4g} A: {advice}."
        )
    total, own_total = total_dose(movie, settings), own.total_dose(settings.pixel_size)
    if total and own_total is not None and _far(total, own_total, DOSE_TOLERANCE):
        per_hardware_frame = own_total / movie.n_recorded
        sentences.append(
            f"The dose of the whole movie is {_text(total)} e/A^2 as given, but according to the movie's own metadata "
            f"about {_text(own_total)}, which is {per_hardware_frame:.3g} for each of the {movie.n_recorded} hardware "
            "frames: check the dose."
        )
    return sentences


def total_dose(movie: Movie, settings: Settings) -> Optional[float]:
    """Dose of the whole exposure in e/A^2 according to the settings, or None if they have none."""
    dose = _dose_per_frame(movie, settings)
    return None if dose is None else dose * movie.n_recorded / (movie.hardware_frames_per_frame or 1)


def no_dose_note(movie: Movie, settings: Settings) -> str:
    """Why nothing is dose-weighted, with the dose that the file itself states if there is one."""
    own = movie.metadata.total_dose(settings.pixel_size) if isinstance(movie, EerMovie) else None
    hint = "" if own is None else f" According to the movie's own metadata it is about {_text(own)} e/A^2 in all."
    return f"No dose weighting: the dose is not known.{hint}"


def _far(one: float, other: float, factor: float) -> bool:
    return not 1 / factor <= one / other <= factor


def _text(dose: float) -> str:
    return f"{dose:.0f}" if dose >= 100 else f"{dose:.3g}"
