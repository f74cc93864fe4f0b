"""RELION's motion polynomial, fitted to the spline: the start of Bayesian polishing (`output.star` writes it).

The polynomial is of third order in time and second order in space and is zero in one frame. This must be the frame
whose geometry the micrograph has. Otherwise the positions of particles picked on the micrograph would be wrong by the
local motion between the two frames. It is therefore fitted with its zero in the reference frame of the alignment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Optional

import numpy as np

from .model import MotionModel

N_COEFFICIENTS = 18  # per axis
# Rms. About the motion of a particle that RELION's polishing expects by default, 0.2 A x sqrt(dose of 30 e/A^2). The
# largest difference is several times the rms: above this limit polishing would start some particles outside their
# correlation peak (docs/exports.md).
MAX_RESIDUAL_A = 1.0
_MESH = 16


@dataclass(frozen=True)
class PolynomialFit:
    """RELION's motion polynomial.

    Attributes
    ----------
    coefficients : (2, 18) float64, [0] for X, [1] for Y (RELION's order), index 3 * term + (power - 1) with the terms
        1, x, x^2, y, y^2, xy and the powers of z = frame - reference frame; x = X / width - 0.5, y alike.
    reference : 0-based index, among the aligned frames, of the frame in which the spline is smallest, usually zero.
    rms_px, max_px : rms and largest length of the difference between polynomial and spline, over a mesh and all
        aligned frames, unbinned pixels.
    """

    coefficients: np.ndarray
    reference: int
    rms_px: float
    max_px: float


def fit_polynomial(model: MotionModel) -> PolynomialFit:
    """Least-squares fit of RELION's polynomial to the local motion of `model`."""
    ny, nx = model.frame_shape
    y_px, x_px = np.linspace(0, ny - 1, _MESH), np.linspace(0, nx - 1, _MESH)
    t = np.array(model.aligned_frames, float)[:, None, None]
    field = np.stack(model.shift(t, y_px[:, None], x_px[None, :])) - model.global_shifts_px.T[:, :, None, None]
    reference = int(np.abs(field).max(axis=(0, 2, 3)).argmin())
    wanted = (field - field[:, reference : reference + 1]).reshape(2, -1)
    # Time is scaled to 0 .. 1 for the fit, which keeps it well-conditioned for many frames.
    duration = max(model.n_aligned - 1, 1)
    time = (np.arange(model.n_aligned) - reference) / duration
    design = _terms(time, y_px / ny - 0.5, x_px / nx - 0.5)
    solution = np.linalg.lstsq(design, wanted.T, rcond=None)[0]
    error = np.hypot(*(wanted - (design @ solution).T))
    powers = np.tile([1, 2, 3], N_COEFFICIENTS // 3)
    coefficients = (solution / float(duration) ** powers[:, None]).T[::-1]
    return PolynomialFit(coefficients, reference, float(np.sqrt(np.mean(error**2))), float(error.max()))


def residual_warnings(fit: Optional[PolynomialFit], pixel_size_A: float) -> List[str]:
    """A warning if RELION's polynomial differs too much from the motion for polishing to start from it."""
    if fit is None or fit.rms_px * pixel_size_A <= MAX_RESIDUAL_A:
        return []
    return [
        f"RELION's motion polynomial can't follow the local motion: it is {fit.rms_px * pixel_size_A:.1f} A rms away "
        f"from it ({fit.max_px * pixel_size_A:.1f} A at most). The micrograph is not affected, but Bayesian polishing "
        "in RELION starts from less accurate trajectories."
    ]


def _terms(time: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """(n_time * n_y * n_x, 18) values of the polynomial's terms."""
    y, x = y[:, None], x[None, :]
    space = np.stack(np.broadcast_arrays(1.0 + 0 * x * y, x, x**2, y, y**2, x * y))
    powers = time[:, None] ** np.array([1, 2, 3])
    return np.einsum("tp,cyx->tyxcp", powers, space).reshape(-1, N_COEFFICIENTS)
