"""Fourier ring correlation of the means of the even and of the odd frames."""

from __future__ import annotations

from typing import List, NamedTuple, Optional

import numpy as np
import scipy.fft

RINGS = 64  # up to Nyquist
EDGE = 0.05  # fraction of the image that is tapered on each side, as opposite borders do not match


def ring_correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Fourier ring correlation of two (ny, nx) images in rings of equal width up to Nyquist.

    Returns
    -------
    (RINGS,) float64; ring i holds frequencies from i to i + 1 times Nyquist / RINGS.
    """
    ny, nx = a.shape
    taper = np.outer(_taper(ny), _taper(nx)).astype(np.float32)
    f, g = (scipy.fft.rfft2((image - image.mean(dtype=np.float64).astype(np.float32)) * taper) for image in (a, b))
    frequency = np.hypot(np.fft.fftfreq(ny)[:, None], np.arange(nx // 2 + 1) / nx)
    ring = (frequency * (2 * RINGS)).astype(np.int32).ravel()
    # Columns other than the first stand for two coefficients of the full transform, in numerator and denominator.
    cross, f2, g2 = (
        np.bincount(ring, v.ravel(), RINGS)[:RINGS] for v in ((f * g.conj()).real, np.abs(f) ** 2, np.abs(g) ** 2)
    )
    return cross / np.sqrt(np.maximum(f2 * g2, 1e-300))


class HalvesAgreement(NamedTuple):
    """Fourier ring correlation (FRC) of the even and odd frames of a movie.

    Attributes
    ----------
    frequency_per_A, correlation : (RINGS,) middle of each ring and its correlation; rounded, plain lists.
    finest_0143_A, finest_05_A : finest resolution at which the FRC reaches 0.143 and 0.5; None if it never does.
    """

    frequency_per_A: List[float]
    correlation: List[float]
    finest_0143_A: Optional[float]
    finest_05_A: Optional[float]


def halves_agreement(even: np.ndarray, odd: np.ndarray, pixel_size_A: float, border_px: float) -> HalvesAgreement:
    """Fourier ring correlation of the means of the even and of the odd frames.

    Parameters
    ----------
    even, odd : (ny, nx) float32. pixel_size_A : pixel size of both.
    border_px : widest border, in their pixels, that some frames do not cover. It is excluded, because the fill values
        there correlate.
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
    """Finest resolution in A at which the curve reaches the threshold; None if it never does.

    It is not where the curve first falls below the threshold, because the curve rises again between the zeros of the
    microscope's transfer function.
    """
    above = np.flatnonzero(curve >= threshold)
    if not len(above):
        return None
    last = above[-1]
    if last + 1 == len(curve):
        return float(1 / frequency_A[last])
    # The curve is interpolated linearly between this ring and the next.
    part = (curve[last] - threshold) / (curve[last] - curve[last + 1])
    return float(1 / (frequency_A[last] + part * (frequency_A[last + 1] - frequency_A[last])))


def _taper(n: int) -> np.ndarray:
    """(n,) float64, 1 with raised-cosine edges of EDGE n pixels."""
    width = max(int(EDGE * n), 1)
    rise = 0.5 - 0.5 * np.cos(np.pi * (np.arange(width) + 0.5) / width)
    return np.concatenate([rise, np.ones(n - 2 * width), rise[::-1]])
