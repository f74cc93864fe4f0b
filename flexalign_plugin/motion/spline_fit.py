"""The local motion field: one B-spline in (t, y, x) fitted to the shifts of all patches (Strelak 2020, equation 4).

Equation 4 at the patches: the shift of patch p in frame t is `sum_lm T[t, l] S[p, m] c[l, m]` for each axis. T is the
temporal basis at the frames, S the spatial basis at the patch centres, c are the coefficients.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Tuple

import numpy as np

from .bspline import basis, gram
from .pairwise import MAX_ROUNDS, REJECT_SIGMA, SMALLEST_OUTLIER_PX

A_PER_CONTROL_POINT = 1000.0
FRAMES_PER_CONTROL_POINT = 7
EXTRA_CONTROL_POINTS = 2
MIN_CONTROL_POINTS = 3


def automatic_control_points(frame_shape: Tuple[int, int], pixel_size_A: float, n_frames: int) -> Tuple[int, int, int]:
    """(KT, KY, KX) by the published rule: one per 1000 A and per 7 frames, plus 2; at least 3, KT at most n_frames."""
    ky, kx = (
        max(int(n * pixel_size_A / A_PER_CONTROL_POINT) + EXTRA_CONTROL_POINTS, MIN_CONTROL_POINTS) for n in frame_shape
    )
    kt = max(math.ceil(n_frames / FRAMES_PER_CONTROL_POINT) + EXTRA_CONTROL_POINTS, MIN_CONTROL_POINTS)
    return min(kt, n_frames), ky, kx


@dataclass(frozen=True)
class FieldBasis:
    """Bases of the field at the frames and patch centres.

    Attributes
    ----------
    control_points : (KT, KY, KX).
    temporal : (n, KT). spatial : (p, KY * KX).
    """

    control_points: Tuple[int, int, int]
    temporal: np.ndarray
    spatial: np.ndarray

    def field(self, coefficients: np.ndarray) -> np.ndarray:
        """(p, n, 2) shifts for coefficients (2, KT, KY * KX): equation 4 at the frames and patch centres."""
        return (self.spatial @ (self.temporal @ coefficients).transpose(0, 2, 1)).transpose(1, 2, 0)

    def roughness(self) -> Tuple[np.ndarray, np.ndarray]:
        """Integrated squared second derivative of the field in time and in space (thin plate), as (K, K) matrices.

        K = KT * KY * KX, coefficients in this order. The first is zero for fields linear in t, the second for fields
        linear in y and x.
        """
        (mt, my, mx), (_, dy, dx), (rt, ry, rx) = ([gram(k, d) for k in self.control_points] for d in (0, 1, 2))
        return np.kron(rt, np.kron(my, mx)), np.kron(mt, np.kron(ry, mx) + 2 * np.kron(dy, dx) + np.kron(my, rx))


def field_basis(
    control_points: Tuple[int, int, int], n_frames: int, frame_shape: Tuple[int, int], centres_px: np.ndarray
) -> FieldBasis:
    """Bases at the frames and at the patch centres (p, 2), unbinned pixels."""
    kt, ky, kx = control_points
    temporal = basis(kt, n_frames - 1, np.arange(n_frames))
    by = basis(ky, frame_shape[0] - 1, centres_px[:, 0])
    bx = basis(kx, frame_shape[1] - 1, centres_px[:, 1])
    return FieldBasis(control_points, temporal, (by[:, :, None] * bx[:, None, :]).reshape(len(centres_px), -1))


def fit_field(
    field: FieldBasis, shifts: np.ndarray, precision: np.ndarray, smoothness: float
) -> Tuple[np.ndarray, np.ndarray]:
    """Fit the coefficients of equation 4 to the shifts of all patches by weighted least squares.

    For each axis the coefficients c minimise, with `d_p[t] = sum_lm T[t, l] S[p, m] c[l, m] - s_p[t]`,

        sum_p d_p^T W_p d_p + mu c^T R c

    over patches p and frames t. s_p are the measured shifts of patch p. The weight matrix W_p is the Laplacian of its
    pair equations (`PairSolution.precision`), the inverse covariance of s_p up to a factor. R = R_time + R_space is the
    roughness of the field (`FieldBasis.roughness`). The minimum solves the linear system

        (N + mu R) c = b,   N = sum_p (T^T W_p T) x (S_p S_p^T),   b = sum_p (T^T W_p s_p) x S_p

    with the Kronecker product x and mu = smoothness * trace(N) / trace(R). As W_p does not determine the mean over the
    frames, a multiple of `1 1^T / n` is added to it. Then shifts whose residual, without its mean over the frames,
    exceeds three standard deviations on either axis are rejected (rows and columns of W_p set to zero) and the system
    is solved again, until the set of rejected shifts no longer changes.

    Parameters
    ----------
    shifts : (p, n, 2) shifts of the patches, any unit.
    precision : (p, n, n) weight matrix W_p of each patch.
    smoothness : strength of the roughness penalty relative to the data. A small value affects only what the data do
        not determine.

    Returns
    -------
    coefficients : (2, KT, KY * KX) float64, [0] is y, in the unit of the shifts.
    kept : (p, n) bool, False for rejected shifts.
    """
    kt, m = field.temporal.shape[1], field.spatial.shape[1]
    n_patches, n = shifts.shape[:2]
    penalty = sum(field.roughness())
    in_space = (field.spatial[:, :, None] * field.spatial[:, None, :]).reshape(n_patches, m * m)
    kept = np.ones((n_patches, n), bool)
    gauge = np.full((n, n), 1.0 / n)
    coefficients = np.zeros((2, kt, m))
    for _ in range(MAX_ROUNDS):
        weight = kept[:, :, None] * precision * kept[:, None, :]
        level = np.trace(weight, axis1=1, axis2=2).mean() / n
        weight = weight + level * gauge
        in_time = field.temporal.T @ weight @ field.temporal
        normal = (in_time.reshape(n_patches, kt * kt).T @ in_space).reshape(kt, kt, m, m)
        normal = normal.transpose(0, 2, 1, 3).reshape(kt * m, kt * m)
        normal = normal + smoothness * np.trace(normal) / max(np.trace(penalty), 1e-30) * penalty
        normal[np.diag_indices(kt * m)] += 1e-9 * np.trace(normal) / (kt * m)
        right = np.tensordot(field.temporal.T @ weight @ shifts, field.spatial, axes=(0, 0))  # (kt, 2, m)
        solved = np.linalg.solve(normal, right.transpose(0, 2, 1).reshape(kt * m, 2))
        coefficients = solved.T.reshape(2, kt, m)
        residual = field.field(coefficients) - shifts
        residual = residual - residual.mean(axis=1, keepdims=True)
        sd = np.sqrt((residual[kept] ** 2).mean(axis=0))
        now = (np.abs(residual) <= REJECT_SIGMA * np.maximum(sd, SMALLEST_OUTLIER_PX)).all(axis=2)
        if np.array_equal(now, kept):
            break
        kept = now
    return coefficients, kept
