"""Shift of every whole frame (Strelak 2020, section 2.1.1)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Optional, Tuple

import numpy as np

from .band_movie import BandMovie
from .lowpass import checkerboard_split, lowpass
from .pairwise import PairSolution, all_pairs, reference_frame, solve_pairs
from .refine import (
    ALWAYS_USED_A,
    LOW_CUT_A,
    WINDOW_A,
    WINDOW_STEP,
    WeightedSpectra,
    refine_shifts,
    shift_errors,
    weighted_spectra,
)
from .search import search_drift

# Frames far apart may have drifted further than the bound on consecutive frames: up to this many times.
SEARCH_BOUNDS = 4.0
SECOND_SEARCH = 0.25  # of the bound: search radius around what the first solution predicts
# With more pairs rejected than this the axes of the spectrum are tried as well, then a search over all pairs at once.
POOR_REJECTION = 0.3
CLEAR_SIGMA = (
    5.0  # of the noise, by which the frames' common power must rise in frequencies that the search did not see
)
# A bound that may grow does so when any frame is lost: more than half of its pairs are far from the solution.
LOST_PAIRS = 0.5
STRAY_DISTANCE_PX = (
    1.0  # band pixels; few maxima of noise lie nearer, though all are searched within a few pixels at last
)
GROWTH = 4.0
LARGEST_WINDOWS = 1e8  # samples of all pairs' correlations: 0.4 GB


@dataclass(frozen=True)
class GlobalAlignment:
    """Whole-frame shifts.

    Attributes
    ----------
    shifts_px : (n, 2) float64 (sy, sx), unbinned pixels, zero at the reference frame.
    reference : index of the reference frame within the aligned ones.
    axes : whether the spectrum's axes were used (`band.unusable`).
    rejected : fraction of pairs that the solution contradicts.
    frames_rejected : (n,) fraction of rejected pairs of each frame; None where it is not known.
    on_rim : fraction of pairs without a maximum inside the search radius.
    residual_px : standard deviation of the pairs' residuals.
    significance : median over the pairs of peak height / noise.
    by_search : the pairs contradicted each other and the shifts come from the joint search.
    is_measured : False when the joint search found nothing either: the shifts are zero then.
    shift_sigma_px : (n, 2) standard errors of the shifts, their mean over the frames aside; None if not refined.
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
    """Shifts of all frames from the correlation of all pairs.

    Parameters
    ----------
    max_res_A : resolution of the comparison (half height of the low-pass).
    max_shift_A : bound on the shift between consecutive frames.
    growing : take a larger bound where frames find no partner within this one.

    Notes
    -----
    A larger bound finds more maxima of noise too, and they contradict each other less, as all is possible. So it is
    taken only if shifts that were found with one half of the frequencies align the other half clearly better.
    """
    bound = max_shift_A / movie.band_pixel_A
    found = replace(_align_within(movie, max_res_A, bound), max_shift_A=max_shift_A)
    return _with_larger_bound(movie, max_res_A, bound, found) if growing and found.lost else found


def _with_larger_bound(movie: BandMovie, max_res_A: float, bound: float, found: GlobalAlignment) -> GlobalAlignment:
    """What a larger bound finds if it is better, or else what was found."""
    n = movie.n
    side = min(min(movie.band.size), np.sqrt(LARGEST_WINDOWS / (n * (n - 1) / 2)))
    larger = min(GROWTH * bound, side / 2 / SEARCH_BOUNDS)
    if larger <= bound:
        return found
    weight = lowpass(movie.band, movie.pixel_size_A, max_res_A, found.axes) ** 2
    seen, unseen = checkerboard_split(weight)
    before, after = (
        _clearness(movie, unseen, alignment.shifts_px / movie.band.scale)
        for alignment in (found, _align_pairs(movie, seen, larger))
    )
    # Two alignments that differ in k frames have all other pairs in common, noise included: of the n^2 products of
    # frames that make up the clearness, some 2 k n differ, in both.
    if after < max(before, 0.0) + CLEAR_SIGMA * min(1.0, 2 * np.sqrt(found.lost / n)):
        return found
    grown = _align_pairs(movie, weight, larger)
    return replace(grown, axes=found.axes, max_shift_A=larger * movie.band_pixel_A)


