"""Joint refinement: all patches and all frames at once, under the spline (ALGORITHM.md, section 5).

The measure is the power of the aligned sum in the band, `sum_p sum_k W(k) |sum_t F_pt(k) exp(-2 pi i k s_p(t))|^2`,
without every frame's own power, which no shift changes. Written out it is the sum over all pairs of frames of their
cross-correlation at the difference of their shifts, so that it is evaluated on small correlation windows.

With `W = S / (N (N + n S))`, S and N the spectral powers of signal and noise in one frame, it is the logarithm of
the likelihood of the shifts for a random signal of power S. Its expected curvature is then known in closed form, and
with it how smooth the field should be: the strength of the prior is the one under which the data are most probable
(MacKay 1992, Neural Computation 4:415, equation 2.23).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Tuple

import numpy as np
from scipy.optimize import minimize

from .band import Band, unusable
from .spline_fit import FieldBasis

WINDOW_A, WINDOW_STEP = 14.0, 0.5  # radius and sampling (band pixels) of the correlation windows
LOW_CUT_A = 300.0  # coarser structure (illumination, ice thickness) does not enter
MAX_ITERATIONS = 100
EVIDENCE_ROUNDS = 4
SMALLEST_PRIOR, LARGEST_PRIOR = 1e-6, 1e9  # relative to the data's curvature


@dataclass(frozen=True)
class Matched:
    """The best weight of each spatial frequency and what follows from it.

    Attributes
    ----------
    weight : (by, bx // 2 + 1) float32, S / (N (N + n S)).
    signal_to_noise : (rings,) radial S / N of one frame.
    curvature : (2,) expected second derivative of one pair's log-likelihood with respect to its shift (y, x), per
        squared band pixel and image: sum of W S (2 pi k)^2.
    """

    weight: np.ndarray
    signal_to_noise: np.ndarray
    curvature: np.ndarray


def matched_weight(
    band: Band, power_of_sum: np.ndarray, sum_of_powers: np.ndarray, n: int, low_cut: float, axes: bool = False
) -> Matched:
    """Weights from the spectra of n roughly aligned frames.

    Parameters
    ----------
    power_of_sum, sum_of_powers : (by, bx // 2 + 1), |sum_t F_t|^2 and sum_t |F_t|^2, averaged over patches. The first
        is n^2 S + n N, the second n (S + N).
    low_cut : frequencies below, in cycles per image pixel, get no weight (illumination and ice gradients).
    axes : use the axes of the spectrum as well.
    """
    fy, fx = band.frequencies()
    radius = np.hypot(fy[:, None], fx[None, :])
    ring_width = 1.0 / min(band.full)
    ring = np.round(radius / ring_width).astype(int)
    top = int(0.5 * min(b / f for b, f in zip(band.size, band.full)) / ring_width)
    usable = ~unusable(band, axes) & (ring <= top) & (radius >= low_cut)
    count = np.maximum(np.bincount(ring[usable], minlength=top + 1), 1)
    total = np.bincount(ring[usable], power_of_sum[usable], minlength=top + 1)
    single = np.bincount(ring[usable], sum_of_powers[usable], minlength=top + 1)
    signal = _smooth((total - single) / count / (n * (n - 1)))
    power = _smooth(single / count / n)
    signal = np.clip(signal, 0, 0.95 * power)
    noise = np.maximum(power - signal, 1e-30)
    profile = signal / (noise * (noise + n * signal))
    at = np.minimum(ring, top)
    weight = np.where(usable, profile[at], 0)
    information = weight * signal[at] * _column_weight(band)
    by, bx = band.size
    # Cycles per band pixel.
    ky, kx = np.fft.fftfreq(by)[:, None], np.arange(bx // 2 + 1)[None, :] / bx
    curvature = np.array([(information * (2 * np.pi * k) ** 2).sum() for k in (ky, kx)])
    return Matched(weight.astype(np.float32), signal / noise, curvature)


def log_likelihood(band: Band, weight: np.ndarray, power_of_sum: np.ndarray) -> float:
    """Log-likelihood of the shifts, up to a constant, from the power of the sum of the shifted frames."""
    return 0.5 * float((weight * _column_weight(band) * power_of_sum).sum())


@dataclass(frozen=True)
class Refined:
    """Per-frame shifts (n, 2) and coefficients (2, KT, KY * KX) in band pixels; strength of the prior (time, space)."""

    shifts: np.ndarray
    coefficients: np.ndarray
    smoothness: Tuple[float, float]


def refine_shifts(windows: Any, pair_weights: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Maximise the objective over shifts (n, 2) that all images of the batch share."""
    batch = len(pair_weights)

    def negative(v: np.ndarray) -> Tuple[float, np.ndarray]:
        value, gradient = windows.objective(
            np.broadcast_to(v.reshape(shifts.shape), (batch, *shifts.shape)), pair_weights
        )
        return -value.sum(), -gradient.sum(axis=0).ravel()

    return _minimum(negative, shifts.ravel()).reshape(shifts.shape)


def refine_field(
    windows: Any,
    pair_weights: np.ndarray,
    curvature: np.ndarray,
    field: FieldBasis,
    shifts: np.ndarray,
    coefficients: np.ndarray,
) -> Refined:
    """Maximise the objective over per-frame shifts and field coefficients together, with the most probable prior.

    Parameters
    ----------
    windows : `kernels.backend.Windows` of (p, n_pairs).
    pair_weights : (p, n_pairs), makes the objective a log-likelihood.
    curvature : (2,) from `Matched`.
    shifts, coefficients : start, band pixels.
    """
    n, n_patches = len(shifts), len(field.spatial)
    shape = coefficients.shape
    # Overlapping splines make a badly conditioned problem: solve for coordinates in which the field's own inner
    # product over frames and patches is (nearly) the identity.
    to_t, to_s = _whitening(field.temporal), _whitening(field.spatial)
    shift_unit = 1.0 / np.sqrt(n_patches)
    evidence = _Evidence(field, float(curvature.mean()))
    smoothness = evidence.weakest
    penalty = evidence.penalty(smoothness)

    def unpack(v: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        g, d = v[: 2 * n].reshape(n, 2) * shift_unit, v[2 * n :].reshape(shape)
        return g, to_t @ d @ to_s.T

    def negative(v: np.ndarray) -> Tuple[float, np.ndarray]:
        g, c = unpack(v)
        value, gradient = windows.objective(g[None] + field.field(c), pair_weights)
        bent = (c.reshape(2, -1) @ penalty).reshape(shape)
        slope = to_t.T @ (bent - field.adjoint(gradient)) @ to_s
        return 0.5 * np.sum(c * bent) - value.sum(), np.concatenate(
            [-shift_unit * gradient.sum(axis=0).ravel(), slope.ravel()]
        )

    packed = np.linalg.solve(to_t, np.linalg.solve(to_s, coefficients.transpose(0, 2, 1)).transpose(0, 2, 1))
    v = np.concatenate([shifts.ravel() / shift_unit, packed.ravel()])
    for _ in range(EVIDENCE_ROUNDS):
        penalty = evidence.penalty(smoothness)
        v = _minimum(negative, v)
        new = evidence.update(unpack(v)[1], smoothness)
        settled = all(abs(np.log(a / b)) < 0.5 for a, b in zip(new, smoothness))
        smoothness = new
        if settled:
            break
    penalty = evidence.penalty(smoothness)
    return Refined(*unpack(_minimum(negative, v)), smoothness)


class _Evidence:
    """Most probable strengths of the roughness priors in time and space, given the field's coefficients."""

    def __init__(self, field: FieldBasis, curvature: float):
        n = len(field.temporal)
        # Curvature of the log-likelihood: all pairs of n frames make n - 1 1^T in time.
        in_time = field.temporal.T @ (n * field.temporal - field.temporal.sum(axis=0))
        self._data = curvature * np.kron(in_time, field.spatial.T @ field.spatial)
        self._level = max(np.trace(self._data) / len(self._data), 1e-30)
        self._data[np.diag_indices(len(self._data))] += 1e-9 * self._level
        self._rough = field.roughness()
        self._ranks = field.rough_parameters
        self.weakest = (SMALLEST_PRIOR * self._level, SMALLEST_PRIOR * self._level)

    def penalty(self, smoothness: Tuple[float, float]) -> np.ndarray:
        return smoothness[0] * self._rough[0] + smoothness[1] * self._rough[1]

    def update(self, coefficients: np.ndarray, smoothness: Tuple[float, float]) -> Tuple[float, float]:
        """alpha = (parameters that the data determine) / (c^T R c) for each prior; both axes of the field share it."""
        covariance = np.linalg.inv(self._data + self.penalty(smoothness))
        flat = coefficients.reshape(2, -1)
        new = []
        for alpha, rough, rank in zip(smoothness, self._rough, self._ranks):
            determined = max(2 * (rank - alpha * np.sum(covariance * rough)), 1e-3)
            bent = max(float(np.sum(flat * (flat @ rough))), 1e-30)
            new.append(float(np.clip(determined / bent, SMALLEST_PRIOR * self._level, LARGEST_PRIOR * self._level)))
        return new[0], new[1]


def _minimum(function: Any, start: np.ndarray) -> np.ndarray:
    options = {"maxiter": MAX_ITERATIONS, "maxcor": 20}
    return minimize(function, start, jac=True, method="L-BFGS-B", options=options).x


def _whitening(design: np.ndarray) -> np.ndarray:
    """Matrix that turns orthonormal coordinates into coefficients of the design's columns."""
    inner = design.T @ design
    inner[np.diag_indices(len(inner))] += 1e-2 * np.trace(inner) / len(inner)
    return np.linalg.inv(np.linalg.cholesky(inner)).T


def _column_weight(band: Band) -> np.ndarray:
    """Every column of a real-input spectrum stands for two of the full one, but for the first and the last."""
    weight = np.full(band.size[1] // 2 + 1, 2.0)
    weight[0] = weight[-1] = 1.0
    return weight


def _smooth(profile: np.ndarray) -> np.ndarray:
    return np.convolve(np.pad(profile, 2, mode="edge"), np.array([1.0, 2, 3, 2, 1]) / 9, mode="valid")
