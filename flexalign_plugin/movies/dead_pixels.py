"""Dead pixels, dead parts of columns and rows, and odd whole ones, by their statistics over all frames.

`defects.find_hot_pixels` judges single pixels by their distance from the mean, which says nothing where a good pixel
may well have no count at all. Here three rules use what many pixels, or all frames, say together:

- **Never counts.** A stretch of k adjacent pixels of a column or a row that are 0 in every frame has the probability
  exp(-E), E being the counts that its surroundings expect of it. It is dead if this is less than 1 / (k^2 n) in a frame
  of n pixels: less than one good pixel of a movie is replaced. In 4096 x 4096 pixels a single one is found from some
  18 counts on, and a whole column from 0.01 counts per pixel on.
- **Never changes.** Where values rarely repeat (integrating detectors), a pixel with the same value in every frame is
  dead, whatever the value.
- **Whole columns and rows** that count less than half, or more than one and a half times, as much as those beside them.

Surroundings are compared on each side, and the lowest side decides, so that a dark bar, a hole or the rim of the beam
is part of the picture. Dead areas more than `WIDEST` pixels wide and high need a defect map.
"""

from __future__ import annotations

import math
from typing import Optional, Tuple

import numpy as np

from ..backend import RawFrames
from ..jit import njit

WIDEST = 8  # columns or rows side by side
BESIDE = 3  # good columns or rows of each side that are compared, and margin of short stretches
SHORT = 4  # pixels; longer stretches have enough surroundings along their two long sides
BRIGHT = 2.5  # times the mean: the brightest surroundings in which the shortest possible stretches are looked for
SAMPLE = 100_000  # pixels: the noise is accurate to 0.5 %
APART = 4  # pixels between those whose difference gives the noise: no picture, no spread of one electron
COMMON = 0.1  # if more pixels than this fraction repeat their value in the next frame, the movie is one of counts
VALUES = 20_000  # pixels that show how many do
CHECKED_FRAMES = 5  # in which pixels whose sum is 0 are looked up, if values may be negative
BLOCK = 64  # columns that are searched together
PARTS = 16  # of a column or row; three quarters of them must be odd
WEAK, HOT = 0.5, 1.5
CLEAR_SIGMA = 6.0
WHOLE = 0.9  # fraction of the pixels of a column or row that is named as a whole
NAMED = 5
_NONE = np.zeros((0, 0), bool)
_NO_GAIN = np.zeros((0, 0), np.float32)


def find_dead_pixels(
    movie: RawFrames,
    aligned: range,
    raw: np.ndarray,
    image: np.ndarray,
    gain: Optional[np.ndarray] = None,
    known_defects: Optional[np.ndarray] = None,
) -> np.ndarray:
    """Pixels that never count or never change, and columns and rows that count too little or too much.

    Parameters
    ----------
    movie : its raw frames; a few of those `aligned` are read once more, most often one.
    raw : (ny, nx) float32, mean of the raw frames.
    image : (ny, nx) float32, the same, dark and gain corrected.
    gain : (ny, nx) float32 that multiplies, or None.
    known_defects : (ny, nx) bool; left out of all statistics and of the result. Hot pixels should be among them.

    Returns
    -------
    (ny, nx) bool, true at the detected defects.
    """
    ny, nx = raw.shape
    known = _NONE if known_defects is None or not known_defects.any() else np.ascontiguousarray(known_defects, bool)
    found = np.zeros((ny, nx), bool)
    if min(ny, nx) <= 2 * WIDEST:
        return found
    surprise = math.log(ny * nx)
    first = _numbers(movie.frame(aligned[0]))
    mean, variance = _noise(image, known)
    counting = mean > 0 and variance > 0
    if counting:
        weights = _NO_GAIN if gain is None else gain
        # Raw values with a variance of u times their mean, multiplied by the gain.
        counts_per_value = mean * float(weights.mean() if weights.size else 1.0) / variance
        if first.dtype.kind in "ui":  # a count is at least 1
            counts_per_value = min(counts_per_value, float(len(aligned)))
        _never_counting(raw, image, weights, known, counts_per_value, surprise, found)
        if first.dtype.kind != "u":
            _keep_where_zero(movie, aligned, found)
        _whole_lines(image, known, math.sqrt(variance), found)
    _never_changing(movie, aligned, first, raw, known, surprise, not counting, found)
    return found


