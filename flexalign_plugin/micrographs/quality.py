"""Figures about the motion itself, the same that other programs report of a movie."""

from __future__ import annotations

from typing import Dict, Optional

import numpy as np

from ..motion.model import MotionModel
from ..settings import Settings

EARLY_DOSE = 4.0  # e/A^2; RELION's and MotionCor's boundary between early and late motion
_MESH = 9


def motion_figures(model: MotionModel, settings: Settings) -> Dict[str, Optional[float]]:
    """Accumulated motion and size of the local motion.

    Returns
    -------
    accumulated_motion_total_A : length of the path of the global shifts.
    accumulated_motion_early_A, accumulated_motion_late_A : its parts up to and beyond an accumulated dose (with the
        pre-exposure, at the end of the frame to which a step leads) of 4 e/A^2; None when the dose is not known.
    local_motion_max_px : largest distance, anywhere and in any frame, between the local shift and the one in the first
        aligned frame; 0 without local motion. Unbinned pixels.
    """
    steps_A = np.hypot(*np.diff(model.global_shifts_px, axis=0).T) * model.pixel_size_A
    early: Optional[float] = None
    late: Optional[float] = None
    if settings.dose_per_frame:
        reached = np.array(model.aligned_frames[1:], int) + 1
        is_early = settings.pre_exposure + reached * settings.dose_per_frame <= EARLY_DOSE + 1e-6
        early, late = float(steps_A[is_early].sum()), float(steps_A[~is_early].sum())
    return {
        "accumulated_motion_total_A": float(steps_A.sum()),
        "accumulated_motion_early_A": early,
        "accumulated_motion_late_A": late,
        "local_motion_max_px": float(np.hypot(*local_motion(model, _MESH, _MESH)).max()),
    }


def local_motion(model: MotionModel, n_y: int, n_x: int) -> np.ndarray:
    """Local shifts relative to those of the first aligned frame, on a mesh from edge to edge of the frame.

    Returns
    -------
    (2, n_aligned, n_y, n_x) float64, [0] is y, unbinned pixels.
    """
    ny, nx = model.frame_shape
    return local_shifts(model, np.linspace(0, ny - 1, n_y), np.linspace(0, nx - 1, n_x))


def local_shifts(model: MotionModel, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """As `local_motion`, at the given pixel coordinates: (2, n_aligned, len(y), len(x)) float64."""
    t = np.array(model.aligned_frames, float)
    total = np.stack(model.shift(t[:, None, None], y[:, None], x[None, :]))
    local = total - model.global_shifts_px.T[:, :, None, None]
    return local - local[:, :1]
