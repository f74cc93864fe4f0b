"""Joint refinement: all patches and all frames at once, under the spline (ALGORITHM.md, section 5).

The measure is the power of the aligned sum in the band, `sum_p sum_k W(k) |sum_t F_pt(k) exp(-2 pi i k s_p(t))|^2`,
without every frame's own power, which no shift changes. Written out it is the sum over all pairs of frames of their
cross-correlation at the difference of their shifts, so that it is evaluated on small correlation windows.

With `W = S / (N (N + n S))`, S and N the spectral powers of signal and noise in one frame, it is the logarithm of
the likelihood of the shifts for a random signal of power S.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Tuple

import numpy as np
from scipy.optimize import minimize

from .band import Band, unusable
from .spline_fit import FieldBasis

MAX_ITERATIONS = 100


@dataclass(frozen=True)
class Refined:
    """Per-frame shifts (n, 2) and coefficients (2, KT, KY * KX) in band pixels, and the gain in log-likelihood."""

    shifts: np.ndarray
    coefficients: np.ndarray
    gain: float
    iterations: int


def refine(
    windows: Any,
    pair_weights: np.ndarray,
    field: FieldBasis,
    shifts: np.ndarray,
    coefficients: np.ndarray,
    smoothness: Tuple[float, float],
) -> Refined:
    """Maximise the objective over per-frame shifts and field coefficients together.

    Parameters
    ----------
    windows : `kernels.backend.Windows` of (p, n_pairs).
    pair_weights : (p, n_pairs), makes the objective a log-likelihood.
    shifts, coefficients : start, band pixels.
    smoothness : penalties (time, space) on second differences of the coefficients: 1 / (2 variance), 1 / px^2.
    """
    n, n_patches = len(shifts), len(field.spatial)
    rough_t, rough_s = field.roughness()
    shape = coefficients.shape
    # Overlapping splines make a badly conditioned problem: solve for coordinates in which the field's own inner
    # product over frames and patches is (nearly) the identity.
    to_t = _whitening(field.temporal, rough_t)
    to_s = _whitening(field.spatial, rough_s)
    shift_unit = 1.0 / np.sqrt(n_patches)

    def unpack(v: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        g, d = v[: 2 * n].reshape(n, 2) * shift_unit, v[2 * n :].reshape(shape)
        return g, to_t @ d @ to_s.T

    def negative(v: np.ndarray) -> Tuple[float, np.ndarray]:
        g, c = unpack(v)
        value, gradient = windows.objective(g[None] + field.field(c), pair_weights)
        bent_t, bent_s = rough_t @ c, c @ rough_s
        cost = -value.sum() + smoothness[0] * np.sum(c * bent_t) + smoothness[1] * np.sum(c * bent_s)
        slope = -field.adjoint(gradient) + 2 * smoothness[0] * bent_t + 2 * smoothness[1] * bent_s
        slope = to_t.T @ slope @ to_s
        return cost, np.concatenate([-shift_unit * gradient.sum(axis=0).ravel(), slope.ravel()])

    packed = np.linalg.solve(to_t, np.linalg.solve(to_s, coefficients.transpose(0, 2, 1)).transpose(0, 2, 1))
    start = np.concatenate([shifts.ravel() / shift_unit, packed.ravel()])
    found = minimize(negative, start, jac=True, method="L-BFGS-B", options={"maxiter": MAX_ITERATIONS, "maxcor": 20})
    refined = unpack(found.x)
    return Refined(*refined, float(negative(start)[0] - found.fun), int(found.nit))


def _whitening(design: np.ndarray, roughness: np.ndarray) -> np.ndarray:
    """Matrix that turns orthonormal coordinates into coefficients of the design's columns."""
    gram = design.T @ design
    level = np.trace(gram) / len(gram)
    return np.linalg.inv(np.linalg.cholesky(gram + 1e-3 * level * (np.eye(len(gram)) + roughness))).T


def matched_weight(
    band: Band, power_of_sum: np.ndarray, sum_of_powers: np.ndarray, n: int, low_cut: float, axes: bool = False
) -> Tuple[np.ndarray, np.ndarray]:
    """The best weight of each spatial frequency, from the data: S / (N (N + n S)).

    Parameters
    ----------
    power_of_sum, sum_of_powers : (by, bx // 2 + 1), |sum_t F_t|^2 and sum_t |F_t|^2 of aligned frames, averaged over
        patches. The first is n^2 S + n N, the second n (S + N).
    low_cut : frequencies below, in cycles per image pixel, get no weight (illumination and ice gradients).

    Returns
    -------
    weight (by, bx // 2 + 1) float32, and the radial signal-to-noise ratio S / N.
    """
    fy, fx = band.frequencies()
    radius = np.hypot(fy[:, None], fx[None, :])
    ring_width = 1.0 / min(band.full)
    ring = np.round(radius / ring_width).astype(int)
    usable = ~unusable(band, axes)
    top = int(0.5 * min(b / f for b, f in zip(band.size, band.full)) / ring_width)
    usable &= (ring <= top) & (radius >= low_cut)
    count = np.bincount(ring[usable], minlength=top + 1)
    total = np.bincount(ring[usable], power_of_sum[usable], minlength=top + 1)
    single = np.bincount(ring[usable], sum_of_powers[usable], minlength=top + 1)
    count = np.maximum(count, 1)
    signal = (total - single) / count / (n * (n - 1))
    kernel = np.array([1.0, 2, 3, 2, 1]) / 9
    signal = np.convolve(np.pad(signal, 2, mode="edge"), kernel, mode="valid")
    power = np.convolve(np.pad(single / count / n, 2, mode="edge"), kernel, mode="valid")
    signal = np.clip(signal, 0, 0.95 * power)
    noise = np.maximum(power - signal, 1e-30)
    profile = signal / (noise * (noise + n * signal))
    return np.where(usable, profile[np.minimum(ring, top)], 0).astype(np.float32), signal / noise
