"""The interface between the mathematics and a device: operations on whole movies, so that data stays on the device.

`motion`, `correction` and the aligner call it; `kernels/cpu*` and `kernels/cuda*` implement it. Spectra, sums and
correlation windows are opaque to the caller (`OnDevice`): they stay in the backend's memory and are only passed back to
the backend. All shapes are [frame, y, x]; shifts have columns (y, x).

Rules that are common to all backends are also here: which coefficients of a weighted spectrum are used (`select_band`),
and the constants below.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import List, NamedTuple, Optional, Protocol, Sequence, Tuple

import numpy as np

from .band import Band, fft_size_below

NEGLIGIBLE_WEIGHT = 3e-4  # of the largest weight of a spectrum: coefficients below are excluded from a correlation
PEAK_RADIUS_PX = 4.0  # window pixels around a maximum that belong to the peak and not to the noise
# The mean power of the interpolation is taken to be at least this: below it (half-pixel shifts, at Nyquist) the signal
# can't be restored.
LEAST_INTERPOLATION_POWER = 1e-4


class OnDevice(Protocol):
    """Data on a device; only the backend that made it can use the contents."""

    @property
    def shape(self) -> Tuple[int, ...]: ...


class RawFrames(Protocol):
    """What a backend needs of a movie: `movies.Movie`, or frames in memory."""

    @property
    def shape(self) -> Tuple[int, int, int]:
        """(n, ny, nx)."""

    @property
    def dtype(self) -> np.dtype:
        """Type of the frames' pixels."""

    def frame(self, i: int) -> np.ndarray:
        """Frame `i` (0-based) as (ny, nx) in its native type; thread-safe."""


