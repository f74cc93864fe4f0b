"""Which part of a frame's Fourier transform the alignment uses (Strelak 2020, section 2.1.1 and 3.1).

Frames are compared after the low-pass `exp(-w^2 / (2 sigma^2))`, `sigma = c * Ts / Rmax`, which is 0.5 at the chosen
resolution Rmax. What the low-pass removes is never computed: the spectrum is cropped to a *band*, which is the
spectrum of the same image with larger pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Tuple

import numpy as np

HALF_AT_RMAX = math.sqrt(-1.0 / (2.0 * math.log(0.5)))  # c = 0.8493, makes the low-pass 0.5 at Rmax
CROP_SIGMAS = 4.0  # the low-pass is 3.4e-4 there
MAX_FFT_SIZE_CHANGE = 0.10


def is_fft_friendly(n: int) -> bool:
    """True when n has no prime factor above 7."""
    for p in (2, 3, 5, 7):
        while n % p == 0:
            n //= p
    return n == 1


def fft_size_below(n: int) -> int:
    """Largest even FFT-friendly size <= n, or n itself (made even) when none lies within 10 %."""
    for size in range(n - n % 2, int(n * (1 - MAX_FFT_SIZE_CHANGE)), -2):
        if is_fft_friendly(size):
            return size
    return n - n % 2


def fft_size_above(n: float) -> int:
    """Smallest even FFT-friendly size >= n."""
    size = 2 * math.ceil(n / 2)
    while not is_fft_friendly(size):
        size += 2
    return size


@dataclass(frozen=True)
class Band:
    """A Fourier crop of an image.

    Attributes
    ----------
    full : (fy, fx) size of the image that is transformed, pixels.
    size : (by, bx) size of the crop, even; its real-input spectrum is (by, bx // 2 + 1).
    """

    full: Tuple[int, int]
    size: Tuple[int, int]

    @property
    def scale(self) -> np.ndarray:
        """(2,) image pixels per band pixel, (y, x): multiplies shifts found in the band. Exact for each axis."""
        return np.array(self.full, float) / np.array(self.size, float)

    @property
    def spectrum_shape(self) -> Tuple[int, int]:
        return self.size[0], self.size[1] // 2 + 1

    def frequencies(self) -> Tuple[np.ndarray, np.ndarray]:
        """Cycles per image pixel of the rows (by,), in FFT order, and of the columns (bx // 2 + 1,)."""
        (fy, fx), (by, bx) = self.full, self.size
        return np.fft.fftfreq(by, 1.0 / by) / fy, np.arange(bx // 2 + 1) / fx


def correlation_band(image: Tuple[int, int], pixel_size_A: float, max_res_A: float) -> Band:
    """Band for an image of FFT-friendly size `image` (ny, nx), cropped at CROP_SIGMAS of the low-pass."""
    pixel_A = max_res_A / (2.0 * CROP_SIGMAS * HALF_AT_RMAX)
    size = [min(n, fft_size_above(n * pixel_size_A / pixel_A)) for n in image]
    return Band(full=(image[0], image[1]), size=(size[0], size[1]))


def lowpass(band: Band, pixel_size_A: float, max_res_A: float, axes: bool = False) -> np.ndarray:
    """Low-pass on the band's spectrum, (by, bx // 2 + 1) float32, zero where `unusable` says so."""
    fy, fx = band.frequencies()
    sigma = HALF_AT_RMAX * pixel_size_A / max_res_A
    w = np.exp(-(fy[:, None] ** 2 + fx[None, :] ** 2) / (2 * sigma**2))
    return np.where(unusable(band, axes), 0, w).astype(np.float32)


def halves(weight: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """The colours of a checkerboard in Fourier space: their noise is independent."""
    black = np.indices(weight.shape).sum(axis=0) % 2 == 0
    return np.where(black, weight, 0), np.where(black, 0, weight)


def unusable(band: Band, axes: bool = False) -> np.ndarray:
    """Coefficients that the alignment must not use, (by, bx // 2 + 1) bool.

    These are the mean, the crop's Nyquist row and column, which have no conjugate partner, and, unless `axes`, the
    kx = 0 column and the ky = 0 row, where patterns of detector rows and columns lie that do not move with the image.
    """
    by, bxh = band.spectrum_shape
    out = np.zeros((by, bxh), bool)
    out[0, 0] = True
    if not axes:
        out[0, :] = out[:, 0] = True
    if by < band.full[0]:
        out[by // 2, :] = True
    if band.size[1] < band.full[1]:
        out[:, -1] = True
    return out
