"""The local motion field: patches, their shifts, one spline for all (Strelak 2020, section 2.1.2), then refinement.

The field is measured on frames that are already moved by their global shifts, so it is the difference to those.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional, Tuple

import numpy as np

from .band import Band, lowpass
from .global_alignment import GlobalAlignment, solve_peaks
from .pairwise import all_pairs, laplacian
from .patches import PatchLayout
from .refine import matched_weight, refine
from .spline_fit import FieldBasis, field_basis, fit_field

FIT_SMOOTHNESS = 1e-4  # relative to the data: only decides what the data leave open
SECOND_SEARCH_A = 12.0
PRIOR_SD_A = 3.0  # standard deviation of the second differences of control points
WINDOW_A, WINDOW_STEP = 14.0, 0.5  # radius and sampling (band pixels) of the refinement's correlation windows
LOW_CUT_A = 300.0  # coarser structure (illumination, ice thickness) does not enter the refinement
MAX_ROUNDS = 3


@dataclass(frozen=True)
class LocalAlignment:
    """Shifts of frames and the field of the difference.

    Attributes
    ----------
    shifts_px : (n, 2) refined global shifts, unbinned pixels.
    coefficients_px : (2, KT, KY, KX), or None when the field explains no more than noise would.
    layout : the patches.
    patch_shifts_px : (p, n, 2) shifts as measured patch by patch, global shift included, zero mean over frames.
    rejected : fraction of the pair equations of the patches that were rejected.
    log_likelihood_gain : of the field over global shifts alone; 0 without refinement.
    signal_to_noise : (rings,) radial S / N of one frame, or empty.
    """

    shifts_px: np.ndarray
    coefficients_px: Optional[np.ndarray]
    layout: PatchLayout
    patch_shifts_px: np.ndarray
    rejected: float
    log_likelihood_gain: float
    signal_to_noise: np.ndarray


def align_locally(
    backend: Any,
    spectra: Any,
    band: Band,
    layout: PatchLayout,
    start: GlobalAlignment,
    frame_shape: Tuple[int, int],
    pixel_size_A: float,
    max_res_A: float,
    max_shift_A: float,
    group: int,
    control_points: Tuple[int, int, int],
    refinement: bool,
) -> LocalAlignment:
    """Motion field of the patches under one spline.

    Parameters
    ----------
    spectra, band : of the whole frames, as for the global alignment.
    group : frames averaged before patches are compared.
    control_points : (KT, KY, KX).
    refinement : maximise the joint likelihood, starting from the pairwise solution.
    """
    scale = band.scale
    n = len(start.shifts_px)
    pairs = all_pairs(n)
    patches = backend.patch_spectra(spectra, band, start.shifts_px / scale, layout.corners, layout.size)
    patch_band = Band((round(layout.size[0] * scale[0]), round(layout.size[1] * scale[1])), layout.size)
    weight = lowpass(patch_band, pixel_size_A, max_res_A, start.axes) ** 2
    field = field_basis(control_points, n, frame_shape, layout.centres_px)
    band_A = pixel_size_A * scale.mean()
    radius = min(max_shift_A / band_A, min(layout.size) / 2 - 3)
    windows = backend.correlate(patches, layout.size, weight, pairs, radius, group=group)

    solution, _ = solve_peaks(n, pairs, windows.peaks())
    coefficients, _ = fit_field(field, solution.shifts, laplacian(n, pairs, solution.weights), FIT_SMOOTHNESS)
    predicted = field.field(coefficients)
    predicted = predicted[:, pairs[:, 1]] - predicted[:, pairs[:, 0]]
    solution, _ = solve_peaks(n, pairs, windows.peaks(predicted, SECOND_SEARCH_A / band_A))
    coefficients, _ = fit_field(field, solution.shifts, laplacian(n, pairs, solution.weights), FIT_SMOOTHNESS)

    extra, gain, snr = np.zeros((n, 2)), 0.0, np.zeros(0)
    keep = True
    if refinement:
        extra, coefficients, gain, snr = _refine(
            backend, patches, patch_band, pairs, field, coefficients, start.axes, pixel_size_A, band_A
        )
        # Fitting noise gains half a unit a coefficient: a field that gains less than one each explains nothing.
        keep = gain > coefficients.size
        if not keep:
            extra = np.zeros((n, 2))
    per_axis = scale[:, None, None, None]
    return LocalAlignment(
        shifts_px=start.shifts_px + extra * scale,
        coefficients_px=coefficients.reshape(2, *control_points) * per_axis if keep else None,
        layout=layout,
        patch_shifts_px=_centred(start.shifts_px) + _centred(solution.shifts * scale),
        rejected=float(solution.rejected.mean()),
        log_likelihood_gain=gain,
        signal_to_noise=snr,
    )


def _refine(
    backend: Any,
    patches: Any,
    patch_band: Band,
    pairs: np.ndarray,
    field: FieldBasis,
    coefficients: np.ndarray,
    axes: bool,
    pixel_size_A: float,
    band_A: float,
) -> Tuple[np.ndarray, np.ndarray, float, np.ndarray]:
    """Per-frame shifts, coefficients (band pixels), gain over no field at all, and the radial S / N."""
    n, n_patches = len(field.temporal), len(field.spatial)
    shifts = np.zeros((n, 2))
    smoothness = 0.5 * (band_A / PRIOR_SD_A) ** 2
    # Unnormalised transforms: the windows are the mean of the products, the likelihood is their sum.
    likelihood = np.full((n_patches, len(pairs)), float(np.prod(patch_band.size)))
    radius = WINDOW_A / band_A
    for _ in range(MAX_ROUNDS):
        now = shifts + field.field(coefficients)
        power = backend.power(patches, patch_band.size, now)
        weight, snr = matched_weight(patch_band, *power, n, pixel_size_A / LOW_CUT_A, axes)
        if not weight.any():
            return np.zeros((n, 2)), np.zeros_like(coefficients), 0.0, snr
        windows = backend.correlate(patches, patch_band.size, weight, pairs, radius, step=WINDOW_STEP, shifts=now)
        refined = refine(windows, likelihood, field, shifts, coefficients, (smoothness, smoothness))
        shifts, coefficients = refined.shifts, refined.coefficients
        if np.abs(shifts + field.field(coefficients) - now).max() < radius / 2:
            break
    column = np.full(weight.shape[1], 2.0)
    column[0] = column[-1] = 1.0
    with_field, _ = backend.power(patches, patch_band.size, shifts + field.field(coefficients))
    without, _ = backend.power(patches, patch_band.size, np.zeros((n_patches, n, 2)))
    gain = 0.5 * n_patches * float((weight * column * (with_field - without)).sum())
    return shifts, coefficients, gain, snr


def _centred(shifts: np.ndarray) -> np.ndarray:
    return shifts - shifts.mean(axis=-2, keepdims=True)