def _align_within(movie: BandMovie, max_res_A: float, max_shift: float) -> GlobalAlignment:
    """Shifts found with this bound on consecutive frames, in band pixels.

    Notes
    -----
    The axes of the spectrum are left out first: detector patterns lie there. Only when the pairs then contradict each
    other are they tried, and kept if that at least halves the contradictions (structure along rows and columns). When
    the pairs still contradict each other, all of them are searched together, with and without the axes, and the
    outcome is accepted only if it holds in frequencies that the search did not use. Otherwise the shifts are zero:
    the frames are better summed as they are than moved by noise.
    """
    found = _align_pairs(movie, lowpass(movie.band, movie.pixel_size_A, max_res_A) ** 2, max_shift)
    if found.rejected <= POOR_REJECTION:
        return found
    with_axes = lowpass(movie.band, movie.pixel_size_A, max_res_A, axes=True) ** 2
    other = _align_pairs(movie, with_axes, max_shift)
    if other.rejected < 0.5 * found.rejected:
        return replace(other, axes=True)
    searched = [
        _search(movie, lowpass(movie.band, movie.pixel_size_A, max_res_A, axes) ** 2, max_shift)
        for axes in (False, True)
    ]
    best = int(searched[1][0] > searched[0][0])
    clearness, shifts = searched[best]
    is_measured = clearness > CLEAR_SIGMA
    if not is_measured:
        shifts = np.zeros_like(shifts)
    return replace(
        _from_reference(found, shifts * movie.band.scale), axes=bool(best), by_search=True, is_measured=is_measured
    )


def refine_globally(movie: BandMovie, start: GlobalAlignment) -> GlobalAlignment:
    """Whole-frame shifts of highest likelihood (`refine`), near those of the pairs."""
    band = movie.band
    shifts = start.shifts_px / band.scale
    weighted = _weighted_spectra(movie, start)
    if not weighted.weight.any():
        return start
    pairs = all_pairs(movie.n)
    windows = movie.backend.correlate(
        movie.spectra, band.size, weighted.weight, pairs, WINDOW_A / movie.band_pixel_A, WINDOW_STEP, shifts[None]
    )
    likelihood = np.full((1, len(pairs)), float(np.prod(band.size)))
    shifts = refine_shifts(windows, likelihood, shifts)
    sigma = shift_errors(windows, likelihood, shifts[None], movie.n * weighted.curvature)
    return replace(_from_reference(start, shifts * band.scale), shift_sigma_px=sigma * band.scale)


def signal_end_A(movie: BandMovie, alignment: GlobalAlignment) -> float:
    """Finest resolution at which frames with these shifts show a common signal; local motion hides what is finer."""
    rings = max(_weighted_spectra(movie, alignment).end, 1)
    return min(movie.band.full) * movie.pixel_size_A / rings


def _weighted_spectra(movie: BandMovie, alignment: GlobalAlignment) -> WeightedSpectra:
    shifts = alignment.shifts_px[None] / movie.band.scale
    of_sum, of_each = movie.backend.power(movie.spectra, movie.band.size, shifts)
    low, always = movie.pixel_size_A / LOW_CUT_A, movie.pixel_size_A / ALWAYS_USED_A
    return weighted_spectra(movie.band, of_sum, of_each, movie.n, low, alignment.axes, always=always)


