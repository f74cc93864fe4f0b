"""Shift of every whole frame (Strelak 2020, section 2.1.1, equations 1 to 3)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Optional, Tuple

import numpy as np

from ..backend import Peaks
from .band_movie import BandMovie
from .lowpass import checkerboard_split, lowpass
from .pairwise import PairSolution, all_pairs, middle_most, solve_pairs
from .refine import (
    ALWAYS_USED_A,
    LOW_CUT_A,
    Likelihood,
    WeightedSpectra,
    refine_shifts,
    weighted_spectra,
)
from .search import search_drift

# The search range of pairs of distant frames, at most this many times the bound on consecutive frames.
SEARCH_BOUNDS = 4.0
SECOND_SEARCH = 0.25  # search radius around the shifts predicted by the first solution, relative to the bound
# If more pairs are rejected than this, the axes of the spectrum are used as well, then all pairs are searched jointly.
POOR_REJECTION = 0.3
# Standard deviations of the noise that the common power of the frames must exceed in frequencies not used before.
CLEAR_SIGMA = 5.0
# A bound that may grow is increased if a frame is lost: more than this fraction of its pairs is far from the solution.
LOST_PAIRS = 0.5
STRAY_DISTANCE_PX = 1.0  # band pixels; a pair's maximum further than this from the solution counts as far
GROWTH = 4.0
LARGEST_WINDOWS = 1e8  # samples of all pairs' correlations: 0.4 GB


@dataclass(frozen=True)
class GlobalAlignment:
    """Whole-frame shifts.

    Attributes
    ----------
    shifts_px : (n, 2) float64 (sy, sx), unbinned pixels, zero at the reference frame.
    reference : index of the reference frame within the aligned ones.
    axes : whether the spectrum's axes were used (`lowpass.unusable`).
    rejected : fraction of the pairs that were rejected as outliers.
    frames_rejected : (n,) fraction of rejected pairs of each frame; None if not known.
    on_rim : fraction of pairs without a maximum inside the search radius.
    residual_px : standard deviation of the residuals of the accepted pairs, unbinned pixels.
    significance : median over the pairs of peak height / noise.
    by_search : whether the shifts come from the joint search, because too many pairs were rejected.
    is_measured : False if the joint search detected no motion either; the shifts are zero then.
    shift_sigma_px : (n, 2) standard errors of the shifts, without their mean over the frames; None if not refined.
    lost : number of frames with most of their pairs on the rim or far from the solution.
    max_shift_A : the bound on the shift between consecutive frames that was used.
    """

    shifts_px: np.ndarray
    reference: int
    rejected: float
    on_rim: float
    residual_px: float
    significance: float
    axes: bool = False
    by_search: bool = False
    is_measured: bool = True
    frames_rejected: Optional[np.ndarray] = None
    shift_sigma_px: Optional[np.ndarray] = None
    lost: int = 0
    max_shift_A: float = 0.0


def align_globally(movie: BandMovie, max_res_A: float, max_shift_A: float, growing: bool = False) -> GlobalAlignment:
    """Shifts of all frames from the correlation of all pairs (Strelak 2020, section 2.1.1), zero in the first frame.

    Parameters
    ----------
    max_res_A : resolution of the comparison (half height of the low-pass).
    max_shift_A : bound on the shift between consecutive frames.
    growing : increase the bound if frames cannot be aligned within it.

    Notes
    -----
    A larger search range contains more maxima of noise, and these contradict each other less. The larger bound is
    therefore used only if shifts estimated from one set of frequencies align the other set significantly better.
    """
    bound = max_shift_A / movie.band_pixel_A
    alignment = replace(_align_within(movie, max_res_A, bound), max_shift_A=max_shift_A)
    return _with_larger_bound(movie, max_res_A, bound, alignment) if growing and alignment.lost else alignment


def _with_larger_bound(movie: BandMovie, max_res_A: float, bound: float, within: GlobalAlignment) -> GlobalAlignment:
    """The alignment with a larger bound if it is significantly better than `within`, or else `within`."""
    n = movie.n
    side = min(min(movie.band.size), np.sqrt(LARGEST_WINDOWS / (n * (n - 1) / 2)))
    larger = min(GROWTH * bound, side / 2 / SEARCH_BOUNDS)
    if larger <= bound:
        return within
    weight = lowpass(movie.band, movie.pixel_size_A, max_res_A, within.axes) ** 2
    seen, unseen = checkerboard_split(weight)
    before, after = (
        _significance_of_sum(movie, unseen, alignment.shifts_px / movie.band.scale)
        for alignment in (within, _align_pairs(movie, seen, larger))
    )
    # Alignments that differ only in k frames share the other pairs and their noise: about 2 k n of the n^2 products of
    # frames in the significance differ.
    if after < max(before, 0.0) + CLEAR_SIGMA * min(1.0, 2 * np.sqrt(within.lost / n)):
        return within
    grown = _align_pairs(movie, weight, larger)
    return replace(grown, axes=within.axes, max_shift_A=larger * movie.band_pixel_A)


def _align_within(movie: BandMovie, max_res_A: float, max_shift: float) -> GlobalAlignment:
    """Alignment with this bound on the shift between consecutive frames, in band pixels.

    Notes
    -----
    The axes of the spectrum are excluded first, because they contain detector patterns. If too many pairs are rejected,
    the axes are included, and kept if this at least halves the number of rejected pairs (structure along rows and
    columns). If still too many pairs are rejected, all pairs are searched jointly, with and without the axes. The
    result is accepted only if it is significant in frequencies that the search did not use. Otherwise the shifts are
    zero and the frames stay uncorrected.
    """
    without_axes = _align_pairs(movie, lowpass(movie.band, movie.pixel_size_A, max_res_A) ** 2, max_shift)
    if without_axes.rejected <= POOR_REJECTION:
        return without_axes
    weight = lowpass(movie.band, movie.pixel_size_A, max_res_A, axes=True) ** 2
    with_axes = _align_pairs(movie, weight, max_shift)
    if with_axes.rejected < 0.5 * without_axes.rejected:
        return replace(with_axes, axes=True)
    searched = [
        _search(movie, lowpass(movie.band, movie.pixel_size_A, max_res_A, axes) ** 2, max_shift)
        for axes in (False, True)
    ]
    best = int(searched[1][0] > searched[0][0])
    significance, shifts = searched[best]
    is_measured = significance > CLEAR_SIGMA
    if not is_measured:
        shifts = np.zeros_like(shifts)
    return replace(
        without_axes,
        shifts_px=_from_first(shifts * movie.band.scale),
        axes=bool(best),
        by_search=True,
        is_measured=is_measured,
    )


def refine_globally(movie: BandMovie, start: GlobalAlignment) -> GlobalAlignment:
    """Whole-frame shifts of maximum likelihood (`refine`), with standard errors, starting from those of the pairs."""
    band = movie.band
    shifts = start.shifts_px / band.scale
    weighted = _weighted_spectra(movie, start)
    if not weighted.weight.any():
        return start
    power = movie.backend.aligned_power(movie.spectra, band.size, weighted.weight)
    likelihood = Likelihood(power, np.ones(1), movie.n * weighted.curvature)
    shifts = refine_shifts(likelihood, shifts)
    sigma = likelihood.errors(shifts[None])
    shifts_px = shifts * band.scale
    return replace(start, shifts_px=shifts_px - shifts_px[start.reference], shift_sigma_px=sigma * band.scale)


def signal_end_A(movie: BandMovie, alignment: GlobalAlignment) -> float:
    """Finest resolution in A at which frames moved by their global shifts show a common signal."""
    rings = max(_weighted_spectra(movie, alignment).end, 1)
    return min(movie.band.full) * movie.pixel_size_A / rings


def _weighted_spectra(movie: BandMovie, alignment: GlobalAlignment) -> WeightedSpectra:
    shifts = alignment.shifts_px[None] / movie.band.scale
    of_sum, of_each = movie.backend.power(movie.spectra, movie.band.size, shifts)
    low, always = movie.pixel_size_A / LOW_CUT_A, movie.pixel_size_A / ALWAYS_USED_A
    return weighted_spectra(movie.band, of_sum, of_each, movie.n, low, alignment.axes, always=always)


def _align_pairs(movie: BandMovie, weight: np.ndarray, max_shift: float) -> GlobalAlignment:
    """Equations 1 to 3 with this weight of the frequencies and this bound on consecutive frames, in band pixels."""
    pairs = all_pairs(movie.n)
    bounds = np.minimum((pairs[:, 1] - pairs[:, 0]) * max_shift, SEARCH_BOUNDS * max_shift)
    radius = min(bounds.max() + 3, min(movie.band.size) // 2 - 1)
    windows = movie.backend.correlate(movie.spectra, movie.band.size, weight, pairs, radius)
    # First the highest maximum of each window, then the highest near the shift that the solution predicts. This
    # recovers pairs whose true maximum was not the highest one.
    solution, _ = solve_peaks(movie.n, pairs, windows.peaks())
    predicted = solution.shifts[:, pairs[:, 1]] - solution.shifts[:, pairs[:, 0]]
    solution, peaks = solve_peaks(movie.n, pairs, windows.peaks(predicted, max(SECOND_SEARCH * max_shift, 3.0)))
    rejected = np.bincount(pairs[solution.weights[0] == 0].ravel(), minlength=movie.n) / max(movie.n - 1, 1)
    return GlobalAlignment(
        shifts_px=_from_first(solution.shifts[0] * movie.band.scale),
        reference=0,
        rejected=float(solution.rejected[0]),
        on_rim=float(peaks.on_rim.mean()),
        residual_px=float(solution.residual_sd[0] * movie.band.scale.mean()),
        significance=float(np.median(_significance(peaks))),
        lost=_lost(movie.n, pairs, solution.shifts[0], peaks),
        frames_rejected=rejected,
    )


def _search(movie: BandMovie, weight: np.ndarray, max_shift: float) -> Tuple[float, np.ndarray]:
    """Joint search on one set of frequencies: its significance in the other set, in standard deviations, and shifts."""
    n, size = movie.n, movie.band.size
    seen, unseen = checkerboard_split(weight)
    reach = min(SEARCH_BOUNDS * max_shift, min(size) // 2 - 4)
    windows = movie.backend.correlate(movie.spectra, size, seen, all_pairs(n), reach + 3)
    # The set that the search did not use also determines the number of control points in time.
    candidates = ((_significance_of_sum(movie, unseen, shifts), shifts) for shifts in search_drift(windows, n, reach))
    return max(candidates, key=lambda candidate: candidate[0])


def _significance_of_sum(movie: BandMovie, weight: np.ndarray, shifts: np.ndarray) -> float:
    """Weighted common power of the frames moved by shifts (n, 2), in standard deviations of the noise."""
    of_sum, of_each = movie.backend.power(movie.spectra, movie.band.size, shifts[None])
    # Without common signal |sum F|^2 - sum |F|^2 has mean 0 and variance n (n - 1) N^2 in every coefficient.
    sd = np.sqrt(((weight * of_each / movie.n) ** 2).sum() * movie.n * (movie.n - 1))
    return float((weight * (of_sum - of_each)).sum() / max(sd, 1e-30))


def _lost(n: int, pairs: np.ndarray, shifts: np.ndarray, peaks: Peaks) -> int:
    """Number of frames with most of their pairs on the rim or far from the shifts (n, 2)."""
    away = np.linalg.norm(shifts[pairs[:, 1]] - shifts[pairs[:, 0]] - peaks.position[0], axis=1)
    far = pairs[peaks.on_rim[0] | (away > STRAY_DISTANCE_PX)]
    return int(np.count_nonzero(np.bincount(far.ravel(), minlength=n) > LOST_PAIRS * (n - 1)))


def relative_to_middle_most(alignment: GlobalAlignment) -> GlobalAlignment:
    """The alignment with its zero in the frame that is nearest to all others (`pairwise.middle_most`)."""
    reference = middle_most(alignment.shifts_px)
    return replace(alignment, shifts_px=alignment.shifts_px - alignment.shifts_px[reference], reference=reference)


def _from_first(shifts: np.ndarray) -> np.ndarray:
    return shifts - shifts[0]


def solve_peaks(n: int, pairs: np.ndarray, peaks: Peaks) -> Tuple[PairSolution, Peaks]:
    """Solution of the equations given by the peaks of all pairs (batch, n_pairs), and the peaks.

    The position of each peak is the right-hand side of equation 1. An equation is weighted with the squared
    significance of its peak. A peak on the rim of the search range is no measurement and has weight 0.
    """
    weights = np.where(peaks.on_rim, 0.0, np.clip(_significance(peaks), 0, None) ** 2)
    return solve_pairs(n, pairs, peaks.position, weights), peaks


def _significance(peaks: Peaks) -> np.ndarray:
    """Height of each peak in units of the noise around it."""
    return peaks.height / np.where(peaks.noise > 0, peaks.noise, np.inf)
