"""`Band`, the central part of a Fourier transform, and sizes that are fast to transform (Strelak 2020, section 3.4)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Tuple

import numpy as np

MAX_FFT_SIZE_CHANGE = 0.10


def is_fft_friendly(n: int) -> bool:
    """True if n has no prime factor above 7."""
    for p in (2, 3, 5, 7):
        while n % p == 0:
            n //= p
    return n == 1


def fft_size_below(n: int) -> int:
    """Largest even FFT-friendly size <= n, or n itself (made even) if none is within 10 %."""
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
        """(2,) float64, image pixels per band pixel (y, x), exact for each axis. Multiplies shifts in band pixels."""
        return np.array(self.full, float) / np.array(self.size, float)

    @property
    def spectrum_shape(self) -> Tuple[int, int]:
        """(by, bx // 2 + 1), shape of the real-input spectrum."""
        return self.size[0], self.size[1] // 2 + 1

    def frequencies(self) -> Tuple[np.ndarray, np.ndarray]:
        """Cycles per image pixel of the rows (by,), in FFT order, and of the columns (bx // 2 + 1,)."""
        (fy, fx), (by, bx) = self.full, self.size
        return np.fft.fftfreq(by, 1.0 / by) / fy, np.arange(bx // 2 + 1) / fx
