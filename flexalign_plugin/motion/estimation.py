"""The motion of one movie, from its frames to `MotionModel`: global alignment, then local (Strelak 2020, section 2.1).

The frames are given as a `FrameSource`, the user's choices as `EstimationOptions`.
"""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Callable, ContextManager, List, Optional, Tuple

import numpy as np

from ..backend import Backend, FrameSource
from .band_movie import BandMovie
from .bspline import basis
from .global_alignment import (
    GlobalAlignment,
    align_globally,
    refine_globally,
    relative_to_middle_most,
    signal_end_A,
)
from .limits import FINE_DETAIL_A, Limits, limit_notes, limits
from .local_alignment import LocalAlignment, align_locally
from .lowpass import correlation_band
from .model import MotionModel
from .patches import lay_patches
from .spline_fit import automatic_control_points

# Starts a stage: its name and the fraction of the whole work that is done before it.
Stage = Callable[[str, float], ContextManager[None]]


@dataclass(frozen=True)
class EstimationOptions:
    """The user's choices for the estimate.

    Attributes
    ----------
    pixel_size_A : of the unbinned frame.
    max_res_A : resolution of the comparison; 0: automatic.
    max_shift_A : largest shift between consecutive frames; 0: automatic.
    local : whether local motion is estimated.
    patch_A : size of the patches. patches : (n_y, n_x), or None for as many as cover the frame.
    group : number of frames that are averaged before patches are compared.
    control_points : (KT, KY, KX) of the field, or None for the published rule, which the refinement may increase.
    refine : refine all patches and frames jointly; False gives FlexAlign as published.
    middle_most : the reference is the frame nearest to all others instead of the first aligned one.
    """

    pixel_size_A: float
    max_res_A: float = 0.0
    max_shift_A: float = 0.0
    local: bool = True
    patch_A: float = 500.0
    patches: Optional[Tuple[int, int]] = None
    group: int = 3
    control_points: Optional[Tuple[int, int, int]] = None
    refine: bool = True
    middle_most: bool = False


@dataclass(frozen=True)
class Estimate:
    """The motion and how it was estimated.

    Attributes
    ----------
    model : the motion, zero everywhere in the reference frame.
    overall : whole-frame shifts. local : patches and field; None if they were not measured.
    correlated : (fy, fx), size in pixels of the frames' central part that was compared.
    max_res_A : resolution of the comparison.
    notes : sentences about automatic choices.
    """

    model: MotionModel
    overall: GlobalAlignment
    local: Optional[LocalAlignment]
    correlated: Tuple[int, int]
    max_res_A: float
    notes: List[str]


def estimate_motion(
    backend: Backend,
    source: FrameSource,
    aligned: range,
    options: EstimationOptions,
    stage: Stage = lambda name, done: nullcontext(),
) -> Estimate:
    """Estimate the motion of the frames `aligned` (0-based) of a movie (Strelak 2020, section 2.1).

    Parameters
    ----------
    stage : context manager that each stage runs in; called with the stage's name and the fraction of work done.
    """
    n_frames, ny, nx = source.movie.shape
    with stage("spectra", 0.08):
        correlated = backend.frame_fft_size(ny, nx, len(aligned))
        bounds = limits(options.max_res_A, options.max_shift_A, options.patch_A, options.pixel_size_A, correlated)
        frames = _spectra(backend, source, aligned, correlated, options.pixel_size_A, bounds)
    with stage("global alignment", 0.3):
        overall = align_globally(frames, bounds.max_res_A, bounds.max_shift_A, bounds.growing)
        if bounds.coarser_A and signal_end_A(frames, overall) > FINE_DETAIL_A:
            bounds = dataclasses.replace(bounds, max_res_A=bounds.coarser_A)
            del frames  # frees their memory before the next spectra are computed
            frames = _spectra(backend, source, aligned, correlated, options.pixel_size_A, bounds)
            overall = align_globally(frames, bounds.max_res_A, bounds.max_shift_A, bounds.growing)
        # Patches are cut where the reference frame shows their content, so that the field has its geometry.
        if options.middle_most:
            overall = relative_to_middle_most(overall)
        notes = limit_notes(options.max_res_A, options.max_shift_A, bounds, overall.max_shift_A)
    with stage("local alignment", 0.45):
        local = None
        if options.local and overall.is_measured:
            local = _local(frames, overall, options, bounds)
            notes += _local_notes(local, options)
        if local is None and overall.is_measured and options.refine:
            overall = refine_globally(frames, overall)
            if options.middle_most:  # the refined shifts may have another one
                overall = relative_to_middle_most(overall)
    model = motion_model((ny, nx), n_frames, aligned.start, overall, local, options.pixel_size_A)
    return Estimate(model, overall, local, correlated, bounds.max_res_A, notes)


def _spectra(
    backend: Backend, source: FrameSource, aligned: range, area: Tuple[int, int], pixel_size_A: float, bounds: Limits
) -> BandMovie:
    """Spectra of the frames up to the resolution of the comparison; `area` (fy, fx) is the part that is transformed."""
    band = correlation_band(area, pixel_size_A, bounds.max_res_A)
    _, ny, nx = source.movie.shape
    return BandMovie(backend, backend.spectra(source, aligned, band), band, len(aligned), (ny, nx), pixel_size_A)


def _local(
    frames: BandMovie, overall: GlobalAlignment, options: EstimationOptions, bounds: Limits
) -> Optional[LocalAlignment]:
    """Local alignment (Strelak 2020, section 2.1.2), or None if the frame is too small for two patches on each axis."""
    layout = lay_patches(frames, overall.shifts_px, options.patch_A, options.patches)
    if layout is None:
        return None
    points = options.control_points
    return align_locally(
        frames,
        layout,
        overall,
        bounds.max_res_A,
        bounds.max_shift_A,
        options.group,
        points or automatic_control_points(frames.frame_shape, options.pixel_size_A, frames.n),
        options.refine,
        choose_points=points is None,
    )


def _local_notes(local: Optional[LocalAlignment], options: EstimationOptions) -> List[str]:
    if local is None:
        return [
            f"No local alignment: the area that all frames share is too small for two patches of {options.patch_A:g} A "
            "on each axis. A smaller patch size is possible if the signal is strong."
        ]
    if local.coefficients_px is None:
        return ["No local motion above the noise was detected: the global alignment is used everywhere."]
    return []


def motion_model(
    frame_shape: Tuple[int, int],
    n_frames: int,
    first: int,
    overall: GlobalAlignment,
    local: Optional[LocalAlignment],
    pixel_size_A: float,
) -> MotionModel:
    """Global shifts and field in one model, zero everywhere in the reference frame.

    Parameters
    ----------
    first : 0-based index of the first aligned frame in the movie.
    """
    shifts, coefficients = overall.shifts_px, None
    if local is not None:
        shifts = local.shifts_px
        if local.coefficients_px is not None:
            kt = local.coefficients_px.shape[1]
            at_reference = basis(kt, len(shifts) - 1, np.array([overall.reference]))[0]
            # The temporal basis sums to 1: a field subtracted from all control points is subtracted from all frames.
            still = np.einsum("l,alyx->ayx", at_reference, local.coefficients_px)
            coefficients = local.coefficients_px - still[:, None]
    shifts = shifts - shifts[overall.reference]
    return MotionModel(frame_shape, n_frames, first, shifts, coefficients, pixel_size_A)
