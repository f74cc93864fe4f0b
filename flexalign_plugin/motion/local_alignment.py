"""The local motion: shifts of patches and one spline fitted to them (Strelak 2020, section 2.1.2), then refinement.

The patches are cut from frames that are already moved by their global shifts, so the field is the local shift relative
to the global one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Optional, Tuple

import numpy as np

from ..backend import AlignedPower, CorrelationWindows
from ..band import Band
from .band_movie import BandMovie
from .evidence import FINER_SPANS, field_variance, finer, space_modes, spaces_to_try, time_modes, times_to_try
from .global_alignment import GlobalAlignment, solve_peaks
from .lowpass import checkerboard_split, lowpass
from .pairwise import all_pairs
from .patches import PatchLayout, lay_patches
from .refine import (
    ALWAYS_USED_A,
    FAR_A,
    LOW_CUT_A,
    Likelihood,
    misfit,
    refine_field,
    refine_shifts,
    weighted_spectra,
)
from .spline_fit import field_basis, fit_field

FIT_SMOOTHNESS = 1e-4  # relative to the data: affects only what the data do not determine
SECOND_SEARCH_A = 12.0
MAX_ROUNDS = 3
SIGMA_MESH = 33
FINER = 2.0  # ratio of the patch sizes of the pair search and of the refinement


@dataclass(frozen=True)
class LocalAlignment:
    """Global shifts of the frames and the local motion field, which is added to them.

    Attributes
    ----------
    shifts_px : (n, 2) refined global shifts, unbinned pixels.
    coefficients_px : (2, KT, KY, KX) of the field (equation 4), or None if no local motion was detected.
    layout : the patches.
    patch_shifts_px : (p, n, 2) measured shifts of the patches, global shift included, zero mean over frames.
    rejected : fraction of the pair equations of the patches that were rejected.
    patches_rejected : (p,) the same for each patch.
    log_evidence : natural logarithm of the Bayesian evidence for the field relative to no field; 0 without refinement.
    shift_sigma_px : (n, 2) standard errors of the shifts, without their mean over the frames; None without refinement.
    field_sigma_px : (SIGMA_MESH, SIGMA_MESH) standard error of the field on a mesh over the frame: length of the error
        vector, rms over the frames; None without a refined field.
    misfit_px : rms length of the motion of patches that the spline does not follow; 0 if not significant.
    """

    shifts_px: np.ndarray
    coefficients_px: Optional[np.ndarray]
    layout: PatchLayout
    patch_shifts_px: np.ndarray
    rejected: float
    patches_rejected: np.ndarray
    log_evidence: float
    shift_sigma_px: Optional[np.ndarray] = None
    field_sigma_px: Optional[np.ndarray] = None
    misfit_px: float = 0.0


class Patches:
    """Spectra of the patches of all frames, moved by their global shifts, on the movie's device."""

    def __init__(self, movie: BandMovie, layout: PatchLayout, start: GlobalAlignment, pairs: np.ndarray):
        scale = movie.band.scale
        self.movie, self.start, self.pairs = movie, start, pairs
        self.layout = layout
        self.band = Band((round(layout.size[0] * scale[0]), round(layout.size[1] * scale[1])), layout.size)
        self._spectra = movie.backend.patch_spectra(
            movie.spectra, movie.band, start.shifts_px / scale, layout.corners, layout.size
        )

    @property
    def covered_px(self) -> float:
        """Area between the outer edges of the outer patches, in band pixels."""
        corners, size = self.layout.corners, self.layout.size
        return float(np.prod(np.ptp(corners, axis=0) + np.array(size)))

    def correlate(
        self, weight: np.ndarray, radius: float, step: float = 1.0, shifts: Optional[np.ndarray] = None, group: int = 1
    ) -> CorrelationWindows:
        """`Backend.correlate` of all pairs."""
        return self.movie.backend.correlate(
            self._spectra, self.band.size, weight, self.pairs, radius, step, shifts, group
        )

    def aligned_power(self, weight: np.ndarray) -> AlignedPower:
        """`Backend.aligned_power`."""
        return self.movie.backend.aligned_power(self._spectra, self.band.size, weight)

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
    choose_points: bool = False,
) -> LocalAlignment:
    """Local motion: shifts of all patches (equations 1 to 3) and one spline fitted to them (equation 4).

    Parameters
    ----------
    layout : the patches. start : the global alignment.
    max_res_A : resolution of the comparison. max_shift_A : largest shift between two frames of a patch.
    group : number of frames that are averaged before patches are compared.
    control_points : (KT, KY, KX).
    refinement : maximise the joint likelihood, starting from the pairwise solution.
    choose_points : the refinement may use more control points if the Bayesian evidence is larger with them.
    """
    n, scale = movie.n, movie.band.scale
    pairs = all_pairs(n)
    patches = Patches(movie, layout, start, pairs)
    field = field_basis(control_points, n, movie.frame_shape, layout.centres_px)
    weight = lowpass(patches.band, movie.pixel_size_A, max_res_A, start.axes) ** 2
    radius = min(max_shift_A / movie.band_pixel_A, min(layout.size) / 2 - 3)
    windows = patches.correlate(weight, radius, group=group)

    solution, _ = solve_peaks(n, pairs, windows.peaks())
    coefficients, _ = fit_field(field, solution.shifts, solution.precision, FIT_SMOOTHNESS)
    predicted = field.field(coefficients)
    predicted = predicted[:, pairs[:, 1]] - predicted[:, pairs[:, 0]]
    solution, _ = solve_peaks(n, pairs, windows.peaks(predicted, SECOND_SEARCH_A / movie.band_pixel_A))
    coefficients, _ = fit_field(field, solution.shifts, solution.precision, FIT_SMOOTHNESS)

    shifts_px, joint = start.shifts_px, None
    final: Optional[np.ndarray] = coefficients.reshape(2, *control_points)
    if refinement:
        del patches, windows
        smaller = _finer(movie, layout, start)
        measured = field_basis(control_points, n, movie.frame_shape, smaller.centres_px).field(coefficients)
        joint = _refine(Patches(movie, smaller, start, pairs), control_points, choose_points, measured)
        shifts_px = shifts_px + joint.shifts * scale
        final = joint.coefficients
    return LocalAlignment(
        shifts_px=shifts_px,
        coefficients_px=None if final is None else final * scale[:, None, None, None],
        layout=layout,
        patch_shifts_px=_centred(start.shifts_px) + _centred(solution.shifts * scale),
        rejected=float(solution.rejected.mean()),
        patches_rejected=solution.rejected,
        log_evidence=joint.log_evidence if joint else 0.0,
        shift_sigma_px=joint.shift_sigma * scale if joint and joint.shift_sigma is not None else None,
        field_sigma_px=joint.field_sigma_px if joint else None,
        misfit_px=joint.misfit_px if joint else 0.0,
    )


