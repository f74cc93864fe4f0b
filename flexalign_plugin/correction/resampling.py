"""Steps that are applied once, to the sum of the resampled frames: the filter of the spline, cropping and binning.

They are described in docs/algorithm.md, section 6. Frames are summed after interpolation with the quintic B-spline
without its prefilter (`Backend.warp_sum`). A shift by the fraction f of a pixel then multiplies the spectrum by
B_f(w) = sum_k beta5(k + f) exp(-i w k). The usual prefilter 1 / B_0 is exact for whole-pixel shifts; frames with other
shifts stay blurred, and white noise becomes coloured. Here the sum is divided by the root of the mean of |B_f|^2 over
the fractions that occurred (`Backend.mix`). Noise that is white in the frames is white in the sum, up to Nyquist, and a
movie without motion is not changed.
"""

from __future__ import annotations

from typing import Sequence, Tuple

import numpy as np

from ..backend import Backend, Mix
from ..motion.model import MotionModel

_MESH = 33


def frame_powers(model: MotionModel, frames: Sequence[int]) -> np.ndarray:
    """Power of the interpolation's transfer function in each frame, mean over a mesh of positions.

    Parameters
    ----------
    frames : (n,) 0-based frames of the movie.

    Returns
    -------
    (n, 6, 6) float64 coefficients C of `|B(wy) B(wx)|^2 = sum_lm C[l, m] cos(l wy) cos(m wx)`.
    """
    ny, nx = model.frame_shape
    shifts = model.fields(frames, np.linspace(0, ny - 1, _MESH), np.linspace(0, nx - 1, _MESH))
    along_y, along_x = _autocorrelation(np.moveaxis(shifts - np.floor(shifts), 1, 0).reshape(2, len(frames), -1))
    return np.einsum("tlp,tmp->tlm", along_y, along_x, optimize=True) / along_y.shape[2]


def plain_mix(model: MotionModel, frames: Sequence[int]) -> Mix:
    """The image of one sum of frames of equal weights, whitened."""
    return Mix(np.ones((1, 1), np.float32), frame_powers(model, frames).mean(axis=0, keepdims=True).astype(np.float32))


def binned_size(n: int, factor: float) -> Tuple[int, int]:
    """(pixels used, pixels after binning) of an axis of n pixels.

    A few pixels at the end may be left out, so that the ratio is exactly the factor and the pixel size is exact.
    """
    best = (n, max(int(n / factor), 1))
    error = np.inf
    for out in range(max(int(n / factor), 1), max(int(n / factor) - 64, 0), -1):
        used = min(int(round(out * factor)), n)
        now = abs(used / out - factor)
        if now < error - 1e-9:
            best, error = (used, out), now
    return best


def fourier_bin(image: np.ndarray, factor: float, backend: Backend) -> np.ndarray:
    """Bin an image (ny, nx) float32 by cropping its Fourier transform; the mean is preserved."""
    if factor == 1:
        return image
    (uy, oy), (ux, ox) = (binned_size(n, factor) for n in image.shape)
    return backend.fourier_crop(image[:uy, :ux], (oy, ox))


def _autocorrelation(shift_fraction: np.ndarray) -> np.ndarray:
    """(..., 6, m) coefficients of cos(l w) in |B_f(w)|^2 for the fractional parts (..., m) of shifts."""
    f = 1.0 - shift_fraction
    g = 1.0 - f
    outer, next_to_it = zip(*((x**5, 26 + x * (-50 + x * (20 + x * (20 + x * (5 * x - 20))))) for x in (f, g)))
    inner = 66 + f * f * (-60 + f * f * (30 - 10 * f))
    w = [outer[1], next_to_it[0], inner, 120.0 - inner - sum(outer) - sum(next_to_it), next_to_it[1], outer[0]]
    w = np.stack(w) / 120
    lags = [(w * w).sum(axis=0)] + [2 * (w[:-lag] * w[lag:]).sum(axis=0) for lag in range(1, len(w))]
    return np.stack(lags, axis=-2)