def whole_lines(defects: np.ndarray) -> str:
    """The columns and rows of a map (ny, nx) bool that are defective as a whole, in words; empty if there are none."""
    if np.count_nonzero(defects) < WHOLE * min(defects.shape):
        return ""
    texts = []
    for line, axis, along in (("column", "x", 0), ("row", "y", 1)):
        numbers = np.flatnonzero(np.count_nonzero(defects, axis=along) > WHOLE * defects.shape[along])
        if len(numbers):
            rest = f" and {len(numbers) - NAMED} more" if len(numbers) > NAMED else ""
            listed = ", ".join(map(str, numbers[:NAMED])) + rest
            texts.append(f"{len(numbers)} whole {line}{'s' if len(numbers) > 1 else ''} ({axis} {listed})")
    return " and ".join(texts)


def _numbers(frame: np.ndarray) -> np.ndarray:
    """The frame in a type that numba knows."""
    if frame.dtype == np.float16:
        return frame.astype(np.float32)
    return frame if frame.dtype.isnative else frame.astype(frame.dtype.newbyteorder("="))


def _noise(image: np.ndarray, known: np.ndarray) -> Tuple[float, float]:
    """Mean and variance of the noise of one pixel, without the picture, hot pixels and known defects."""
    step = max(math.isqrt(image.size // SAMPLE), 1)
    left, right = (slice(None, None, step), slice(0, -APART, step)), (slice(None, None, step), slice(APART, None, step))
    one, other = image[left].ravel(), image[right].ravel()
    good = ~(known[left] | known[right]).ravel() if known.size else np.ones(one.size, bool)
    # Few pixels are hot, but a single one may outweigh all others.
    difference = np.abs(one - other)
    good &= difference <= np.quantile(difference, 0.999)
    if np.count_nonzero(good) < 100:
        return 0.0, 0.0
    return float(one[good].mean(dtype=float)), float(0.5 * np.square(difference[good], dtype=float).mean())


def _never_counting(
    raw: np.ndarray,
    image: np.ndarray,
    gain: np.ndarray,
    known: np.ndarray,
    counts_per_value: float,
    surprise: float,
    found: np.ndarray,
) -> None:
    """Set `found` for the dead stretches of columns and rows; a raw value v is v * counts_per_value counts."""
    brightest = BRIGHT * max(float(raw.mean()), 1e-30) * counts_per_value
    shortest = max(math.ceil(min(surprise / brightest, 1e9)), 1)
    if shortest <= raw.shape[0]:
        stretches = _column_stretches(raw, shortest)
        _judge(stretches, raw, image, gain, known, counts_per_value, surprise, found)
    if shortest <= raw.shape[1]:
        stretches = _row_stretches(raw, shortest)
        _judge(stretches, raw.T, image.T, gain.T, known.T, counts_per_value, surprise, found.T)


@njit(nogil=True)
def _column_stretches(raw, shortest):  # type: ignore[no-untyped-def]
    """(n, 3) int64: column, first row, row after the last, of stretches of zeros of at least this length."""
    ny, nx = raw.shape
    length, one, least = np.zeros(nx, np.int32), np.int32(1), np.int32(shortest)
    out = np.empty((1024, 3), np.int64)
    n = 0
    for y in range(ny + 1):
        row = raw[min(y, ny - 1)]
        at_end = y == ny
        for x0 in range(0, nx, BLOCK):
            values, lengths = row[x0 : x0 + BLOCK], length[x0 : x0 + BLOCK]
            ended = np.int32(0)
            for x in range(len(values)):  # only a count, so that it is vectorised
                ended += np.int32(lengths[x] >= least) & np.int32((values[x] != 0) | at_end)
            if ended:
                if n + ended > len(out):
                    larger = np.empty((2 * (n + ended), 3), np.int64)
                    larger[:n] = out[:n]
                    out = larger
                for x in range(len(values)):
                    if lengths[x] >= least and (values[x] != 0 or at_end):
                        out[n, 0], out[n, 1], out[n, 2] = x0 + x, y - lengths[x], y
                        n += 1
            for x in range(len(values)):
                lengths[x] = (lengths[x] + one) * np.int32(values[x] == 0)
    return out[:n].copy()


@njit(nogil=True)
def _row_stretches(raw, shortest):  # type: ignore[no-untyped-def]
    """(n, 3) int64: row, first column, column after the last, of stretches of zeros of at least this length."""
    ny, nx = raw.shape
    part = (shortest + 1) // 2  # a stretch contains at least one of the parts of this length, which are searched
    out = np.empty((1024, 3), np.int64)
    n = 0
    for y in range(ny):
        row = raw[y]
        zeros = np.int32(0)
        for v in row:
            zeros += np.int32(v == 0)
        if zeros < shortest:
            continue
        end = 0
        for at in range(0, nx - part + 1, part):
            counting = 0
            for k in range(part):
                counting += row[at + k] != 0
            if counting or at < end:
                continue
            first, end = at, at + part
            while first > 0 and row[first - 1] == 0:
                first -= 1
            while end < nx and row[end] == 0:
                end += 1
            if end - first >= shortest:
                if n == len(out):
                    larger = np.empty((2 * n, 3), np.int64)
                    larger[:n] = out
                    out = larger
                out[n, 0], out[n, 1], out[n, 2] = y, first, end
                n += 1
    return out[:n].copy()


@njit(nogil=True)
def _judge(stretches, raw, image, gain, known, counts_per_value, surprise, found):  # type: ignore[no-untyped-def]
    """Set `found` for stretches of columns of which each side expects more counts than chance can leave out."""
    ny, nx = raw.shape
    for i in range(len(stretches)):
        x, y0, y1 = stretches[i]
        share = 0.0  # values expected of the stretch, in units of its surroundings
        for y in range(y0, y1):
            if not (known.size and known[y, x]):
                share += 1.0 / gain[y, x] if gain.size else 1.0
        if share <= 0:
            continue
        least = (surprise + 2 * np.log(y1 - y0)) / (counts_per_value * share)
        if y1 - y0 < SHORT:
            # A single pixel has 3 x 7 on each side. What is as wide as the stretch is long may be the picture.
            wider = max(BESIDE + 1 - (y1 - y0), 0)
            a, b, c, d = max(y0 - wider, 0), min(y1 + wider, ny), max(x - BESIDE, 0), min(x + BESIDE + 1, nx)
            dark = (
                _block(image, known, a, b, c, x) < least
                or _block(image, known, a, b, x + 1, d) < least
                or _block(image, known, max(y0 - BESIDE, 0), y0, c, d) < least
                or _block(image, known, y1, min(y1 + BESIDE, ny), c, d) < least
            )
        else:
            dark = _beside(raw, image, known, x, y0, y1, -1) < least or _beside(raw, image, known, x, y0, y1, 1) < least
        if not dark:
            for y in range(y0, y1):
                if not (known.size and known[y, x]):
                    found[y, x] = True


@njit(nogil=True)
def _block(image, known, y0, y1, x0, x1):  # type: ignore[no-untyped-def]
    """Mean of the pixels that are not known as defects; infinite if there are none, as beyond the frame."""
    total, n = 0.0, 0
    for y in range(y0, y1):
        for x in range(x0, x1):
            if not (known.size and known[y, x]):
                total += image[y, x]
                n += 1
    return total / n if n else np.inf


@njit(nogil=True)
def _beside(raw, image, known, x, y0, y1, step):  # type: ignore[no-untyped-def]
    """Mean of the nearest columns on one side that count in these rows.

    0 if none of the nearest counts, infinite if these end with the frame. A dead block may be WIDEST columns wide, but
    not wider than it is high.
    """
    total, columns = 0.0, 0
    for d in range(1, min(WIDEST, y1 - y0) + 1):
        at = x + step * d
        if at < 0 or at >= raw.shape[1]:
            return total / columns if columns else np.inf
        of_column, n, counts = 0.0, 0, False
        for y in range(y0, y1):
            if not (known.size and known[y, at]):
                of_column += image[y, at]
                n += 1
                counts = counts or raw[y, at] != 0
        if counts:
            total += of_column / n
            columns += 1
            if columns == BESIDE:
                break
    return total / columns if columns else 0.0


def _keep_where_zero(movie: RawFrames, aligned: range, found: np.ndarray) -> None:
    """Clear `found` where positive and negative values made the sum 0."""
    where = np.flatnonzero(found)
    for k in np.unique(np.linspace(0, len(aligned) - 1, CHECKED_FRAMES).astype(int)):
        if not len(where):
            return
        counting = movie.frame(aligned[int(k)]).reshape(-1)[where] != 0
        found.reshape(-1)[where[counting]] = False
        where = where[~counting]


def _never_changing(
    movie: RawFrames,
    aligned: range,
    first: np.ndarray,
    raw: np.ndarray,
    known: np.ndarray,
    surprise: float,
    zeros: bool,
    found: np.ndarray,
) -> None:
    """Set `found` for pixels whose value is the same in so many frames that it can't be chance; perhaps for zeros."""
    if len(aligned) < 2:
        return
    step = max(first.size // VALUES, 1)
    values, others = first.reshape(-1)[::step], movie.frame(aligned[1]).reshape(-1)[::step]
    share = max(np.count_nonzero(values == others), 1) / len(values)
    if share > COMMON:
        return
    # The most common of normally distributed values is sqrt(2) times as common as their average.
    needed = math.ceil(surprise / -math.log(math.sqrt(2) * share))  # frames that must repeat the first one
    if needed >= len(aligned):
        return
    where = _unchanged_mean(first, raw)
    for t in aligned[1 : needed + 1]:
        if not len(where):
            return
        where = where[movie.frame(t).reshape(-1)[where] == first.reshape(-1)[where]]
    still = np.zeros(first.shape, bool)
    still.reshape(-1)[where] = True
    if not zeros:  # whether they are chance depends on the surroundings
        still &= raw != 0
    if known.size:
        still &= ~known
    _keep_narrow(still, np.flatnonzero(still), found)


@njit(nogil=True)
def _unchanged_mean(first, raw):  # type: ignore[no-untyped-def]
    """Flat indices of the pixels whose mean is the value in the first frame, but for the rounding of float32."""
    ny, nx = first.shape
    out = np.empty(1024, np.int64)
    n = 0
    for y in range(ny):
        in_row = 0
        for x in range(nx):
            value = np.float32(first[y, x])
            in_row += abs(raw[y, x] - value) <= np.float32(1e-5) * abs(value)
        if in_row == 0:
            continue
        if n + in_row > len(out):
            larger = np.empty(2 * (n + in_row), np.int64)
            larger[:n] = out[:n]
            out = larger
        for x in range(nx):
            value = np.float32(first[y, x])
            if abs(raw[y, x] - value) <= np.float32(1e-5) * abs(value):
                out[n] = y * nx + x
                n += 1
    return out[:n].copy()


@njit(nogil=True)
def _keep_narrow(still, where, found):  # type: ignore[no-untyped-def]
    """Set `found` for still pixels most of whose surroundings change: a still area is a part of the file's format."""
    ny, nx = still.shape
    for i in where:
        y, x = i // nx, i % nx
        n, area = 0, 0
        for a in range(max(y - WIDEST, 0), min(y + WIDEST + 1, ny)):
            for b in range(max(x - WIDEST, 0), min(x + WIDEST + 1, nx)):
                area += 1
                n += still[a, b]
        found[y, x] |= 2 * n <= area


def _whole_lines(image: np.ndarray, known: np.ndarray, sigma: float, found: np.ndarray) -> None:
    """Set `found` for whole columns and rows that count too little or too much."""
    if min(image.shape) < 4 * PARTS:
        return
    ny, nx = image.shape
    y, x = (np.arange(PARTS + 1) * n // PARTS for n in (ny, nx))
    of_columns = np.stack([image[a:b].sum(axis=0) for a, b in zip(y, y[1:])])
    of_rows = np.stack([image[:, a:b].sum(axis=1) for a, b in zip(x, x[1:])])
    n_columns, n_rows = (np.repeat(np.diff(bounds)[:, None], n, axis=1) for bounds, n in ((y, nx), (x, ny)))
    if known.size:
        bad_y, bad_x = np.divmod(np.flatnonzero(known), nx)
        values = image[bad_y, bad_x]
        for sums, number, part, line in (
            (of_columns, n_columns, np.searchsorted(y, bad_y, "right") - 1, bad_x),
            (of_rows, n_rows, np.searchsorted(x, bad_x, "right") - 1, bad_y),
        ):
            at = part * sums.shape[1] + line
            sums -= np.bincount(at, values, sums.size).reshape(sums.shape)
            number -= np.bincount(at, minlength=sums.size).reshape(sums.shape)
    columns = _odd_lines(of_columns / np.maximum(n_columns, 1), sigma / math.sqrt(ny))
    rows = _odd_lines(of_rows / np.maximum(n_rows, 1), sigma / math.sqrt(nx))
    found[:, columns] |= ~known[:, columns] if known.size else True
    found[rows] |= ~known[rows] if known.size else True


def _odd_lines(parts: np.ndarray, sigma: float) -> np.ndarray:
    """Numbers of the lines three quarters of whose parts stand out from the lines beside them.

    Parameters
    ----------
    parts : (PARTS, n) means of the parts of each line. sigma : standard deviation of the mean of a line.
    """
    # A few hot pixels, or an edge in the picture, change few parts.
    low_part, middle, high_part = np.quantile(parts, (0.25, 0.5, 0.75), axis=0)
    n = len(middle)
    reach = np.concatenate([np.arange(-APART, 0), np.arange(1, APART + 1)])
    beside = np.abs(np.arange(n)[:, None] + reach)  # mirrored beyond the frame
    ordered = np.sort(middle[np.where(beside >= n, 2 * (n - 1) - beside, beside)], axis=1)
    low, high = ordered[:, 1], ordered[:, -2]  # a second odd line beside it does not hide this one
    weak = (high_part < WEAK * low) & (low - high_part > CLEAR_SIGMA * sigma)
    hot = (low_part > HOT * high) & (low_part - high > CLEAR_SIGMA * sigma)
    return np.flatnonzero(weak | hot)