def finest_control_points(
    points: Tuple[int, int, int], patches: Tuple[int, int], n_frames: int
) -> Tuple[int, int, int]:
    """Largest (KT, KY, KX) that the refinement uses, starting from `points`, for (n_y, n_x) patches."""
    factor = max(FINER_SPANS)
    ky, kx = (finer(k, factor, math.ceil(FINER * count)) for k, count in zip(points[1:], patches))
    return finer(points[0], factor, n_frames), ky, kx


def _finer(movie: BandMovie, layout: PatchLayout, start: GlobalAlignment) -> PatchLayout:
    """Smaller patches for the refinement, which does not need reliable shifts of single patches.

    They blur the field less and reach nearer to the edges.
    """
    counts = tuple(math.ceil(FINER * count) for count in layout.counts)
    patch_A = min(layout.size) * movie.band_pixel_A / FINER
    return lay_patches(movie, start.shifts_px, patch_A, (counts[0], counts[1])) or layout


@dataclass(frozen=True)
class _Joint:
    """Result of the refinement in band pixels; `coefficients` is None if no local motion was detected."""

    shifts: np.ndarray
    coefficients: Optional[np.ndarray]
    log_evidence: float
    shift_sigma: Optional[np.ndarray] = None
    field_sigma_px: Optional[np.ndarray] = None
    misfit_px: float = 0.0


