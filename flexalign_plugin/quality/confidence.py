"""Expected errors of the motion, and warnings if figures of the motion are implausible."""

from __future__ import annotations

from dataclasses import replace
from typing import List, Optional, Sequence

import numpy as np

from ..motion.global_alignment import GlobalAlignment
from ..motion.local_alignment import LocalAlignment
from ..motion.model import MotionModel
from .figures import Figures
from .motion_size import mesh, total_shifts

MESH_STEP_NODES = 4  # every fourth node of the field's standard error is written
HIGH_ERROR_PX = 0.5  # with this error half of the amplitude at Nyquist is lost
ZIGZAG = 1.5  # second over first differences: random walk 1.41, independent positions 1.73, smooth paths far below 1
VISIBLE_STEP_PX = 1.0
LATE_FROM = 4.0  # e/A^2, after which the specimen should drift little
FAST_DRIFT = 1.0  # A per e/A^2


def with_confidence(
    figures: Figures,
    overall: GlobalAlignment,
    local: Optional[LocalAlignment],
    model: MotionModel,
) -> Figures:
    """`figures` with the expected errors, the motion relative to them, and the smoothness of the path."""
    source = overall if local is None else local
    steps = np.diff(model.global_shifts_px, axis=0)
    turns = np.diff(steps, axis=0)
    figures = replace(
        figures,
        confidence=None if overall.is_measured else 0.0,
        roughness=_rms(turns) / max(_rms(steps), 1e-9) if len(turns) else None,
    )
    if source.shift_sigma_px is None:
        return figures
    variance = float((source.shift_sigma_px**2).sum(axis=1).mean())
    figures = replace(
        figures, shift_sigma_px=np.round(source.shift_sigma_px, 4).tolist(), global_error_px=variance**0.5
    )
    if local is None:  # nobody knows how much local motion is left
        return figures
    if local.field_sigma_px is not None:
        # Each node is weighted by the area around it, which is half at the edges.
        area = np.ones(len(local.field_sigma_px))
        area[[0, -1]] = 0.5
        field = float(np.average(local.field_sigma_px**2, weights=np.outer(area, area)))
        # Motion that the spline does not follow is an error too, though not noise.
        variance += field + local.misfit_px**2
        figures = replace(
            figures,
            field_sigma_px=field**0.5,
            field_sigma_mesh_px=np.round(local.field_sigma_px[::MESH_STEP_NODES, ::MESH_STEP_NODES], 4).tolist(),
            field_misfit_px=local.misfit_px,
        )
    error = variance**0.5
    return replace(
        figures,
        expected_error_px=error,
        motion_over_error=_motion(model) / max(error, 1e-9),
        confidence=float(np.exp(-((np.pi * error / 2) ** 2))),
    )


def motion_doubts(figures: Figures, model: MotionModel) -> List[str]:
    """Warnings about implausible figures."""
    doubts = []
    error, roughness, drift = figures.expected_error_px, figures.roughness, figures.late_drift_A_per_dose
    of_what = "its expected error"
    if error is None:
        error, of_what = figures.global_error_px, "the expected error of the whole-frame shifts alone"
    if error is not None and error > HIGH_ERROR_PX:
        doubts.append(f"The motion is uncertain: {of_what} is {error:.2f} px, of {_motion(model):.1f} px of motion.")
    step = _rms(np.diff(model.global_shifts_px, axis=0))
    if roughness is not None and model.n_aligned >= 5 and roughness > ZIGZAG and step > VISIBLE_STEP_PX:
        doubts.append(
            f"The path of the frames is a zigzag with steps of {step:.1f} px: frames show little contrast, or the gain "
            "reference is wrong."
        )
    if drift is not None and drift > FAST_DRIFT:
        doubts.append(
            f"The specimen still drifts by {drift:.1f} A per e/A^2 after the first {LATE_FROM:g} e/A^2: the motion "
            "within single frames blurs them, and no alignment can undo that."
        )
    return doubts


def late_drift(model: MotionModel, dose_after: Optional[Sequence[float]]) -> Optional[float]:
    """Distance in A between the first and the last late frame, divided by the dose between them.

    Unlike the length of the path, it does not accumulate noise. None if the dose is unknown or fewer than two frames
    are late.
    """
    if dose_after is None:
        return None
    ends = np.array(dose_after)
    late = np.flatnonzero(ends > LATE_FROM)
    if len(late) < 2:
        return None
    dose = ends[late[-1]] - ends[late[0]]
    path = model.global_shifts_px[late[-1]] - model.global_shifts_px[late[0]]
    return float(np.hypot(*path)) * model.pixel_size_A / dose if dose > 0 else None


def _motion(model: MotionModel) -> float:
    """RMS length of the motion in px over all positions and frames, without each position's mean over the frames."""
    shifts = total_shifts(model, *mesh(model.frame_shape))
    shifts -= shifts.mean(axis=1, keepdims=True)
    return float(np.sqrt((shifts**2).sum(axis=0).mean()))


def _rms(vectors: np.ndarray) -> float:
    """Rms length of vectors (n, 2)."""
    return float(np.sqrt((vectors**2).sum(axis=-1).mean()))