class ShiftField(Protocol):
    """What a backend needs of a motion: `motion.MotionModel`. Units and signs are described there."""

    @property
    def frame_shape(self) -> Tuple[int, int]:
        """(ny, nx) of the unbinned frame."""

    def frame_field(self, frame: int, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Shifts of one frame on the mesh y (m,) by x (n,): (2, m, n) float64, [0] is sy, unbinned pixels."""

    def control_points(self, frames: Sequence[int]) -> np.ndarray:
        """B-spline coefficients of each frame's field over the frame: (n, 2, KY, KX) float64, [:, 0] is sy."""


class NeighbourTable(NamedTuple):
    """Good neighbours of each defect pixel; those of defect i are `neighbours_flat_index[indptr[i]:indptr[i + 1]]`."""

    rows: np.ndarray  # (n,) int32, ascending
    cols: np.ndarray  # (n,) int32
    indptr: np.ndarray  # (n + 1,) int64
    neighbours_flat_index: np.ndarray  # (indptr[n],) int64, row * nx + column


@dataclass(frozen=True)
class FrameSource:
    """Raw frames of one movie and how to correct them: `corrected = (raw - dark) * gain`, defects replaced.

    Attributes
    ----------
    movie : the raw frames.
    dark, gain : (ny, nx) float32 or None; the gain multiplies.
    defects : pixels to replace by the mean of their good neighbours, or None.
    """

    movie: RawFrames
    dark: Optional[np.ndarray]
    gain: Optional[np.ndarray]
    defects: Optional[NeighbourTable]


@dataclass(frozen=True)
class Peaks:
    """Maximum of each correlation window, with sub-pixel position (Strelak 2020, section 2.1.1, `r_ij` of equation 1).

    The sub-pixel position is the maximum of a biquartic fitted to the 5 x 5 values around the largest one. This differs
    from the paper's implementation (docs/algorithm.md, "Differences from the paper").

    Attributes
    ----------
    position : (..., 2) float64, (y, x) in pixels of the correlated band.
    height : (...) float64, value of the maximum.
    noise : (...) float64, standard deviation of the window without its peak's neighbourhood (PEAK_RADIUS_PX).
    on_rim : (...) bool, the maximum is on the rim of the searched region and is no measurement.
    """

    position: np.ndarray
    height: np.ndarray
    noise: np.ndarray
    on_rim: np.ndarray


@dataclass(frozen=True)
class Mix:
    """How one image is made of sums of resampled frames: each sum is filtered by radial frequency, then whitened.

    Tables of n entries are indexed by `floor(f * n / sqrt(1/2))`, at most n - 1; f is the radial frequency in
    cycles per pixel.

    Attributes
    ----------
    factors : (n_factors, n_sums) float32, factors of each sum's spectrum.
    power : (n_power, 6, 6) float32, mean power C of the interpolation. The total is divided by the square root of
        `sum_lm C[l, m] cos(l wy) cos(m wx)`, or of LEAST_INTERPOLATION_POWER where the sum is smaller than that
        (`correction.resampling`).
    """

    factors: np.ndarray
    power: np.ndarray


@dataclass(frozen=True)
class BandSelection:
    """The rows and columns of a weighted spectrum that a correlation uses.

    Attributes
    ----------
    rows, cols : (n_rows,), (n_cols,) int64 indices into the spectrum; both empty if all weights are 0.
    root_weight : (n_rows, n_cols) float32, square root of the weight; both spectra of a product are multiplied with it.
    ky, kx : (n_rows,), (n_cols,) float64 frequencies in cycles per band pixel.
    column_factor : (n_cols,) float64 factor of each column in the inverse transform: 1 / (sy sx), and twice that for
        columns that stand for two of the full spectrum.
    """

    rows: np.ndarray
    cols: np.ndarray
    root_weight: np.ndarray
    ky: np.ndarray
    kx: np.ndarray
    column_factor: np.ndarray


def select_band(size: Tuple[int, int], weight: np.ndarray) -> BandSelection:
    """Exclude the rows and columns in which no weight is above NEGLIGIBLE_WEIGHT of the largest.

    Parameters
    ----------
    size : (sy, sx) of the images. weight : (sy, sx // 2 + 1) >= 0.

    Notes
    -----
    If all weights are 0 nothing is selected. The windows of such a correlation are 0 everywhere, and a search
    of the whole window ends on its rim.
    """
    sy, sx = size
    significant = weight > NEGLIGIBLE_WEIGHT * weight.max()
    rows, cols = np.flatnonzero(significant.any(axis=1)), np.flatnonzero(significant.any(axis=0))
    return BandSelection(
        rows,
        cols,
        np.sqrt(weight[np.ix_(rows, cols)]).astype(np.float32),
        np.fft.fftfreq(sy)[rows],
        cols / sx,
        np.where((cols == 0) | (2 * cols == sx), 1.0, 2.0) / (sy * sx),
    )


class WeightedColumns(NamedTuple):
    """The rows and the block of columns of a weighted spectrum that a sum over all coefficients uses.

    Attributes
    ----------
    rows : (n_rows,) int64. first : the first column.
    weight : (n_rows, n_cols) float32, twice the weight for columns that stand for two of the full spectrum.
    ky, kx : (n_rows,), (n_cols,) float64 frequencies in cycles per band pixel.
    """

    rows: np.ndarray
    first: int
    weight: np.ndarray
    ky: np.ndarray
    kx: np.ndarray


def weighted_columns(size: Tuple[int, int], weight: np.ndarray) -> WeightedColumns:
    """As `select_band`, with all columns between the first and the last one that is used."""
    selected = select_band(size, weight)
    first, stop = (selected.cols[0], selected.cols[-1] + 1) if len(selected.cols) else (0, 0)
    columns = np.arange(first, stop)
    twice = np.where((columns == 0) | (2 * columns == size[1]), 1, 2).astype(np.float32)
    used = weight[selected.rows, first:stop].astype(np.float32) * twice
    return WeightedColumns(selected.rows, int(first), used, selected.ky, columns / size[1])


def curvature_of_products(products: np.ndarray) -> np.ndarray:
    """`AlignedPower.curvature` from the products (2 n, 2 n) of the derivatives of all images, all along y first."""
    n = len(products) // 2
    blocks = -products.reshape(2, n, 2, n)
    own = np.arange(n)
    blocks[:, own, :, own] = 0
    blocks[:, own, :, own] = -blocks.sum(axis=3).transpose(1, 0, 2)
    return blocks


class AlignedPower(ABC):
    """Weighted power of the sum of shifted images, without the power of the single images, for a batch of sets.

    It is the sum over all pairs (i, j) and all frequencies of the full spectrum of
    `weight Re(F_i conj(F_j) exp(2 pi i k (s_j - s_i)))`, which is largest for aligned images (`motion.refine`).
    """

    @abstractmethod
    def slopes(self, shifts: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """Values (batch,) and gradients (batch, n, 2), float64, at shifts (batch, n, 2) in band pixels."""

    @abstractmethod
    def curvature(self, shifts: np.ndarray, factors: np.ndarray) -> np.ndarray:
        """Minus the second derivatives at these shifts, times factors (batch,) and summed over the batch.

        Returns
        -------
        (2, n, 2, n) float64: axis (y, x) and image of the one shift, then of the other.
        """


class CorrelationWindows(ABC):
    """The central parts of the correlation images of pairs (i, j), which stay on the device.

    All positions and shifts are absolute, in band pixels: shifts that were applied before the correlation are added
    back.
    """

    @abstractmethod
    def peaks(self, around: Optional[np.ndarray] = None, radius: Optional[float] = None) -> Peaks:
        """Maximum of each window.

        Parameters
        ----------
        around : (batch, n_pairs, 2) positions (y, x), centres of the search; None: the window's centre.
        radius : radius of the search, band pixels; None: the whole window.
        """

    @abstractmethod
    def objective(self, shifts: np.ndarray, weights: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """Sum over pairs of weight * correlation(shift_j - shift_i), which is largest for aligned images.

        It is the weighted power of the aligned sum without the power of each single image (`motion.search`).

        Parameters
        ----------
        shifts : (batch, n, 2) band pixels. weights : (batch, n_pairs).

        Returns
        -------
        (batch,) values and (batch, n, 2) gradients, float64.
        """


class Backend(ABC):
    """Operations on one device. All are deterministic: the same input gives the same bytes.

    Attributes
    ----------
    name : name of the device. threads : number of threads of this process that the backend uses, at least 1.
    """

    name: str
    threads: int

    @abstractmethod
    def close(self) -> None:
        """Release the device and the threads; the backend can't be used afterwards."""

    def frame_fft_size(self, ny: int, nx: int, n_frames: int) -> Tuple[int, int]:
        """(fy, fx) of the central part of a frame that is transformed; at most 10 % smaller than the frame (ny, nx)."""
        return fft_size_below(ny), fft_size_below(nx)

    @abstractmethod
    def sum_raw(self, source: FrameSource, frames: range) -> Tuple[np.ndarray, np.ndarray]:
        """Sum of raw frames, (ny, nx) float32, and each frame's mean, (n,) float64, not finite if a pixel is not."""

    @abstractmethod
    def correct(self, source: FrameSource, raw: np.ndarray) -> np.ndarray:
        """Corrected image, (ny, nx) float32, of one raw frame or of a mean of raw frames."""

    @abstractmethod
    def spectra(self, source: FrameSource, frames: range, band: Band) -> OnDevice:
        """Cropped spectra of the frames' central `band.full` pixels: (1, n, by, bx // 2 + 1) complex64."""

    @abstractmethod
    def patch_spectra(
        self, spectra: OnDevice, band: Band, shifts: np.ndarray, corners: np.ndarray, patch: Tuple[int, int]
    ) -> OnDevice:
        """Spectra of patches cut from the frames after their global shift, which is applied exactly, as a phase.

        Parameters
        ----------
        spectra, band : from `spectra`.
        shifts : (n, 2) shift of each frame, band pixels.
        corners : (p, 2) int, upper left corner of each patch, band pixels.
        patch : (py, px) even size, band pixels.

        Returns
        -------
        (p, n, py, px // 2 + 1) complex64.
        """

    @abstractmethod
    def power(self, spectra: OnDevice, size: Tuple[int, int], shifts: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """|sum_t F_t|^2 of the shifted frames and sum_t |F_t|^2, averaged over the batch: (sy, sx // 2 + 1) float64.

        shifts : (batch, n, 2) in band pixels.
        """

    @abstractmethod
    def correlate(
        self,
        spectra: OnDevice,
        size: Tuple[int, int],
        weight: np.ndarray,
        pairs: np.ndarray,
        radius: float,
        step: float = 1.0,
        shifts: Optional[np.ndarray] = None,
        group: int = 1,
    ) -> CorrelationWindows:
        """Windows of the weighted cross-correlation of pairs (i, j), whose maximum is at shift_j - shift_i.

        This is the correlation of Strelak 2020, section 2.1.1, from which equation 1 is measured.

        Parameters
        ----------
        spectra : (batch, n, sy, sx // 2 + 1) from `spectra` or `patch_spectra`.
        size : (sy, sx) of the images that they are spectra of.
        weight : (sy, sx // 2 + 1) float32 >= 0, multiplies the product of two spectra; see `select_band`.
        pairs : (n_pairs, 2) int frame indices.
        radius, step : windows span -radius .. radius in both axes, sampled every `step` band pixels.
        shifts : (batch, n, 2) shifts in band pixels that are applied first, so that windows can be small; or None.
        group : number of frames averaged around each one (t - (group-1)//2 .. t + group//2, fewer at the ends). If a
            frame contributes to both groups of a pair, its contribution is subtracted: it would bias the shift towards
            zero.
        """

    @abstractmethod
    def aligned_power(self, spectra: OnDevice, size: Tuple[int, int], weight: np.ndarray) -> AlignedPower:
        """The power of the sum of each batch's shifted images as a function of the shifts.

        Parameters
        ----------
        spectra, size, weight : as in `correlate`.
        """

    @abstractmethod
    def warp_sum(
        self, source: FrameSource, model: ShiftField, frames: Sequence[int], weights: np.ndarray, fill: np.ndarray
    ) -> OnDevice:
        """Weighted sums of frames, each resampled once with the motion model. All sums are made in one pass.

        Parameters
        ----------
        frames : (n,) 0-based frames of the movie.
        weights : (n_sums, n) weight of each frame in each sum.
        fill : (n,) value of pixels that a frame does not cover.

        Returns
        -------
        (n_sums, ny, nx) float32, convolved with the quintic B-spline, which `mix` corrects for.
        """

    @abstractmethod
    def mix(self, sums: OnDevice, mixes: Sequence[Mix]) -> List[np.ndarray]:
        """Images (ny, nx) float32 made of sums from `warp_sum`, one for each of `mixes`."""

    @abstractmethod
    def fourier_crop(self, image: np.ndarray, size: Tuple[int, int]) -> np.ndarray:
        """Image (ny, nx) float32 reduced to `size` pixels, same area and mean, by removing the highest frequencies."""

    @abstractmethod
    def tile_power(self, image: np.ndarray, rows: np.ndarray, columns: np.ndarray, window: np.ndarray) -> np.ndarray:
        """Sum of the power spectra of tiles of an image (ny, nx) float32, each without its mean and tapered.

        Parameters
        ----------
        rows, columns : int, first rows and columns of the tiles; there is a tile for each combination.
        window : (tile,) taper along both axes.

        Returns
        -------
        (tile, tile) float64, unnormalised, frequency zero at [0, 0].
        """
