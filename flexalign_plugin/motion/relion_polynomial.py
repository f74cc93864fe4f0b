"""RELION's motion polynomial, fitted to the spline: the start of Bayesian polishing (`output.star` writes it).

The polynomial is of third order in time and second order in space and is zero in one frame. This must be the frame
whose geometry the micrograph has. Otherwise the positions of particles picked on the micrograph would be wrong by the
local motion between the two frames. It is therefore fitted with its zero in the reference frame of the alignment.

It is fitted where particles can be: RELION evaluates it only there. A particle is extracted if its box is inside the
frame, so no centre is closer to an edge than half a box, EDGE_A. Up to there all positions have the same weight, as
particles may be anywhere. The misfit is largest in the corners; a fit that includes them is a tenth worse elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Optional, Tuple

import numpy as np

from .model import MotionModel

N_COEFFICIENTS = 18  # per axis
# Rms. About the motion of a particle that RELION's polishing expects by default, 0.2 A x sqrt(dose of 30 e/A^2). The
# largest difference is several times the rms: above this limit polishing would start some particles outside their
# correlation peak (docs/exports.md).
MAX_RESIDUAL_A = 1.0
EDGE_A = 150.0  # half the box of a particle of about 200 A
LARGEST_EDGE = 0.125  # of the frame's size; small frames are cut-outs in which particles may be nearer to the edge
_MESH = 16
NOT_OBSERVED = -9999.0  # RELION's value for frames without a shift


@dataclass(frozen=True)
class PolynomialFit:
    """RELION's motion polynomial.

    Attributes
    ----------
    coefficients : (2, 18) float64, [0] for X, [1] for Y (RELION's order), index 3 * term + (power - 1) with the terms
        1, x, x^2, y, y^2, xy and the powers of z = frame - reference frame; x = X / width - 0.5, y alike.
    reference : 0-based index, among the aligned frames, of the frame in which the spline is smallest, usually zero.
    rms_px, max_px : rms and largest length of the difference between polynomial and spline, over all positions at
        which particles can be and all aligned frames, unbinned pixels.
    """

    coefficients: np.ndarray
    reference: int
    rms_px: float
    max_px: float

    def shift(self, frame: float, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Local shift (2, m, k), [0] is sy, of a frame counted from the first aligned one; y (m,) and x (k,) from -0.5
        to 0.5."""
        values = _terms(np.array([frame - self.reference]), y, x) @ self.coefficients[::-1].T
        return values.T.reshape(2, len(y), len(x))


def fit_polynomial(model: MotionModel, edge_A: float = EDGE_A) -> PolynomialFit:
    """Least-squares fit of RELION's polynomial to the local motion of `model`, at least `edge_A` from the edges."""
    y_px, x_px = particle_mesh(model, edge_A)
    t = np.array(model.aligned_frames, float)[:, None, None]
    field = np.stack(model.shift(t, y_px[:, None], x_px[None, :])) - model.global_shifts_px.T[:, :, None, None]
    reference = int(np.abs(field).max(axis=(0, 2, 3)).argmin())
    wanted = (field - field[:, reference : reference + 1]).reshape(2, -1)
    # Time is scaled to 0 .. 1 for the fit, which keeps it well-conditioned for many frames.
    duration = max(model.n_aligned - 1, 1)
    time = (np.arange(model.n_aligned) - reference) / duration
    design = _terms(time, *_relative(model, y_px, x_px))
    solution = np.linalg.lstsq(design, wanted.T, rcond=None)[0]
    error = np.hypot(*(wanted - (design @ solution).T))
    powers = np.tile([1, 2, 3], N_COEFFICIENTS // 3)
    coefficients = (solution / float(duration) ** powers[:, None]).T[::-1]
    return PolynomialFit(coefficients, reference, float(np.sqrt(np.mean(error**2))), float(error.max()))


def particle_mesh(model: MotionModel, edge_A: float = EDGE_A) -> Tuple[np.ndarray, np.ndarray]:
    """Positions y and x, (16,) each, that span the part of the frame in which particles can be."""
    edges = (min(edge_A / model.pixel_size_A, LARGEST_EDGE * n) for n in model.frame_shape)
    y, x = (np.linspace(edge, n - 1 - edge, _MESH) for edge, n in zip(edges, model.frame_shape))
    return y, x


def relion_global_shifts(model: MotionModel, fit: Optional[PolynomialFit]) -> np.ndarray:
    """Shift of each frame of the movie as RELION's STAR file holds it: (n_frames, 2) float64, unbinned pixels.

    Notes
    -----
    RELION polishes frames that were not aligned too, unless it is told otherwise. Without a shift (-9999), it takes a
    frame before the first aligned one as unmoved, and one after the last as moved by the global shift of the last.
    Frames before the first aligned one should start where that is. They do if it is the reference, because its shift is
    zero everywhere. A shift of zero instead would be worse: RELION would add its polynomial, extrapolated. With another
    reference they would be off by the whole motion of the first aligned frame. They get its shift, less the mean of the
    extrapolated polynomial, as far back as this is nearer.
    """
    shifts = np.full((model.n_frames, 2), NOT_OBSERVED)
    shifts[model.aligned_frames] = model.global_shifts_px
    first = model.first_frame
    y, x = particle_mesh(model)
    wanted = model.frame_field(first, y, x)
    for frame in reversed(range(first)):
        added = np.zeros_like(wanted) if fit is None else fit.shift(frame - first, *_relative(model, y, x))
        shift = (wanted - added).mean(axis=(1, 2))
        if _rms(wanted - added - shift[:, None, None]) > _rms(wanted) - 1e-6:
            break
        shifts[frame] = shift
    return shifts


def residual_warnings(fit: Optional[PolynomialFit], pixel_size_A: float) -> List[str]:
    """A warning if RELION's polynomial differs too much from the motion for polishing to start from it."""
    if fit is None or fit.rms_px * pixel_size_A <= MAX_RESIDUAL_A:
        return []
    return [
        f"RELION's motion polynomial can't follow the local motion: it is {fit.rms_px * pixel_size_A:.1f} A rms away "
        f"from it ({fit.max_px * pixel_size_A:.1f} A at most). The micrograph is not affected, but Bayesian polishing "
        "in RELION starts from less accurate trajectories."
    ]


def _relative(model: MotionModel, y_px: np.ndarray, x_px: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """RELION's coordinates of positions in pixels."""
    ny, nx = model.frame_shape
    return y_px / ny - 0.5, x_px / nx - 0.5


def _rms(field: np.ndarray) -> float:
    """Rms length of vectors (2, m, k)."""
    return float(np.sqrt((field**2).sum(axis=0).mean()))


def _terms(time: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """(n_time * n_y * n_x, 18) values of the polynomial's terms."""
    y, x = y[:, None], x[None, :]
    space = np.stack(np.broadcast_arrays(1.0 + 0 * x * y, x, x**2, y, y**2, x * y))
    powers = time[:, None] ** np.array([1, 2, 3])
    return np.einsum("tp,cyx->tyxcp", powers, space).reshape(-1, N_COEFFICIENTS)
