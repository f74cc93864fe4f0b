"""Size of the motion: length of the path of the whole frame, and largest local motion on a mesh."""

from __future__ import annotations

from typing import NamedTuple, Optional, Sequence, Tuple

import numpy as np

from ..motion.model import MotionModel

EARLY_DOSE = 4.0  # e/A^2; RELION's and MotionCor's boundary between early and late motion
MESH_POINTS = 9  # along each axis, from edge to edge


class PathLength(NamedTuple):
    """Length in A of the path of the global shifts: total, up to and beyond EARLY_DOSE (None: dose unknown)."""

    total_A: float
    early_A: Optional[float]
    late_A: Optional[float]


def path_length(model: MotionModel, dose_after: Optional[Sequence[float]], pre_exposure: float) -> PathLength:
    """Length of the path of the global shifts, with RELION's definition of early and late motion.

    A step between two frames is early if the dose at the end of the second one, including the pre-exposure, is at most
    EARLY_DOSE. `dose_after` is the dose at the end of each aligned frame without it, in e/A^2.
    """
    steps_A = np.hypot(*np.diff(model.global_shifts_px, axis=0).T) * model.pixel_size_A
    total = float(steps_A.sum())
    if dose_after is None:
        return PathLength(total, None, None)
    is_early = pre_exposure + np.array(dose_after[1:]) <= EARLY_DOSE + 1e-6
    return PathLength(total, float(steps_A[is_early].sum()), float(steps_A[~is_early].sum()))


def largest_local_motion_px(model: MotionModel) -> float:
    """Largest local motion relative to the first aligned frame, in any frame and on a mesh from edge to edge.

    In unbinned pixels; 0 without local motion.
    """
    return float(np.hypot(*local_shifts(model, *mesh(model.frame_shape))).max())


def mesh(frame_shape: Tuple[int, int]) -> Tuple[np.ndarray, np.ndarray]:
    """Positions y and x, (9,) each, from edge to edge of a frame: those at which local motion is judged."""
    ny, nx = frame_shape
    return np.linspace(0, ny - 1, MESH_POINTS), np.linspace(0, nx - 1, MESH_POINTS)


def total_shifts(model: MotionModel, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Shifts of the aligned frames on the mesh y by x, shaped as those of `local_shifts`."""
    t = np.array(model.aligned_frames, float)
    return np.stack(model.shift(t[:, None, None], y[:, None], x))


def local_shifts(model: MotionModel, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Local shifts relative to those of the first aligned frame, on the mesh y by x of pixel coordinates.

    Returns
    -------
    (2, n_aligned, len(y), len(x)) float64, [0] is y, unbinned pixels.
    """
    local = total_shifts(model, y, x) - model.global_shifts_px.T[:, :, None, None]
    return local - local[:, :1]


def mesh_positions(length: int, spacing: float) -> np.ndarray:
    """At least 2 equidistant positions in pixels along an axis, about `spacing` apart, for a mesh that is drawn."""
    n = max(2, round(length / spacing))
    return (np.arange(n) + 0.5) * length / n