def _refine(patches: Patches, points: Tuple[int, int, int], choose_points: bool, field: np.ndarray) -> _Joint:
    """Joint refinement from the pairwise field (p, n, 2), with these numbers of control points or larger ones."""
    band = patches.band
    n_patches, n = field.shape[:2]
    shifts = np.zeros((n, 2))
    # Where patches overlap the same pixels occur several times; `counted` corrects the likelihood for this.
    counted = min(1.0, patches.covered_px / (n_patches * float(np.prod(band.size))))
    far = FAR_A / patches.movie.band_pixel_A
    times = times_to_try(points[0], n) if choose_points else [time_modes(points[0], n)]
    for _ in range(MAX_ROUNDS):
        now = shifts + field
        weighted = weighted_spectra(
            band,
            *patches.power(now),
            n,
            patches.movie.pixel_size_A / LOW_CUT_A,
            patches.start.axes,
            images=counted * n_patches,
            always=patches.movie.pixel_size_A / ALWAYS_USED_A,
        )
        if not weighted.weight.any():
            return _Joint(np.zeros((n, 2)), None, 0.0)
        power = patches.aligned_power(weighted.weight)
        values, slopes = power.slopes(now)
        # The weights of the frequencies are those of the mean signal. Each patch is weighted by its own signal.
        strengths = weighted.strengths(values)
        information_of_patch = weighted.information(strengths)
        level = information_of_patch.mean()
        where = patches.movie.frame_shape, patches.layout.centres_px, information_of_patch / level
        if choose_points:
            spaces = spaces_to_try(points[1:], patches.layout.counts, *where)
        else:
            spaces = [space_modes(points[1:], *where)]
        data = n * counted * level * weighted.curvature
        likelihood = Likelihood(power, counted * information_of_patch / strengths, data)
        slope = likelihood.factors[:, None, None] * slopes
        refined = refine_field(likelihood, times, spaces, information_of_patch / level, shifts, field, slope)
        shifts, field = refined.shifts, refined.posterior.modes.field(refined.amplitudes)
        if np.abs(shifts + field - now).max() < far:
            break
    posterior = refined.posterior
    if posterior.log_evidence > 0:
        coefficients = posterior.modes.coefficients(refined.amplitudes).reshape(2, *posterior.modes.control_points)
        sigma = likelihood.errors(shifts + field)
        variance = field_variance(posterior, data, patches.movie.frame_shape, SIGMA_MESH)
        scale = patches.movie.band.scale
        lengths = np.sqrt((variance * scale[:, None, None] ** 2).sum(axis=0))
        black = replace(likelihood, power=patches.aligned_power(checkerboard_split(weighted.weight)[0]))
        half = black.slopes(shifts + field)[1]
        mean_square = misfit(posterior.modes, half, refined.slope - half, data, counted)
        misfit_px = float(np.sqrt((mean_square * scale**2).sum()))
        return _Joint(shifts, coefficients, posterior.log_evidence, sigma, lengths, misfit_px)
    alone = refine_shifts(likelihood, np.zeros((n, 2)))
    sigma = likelihood.errors(np.tile(alone, (n_patches, 1, 1)))
    return _Joint(alone, None, posterior.log_evidence, sigma)


def _centred(shifts: np.ndarray) -> np.ndarray:
    """Shifts (..., n, 2) without their mean over the frames."""
    return shifts - shifts.mean(axis=-2, keepdims=True)
