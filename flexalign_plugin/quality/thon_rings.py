"""The resolution to which Thon rings are seen in a power spectrum, without a fit of the contrast transfer.

Two spectra of every other column of tiles of one image have the same rings and independent noise. Their smooth
background is removed, in sectors because of astigmatism, and what is left is compared: the correlation is near 1 where
rings stand out and 0 where there is noise only. At 0.5 the rings of each half are as strong as its noise.
"""

from __future__ import annotations

from functools import lru_cache
from typing import List, NamedTuple, Optional, Tuple

import numpy as np

from ..correction.power_spectra import HalfSpectra

SEEN = 0.5  # correlation above which rings count as seen
POINTS = 96  # of the curve, up to Nyquist
# All in samples of the spectrum:
FIRST_RADIUS = 20  # the smallest at which every sector has samples
WINDOW = 6.0  # standard deviation of the window in which the halves are compared; rings are 2 to 20 samples apart
# Standard deviation of the background's window: a fraction of the radius, because rings are far apart at first, within
# limits. Of rings that are three times as far apart, 60 % is left.
BACKGROUND = 0.12
BACKGROUND_LIMITS = 6.0, 14.0
# Rings end at the first gap that is longer than this fraction of the frequency. A peak beyond it, as of crystalline
# ice at 3.7 A, is no ring; shorter gaps are the zeros of the slow rings of a small defocus.
GAP = 0.1


class Rings(NamedTuple):
    """Thon rings of a spectrum.

    Attributes
    ----------
    correlation : POINTS values at equal steps from frequency 0 to Nyquist, the last one below Nyquist; None at the
        lowest frequencies, where there are too few samples. Rounded.
    seen_to_A : finest resolution to which rings are seen; None if none are.
    """

    correlation: List[Optional[float]]
    seen_to_A: Optional[float]


def thon_rings(halves: HalfSpectra) -> Rings:
    """Correlation of the rings of two halves against frequency, and the resolution to which it is above `SEEN`."""
    n = halves.profiles.shape[-1]
    correlation = ring_correlation(halves.profiles)
    at = np.arange(POINTS) * n / POINTS
    curve = np.interp(at, np.arange(FIRST_RADIUS, n), correlation)
    last = last_seen(correlation)
    return Rings(
        [round(float(c), 3) if r >= FIRST_RADIUS else None for r, c in zip(at, curve)],
        None if last is None else float(1 / (last * halves.step_per_A)),
    )


def ring_correlation(profiles: np.ndarray) -> np.ndarray:
    """Correlation of what is left of two sets of sector profiles (2, sectors, n) without their background, mean over
    the sectors: (n - FIRST_RADIUS,), from `FIRST_RADIUS`."""
    background, window = _filters(profiles.shape[-1])
    used = profiles[..., FIRST_RADIUS:]
    a, b = used - used @ background
    covariance, power_a, power_b = ((product @ window) for product in (a * b, a * a, b * b))
    mean: np.ndarray = np.mean(covariance / np.sqrt(np.maximum(power_a * power_b, 1e-30)), axis=0)
    return mean


def last_seen(correlation: np.ndarray) -> Optional[float]:
    """Radius, interpolated between samples, at which the correlation falls below `SEEN` for longer than `GAP`."""
    seen = np.flatnonzero(correlation >= SEEN)
    if not len(seen):
        return None
    ends = np.flatnonzero(np.diff(seen) > GAP * (seen[:-1] + FIRST_RADIUS))
    last = int(seen[ends[0]] if len(ends) else seen[-1])
    if last + 1 == len(correlation):
        return float(FIRST_RADIUS + last)
    high, low = correlation[last], correlation[last + 1]
    return float(FIRST_RADIUS + last + (high - SEEN) / (high - low))


@lru_cache(maxsize=2)
def _filters(n: int) -> Tuple[np.ndarray, np.ndarray]:
    """Matrices (m, m), m = n - FIRST_RADIUS, to be multiplied from the right: local parabola of the logarithm, which is
    its background, and Gaussian window."""
    radius = np.arange(FIRST_RADIUS, n, dtype=float)
    offset = radius[None, :] - radius[:, None]
    width = np.clip(BACKGROUND * radius, *BACKGROUND_LIMITS)[:, None]
    weights = np.exp(-0.5 * (offset / width) ** 2)
    powers = np.stack([np.ones_like(offset), offset / width, (offset / width) ** 2], -1)
    normal = np.einsum("rk,rkp,rkq->rpq", weights, powers, powers)
    to_value = np.linalg.solve(normal, np.broadcast_to(np.array([[1.0], [0.0], [0.0]]), (len(radius), 3, 1)))[..., 0]
    background = np.einsum("rp,rkp->rk", to_value, powers) * weights
    window = np.exp(-0.5 * (offset / WINDOW) ** 2)
    return background.T, window.T
