"""Fourier ring correlation of the even and odd halves: to what detail two independent halves of a movie agree."""

from __future__ import annotations

from typing import List, NamedTuple, Optional

import numpy as np
import scipy.fft

RINGS = 64  # up to Nyquist
EDGE = 0.05  # of the image, tapered on each side: its borders do not match


def ring_correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Correlation of the Fourier transforms of two (ny, nx) images in rings of equal width up to Nyquist.

    Returns
    -------
    (RINGS,) float64; ring i holds frequencies from i to i + 1 times Nyquist / RINGS.
    """
    ny, nx = a.shape
    taper = np.outer(_taper(ny), _taper(nx)).astype(np.float32)
    f, g = (scipy.fft.rfft2((image - image.mean(dtype=np.float64).astype(np.float32)) * taper) for image in (a, b))
    frequency = np.hypot(np.fft.fftfreq(ny)[:, None], np.arange(nx // 2 + 1) / nx)
    ring = (frequency * (2 * RINGS)).astype(np.int32).ravel()
    # All columns but the first stand for two coefficients of the full transform, in numerator and denominator alike.
    cross, f2, g2 = (
        np.bincount(ring, v.ravel(), RINGS)[:RINGS] for v in ((f * g.conj()).real, np.abs(f) ** 2, np.abs(g) ** 2)
    )
    return cross / np.sqrt(np.maximum(f2 * g2, 1e-300))


class HalvesAgreement(NamedTuple):
    """Fourier ring correlation of the halves of a movie.

    Attributes
    ----------
    frequency_per_A, correlation : (RINGS,) middle of each ring, and its correlation; rounded, plain lists.
    finest_0143_A, finest_05_A : finest resolution at which it reaches 0.143 and 0.5; None if it never does.
    """

    frequency_per_A: List[float]
    correlation: List[float]
    finest_0143_A: Optional[float]
    finest_05_A: Optional[float]


def halves_agreement(even: np.ndarray, odd: np.ndarray, pixel_size_A: float, border_px: float) -> HalvesAgreement:
    """To what detail the means of the even and of the odd frames agree.

    Parameters
    ----------
    even, odd : (ny, nx) float32. pixel_size_A : theirs.
    border_px : widest border, in their pixels, that some frame does not cover: fill values there agree only too well.
    """
    ny, nx = even.shape
    margin = min(int(np.ceil(border_px)), ny // 4, nx // 4)
    inner = slice(margin, ny - margin), slice(margin, nx - margin)
    curve = ring_correlation(even[inner], odd[inner])
    frequency_A = (np.arange(RINGS) + 0.5) / (2 * RINGS * pixel_size_A)
    return HalvesAgreement(
        np.round(frequency_A, 5).tolist(),
        np.round(curve, 4).tolist(),
        _resolution(curve, frequency_A, 0.143),
        _resolution(curve, frequency_A, 0.5),
    )


def _resolution(curve: np.ndarray, frequency_A: np.ndarray, threshold: float) -> Optional[float]:
    """Finest resolution in A at which the curve still reaches the threshold; None where it never does.

    Not where it first falls below: the microscope's transfer function has zeros, between which it comes back.
    """
    above = np.flatnonzero(curve >= threshold)
    if not len(above):
        return None
    last = above[-1]
    if last + 1 == len(curve):
        return float(1 / frequency_A[last])
    # Between this ring and the next the curve is taken as a straight line.
    part = (curve[last] - threshold) / (curve[last] - curve[last + 1])
    return float(1 / (frequency_A[last] + part * (frequency_A[last + 1] - frequency_A[last])))


def _taper(n: int) -> np.ndarray:
    width = max(int(EDGE * n), 1)
    rise = 0.5 - 0.5 * np.cos(np.pi * (np.arange(width) + 0.5) / width)
    return np.concatenate([rise, np.ones(n - 2 * width), rise[::-1]])
