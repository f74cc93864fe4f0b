"""The gain's orientation, estimated from its fine detail in the sum of the raw frames.

A raw frame is the image divided by the gain. The relative detail of the raw sum therefore contains minus the detail of
the gain's logarithm. The slope of a linear fit of one to the other is 1 for the right orientation, -1 if movies have to
be divided by the gain, and 0 for a wrong orientation or for frames that are already corrected. The standard error of
the slope is computed from its scatter over tiles of the frame, which includes both sample and noise.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Iterator, List, Optional, Sequence, Tuple

import numpy as np
from scipy.ndimage import uniform_filter1d

from ..errors import CorrectionError
from ..settings import Settings
from .corrections import Corrections, gain_divides, load_corrections, read_image, rotate_and_flip
from .movie import Movie

ROTATIONS = ("none", "90", "180", "270")
# Rotation and flip of the eight orientations; any other pair of the form's values equals one of these.
ORIENTATIONS = tuple((rot, "none") for rot in ROTATIONS) + (
    ("none", "upside-down"),
    ("none", "left-right"),
    ("90", "upside-down"),
    ("90", "left-right"),
)
TILE = 64
DETAIL = 16  # px; wider structures can also come from sample and beam
FEW_TILES, MANY_TILES = 144, 4096
OUTLIERS = 1e-3  # fraction of pixels whose detail is clipped, so that hot pixels do not outweigh all others
FLAT = 1e-3  # rms detail; a gain with less is flat
MIN_SLOPE = 0.2
SIGNIFICANT = 6.0  # standard errors
SHARP = 0.05  # standard error that is small enough to exclude a slope of 1


@dataclass(frozen=True)
class Fit:
    """How well the gain explains the raw sum in one orientation and convention.

    Attributes
    ----------
    rotation, flip, convention : values of the settings `gain_rot`, `gain_flip` and `gain_convention`.
    slope : 1 if the sum contains all of the gain's detail.
    error : standard error of the slope.
    """

    rotation: str
    flip: str
    convention: str
    slope: float
    error: float

    def words(self) -> str:
        return f"gain rotation {self.rotation}, gain flip {self.flip}, gain convention {self.convention}"

    def options(self) -> str:
        return f"--gain-rot {self.rotation} --gain-flip {self.flip} --gain-convention {self.convention}"


@dataclass(frozen=True)
class Verdict:
    """All `fits`, best first. `best` is None if no fit is clearly the best; `reason` is then the explanation."""

    fits: List[Fit]
    best: Optional[Fit]
    reason: str = ""


def find_orientation(movie: Movie, total: np.ndarray, settings: Settings) -> Verdict:
    """Rank all ways to use the gain of `settings`; its rotation, flip and convention in `settings` are ignored.

    Parameters
    ----------
    movie : any of the movies that were summed.
    total : (ny, nx) sum or mean of raw frames, of one or of several movies.
    """
    image, _ = read_image(str(settings.gain), "Gain reference")
    (height, width), (ny, nx) = image.shape, total.shape
    start = "90" if (height - width) * (ny - nx) < 0 else "none"
    values = {**settings.to_dict(), "gain_rot": start, "gain_flip": "none", "gain_convention": "multiply"}
    settings = Settings.from_dict(values)
    return _rank(total, load_corrections(movie, settings), settings, MANY_TILES)


def orientation_warnings(total: np.ndarray, corrections: Corrections, settings: Settings) -> List[str]:
    """One warning if the gain clearly fits the raw sum or mean (ny, nx) better in another orientation or convention."""
    if corrections.gain is None:
        return []
    best = _rank(total, corrections, settings, FEW_TILES).best
    chosen = ("divide" if gain_divides(settings) else "multiply", *_canonical(settings.gain_rot, settings.gain_flip))
    if best is None or (best.convention, best.rotation, best.flip) == chosen:
        return []
    return [
        f"The gain reference {os.path.basename(str(settings.gain))} fits this movie better in another way: "
        f"set {best.words()} and align again."
    ]


def _rank(total: np.ndarray, corrections: Corrections, settings: Settings, max_tiles: int) -> Verdict:
    """Compare the gain that was loaded with `settings` with the raw sum in all orientations of the right size."""
    gain = corrections.gain
    assert gain is not None
    good = np.ones(gain.shape, bool) if corrections.defects is None else ~corrections.defects
    corners = list(_corners(total.shape, max_tiles))
    if len(corners) < 4:
        return Verdict([], None, f"The frames are too small: {2 * TILE} x {2 * TILE} pixels are needed at least.")
    observed = _relative_detail(total if corrections.dark is None else total - corrections.dark, corners)
    as_loaded = "divide" if gain_divides(settings) else "multiply"
    other = "multiply" if as_loaded == "divide" else "divide"
    fits, detail_rms = [], 0.0
    for rotation, flip in ORIENTATIONS:
        candidate = rotate_and_flip(gain, rotation, flip)
        if candidate.shape != total.shape:
            continue
        expected = _high_pass(-np.log(_tiles(candidate, corners)))
        usable = _tiles(good, corners) & _tiles(rotate_and_flip(good, rotation, flip), corners)
        expected = np.where(usable, expected, 0)
        both = np.einsum("kyx,kyx->k", observed, expected, dtype=np.float64)
        power = np.einsum("kyx,kyx->k", expected, expected, dtype=np.float64)
        detail_rms = max(detail_rms, float(np.sqrt(power.sum() / expected.size)))
        if detail_rms < FLAT:
            continue
        slope = float(both.sum() / power.sum())
        error = float(np.sqrt(np.sum((both - slope * power) ** 2)) / power.sum())
        names = _composed((settings.gain_rot, settings.gain_flip), (rotation, flip))
        fits += [Fit(*names, as_loaded, slope, error), Fit(*names, other, -slope, error)]
    if not fits:
        return Verdict([], None, "The gain is flat: it looks the same in every orientation.")
    fits.sort(key=lambda fit: -fit.slope)
    return _judge(fits)


def _judge(fits: List[Fit]) -> Verdict:
    best, second = fits[:2]
    if best.slope >= max(MIN_SLOPE, SIGNIFICANT * best.error):
        if best.slope - second.slope >= SIGNIFICANT * np.hypot(best.error, second.error):
            return Verdict(fits, best)
        return Verdict(
            fits, None, "Several orientations fit about as well: the gain is symmetric; or give more movies."
        )
    if max(fit.error for fit in fits) <= SHARP:
        return Verdict(
            fits,
            None,
            "The gain is not seen in the frames in any orientation: they seem to be gain-corrected already, or the "
            "gain is that of another camera or time.",
        )
    return Verdict(fits, None, "There are too few electrons to tell: give more movies of the same session.")


def _canonical(rotation: str, flip: str) -> Tuple[str, str]:
    """The pair in `ORIENTATIONS` that has the same effect."""
    return _composed((rotation, flip), ("none", "none"))


def _composed(first: Sequence[str], then: Sequence[str]) -> Tuple[str, str]:
    """The pair in `ORIENTATIONS` that has the same effect as `first` followed by `then`."""
    probe = np.arange(6).reshape(2, 3)
    wanted = rotate_and_flip(rotate_and_flip(probe, *first), *then)
    return next(pair for pair in ORIENTATIONS if np.array_equal(rotate_and_flip(probe, *pair), wanted))


def _corners(shape: Tuple[int, ...], max_tiles: int) -> Iterator[Tuple[int, int]]:
    """Upper left pixels of tiles spread evenly over the frame."""
    counts = [max(min(n // TILE, int(max_tiles**0.5)), 0) for n in shape]
    rows, columns = (np.linspace(0, n - TILE, k).astype(int) for n, k in zip(shape, counts))
    return ((int(y), int(x)) for y in rows for x in columns)


def _tiles(image: np.ndarray, corners: List[Tuple[int, int]]) -> np.ndarray:
    return np.stack([image[y : y + TILE, x : x + TILE] for y, x in corners])


def _relative_detail(total: np.ndarray, corners: List[Tuple[int, int]]) -> np.ndarray:
    """Detail of the raw sum relative to its local mean, (tiles, TILE, TILE) float32.

    No logarithm is taken, because a count may be 0.
    """
    tiles = _tiles(total, corners).astype(np.float32)
    # A hot pixel would also distort the local mean of its neighbours.
    np.minimum(tiles, np.quantile(tiles, 1 - OUTLIERS), out=tiles)
    local = _local_mean(tiles)
    detail = np.divide(tiles, local, out=np.ones_like(tiles), where=local > 0) - 1
    limit = np.quantile(np.abs(detail), 1 - OUTLIERS)
    return detail.clip(-limit, limit)


def _high_pass(tiles: np.ndarray) -> np.ndarray:
    return tiles - _local_mean(tiles)


def _local_mean(tiles: np.ndarray) -> np.ndarray:
    return uniform_filter1d(uniform_filter1d(tiles, DETAIL, axis=1), DETAIL, axis=2)


def raw_sum(movie: Movie) -> np.ndarray:
    """(ny, nx) float32 sum of all raw frames.

    Raises
    ------
    CorrectionError : the sum is not finite.
    """
    total = np.zeros(movie.shape[1:], np.float32)
    for i in range(movie.n_frames):
        total += movie.frame(i)
    if not np.isfinite(total).all():
        raise CorrectionError(f"{movie.path}: holds pixels that are not numbers: give another movie.")
    return total
