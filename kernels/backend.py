"""The interface between the mathematics (`motion/`) and a device: whole-movie operations, so that data stays there.

Spectra and correlation windows are opaque to the caller: they live where the backend likes and are only handed
back to it. All shapes are [frame, y, x]; shifts have columns (y, x).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, List, Optional, Sequence, Tuple

import numpy as np

from ..motion.band import Band, fft_size_below
from ..motion.model import MotionModel


@dataclass(frozen=True)
class FrameSource:
    """Raw frames of one movie and how to correct them: `corrected = (raw - dark) * gain`, defects replaced.

    Attributes
    ----------
    movie : has `shape` (n, ny, nx) and `frame(i)`, the native (ny, nx) array.
    dark, gain : (ny, nx) float32 or None; the gain multiplies.
    defects : `movies.NeighbourTable` of the pixels to replace, or None.
    """

    movie: Any
    dark: Optional[np.ndarray]
    gain: Optional[np.ndarray]
    defects: Any


@dataclass(frozen=True)
class Peaks:
    """Highest point of each correlation window, with sub-pixel position.

    Attributes
    ----------
    position : (..., 2) float64, (y, x) in pixels of the correlated band.
    height : (...) float64, value there.
    noise : (...) float64, standard deviation of the window without its peak's neighbourhood.
    on_rim : (...) bool, the maximum lies on the rim of the searched region: it measures nothing.
    """

    position: np.ndarray
    height: np.ndarray
    noise: np.ndarray
    on_rim: np.ndarray


@dataclass(frozen=True)
class Mix:
    """How one image is made of sums of resampled frames: each sum filtered by radial frequency, then whitened.

    Tables of n entries are indexed by `floor(f * n / sqrt(1/2))`, at most n - 1; f is the radial frequency in
    cycles per pixel.

    Attributes
    ----------
    factors : (n_factors, n_sums) float32, what each sum's spectrum is multiplied with.
    power : (n_power, 6, 6) float32, mean power C of the interpolation: the total is divided by the root of
        `sum_lm C[l, m] cos(l wy) cos(m wx)`, or of LOST where that is smaller (micrographs/resampling.py).
    """

    factors: np.ndarray
    power: np.ndarray


LOST = 1e-4  # mean power of the interpolation below which nothing can be restored (half a pixel off, at Nyquist)


class Windows(ABC):
    """The central parts of the correlation images of pairs (i, j), which stay on the device.

    All positions and shifts are absolute, in band pixels: shifts that were applied before the correlation are added
    back.
    """

    @abstractmethod
    def peaks(self, around: Optional[np.ndarray] = None, radius: Optional[float] = None) -> Peaks:
        """Search each window's maximum.

        Parameters
        ----------
        around : (batch, n_pairs, 2) positions (y, x) to search around; the window's centre when None.
        radius : radius of the search; the whole window when None.
        """

    @abstractmethod
    def objective(self, shifts: np.ndarray, weights: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """How well shifts align the images: sum over pairs of weight * correlation(shift_j - shift_i).

        This is the power of the aligned sum, without every image's own power (ALGORITHM.md, section 5).

        Parameters
        ----------
        shifts : (batch, n, 2). weights : (batch, n_pairs).

        Returns
        -------
        (batch,) values and (batch, n, 2) gradients, float64.
        """


class Backend(ABC):
    """Operations on one device. Deterministic: the same input gives the same bytes."""

    name: str

    def frame_fft_size(self, ny: int, nx: int, n_frames: int) -> Tuple[int, int]:
        """(fy, fx) of the part of a frame that is transformed, in movies of so many frames; at most 10 % smaller."""
        return fft_size_below(ny), fft_size_below(nx)

    @abstractmethod
    def sum_raw(self, source: FrameSource, frames: range) -> Tuple[np.ndarray, np.ndarray]:
        """Sum of raw frames, (ny, nx) float32, and every frame's mean, (n,) float64, not finite if a pixel is not."""

    @abstractmethod
    def correct(self, source: FrameSource, raw: np.ndarray) -> np.ndarray:
        """Corrected image, (ny, nx) float32, of one raw frame or of a mean of raw frames."""

    @abstractmethod
    def spectra(self, source: FrameSource, frames: range, band: Band) -> Any:
        """Cropped spectra of the frames' central `band.full` pixels: (1, n, by, bx // 2 + 1) complex64, opaque."""

    @abstractmethod
    def patch_spectra(
        self, spectra: Any, band: Band, shifts: np.ndarray, corners: np.ndarray, patch: Tuple[int, int]
    ) -> Any:
        """Spectra of patches cut from the frames after their global shift, which is applied exactly, as a phase.

        Parameters
        ----------
        spectra, band : from `spectra`.
        shifts : (n, 2) shift of each frame, band pixels.
        corners : (p, 2) int, upper left corner of each patch, band pixels.
        patch : (py, px) even size, band pixels.

        Returns
        -------
        (p, n, py, px // 2 + 1) complex64, opaque.
        """

    @abstractmethod
    def power(self, spectra: Any, size: Tuple[int, int], shifts: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """|sum_t F_t|^2 of the shifted frames and sum_t |F_t|^2, averaged over the batch: (sy, sx // 2 + 1) float64.

        shifts : (batch, n, 2) in band pixels.
        """

    @abstractmethod
    def correlate(
        self,
        spectra: Any,
        size: Tuple[int, int],
        weight: np.ndarray,
        pairs: np.ndarray,
        radius: float,
        step: float = 1.0,
        shifts: Optional[np.ndarray] = None,
        group: int = 1,
    ) -> Windows:
        """Windows of the weighted cross-correlation of pairs (i, j): its maximum lies at shift_j - shift_i.

        Parameters
        ----------
        spectra : (batch, n, sy, sx // 2 + 1) from `spectra` or `patch_spectra`.
        size : (sy, sx) of the images that they are spectra of.
        weight : (sy, sx // 2 + 1) float32 >= 0, multiplies the product of two spectra.
        pairs : (n_pairs, 2) int frame indices.
        radius, step : windows span -radius .. radius in both axes, sampled every `step` band pixels.
        shifts : (batch, n, 2) shifts in band pixels that are applied first, so that windows can be small; or None.
        group : frames averaged around each one (t - (group-1)//2 .. t + group//2, fewer at the ends). What a frame
            contributes to both groups of a pair is left out: it would pull the pair's shift to zero.
        """

    @abstractmethod
    def warp_sum(
        self, source: FrameSource, model: MotionModel, frames: Sequence[int], weights: np.ndarray, fill: np.ndarray
    ) -> Any:
        """Weighted sums of frames resampled once through the motion model. All sums are made in one pass.

        Parameters
        ----------
        frames : (n,) 0-based frames of the movie.
        weights : (n_sums, n) weight of each frame in each sum.
        fill : (n,) value of pixels that a frame does not cover.

        Returns
        -------
        (n_sums, ny, nx) float32, opaque, convolved with the quintic B-spline: `mix` takes that out.
        """

    @abstractmethod
    def mix(self, sums: Any, mixes: Sequence[Mix]) -> List[np.ndarray]:
        """Images (ny, nx) float32 made of sums from `warp_sum`, one for each of `mixes`."""

    @abstractmethod
    def fourier_crop(self, image: np.ndarray, size: Tuple[int, int]) -> np.ndarray:
        """Image (ny, nx) float32 with fewer pixels, `size`, of the same area and mean: the highest frequencies go."""

    @abstractmethod
    def tile_power(self, image: np.ndarray, rows: np.ndarray, columns: np.ndarray, window: np.ndarray) -> np.ndarray:
        """Sum of the power spectra of tiles of an image (ny, nx) float32, each freed of its mean and tapered.

        Parameters
        ----------
        rows, columns : int, where tiles begin; there is one at each row and column.
        window : (tile,) taper along both axes.

        Returns
        -------
        (tile, tile) float64, unnormalised, frequency zero at [0, 0].
        """
