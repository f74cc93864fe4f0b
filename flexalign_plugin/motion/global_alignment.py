"""Shift of every whole frame (Strelak 2020, section 2.1.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Tuple

import numpy as np

from .band import Band, lowpass
from .pairwise import PairSolution, all_pairs, reference_frame, solve_pairs

# Frames far apart may have drifted further than the bound on consecutive frames: up to this many times.
MAX_SEARCH = 4.0
SECOND_SEARCH = 0.25  # of the bound: search radius around what the first solution predicts
POOR_REJECTION = 0.3  # with more pairs rejected than this the axes of the spectrum are tried as well


@dataclass(frozen=True)
class GlobalAlignment:
    """Whole-frame shifts.

    Attributes
    ----------
    shifts_px : (n, 2) float64 (sy, sx), unbinned pixels, zero at the reference frame.
    reference : index of the reference frame within the aligned ones.
    axes : whether the spectrum's axes were used (`band.unusable`).
    rejected : fraction of pairs that the solution contradicts.
    on_rim : fraction of pairs without a maximum inside the search radius.
    residual_px : standard deviation of the pairs' residuals.
    significance : median over the pairs of peak height / noise.
    """

    shifts_px: np.ndarray
    reference: int
    axes: bool
    rejected: float
    on_rim: float
    residual_px: float
    significance: float


def align_globally(
    backend: Any, spectra: Any, n: int, band: Band, pixel_size_A: float, max_res_A: float, max_shift_A: float
) -> GlobalAlignment:
    """Shifts of n frames from their cropped spectra.

    Parameters
    ----------
    spectra : (1, n, ...) from `backend.spectra`.
    max_res_A : resolution of the comparison (half height of the low-pass).
    max_shift_A : bound on the shift between consecutive frames.

    Notes
    -----
    The axes of the spectrum are left out first: detector patterns lie there. Only when the pairs then contradict each
    other are they tried, and kept if that at least halves the contradictions (structure along rows and columns).
    """
    found = _align(backend, spectra, n, band, pixel_size_A, max_res_A, max_shift_A, axes=False)
    if found.rejected > POOR_REJECTION:
        other = _align(backend, spectra, n, band, pixel_size_A, max_res_A, max_shift_A, axes=True)
        if other.rejected < 0.5 * found.rejected:
            return other
    return found


def _align(
    backend: Any, spectra: Any, n: int, band: Band, pixel_size_A: float, max_res_A: float, max_shift_A: float, axes: bool
) -> GlobalAlignment:
    pairs = all_pairs(n)
    weight = lowpass(band, pixel_size_A, max_res_A, axes) ** 2
    max_shift = max_shift_A / pixel_size_A / band.scale.mean()
    bounds = np.minimum((pairs[:, 1] - pairs[:, 0]) * max_shift, MAX_SEARCH * max_shift)
    radius = min(bounds.max() + 3, min(band.size) // 2 - 1)
    windows = backend.correlate(spectra, band.size, weight, pairs, radius)
    # All of them first, then near what the robust solution predicts: this recovers pairs whose true maximum was not
    # the highest one.
    solution, _ = solve_peaks(n, pairs, windows.peaks())
    predicted = solution.shifts[:, pairs[:, 1]] - solution.shifts[:, pairs[:, 0]]
    solution, peaks = solve_peaks(n, pairs, windows.peaks(predicted, max(SECOND_SEARCH * max_shift, 3.0)))
    shifts = solution.shifts[0] * band.scale
    reference = reference_frame(shifts)
    return GlobalAlignment(
        shifts_px=shifts - shifts[reference],
        reference=reference,
        axes=axes,
        rejected=float(solution.rejected[0]),
        on_rim=float(peaks.on_rim.mean()),
        residual_px=float(solution.residual_sd[0] * band.scale.mean()),
        significance=float(np.median(_significance(peaks))),
    )


def solve_peaks(n: int, pairs: np.ndarray, peaks: Any) -> Tuple[PairSolution, Any]:
    """Solution of the pair equations that the peaks (batch, n_pairs) give, and the peaks.

    An equation weighs as the squared significance of its peak; a peak on the rim measures nothing and weighs 0.
    """
    weights = np.where(peaks.on_rim, 0.0, np.clip(_significance(peaks), 0, None) ** 2)
    return solve_pairs(n, pairs, peaks.position, weights), peaks


def _significance(peaks: Any) -> np.ndarray:
    return peaks.height / np.where(peaks.noise > 0, peaks.noise, np.inf)
