"""Shifts of n images from the shifts of all their pairs (Strelak 2020, section 2.1.1, equations 1 to 3).

Equation 1 is the measured shift of each pair (i, j), the position of the maximum of its cross-correlation:
`r_ij = s_j - s_i`, separately for y and x. Equation 2 collects all n (n - 1) / 2 pairs in the overdetermined system
`A s = r`; the row of A for pair (i, j) has -1 in column i and +1 in column j. Equation 3 is its least-squares solution,
here with weights W: `s = (A^T W A)^-1 A^T W r`.

Outlier rule of the same section: equations whose residual exceeds three standard deviations are rejected and the rest
is solved again, until the set of rejected equations no longer changes. All functions work on a batch of systems
(patches) at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..jit import njit

REJECT_SIGMA = 3.0
MAX_ROUNDS = 10
SMALLEST_OUTLIER_PX = 1e-3  # smaller residuals are never outliers
# Strengths of weak priors on the second and first differences of the shifts, relative to one equation. They determine
# the shifts of frames that have no equation left.
BRIDGES = (1e-4, 1e-8)


def all_pairs(n: int) -> np.ndarray:
    """All pairs of n frames: (n (n - 1) / 2, 2) int, i < j."""
    return np.stack(np.triu_indices(n, 1), axis=1)


@dataclass(frozen=True)
class PairSolution:
    """Least-squares shifts of a batch of systems.

    Attributes
    ----------
    shifts : (batch, n, 2) float64, mean zero over the frames.
    weights : (batch, n_pairs) final weights, 0 for rejected equations.
    precision : (batch, n, n) float64, `A^T W A` with the final weights: the inverse covariance of the shifts up to a
        factor. It is the weighted graph Laplacian of the pairs.
    residual_sd : (batch,) weighted root mean square of the accepted residuals, per axis.
    rejected : (batch,) fraction of all equations that were rejected or had weight 0 from the start.
    """

    shifts: np.ndarray
    weights: np.ndarray
    precision: np.ndarray
    residual_sd: np.ndarray
    rejected: np.ndarray


def solve_pairs(n: int, pairs: np.ndarray, measured: np.ndarray, weights: np.ndarray) -> PairSolution:
    """Weighted least-squares shifts without outliers (equations 2 and 3, outlier rule of section 2.1.1).

    Parameters
    ----------
    n : number of frames.
    pairs : (n_pairs, 2) int.
    measured : (batch, n_pairs, 2) shift_j - shift_i (equation 1), in the pixels that the solution shall have.
    weights : (batch, n_pairs) >= 0; 0 excludes an equation.

    Notes
    -----
    The normal matrix does not determine the mean of the shifts and nothing about frames without equations. The term
    `1 1^T / n` sets the mean to zero; BRIDGES add weak smoothness priors. A pair is rejected if its residual on either
    axis exceeds REJECT_SIGMA times the weighted rms residual of that axis.
    """
    prior = np.full((n, n), 1.0 / n)
    for order, strength in zip((2, 1), BRIDGES):
        step = np.diff(np.eye(n), order, axis=0)
        prior += strength * step.T @ step
    weights = np.array(weights, float)
    scale = weights.max(axis=1, keepdims=True)
    weights /= np.where(scale > 0, scale, 1.0)
    batch = len(weights)
    shifts, precision, sd = np.empty((batch, n, 2)), np.empty((batch, n, n)), np.empty((batch, 2))
    measured = np.ascontiguousarray(measured, float)
    _solve_all(np.ascontiguousarray(pairs, np.int64), measured, prior, weights, shifts, precision, sd)
    return PairSolution(
        shifts=shifts - shifts.mean(axis=1, keepdims=True),
        weights=weights,
        precision=precision,
        residual_sd=np.sqrt((sd**2).mean(axis=1)),
        rejected=1.0 - (weights > 0).mean(axis=1),
    )


@njit(nogil=True)
def _solve_all(pairs, measured, prior, weights, shifts, precision, sd):  # type: ignore[no-untyped-def]
    """Fill `shifts`, `precision` and `sd` (batch, 2) of all systems and set `weights` of outliers to 0."""
    n_pairs, n = len(pairs), len(prior)
    start, residual, factor = np.empty(n_pairs), np.empty((n_pairs, 2)), np.empty((n, n))
    for b in range(len(weights)):
        weight, shift = weights[b], shifts[b]
        start[:] = weight
        _laplacian(pairs, weight, precision[b])
        for _ in range(MAX_ROUNDS):
            shift[:] = 0.0
            for p in range(n_pairs):
                for k in range(2):
                    shift[pairs[p, 0], k] -= weight[p] * measured[b, p, k]
                    shift[pairs[p, 1], k] += weight[p] * measured[b, p, k]
            _solve(precision[b], prior, factor, shift)
            total = weight.sum()
            for k in range(2):
                squares = 0.0
                for p in range(n_pairs):
                    residual[p, k] = shift[pairs[p, 1], k] - shift[pairs[p, 0], k] - measured[b, p, k]
                    squares += weight[p] * residual[p, k] ** 2
                sd[b, k] = np.sqrt(squares / total) if total > 0 else 0.0
            limit_y = REJECT_SIGMA * max(sd[b, 0], SMALLEST_OUTLIER_PX)
            limit_x = REJECT_SIGMA * max(sd[b, 1], SMALLEST_OUTLIER_PX)
            changed = False
            for p in range(n_pairs):
                kept = 0.0 if abs(residual[p, 0]) > limit_y or abs(residual[p, 1]) > limit_x else start[p]
                changed = changed or (kept > 0) != (weight[p] > 0)
                weight[p] = kept
            if not changed:
                break
            _laplacian(pairs, weight, precision[b])


@njit(nogil=True)
def _laplacian(pairs, weight, out):  # type: ignore[no-untyped-def]
    """Fill `out` (n, n) with `A^T W A`."""
    out[:] = 0.0
    for p in range(len(pairs)):
        i, j = pairs[p]
        out[i, j] -= weight[p]
        out[j, i] -= weight[p]
        out[i, i] += weight[p]
        out[j, j] += weight[p]


@njit(nogil=True)
def _solve(normal, prior, factor, vectors):  # type: ignore[no-untyped-def]
    """Replace the columns of `vectors` (n, 2) by (normal + prior)^-1 times them (Cholesky); `factor` is overwritten."""
    n = len(normal)
    for i in range(n):
        for j in range(i + 1):
            s = normal[i, j] + prior[i, j]
            for m in range(j):
                s -= factor[i, m] * factor[j, m]
            factor[i, j] = np.sqrt(s) if i == j else s / factor[j, j]
    for k in range(vectors.shape[1]):
        for i in range(n):
            s = vectors[i, k]
            for m in range(i):
                s -= factor[i, m] * vectors[m, k]
            vectors[i, k] = s / factor[i, i]
        for i in range(n - 1, -1, -1):
            s = vectors[i, k]
            for m in range(i + 1, n):
                s -= factor[m, i] * vectors[m, k]
            vectors[i, k] = s / factor[i, i]


def middle_most(shifts: np.ndarray) -> int:
    """Index of the frame whose largest distance to the other frames' shifts, (n, 2), is smallest."""
    distance = np.linalg.norm(shifts[:, None] - shifts[None, :], axis=2)
    return int(distance.max(axis=1).argmin())
