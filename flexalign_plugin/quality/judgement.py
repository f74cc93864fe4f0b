"""The quality figures of an alignment, and warnings about possible problems."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import List, Optional, Sequence

import numpy as np

from ..motion.estimation import Estimate
from ..motion.global_alignment import GlobalAlignment
from ..motion.limits import START_SHIFT_A
from ..motion.model import MotionModel
from .confidence import late_drift, motion_doubts, with_confidence
from .figures import MANY_ON_RIM, Figures
from .motion_size import largest_local_motion_px, path_length


@dataclass(frozen=True)
class Judgement:
    """Figures and warnings, as the report and the log show them."""

    figures: Figures
    warnings: List[str]


def judge(
    estimate: Estimate, max_shift_A: float, dose_after: Optional[Sequence[float]], pre_exposure: float = 0.0
) -> Judgement:
    """Quality figures of the estimated motion of a movie, and warnings.

    Parameters
    ----------
    max_shift_A : largest shift between consecutive frames that the user allows; 0: automatic.
    dose_after : dose at the end of each aligned frame without the pre-exposure, in e/A^2; None if it is unknown.
    pre_exposure : in e/A^2.
    """
    model = estimate.model
    figures = replace(_alignment_figures(estimate), local_motion_max_px=largest_local_motion_px(model))
    figures = with_confidence(figures, estimate.overall, estimate.local, model)
    figures = with_doses(figures, model, dose_after, pre_exposure)
    warnings = _alignment_doubts(estimate.overall, model.first_frame, max_shift_A, model.pixel_size_A) + motion_doubts(
        figures, model
    )
    return Judgement(figures, warnings)


def with_doses(
    figures: Figures, model: MotionModel, dose_after: Optional[Sequence[float]], pre_exposure: float
) -> Figures:
    """`figures` with those of the motion that depend on the doses of the frames, given as for `judge`."""
    path = path_length(model, dose_after, pre_exposure)
    return replace(
        figures,
        accumulated_motion_total_A=path.total_A,
        accumulated_motion_early_A=path.early_A,
        accumulated_motion_late_A=path.late_A,
        late_drift_A_per_dose=late_drift(model, dose_after),
    )


def _alignment_figures(estimate: Estimate) -> Figures:
    overall, local = estimate.overall, estimate.local
    figures = Figures(
        correlated_area_px=list(estimate.correlated),
        max_res_for_correlation_A=estimate.max_res_A,
        max_shift_A=overall.max_shift_A,
        reference_frame=overall.reference + estimate.model.first_frame + 1,
        pairs_rejected=overall.rejected,
        frame_pairs_rejected=_rounded(overall.frames_rejected),
        pairs_on_rim=overall.on_rim,
        pair_residual_px=overall.residual_px,
        pair_significance=overall.significance,
    )
    if local is None:
        return figures
    return replace(
        figures,
        patches=list(local.layout.counts),
        patch_centres_px=np.round(local.layout.centres_px, 2).tolist(),
        patch_shifts_px=np.round(local.patch_shifts_px, 3).tolist(),
        patch_pairs_rejected=local.rejected,
        patches_rejected=_rounded(local.patches_rejected),
        control_points=None if local.coefficients_px is None else list(local.coefficients_px.shape[1:]),
        local_log_evidence=local.log_evidence,
    )


def _rounded(fractions: Optional[np.ndarray]) -> Optional[List[float]]:
    return None if fractions is None else np.round(fractions, 3).tolist()


def _alignment_doubts(overall: GlobalAlignment, first_frame: int, max_shift_A: float, pixel_size_A: float) -> List[str]:
    """Warnings about the global alignment."""
    doubts = []
    if not overall.is_measured:
        return [
            "No motion could be measured: the movie holds no image or too little signal. Its frames were summed as "
            "they are; look at the micrograph before you use it."
        ]
    if overall.by_search:
        doubts.append(
            f"Little signal: {overall.rejected:.0%} of the frame pairs contradict each other, so that the motion was "
            "searched over all of them at once. Treat it with care."
        )
    elif overall.on_rim > MANY_ON_RIM:
        doubts.append(
            f"For {overall.on_rim:.0%} of the frame pairs no shift was found within the search range: "
            f"the maximum shift of {overall.max_shift_A:.0f} A may be too small."
        )
    steps = np.linalg.norm(np.diff(overall.shifts_px, axis=0), axis=1) * pixel_size_A
    usual = max_shift_A or START_SHIFT_A
    if len(overall.shifts_px) > 2 and steps.max() > usual:
        limit = f"the maximum shift of {usual:g} A" if max_shift_A else f"the usual maximum of {usual:g} A"
        doubts.append(
            f"Frame {first_frame + int(steps.argmax()) + 2} jumps by {steps.max():.0f} A, more than {limit}: look at "
            "the plot of the motion, and if it is one of the first frames, exclude it."
        )
    return doubts