def _align_pairs(movie: BandMovie, weight: np.ndarray, max_shift: float) -> GlobalAlignment:
    pairs = all_pairs(movie.n)
    bounds = np.minimum((pairs[:, 1] - pairs[:, 0]) * max_shift, SEARCH_BOUNDS * max_shift)
    radius = min(bounds.max() + 3, min(movie.band.size) // 2 - 1)
    windows = movie.backend.correlate(movie.spectra, movie.band.size, weight, pairs, radius)
    # All of them first, then near what the robust solution predicts: this recovers pairs whose true maximum was not
    # the highest one.
    solution, _ = solve_peaks(movie.n, pairs, windows.peaks())
    predicted = solution.shifts[:, pairs[:, 1]] - solution.shifts[:, pairs[:, 0]]
    solution, peaks = solve_peaks(movie.n, pairs, windows.peaks(predicted, max(SECOND_SEARCH * max_shift, 3.0)))
    rejected = np.bincount(pairs[solution.weights[0] == 0].ravel(), minlength=movie.n) / max(movie.n - 1, 1)
    found = GlobalAlignment(
        shifts_px=solution.shifts[0] * movie.band.scale,
        reference=0,
        rejected=float(solution.rejected[0]),
        on_rim=float(peaks.on_rim.mean()),
        residual_px=float(solution.residual_sd[0] * movie.band.scale.mean()),
        significance=float(np.median(_significance(peaks))),
        lost=_lost(movie.n, pairs, solution.shifts[0], peaks),
        frames_rejected=rejected,
    )
    return _from_reference(found, found.shifts_px)


def _search(movie: BandMovie, weight: np.ndarray, max_shift: float) -> Tuple[float, np.ndarray]:
    """Joint search on one half of the frequencies: how clearly the other half confirms it, in sds, and the shifts."""
    n, size = movie.n, movie.band.size
    seen, unseen = checkerboard_split(weight)
    reach = min(SEARCH_BOUNDS * max_shift, min(size) // 2 - 4)
    windows = movie.backend.correlate(movie.spectra, size, seen, all_pairs(n), reach + 3)
    # The half that the search did not see also decides how freely the frames may move.
    found = ((_clearness(movie, unseen, shifts), shifts) for shifts in search_drift(windows, n, reach))
    return max(found, key=lambda c: c[0])


def _clearness(movie: BandMovie, weight: np.ndarray, shifts: np.ndarray) -> float:
    """By how many sds the weighted frequencies' common power, of frames moved by shifts (n, 2), exceeds noise."""
    of_sum, of_each = movie.backend.power(movie.spectra, movie.band.size, shifts[None])
    # Without common signal |sum F|^2 - sum |F|^2 has mean 0 and variance n (n - 1) N^2 in every coefficient.
    sd = np.sqrt(((weight * of_each / movie.n) ** 2).sum() * movie.n * (movie.n - 1))
    return float((weight * (of_sum - of_each)).sum() / max(sd, 1e-30))


def _lost(n: int, pairs: np.ndarray, shifts: np.ndarray, peaks: Any) -> int:
    """Number of frames with most of their pairs on the rim or far from what the shifts (n, 2) say."""
    away = np.linalg.norm(shifts[pairs[:, 1]] - shifts[pairs[:, 0]] - peaks.position[0], axis=1)
    far = pairs[peaks.on_rim[0] | (away > STRAY_DISTANCE_PX)]
    return int(np.count_nonzero(np.bincount(far.ravel(), minlength=n) > LOST_PAIRS * (n - 1)))


def _from_reference(alignment: GlobalAlignment, shifts_px: np.ndarray) -> GlobalAlignment:
    """The alignment with these shifts, counted from the reference frame that suits them."""
    reference = reference_frame(shifts_px)
    return replace(alignment, shifts_px=shifts_px - shifts_px[reference], reference=reference)


def solve_peaks(n: int, pairs: np.ndarray, peaks: Any) -> Tuple[PairSolution, Any]:
    """Solution of the pair equations that the peaks (batch, n_pairs) give, and the peaks.

    An equation weighs as the squared significance of its peak; a peak on the rim measures nothing and weighs 0.
    """
    weights = np.where(peaks.on_rim, 0.0, np.clip(_significance(peaks), 0, None) ** 2)
    return solve_pairs(n, pairs, peaks.position, weights), peaks


def _significance(peaks: Any) -> np.ndarray:
    return peaks.height / np.where(peaks.noise > 0, peaks.noise, np.inf)
