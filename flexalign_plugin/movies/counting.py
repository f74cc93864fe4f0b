"""Whether a movie's values are counts of single electrons, and what the movie says about its own dose.

A counting camera stores the number of electrons that hit a pixel, perhaps times a constant. These numbers are multiples
of one unit, many of them are 0, their noise from frame to frame has the variance of their mean, and neighbours are
independent. An integrating camera stores the charge: one electron gives some ten to a hundred units that vary from
electron to electron and spread over neighbours, so that none of this holds. Processed frames (dark-subtracted,
interpolated, Fourier-cropped) lose these marks too: of such movies the dose is not known.
"""

from __future__ import annotations

from typing import Optional

import numpy as np

from ..sanity import InputFacts
from ..settings import Settings
from .eer import EerMovie
from .movie import Movie

SAMPLED_ROWS = 64  # of two frames
MOST_ELECTRONS = 8.0  # per pixel and frame; above, too few values are 0 to tell counts from charge
# Variance over mean of electron counts. Coincidences lower it, motion and hot pixels raise it.
LEAST_NOISE, MOST_NOISE = 0.5, 1.2
MOST_CORRELATION = 0.15  # of neighbours in the difference of two frames
# Share of zeros, relative to exp(-mean). Contrast and uneven gain raise it, coincidences lower it.
FEWEST_ZEROS, MOST_ZEROS = 0.5, 4.0
ZEROS_TESTED_BELOW = 5.0  # electrons per pixel; with more, hardly any value is 0
BRIGHTEST_LEFT_OUT = 5e-4  # share of the pixels: hot ones
# Pixels with k + 1 electrons, relative to those with k: mean / (k + 1). Charge gives some whatever the mean is.
MOST_MORE, FEW_MORE, FEW_PIXELS = 1.8, 0.02, 1e-4
HIGHEST_NUMBER = 6
SMALLEST_COUNT = 0.4  # one electron times the smallest usual gain; charge has any small value
MOST_SMALLER = 0.01  # share of the values above 0
ON_LATTICE = 0.999  # share of the values that are multiples of the unit
LATTICE_TOLERANCE = 0.01


def unit_of_counts(movie: Movie, frames: range) -> Optional[float]:
    """Value of one electron in the raw frames; None if they are not counts of electrons, or it can't be known.

    frames : 0-based; two in the middle of them are read.
    """
    if movie.kind == "EER":
        return 1.0
    if len(frames) < 2:
        return None
    step = max(movie.shape[1] // SAMPLED_ROWS, 1)
    a, b = (np.asarray(movie.frame(i)[::step], np.float64) for i in _middle(frames))
    return unit_of_pair(a, b)


def _middle(frames: range) -> range:
    """Two frames in the middle, or the only one."""
    first = max(len(frames) - 2, 0) // 2
    return frames[first : first + 2]


def unit_of_pair(a: np.ndarray, b: np.ndarray) -> Optional[float]:
    """Value of one electron in two frames (rows, nx) float64 of the same exposure; None as for `unit_of_counts`."""
    total = a + b
    if not np.isfinite(total).all() or min(a.min(), b.min()) < 0 or total.max() == 0:
        return None
    good = total <= np.quantile(total, 1 - BRIGHTEST_LEFT_OUT)
    mean = total[good].mean() / 2
    if mean == 0:
        return None
    difference = np.where(good, a - b, 0.0)
    noise = difference[good].var() / (2 * mean)
    correlation = float((difference[:, 1:] * difference[:, :-1]).mean() / max((difference**2).mean(), 1e-30))
    zeros = ((a[good] == 0).mean() + (b[good] == 0).mean()) / 2
    values = np.concatenate([a[good], b[good]])
    unit = _lattice(values)
    if unit is None:
        # Perhaps counts times a gain of about 1 that differs from pixel to pixel.
        unit = 1.0
        above = values[values > 0]
        if zeros == 0 or (above < SMALLEST_COUNT).mean() > MOST_SMALLER:
            return None
    electrons = mean / unit
    is_white = abs(correlation) <= MOST_CORRELATION
    is_shot_noise = LEAST_NOISE <= noise / unit <= MOST_NOISE
    has_zeros = electrons > ZEROS_TESTED_BELOW or FEWEST_ZEROS <= zeros / np.exp(-electrons) <= MOST_ZEROS
    fits = electrons <= MOST_ELECTRONS and is_white and is_shot_noise and has_zeros
    return unit if fits and _falls_like_counts(values / unit, electrons) else None


def _falls_like_counts(values: np.ndarray, mean: float) -> bool:
    """Whether large numbers of electrons are as rare as they are among counts of this mean."""
    number = np.rint(values[values < HIGHEST_NUMBER + 0.5]).astype(np.int64)
    share = np.bincount(number, minlength=HIGHEST_NUMBER + 1) / len(values)
    k = np.arange(1, HIGHEST_NUMBER)
    return bool((share[k + 1] <= share[k] * (MOST_MORE * mean / (k + 1) + FEW_MORE) + FEW_PIXELS).all())


def _lattice(values: np.ndarray) -> Optional[float]:
    """The smallest value above 0, if nearly all values are multiples of it."""
    above = values[values > 0]
    unit = float(above.min())
    multiples = values / unit
    on = np.abs(multiples - np.rint(multiples)) <= LATTICE_TOLERANCE
    return unit if on.mean() >= ON_LATTICE else None


def typical_gain(gain: Optional[np.ndarray]) -> Optional[float]:
    """Median of the gain (ny, nx) as it is multiplied; None without one."""
    return None if gain is None else float(np.median(gain[:: max(gain.shape[0] // SAMPLED_ROWS, 1)]))


def input_facts(
    movie: Movie,
    settings: Settings,
    gain: Optional[np.ndarray] = None,
    frames: Optional[range] = None,
    level: Optional[float] = None,
) -> InputFacts:
    """What settings and movie say about the input.

    Parameters
    ----------
    gain : (ny, nx) as it is multiplied with the frames, or None.
    frames : 0-based; two in the middle of them are read. None: all.
    level : mean raw value per pixel and frame; None: of these two frames.

    Raises
    ------
    MovieError : a frame can't be read.
    """
    n_frames, ny, nx = movie.shape
    frames = frames if frames is not None else range(n_frames)
    unit = unit_of_counts(movie, frames)
    if unit is not None and level is None:
        level = float(np.mean([movie.frame(i).mean(dtype=np.float64) for i in _middle(frames)]))
    # Frames without dose show other tilts.
    exposed = [dose for dose in settings.doses(n_frames) or [] if dose > 0]
    return InputFacts(
        pixel_size_A=settings.pixel_size,
        frame_px=(ny, nx),
        n_frames=len(exposed) or n_frames,
        dose_A2=sum(exposed) or None,
        same_dose=not exposed or min(exposed) == max(exposed),
        rendering=settings.eer_sampling if movie.kind == "EER" else 1,
        hardware_frames=movie.hardware_frames_per_frame,
        counted=None if unit is None or level is None else level / unit,
        gain=typical_gain(gain),
        recorded_pixel_A=movie.metadata.pixel_size_A if isinstance(movie, EerMovie) else None,
    )
