"""The local motion field: patches, their shifts, one spline for all (Strelak 2020, section 2.1.2), then refinement.

The field is measured on frames that are already moved by their global shifts, so it is the difference to those.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Optional, Tuple

import numpy as np

from .band import Band, lowpass
from .band_movie import BandMovie
from .global_alignment import GlobalAlignment, solve_peaks
from .pairwise import all_pairs, laplacian
from .patches import PatchLayout, lay_patches
from .refine import LOW_CUT_A, WINDOW_A, WINDOW_STEP, log_likelihood, matched_weight, refine_field, refine_shifts
from .spline_fit import FieldBasis, field_basis, fit_field

FIT_SMOOTHNESS = 1e-4  # relative to the data: only decides what the data leave open
SECOND_SEARCH_A = 12.0
MAX_ROUNDS = 3
FINER = 2.0  # how much smaller the patches of the refinement are
CLEAR_GAIN = 20.0  # in log-likelihood per coefficient: beyond doubt


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


class Patches:
    """Spectra of the patches of all frames, moved by their global shifts, on the movie's device."""

    def __init__(self, movie: BandMovie, layout: PatchLayout, start: GlobalAlignment, pairs: np.ndarray):
        scale = movie.band.scale
        self.movie, self.start, self.pairs = movie, start, pairs
        self.band = Band((round(layout.size[0] * scale[0]), round(layout.size[1] * scale[1])), layout.size)
        self._spectra = movie.backend.patch_spectra(
            movie.spectra, movie.band, start.shifts_px / scale, layout.corners, layout.size
        )

    def correlate(
        self, weight: np.ndarray, radius: float, step: float = 1.0, shifts: Optional[np.ndarray] = None, group: int = 1
    ) -> Any:
        """`Backend.correlate` of all pairs."""
        return self.movie.backend.correlate(
            self._spectra, self.band.size, weight, self.pairs, radius, step, shifts, group
        )

    def power(self, shifts: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """`Backend.power` at these shifts."""
        return self.movie.backend.power(self._spectra, self.band.size, shifts)


def align_locally(
    movie: BandMovie,
    layout: PatchLayout,
    start: GlobalAlignment,
    max_res_A: float,
    max_shift_A: float,
    group: int,
    control_points: Tuple[int, int, int],
    refinement: bool,
) -> LocalAlignment:
    """Motion field of the patches under one spline.

    Parameters
    ----------
    group : frames averaged before patches are compared.
    control_points : (KT, KY, KX).
    refinement : maximise the joint likelihood, starting from the pairwise solution.
    """
    n, scale = movie.n, movie.band.scale
    pairs = all_pairs(n)
    patches = Patches(movie, layout, start, pairs)
    field = field_basis(control_points, n, movie.frame_shape, layout.centres_px)
    weight = lowpass(patches.band, movie.pixel_size_A, max_res_A, start.axes) ** 2
    radius = min(max_shift_A / movie.band_pixel_A, min(layout.size) / 2 - 3)
    windows = patches.correlate(weight, radius, group=group)

    solution, _ = solve_peaks(n, pairs, windows.peaks())
    coefficients, _ = fit_field(field, solution.shifts, laplacian(n, pairs, solution.weights), FIT_SMOOTHNESS)
    predicted = field.field(coefficients)
    predicted = predicted[:, pairs[:, 1]] - predicted[:, pairs[:, 0]]
    solution, _ = solve_peaks(n, pairs, windows.peaks(predicted, SECOND_SEARCH_A / movie.band_pixel_A))
    coefficients, _ = fit_field(field, solution.shifts, laplacian(n, pairs, solution.weights), FIT_SMOOTHNESS)

    shifts_px, gain, snr = start.shifts_px, 0.0, np.zeros(0)
    keep = True
    if refinement:
        del patches, windows
        finer = _finer(movie, layout, start)
        field = field_basis(control_points, n, movie.frame_shape, finer.centres_px)
        joint = _refine(Patches(movie, finer, start, pairs), field, coefficients)
        # Fitting noise gains half a unit a coefficient: a field that gains less than one each explains nothing.
        keep = joint.gain > joint.coefficients.size
        coefficients, gain, snr = joint.coefficients, joint.gain, joint.signal_to_noise
        shifts_px = shifts_px + (joint.shifts if keep else joint.shifts_alone) * scale
    per_axis = scale[:, None, None, None]
    return LocalAlignment(
        shifts_px=shifts_px,
        coefficients_px=coefficients.reshape(2, *control_points) * per_axis if keep else None,
        layout=layout,
        patch_shifts_px=_centred(start.shifts_px) + _centred(solution.shifts * scale),
        rejected=float(solution.rejected.mean()),
        log_likelihood_gain=gain,
        signal_to_noise=snr,
    )


def _finer(movie: BandMovie, layout: PatchLayout, start: GlobalAlignment) -> PatchLayout:
    """Smaller patches for the refinement, which trusts no patch alone: they blur the field less and reach nearer to
    the edges."""
    counts = tuple(math.ceil(FINER * count) for count in layout.counts)
    patch_A = min(layout.size) * movie.band_pixel_A / FINER
    return lay_patches(movie, start.shifts_px, patch_A, (counts[0], counts[1])) or layout


@dataclass(frozen=True)
class _Joint:
    """Outcome of the refinement in band pixels: per-frame shifts with the field and without any."""

    shifts: np.ndarray
    coefficients: np.ndarray
    shifts_alone: np.ndarray
    gain: float
    signal_to_noise: np.ndarray


def _refine(patches: Patches, field: FieldBasis, coefficients: np.ndarray) -> _Joint:
    """Joint refinement from the pairwise field; gain in log-likelihood over the best shifts without a field."""
    band = patches.band
    n, n_patches = len(field.temporal), len(field.spatial)
    shifts = np.zeros((n, 2))
    # Unnormalised transforms: the windows are the mean of the products, the likelihood is their sum.
    likelihood = np.full((n_patches, len(patches.pairs)), float(np.prod(band.size)))
    radius = WINDOW_A / patches.movie.band_pixel_A
    for _ in range(MAX_ROUNDS):
        now = shifts + field.field(coefficients)
        matched = matched_weight(
            band, *patches.power(now), n, patches.movie.pixel_size_A / LOW_CUT_A, patches.start.axes
        )
        if not matched.weight.any():
            nothing = np.zeros((n, 2))
            return _Joint(nothing, np.zeros_like(coefficients), nothing, 0.0, matched.signal_to_noise)
        windows = patches.correlate(matched.weight, radius, WINDOW_STEP, now)
        refined = refine_field(windows, likelihood, matched.curvature, field, shifts, coefficients)
        shifts, coefficients = refined.shifts, refined.coefficients
        if np.abs(shifts + field.field(coefficients) - now).max() < radius / 2:
            break
    best = log_likelihood(band, matched.weight, patches.power(shifts + field.field(coefficients))[0])
    still = np.zeros((n_patches, n, 2))
    gain = n_patches * (best - log_likelihood(band, matched.weight, patches.power(still)[0]))
    alone = np.zeros((n, 2))
    if gain < CLEAR_GAIN * coefficients.size:
        # A part of the gain may be better shifts of whole frames: compare with those.
        windows = patches.correlate(matched.weight, radius, WINDOW_STEP)
        alone = refine_shifts(windows, likelihood, alone)
        gain = n_patches * (best - log_likelihood(band, matched.weight, patches.power(still + alone)[0]))
    return _Joint(shifts, coefficients, alone, gain, matched.signal_to_noise)


def _centred(shifts: np.ndarray) -> np.ndarray:
    return shifts - shifts.mean(axis=-2, keepdims=True)
