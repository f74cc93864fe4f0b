"""The low-pass filter of the alignment and the frequencies it excludes (Strelak 2020, sections 2.1.1 and 3.1).

Frames are compared after the low-pass `exp(-w^2 / (2 sigma^2))`, `sigma = c * Ts / Rmax`, which is 0.5 at the chosen
resolution Rmax; Ts is the pixel size. Frequencies beyond it are not computed: the spectrum is cropped to a `Band`.
"""

from __future__ import annotations

import math
from typing import Tuple

import numpy as np

from ..band import Band, fft_size_above

HALF_AT_RMAX = math.sqrt(-1.0 / (2.0 * math.log(0.5)))  # c = 0.8493, makes the low-pass 0.5 at Rmax
CROP_SIGMAS = 4.0  # the low-pass is 3.4e-4 there


def correlation_band(image: Tuple[int, int], pixel_size_A: float, max_res_A: float) -> Band:
    """Band for an image of FFT-friendly size `image` (ny, nx) pixels, cropped at CROP_SIGMAS of the low-pass."""
    pixel_A = max_res_A / (2.0 * CROP_SIGMAS * HALF_AT_RMAX)
    size = [min(n, fft_size_above(n * pixel_size_A / pixel_A)) for n in image]
    return Band(full=(image[0], image[1]), size=(size[0], size[1]))


def lowpass(band: Band, pixel_size_A: float, max_res_A: float, axes: bool = False) -> np.ndarray:
    """Low-pass on the band's spectrum, (by, bx // 2 + 1) float32, zero at the `unusable` coefficients."""
    fy, fx = band.frequencies()
    sigma = HALF_AT_RMAX * pixel_size_A / max_res_A
    w = np.exp(-(fy[:, None] ** 2 + fx[None, :] ** 2) / (2 * sigma**2))
    return np.where(unusable(band, axes), 0, w).astype(np.float32)


def checkerboard_split(weight: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Split a weight (by, bx // 2 + 1) into two sets of frequencies, the two colours of a checkerboard.

    The noise of the two sets is independent, so an estimate from one can be validated on the other.
    """
    black = np.indices(weight.shape).sum(axis=0) % 2 == 0
    return np.where(black, weight, 0), np.where(black, 0, weight)


def unusable(band: Band, axes: bool = False) -> np.ndarray:
    """Coefficients that the alignment must not use, (by, bx // 2 + 1) bool.

    These are the mean and the crop's Nyquist row and column, which have no conjugate partner. Unless `axes`, the
    kx = 0 column and the ky = 0 row are excluded too: they contain patterns of detector rows and columns, which do not
    move with the image.
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
