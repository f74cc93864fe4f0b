"""Doses of a movie's frames from its `.mdoc`, as settings of its alignment."""

from __future__ import annotations

from typing import Any, Dict, List, Optional

from ..frame_doses import doses_text, each_dose
from .mdoc import Tilt

# FrameDosesAndNumber is used as it is if it sums up to ExposureDose within this; else its doses are in other units (of
# the camera's own frames, for example) and are scaled to it.
SAME_DOSE = 0.1


def dose_settings(tilt: Tilt, n_frames: int, hardware_frames: Optional[int] = None) -> Dict[str, Any]:
    """The setting of the dose of a movie with `n_frames` frames: `total_dose`, `dose_per_frame` or `frame_doses`; empty
    if the `.mdoc` states no dose.

    hardware_frames : in each frame of an EER movie.
    """
    doses = _frame_doses(tilt, n_frames, hardware_frames)
    if doses is None:
        return {} if tilt.dose is None else {"total_dose": tilt.dose}
    stated = sum(each_dose(tilt.frame_doses))
    if tilt.dose is not None and abs(stated - tilt.dose) > SAME_DOSE * tilt.dose:
        doses = [dose * tilt.dose / stated for dose in doses]
    return as_settings(doses)


def span_settings(tilt: Tilt, frames: range, n_frames: int, given: Optional[float]) -> Dict[str, Any]:
    """The same for a tilt that is the frames `frames` (0-based) of a movie; the others did not expose this tilt.

    given : dose per frame that the user typed; None: of the `.mdoc`.
    """
    stated = _frame_doses(tilt, n_frames, None)
    if given is not None:
        doses = [given] * len(frames)
    elif stated is not None:
        doses = [stated[i] for i in frames]
    elif tilt.dose is not None and tilt.span is not None:
        doses = [tilt.dose / (tilt.span[1] - tilt.span[0])] * len(frames)
    else:
        return {}
    pairs = [(0.0, frames.start), *((dose, 1) for dose in doses), (0.0, n_frames - frames.stop)]
    return {"dose_per_frame": None, "total_dose": None, "frame_doses": doses_text(pairs)}


def as_settings(doses: List[float]) -> Dict[str, Any]:
    if min(doses) == max(doses):
        return {"dose_per_frame": doses[0]}
    return {"dose_per_frame": None, "frame_doses": doses_text([(dose, 1) for dose in doses])}


def _frame_doses(tilt: Tilt, n_frames: int, hardware_frames: Optional[int]) -> Optional[List[float]]:
    """Dose of each frame as stated; None if it is not, or for another number of frames."""
    doses = each_dose(tilt.frame_doses)
    if hardware_frames and len(doses) >= hardware_frames * n_frames:
        groups = range(0, hardware_frames * n_frames, hardware_frames)
        return [sum(doses[start : start + hardware_frames]) for start in groups]
    return doses if len(doses) == n_frames else None
