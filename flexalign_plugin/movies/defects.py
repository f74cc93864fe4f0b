"""Defect pixels: detection of hot and dead pixels in the movie, and their replacement by good neighbours."""

from __future__ import annotations

from typing import Optional, Tuple

import numpy as np
from scipy.special import pdtrik

from ..backend import NeighbourTable
from ..jit import njit

SIX_SIGMA = 6.0
SIX_SIGMA_TAIL = 9.865876e-10  # of the normal distribution, one side
SAMPLE = 250_000  # pixels used for the statistics: sigma is accurate to 0.2 %
TRIM = 1e-3  # fraction of pixels left out at each end in the first estimate of an almost empty image
START_WIDTHS = 8.0  # first limits, in distances of the 10 and 90 % quantiles from the median
LARGE_MEAN = 1e5  # counts; above it the Poisson distribution is treated as normal
RADIUS = 3  # of the window in which a suspect is compared with its surroundings
MIN_NEIGHBOURS = 6
_NONE = np.zeros((0, 0), bool)


def find_hot_pixels(mean_frame: np.ndarray, known_defects: Optional[np.ndarray] = None) -> np.ndarray:
    """Hot and dead pixels in the mean of a movie's uncorrected frames.

    A pixel is a suspect if its value differs from the mean by more than six sigma. Mean and sigma are computed without
    the suspects, so that hot pixels don't inflate them. The distribution of few counts is skewed. Therefore "six sigma"
    is the limit that a Poisson variable of the same mean and sigma exceeds with the probability with which a normal
    variable exceeds six sigma (1e-9): mean +- 6 sigma for many counts; for few counts the upper limit is further from
    the mean and the lower limit is closer. A suspect is a defect if it differs as much from the median of its 7 x 7
    surroundings and at least half of these are no suspects: an empty hole or a gold bar is part of the picture.
    Clusters up to about 5 x 5 pixels are detected; larger ones need a defect map.

    Parameters
    ----------
    mean_frame : (ny, nx) float32, dark and gain corrected.
    known_defects : (ny, nx) bool; left out of all statistics and of the result.

    Returns
    -------
    (ny, nx) bool, true at the detected defects.
    """
    frame = np.ascontiguousarray(mean_frame, np.float32)
    ignored = _NONE if known_defects is None else np.ascontiguousarray(known_defects, bool)
    found = np.zeros(frame.shape, bool)
    sample = frame.reshape(-1)[:: max(frame.size // SAMPLE, 1)]
    good = np.isfinite(sample)
    if ignored.size:
        good &= ~ignored.reshape(-1)[:: max(frame.size // SAMPLE, 1)]
    sample = sample[good]
    if sample.size < 100:
        return found
    lowest, tenth, median, ninetieth, highest = np.quantile(sample, (TRIM, 0.1, 0.5, 0.9, 1 - TRIM))
    low, high = median + START_WIDTHS * (tenth - median), median + START_WIDTHS * (ninetieth - median)
    if tenth == ninetieth:  # nearly all pixels are empty
        low, high = lowest, highest
    counts = lowest >= 0
    mean, before = 0.0, -1
    for _ in range(20):
        n, mean, sigma = _moments(sample, low, high)
        if n == before:
            break
        before = n
        low, high = _six_sigma_limits(mean, sigma, counts)
    if not low < high:  # a constant image
        return found
    rows, cols = _suspects(frame, ignored, low, high)
    _confirm(frame, ignored, low, high, rows, cols, mean, found)
    return found


def _six_sigma_limits(mean: float, sigma: float, counts: bool) -> Tuple[float, float]:
    """Lower and upper limit, each exceeded by noise of this mean and sigma with a probability of 1e-9.

    counts : no value is negative, so that a skewed distribution is one of counts and not of noise around a background.
    """
    number = (mean / sigma) ** 2 if sigma > 0 else np.inf
    if not counts or mean <= 0 or number > LARGE_MEAN:
        return mean - SIX_SIGMA * sigma, mean + SIX_SIGMA * sigma
    unit = sigma**2 / mean  # value of one count
    below = pdtrik(SIX_SIGMA_TAIL, number)  # nan if 0 counts are more probable than that
    return unit * below if below >= 0 else -np.inf, unit * float(pdtrik(1 - SIX_SIGMA_TAIL, number))


@njit(nogil=True, fastmath={"reassoc", "nsz"})  # sums in any order
def _moments(sample, low, high):  # type: ignore[no-untyped-def]
    """Number, mean and standard deviation of the values between two limits (inclusive)."""
    low, high = np.float32(low), np.float32(high)
    n, total, squares = 0, 0.0, 0.0
    for v in sample:
        inside = (v >= low) & (v <= high)
        n += inside
        total += v if inside else 0.0
    mean = total / max(n, 1)
    for v in sample:
        d = v - mean if (v >= low) & (v <= high) else 0.0
        squares += d * d
    return n, mean, np.sqrt(squares / max(n, 1))


@njit(nogil=True)
def _suspects(frame, ignored, low, high):  # type: ignore[no-untyped-def]
    """Rows and columns of the pixels beyond the limits."""
    ny, nx = frame.shape
    low, high = np.float32(low), np.float32(high)
    found = np.empty((1024, 2), np.int64)
    n = 0
    for y in range(ny):
        row = frame[y]
        in_row = 0
        for x in range(nx):  # only a count, so that memory bandwidth is the limit
            in_row += (row[x] < low) | (row[x] > high)
        if in_row == 0:
            continue
        if n + in_row > len(found):
            larger = np.empty((2 * (n + in_row), 2), np.int64)
            larger[:n] = found[:n]
            found = larger
        for x in range(nx):
            if (row[x] < low or row[x] > high) and not (ignored.size and ignored[y, x]):
                found[n] = y, x
                n += 1
    return found[:n, 0].copy(), found[:n, 1].copy()


@njit(nogil=True)
def _confirm(frame, ignored, low, high, rows, cols, mean, found):  # type: ignore[no-untyped-def]
    """Set `found` for the suspects that stand out from their surroundings."""
    ny, nx = frame.shape
    above, below = high - mean, mean - low
    low, high = np.float32(low), np.float32(high)
    values = np.empty((2 * RADIUS + 1) ** 2, np.float32)
    for i in range(len(rows)):
        n, area = 0, -1
        for y in range(max(rows[i] - RADIUS, 0), min(rows[i] + RADIUS + 1, ny)):
            for x in range(max(cols[i] - RADIUS, 0), min(cols[i] + RADIUS + 1, nx)):
                area += 1
                v = frame[y, x]
                if not (v < low or v > high or (ignored.size and ignored[y, x])):
                    values[n] = v
                    n += 1
        if 2 * n < area or n == 0:
            continue
        around = np.median(values[:n])
        # Shot noise grows with the signal.
        wider = np.sqrt(max(around / mean, 1.0)) if mean > 0 else 1.0
        difference = frame[rows[i], cols[i]] - around
        found[rows[i], cols[i]] = difference > above * wider or -difference > below


def neighbour_table(defects: np.ndarray) -> NeighbourTable:
    """Good neighbours of each defect pixel: all within the smallest square around it that holds at least 6.

    Parameters
    ----------
    defects : (ny, nx) bool.

    Returns
    -------
    The table, in row order. If the whole image has fewer than 6 good pixels, all of them are neighbours.
    """
    defects = np.ascontiguousarray(defects, bool)
    flat = np.flatnonzero(defects)  # much faster than np.nonzero with two indices
    rows, cols = (index.astype(np.int32) for index in np.divmod(flat, defects.shape[1]))
    indptr = np.zeros(len(rows) + 1, np.int64)
    _count_neighbours(defects, rows, cols, indptr)
    neighbours = np.empty(indptr[-1], np.int64)
    _fill_neighbours(defects, rows, cols, indptr, neighbours)
    return NeighbourTable(rows, cols, indptr, neighbours)


def replace_defects(image: np.ndarray, table: NeighbourTable) -> None:
    """Defects of a corrected image (ny, nx) float32 become the mean of their good neighbours, in place."""
    _replace(image, table.rows, table.cols, table.indptr, table.neighbours_flat_index)


@njit(nogil=True)
def _replace(image, rows, cols, indptr, neighbours):  # type: ignore[no-untyped-def]
    nx = image.shape[1]
    for i in range(len(rows)):
        total = 0.0
        for n in neighbours[indptr[i] : indptr[i + 1]]:
            total += image[n // nx, n % nx]
        image[rows[i], cols[i]] = total / max(indptr[i + 1] - indptr[i], 1)


@njit(nogil=True)
def _good_on_ring(defects, row, col, radius, out, at):  # type: ignore[no-untyped-def]
    """Count the good pixels on the square ring of this radius; write their indices to a non-empty `out` from `at`."""
    ny, nx = defects.shape
    n = 0
    for y in range(max(row - radius, 0), min(row + radius + 1, ny)):
        step = 1 if abs(y - row) == radius else 2 * radius
        for x in range(col - radius, col + radius + 1, step):
            if 0 <= x < nx and not defects[y, x]:
                if len(out) > 0:
                    out[at + n] = y * nx + x
                n += 1
    return n


@njit(nogil=True)
def _count_neighbours(defects, rows, cols, indptr):  # type: ignore[no-untyped-def]
    nothing = np.empty(0, np.int64)
    for i in range(len(rows)):
        n, radius = 0, 0
        while n < MIN_NEIGHBOURS and radius < max(defects.shape[0], defects.shape[1]):
            radius += 1
            n += _good_on_ring(defects, rows[i], cols[i], radius, nothing, 0)
        indptr[i + 1] = indptr[i] + n


@njit(nogil=True)
def _fill_neighbours(defects, rows, cols, indptr, neighbours):  # type: ignore[no-untyped-def]
    for i in range(len(rows)):
        at, radius = indptr[i], 0
        while at < indptr[i + 1]:
            radius += 1
            at += _good_on_ring(defects, rows[i], cols[i], radius, neighbours, at)
