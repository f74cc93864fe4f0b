"""Images from sums of resampled frames on the CPU: filtered by radial frequency and whitened (`backend.Mix`)."""

from __future__ import annotations

from typing import Any, Callable, Tuple

import numpy as np
import scipy.fft

from ..backend import LEAST_INTERPOLATION_POWER, Mix
from ..jit import njit

_ROWS_PER_TASK = 128
_jit = njit(nogil=True, fastmath=False, error_model="numpy")


def mix_one(sums: np.ndarray, mix: Mix, threads: int, run: Callable[..., Any]) -> np.ndarray:
    """Image (ny, nx) float32 of sums (n_sums, ny, nx) float32.

    run : calls a function for each argument of a list, in `threads` threads.
    """
    _, ny, nx = sums.shape
    factors, power = (np.ascontiguousarray(a, np.float32) for a in (mix.factors, mix.power))
    fy, fx = np.fft.fftfreq(ny), np.arange(nx // 2 + 1) / nx
    order = np.arange(power.shape[1])
    cos_y, cos_x = (np.cos(2 * np.pi * np.outer(f, order)).astype(np.float32) for f in (fy, fx))
    fy, fx = fy.astype(np.float32), fx.astype(np.float32)
    used = [s for s in range(len(sums)) if factors[:, s].any()]
    total = np.zeros((ny, nx // 2 + 1), np.complex64)
    starts = range(0, ny, _ROWS_PER_TASK)
    for s in used:
        spectrum = scipy.fft.rfft2(sums[s], workers=threads)
        factor = np.ascontiguousarray(factors[:, s])
        run(lambda y, a=spectrum, f=factor: _add_rows(a, f, fy, fx, y, min(y + _ROWS_PER_TASK, ny), total), starts)
    # The constant is an argument because numba's cache does not notice changed constants of other modules.
    least = np.float32(LEAST_INTERPOLATION_POWER)
    run(lambda y: _whiten_rows(total, power, least, fy, fx, cos_y, cos_x, y, min(y + _ROWS_PER_TASK, ny)), starts)
    return scipy.fft.irfft2(total, s=(ny, nx), overwrite_x=True, workers=threads)


def fourier_crop(image: np.ndarray, size: Tuple[int, int], threads: int = 1) -> np.ndarray:
    """`Backend.fourier_crop` on the CPU."""
    (uy, ux), (oy, ox) = image.shape, size
    spectrum = scipy.fft.rfft2(image, workers=threads)
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
    return scipy.fft.irfft2(out, s=(oy, ox), workers=threads) * np.float32(oy * ox / (uy * ux))


@_jit
def _radial(fy, fx, n):
    """Index of a frequency in tables of n entries."""
    return min(int(np.sqrt(fy * fy + fx * fx) * np.float32(np.sqrt(2.0) * n)), n - 1)


@_jit
def _add_rows(spectrum, factor, fy, fx, y0, y1, total):
    n = len(factor)
    for y in range(y0, y1):
        for x in range(len(fx)):
            total[y, x] += factor[_radial(fy[y], fx[x], n)] * spectrum[y, x]


@_jit
def _whiten_rows(spectrum, power, least, fy, fx, cos_y, cos_x, y0, y1):
    n = len(power)
    lags = power.shape[1]
    along_y = np.empty(lags, np.float32)
    last = -1
    for y in range(y0, y1):
        last = -1
        for x in range(len(fx)):
            i = _radial(fy[y], fx[x], n)
            if i != last:
                for m in range(lags):
                    v = np.float32(0)
                    for l in range(lags):
                        v += power[i, l, m] * cos_y[y, l]
                    along_y[m] = v
                last = i
            p = np.float32(0)
            for m in range(lags):
                p += along_y[m] * cos_x[x, m]
            spectrum[y, x] /= np.sqrt(max(p, least))
