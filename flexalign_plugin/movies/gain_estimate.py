"""A gain reference that is missing, estimated from the mean of many movies.

What movies of one camera have in common is the camera; specimens differ and move. A raw sum S of one movie is divided
by its own smooth part, in which specimen, ice and beam are, and by its number of electrons. The detail that is left is
averaged over the movies, pixel by pixel, without those that are far off, and the median of the smooth parts of all
movies is put back: illumination that all movies share is therefore in the gain, as in every gain that is taken with
this beam. The movies are collected in a few groups; the scatter of the groups is the error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Optional, Tuple

import numpy as np
from scipy.ndimage import map_coordinates

from ..errors import CorrectionError
from .counting import unit_of_counts
from .gain_orientation import raw_sum
from .movie import Movie

GROUPS = 8  # at most; of each, one image is held in memory
BLOCK_PX = 64  # length over which the smooth part is averaged
FAR_OFF = 4.0  # standard deviations from the median of the groups
ROWS_AT_ONCE = 256
# A pixel that counts less or more than this times its neighbourhood is no pixel of uneven gain.
DEAD_BELOW, HOT_ABOVE = 0.2, 5.0


@dataclass(frozen=True)
class GainEstimate:
    """The estimated gain and what it rests on.

    Attributes
    ----------
    gain : (ny, nx) float32 by which frames are multiplied, mean 1; 0 marks dead and hot pixels. Rows as in the movies.
    movies, frames : numbers of them.
    electrons_per_px : mean number of counted electrons; None where the values are no counts of single electrons.
    error : rms of the gain's relative error, from the scatter of the groups of movies.
    detail : rms of the detail of the gain that is finer than `BLOCK_PX`, without the error.
    dead_px, hot_px : numbers of such pixels.
    """

    gain: np.ndarray
    movies: int
    frames: int
    electrons_per_px: Optional[float]
    error: float
    detail: float
    dead_px: int
    hot_px: int

    @property
    def is_useful(self) -> bool:
        """Whether multiplying by it removes more than it adds."""
        return self.error < self.detail


class GainEstimator:
    """Collects movies one by one, `add`, and estimates their gain, `estimate`."""

    def __init__(self) -> None:
        self._sums: List[np.ndarray] = []  # of the raw frames of a group
        self._smooth: List[np.ndarray] = []  # of the same, as means of blocks
        self._coarse: List[np.ndarray] = []  # of each movie, relative to its mean
        self._first = ""
        self._frames = 0
        self._electrons: Optional[float] = 0.0

    def add(self, movie: Movie) -> None:
        """Add a movie.

        Raises
        ------
        MovieError : it can't be read.
        CorrectionError : its frames are of another size, hold no numbers, or nothing was counted.
        """
        if self._sums and movie.shape[1:] != self._sums[0].shape:
            ny, nx = self._sums[0].shape
            raise CorrectionError(
                f"{movie.path}: its frames are of {movie.shape[2]} x {movie.shape[1]} pixels, those of {self._first} "
                f"of {nx} x {ny}: estimate the gain of each camera from its own movies."
            )
        total = raw_sum(movie)
        level = float(total.mean(dtype=np.float64))
        if level <= 0:
            raise CorrectionError(f"{movie.path}: its frames have a mean of {level:g}: give raw movies.")
        unit = unit_of_counts(movie, range(movie.n_frames))
        self._first = self._first or movie.path
        self._frames += movie.n_frames
        known = self._electrons is not None and unit is not None
        self._electrons = self._electrons + level / unit if known else None  # type: ignore[operator]
        blocks = _block_means(total)
        group = len(self._coarse) % GROUPS
        if group == len(self._sums):
            self._sums.append(total)
            self._smooth.append(blocks)
        else:
            self._sums[group] += total
            self._smooth[group] = self._smooth[group] + blocks
        self._coarse.append((blocks / level).astype(np.float32))

    def estimate(self) -> GainEstimate:
        """The gain from all movies so far.

        Raises
        ------
        CorrectionError : there are less than two movies.
        """
        if len(self._coarse) < 2:
            raise CorrectionError(
                "A gain can be estimated from two or more movies, better from a hundred: give more movies."
            )
        ny, nx = self._sums[0].shape
        response = np.empty((ny, nx), np.float32)
        scatter = self._scatter()
        squares, n_pixels = 0.0, 0
        for start in range(0, ny, ROWS_AT_ONCE):
            rows = slice(start, min(start + ROWS_AT_ONCE, ny))
            detail = self._details(rows)
            middle = np.median(detail, axis=0)
            near = abs(detail - middle) <= FAR_OFF * scatter * np.sqrt(np.maximum(middle, 0.0))
            near |= ~near.any(axis=0)
            count = near.sum(axis=0)
            mean = np.where(near, detail, 0.0).sum(axis=0) / count
            response[rows] = mean
            usual = (count > 1) & (mean > DEAD_BELOW) & (mean < HOT_ABOVE)
            of_mean = np.where(near, (detail - mean) ** 2, 0.0).sum(axis=0) / np.maximum((count - 1) * count, 1)
            squares += float((of_mean / np.maximum(mean, DEAD_BELOW) ** 2)[usual].sum())
            n_pixels += int(np.count_nonzero(usual))
        error = float(np.sqrt(squares / max(n_pixels, 1)))
        dead, hot = ~(response > DEAD_BELOW), response > HOT_ABOVE
        broken = dead | hot
        detail_rms = float(np.sqrt(max(response[~broken].var(dtype=np.float64) - error**2, 0.0))) if n_pixels else 0.0
        shared = np.median(np.stack(self._coarse), axis=0)
        for start in range(0, ny, ROWS_AT_ONCE):
            rows = slice(start, min(start + ROWS_AT_ONCE, ny))
            response[rows] *= _at_pixels(shared, (ny, nx), rows)
        gain = np.divide(1.0, response, out=np.zeros_like(response), where=~broken & (response > 0))
        used = gain > 0
        if used.any():
            gain /= gain[used].mean(dtype=np.float64).astype(np.float32)
        return GainEstimate(
            gain=gain,
            movies=len(self._coarse),
            frames=self._frames,
            electrons_per_px=self._electrons,
            error=error,
            detail=detail_rms,
            dead_px=int(np.count_nonzero(dead)),
            hot_px=int(np.count_nonzero(hot)),
        )

    def _details(self, rows: slice) -> np.ndarray:
        """(groups, rows, nx) float64 sums of the groups over their smooth parts."""
        shape = self._sums[0].shape
        smooth = np.stack([_at_pixels(blocks, shape, rows) for blocks in self._smooth])
        sums = np.stack([total[rows] for total in self._sums]).astype(np.float64)
        return np.divide(sums, smooth, out=np.ones_like(sums), where=smooth > 0)

    def _scatter(self) -> float:
        """Standard deviation of a pixel's detail between groups, from the median over some rows: noise of counting."""
        ny = self._sums[0].shape[0]
        start = max((ny - ROWS_AT_ONCE) // 2, 0)
        detail = self._details(slice(start, min(start + ROWS_AT_ONCE, ny)))
        # The variance of n normal values has a median of about (1 - 2 / (9 (n - 1)))^3 of its mean.
        n = len(detail)
        middle = (1 - 2 / (9 * (n - 1))) ** 3
        return float(np.sqrt(np.median(detail.var(axis=0, ddof=1)) / middle))


def _block_means(image: np.ndarray) -> np.ndarray:
    """Means of blocks of about BLOCK_PX pixels that cover the image, (by, bx) float64."""
    edges = [np.linspace(0, n, max(n // BLOCK_PX, 1) + 1).round().astype(int) for n in image.shape]
    sums = np.add.reduceat(np.add.reduceat(image, edges[0][:-1], axis=0, dtype=np.float64), edges[1][:-1], axis=1)
    means: np.ndarray = sums / np.outer(np.diff(edges[0]), np.diff(edges[1]))
    return means


def _at_pixels(blocks: np.ndarray, shape: Tuple[int, ...], rows: slice) -> np.ndarray:
    """The means of blocks, interpolated linearly between their centres, at some rows of an image of this shape."""
    ny, nx = shape
    y = (np.arange(rows.start, rows.stop) + 0.5) * blocks.shape[0] / ny - 0.5
    x = (np.arange(nx) + 0.5) * blocks.shape[1] / nx - 0.5
    found: np.ndarray = map_coordinates(blocks, np.meshgrid(y, x, indexing="ij"), order=1, mode="nearest")
    return found
