"""Shifts of n images from the shifts of all their pairs (Strelak 2020, section 2.1.1, equations 1 to 3).

Each pair (i, j) gives one equation `s_j - s_i = r_ij` for both axes. The overdetermined system is solved by weighted
least squares; equations whose residual exceeds three standard deviations are dropped and the rest solved again, until
nothing changes. Everything works on a batch of systems (patches) at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

REJECT_SIGMA = 3.0
MAX_ROUNDS = 10
MEASURABLE = 1e-3  # pixels; smaller residuals are never outliers
# Strength of priors on second and first differences relative to one equation: bridge frames that no equation reaches.
BRIDGES = (1e-4, 1e-8)


def all_pairs(n: int) -> np.ndarray:
    """(n (n - 1) / 2, 2) indices i < j."""
    return np.stack(np.triu_indices(n, 1), axis=1)


@dataclass(frozen=True)
class PairSolution:
    """Least-squares shifts of a batch of systems.

    Attributes
    ----------
    shifts : (batch, n, 2) float64, mean zero over the frames.
    weights : (batch, n_pairs) final weights, 0 for rejected equations.
    residual_sd : (batch,) weighted root mean square of the kept residuals, per axis.
    rejected : (batch,) fraction of all equations that were rejected or had no weight to begin with.
    """

    shifts: np.ndarray
    weights: np.ndarray
    residual_sd: np.ndarray
    rejected: np.ndarray


def laplacian(n: int, pairs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(batch, n, n) matrix of the normal equations, for weights (batch, n_pairs)."""
    difference = _difference(n, pairs)
    return np.einsum("pi,bp,pj->bij", difference, weights, difference, optimize=True)


def solve_pairs(n: int, pairs: np.ndarray, measured: np.ndarray, weights: np.ndarray) -> PairSolution:
    """Shifts that explain the measured differences best.

    Parameters
    ----------
    n : frames.
    pairs : (n_pairs, 2) int.
    measured : (batch, n_pairs, 2) shift_j - shift_i.
    weights : (batch, n_pairs) >= 0; 0 leaves an equation out.
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
        outlier = (np.abs(residual) > REJECT_SIGMA * np.maximum(sd, MEASURABLE)[:, None, :]).any(axis=2)
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


def reference_frame(shifts: np.ndarray) -> int:
    """Frame from which the largest distance to any other frame's shift, (n, 2), is smallest."""
    distance = np.linalg.norm(shifts[:, None] - shifts[None, :], axis=2)
    return int(distance.max(axis=1).argmin())


def _difference(n: int, pairs: np.ndarray) -> np.ndarray:
    d = np.zeros((len(pairs), n))
    rows = np.arange(len(pairs))
    d[rows, pairs[:, 1]] = 1.0
    d[rows, pairs[:, 0]] = -1.0
    return d
