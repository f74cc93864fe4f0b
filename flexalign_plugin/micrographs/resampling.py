"""What is done once to the sum of resampled frames: the spline's filter, cropping and binning (ALGORITHM.md, 6).

Frames are summed after interpolation with the cubic B-spline without its prefilter (`kernels` warp). A shift by the
fraction f of a pixel then multiplies the spectrum by B_f(w) = sum_k beta3(k + f) exp(-i w k). The usual prefilter
1 / B_0 restores frames of whole-pixel shifts and leaves the others blurred: white noise comes out coloured. Here the
sum is divided by the root of the mean of |B_f|^2 over the fractions that really occurred (`Backend.mix`). Noise that
was white in the frames is white in the sum, up to Nyquist, and a movie without motion comes out unchanged.
"""

from __future__ import annotations

from typing import Sequence, Tuple

import numpy as np
import scipy.fft

from ..kernels.backend import Mix
from ..motion.model import MotionModel

_MESH = 33


def frame_powers(model: MotionModel, frames: Sequence[int]) -> np.ndarray:
    """Power of the interpolation's transfer function in each frame, mean over places.

    Parameters
    ----------
    frames : (n,) 0-based frames of the movie.

    Returns
    -------
    (n, 4, 4) float64 coefficients C of `|B(wy) B(wx)|^2 = sum_lm C[l, m] cos(l wy) cos(m wx)`.
    """
    ny, nx = model.frame_shape
    y, x = np.linspace(0, ny - 1, _MESH), np.linspace(0, nx - 1, _MESH)
    powers = np.zeros((len(frames), 4, 4))
    for k, t in enumerate(frames):
        along_y, along_x = (_autocorrelation(s - np.floor(s)) for s in model.frame_field(t, y, x))
        powers[k] = along_y @ along_x.T / along_y.shape[1]
    return powers


def plain_mix(model: MotionModel, frames: Sequence[int]) -> Mix:
    """The image of one sum of frames of equal weights, whitened."""
    return Mix(np.ones((1, 1), np.float32), frame_powers(model, frames).mean(axis=0, keepdims=True).astype(np.float32))


def binned_size(n: int, factor: float) -> Tuple[int, int]:
    """(pixels used, pixels after binning) of an axis of n pixels.

    A few pixels at the end may be left out so that their ratio is the factor itself and the pixel size is exact.
    """
    best = (n, max(int(n / factor), 1))
    error = np.inf
    for out in range(max(int(n / factor), 1), max(int(n / factor) - 64, 0), -1):
        used = min(int(round(out * factor)), n)
        now = abs(used / out - factor)
        if now < error - 1e-9:
            best, error = (used, out), now
    return best


def fourier_bin(image: np.ndarray, factor: float) -> np.ndarray:
    """Bin (ny, nx) float32 by cropping its Fourier transform; the mean stays as it is."""
    if factor == 1:
        return image
    (uy, oy), (ux, ox) = (binned_size(n, factor) for n in image.shape)
    spectrum = scipy.fft.rfft2(image[:uy, :ux])
    out = np.zeros((oy, ox // 2 + 1), np.complex64)
    low, high = (oy + 1) // 2, oy // 2
    out[:low] = spectrum[:low, : ox // 2 + 1]
    if high:
        out[-high:] = spectrum[uy - high :, : ox // 2 + 1]
    # Without their conjugate partners the crop's own Nyquist frequencies are ambiguous.
    if oy % 2 == 0 and oy < uy:
        out[oy // 2] = 0
    if ox % 2 == 0 and ox < ux:
        out[:, -1] = 0
    return scipy.fft.irfft2(out, s=(oy, ox)) * np.float32(oy * ox / (uy * ux))


def _autocorrelation(shift_fraction: np.ndarray) -> np.ndarray:
    """(4, m) coefficients of cos(l w) in |B_f(w)|^2 for the fractional parts of m shifts."""
    f = 1.0 - shift_fraction.ravel()
    g = 1.0 - f
    w = np.stack([g**3, 3 * f**3 - 6 * f**2 + 4, 3 * g**3 - 6 * g**2 + 4, f**3]) / 6
    return np.stack([(w * w).sum(axis=0)] + [2 * (w[: 4 - lag] * w[lag:]).sum(axis=0) for lag in (1, 2, 3)])
