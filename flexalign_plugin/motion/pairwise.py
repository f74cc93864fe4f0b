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
    residual_sd : (batch,) weighted root mean square of the accepted residuals, per axis.
    rejected : (batch,) fraction of all equations that were rejected or had weight 0 from the start.
    """

    shifts: np.ndarray
    weights: np.ndarray
    residual_sd: np.ndarray
    rejected: np.ndarray


def laplacian(n: int, pairs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Normal matrix `A^T W A` of the pair equations, the weighted graph Laplacian of the pairs.

    Parameters
    ----------
    pairs : (n_pairs, 2) int. weights : (batch, n_pairs), the diagonal of W.

    Returns
    -------
    (batch, n, n) float64.
    """
    difference = _difference(n, pairs)
    return np.einsum("pi,bp,pj->bij", difference, weights, difference, optimize=True)


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
    difference = _difference(n, pairs)
    bridge = np.zeros((n, n))
    for order, strength in zip((2, 1), BRIDGES):
        step = np.diff(np.eye(n), order, axis=0)
        bridge += strength * step.T @ step
    gauge = np.full((n, n), 1.0 / n)
    weights = np.asarray(weights, float)
    scale = weights.max(axis=1, keepdims=True)
    weights = weights / np.where(scale > 0, scale, 1.0)
    start = weights
    for _ in range(MAX_ROUNDS):
        normal = laplacian(n, pairs, weights) + bridge + gauge
        right = np.einsum("pi,bp,bpk->bik", difference, weights, measured, optimize=True)
        shifts = np.linalg.solve(normal, right)
        residual = np.einsum("pi,bik->bpk", difference, shifts, optimize=True) - measured
        total = weights.sum(axis=1)
        sd = np.sqrt(np.einsum("bp,bpk->bk", weights, residual**2) / np.where(total > 0, total, 1.0)[:, None])
        outlier = (np.abs(residual) > REJECT_SIGMA * np.maximum(sd, SMALLEST_OUTLIER_PX)[:, None, :]).any(axis=2)
        kept = np.where(outlier, 0.0, start)
        if np.array_equal(kept > 0, weights > 0):
            break
        weights = kept
    return PairSolution(
        shifts=shifts - shifts.mean(axis=1, keepdims=True),
        weights=weights,
        residual_sd=np.sqrt((sd**2).mean(axis=1)),
        rejected=1.0 - (weights > 0).mean(axis=1),
    )


def middle_most(shifts: np.ndarray) -> int:
    """Index of the frame whose largest distance to the other frames' shifts, (n, 2), is smallest."""
    distance = np.linalg.norm(shifts[:, None] - shifts[None, :], axis=2)
    return int(distance.max(axis=1).argmin())


def _difference(n: int, pairs: np.ndarray) -> np.ndarray:
    """The matrix A of equation 2: (n_pairs, n) float64."""
    d = np.zeros((len(pairs), n))
    rows = np.arange(len(pairs))
    d[rows, pairs[:, 1]] = 1.0
    d[rows, pairs[:, 0]] = -1.0
    return d
