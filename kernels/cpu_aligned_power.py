"""Power of sums of shifted images on the CPU, and its derivatives for the shifts (`backend.AlignedPower`)."""

from __future__ import annotations

from typing import Any, Callable, Tuple

import numpy as np

from ..backend import AlignedPower, WeightedColumns, curvature_of_products, weighted_columns
from ..jit import njit

BLOCK_BYTES = 4 << 20  # of derivatives that are multiplied at once


class CpuAlignedPower(AlignedPower):
    """
    Parameters
    ----------
    spectra, size, weight : as in `Backend.aligned_power`.
    run : calls a function with each of some arguments, in threads, and returns the results in order.
    """

    def __init__(self, spectra: np.ndarray, size: Tuple[int, int], weight: np.ndarray, run: Callable[..., Any]):
        self._spectra, self._run = spectra, run
        self._band = weighted_columns(size, weight)
        batch, n = spectra.shape[:2]
        rows, columns = self._band.weight.shape
        at_once = max(BLOCK_BYTES // max(16 * n * columns, 1), 1)
        # Image and rows of each task; they do not depend on the number of threads.
        self._tasks = [(b, r, min(r + at_once, rows)) for b in range(batch) for r in range(0, rows, at_once)]

    def slopes(self, shifts: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        shifts = np.ascontiguousarray(shifts, float)
        values, slopes = np.zeros(len(shifts)), np.zeros(shifts.shape)

        def of_rows(task: Tuple[int, int, int]) -> Tuple[float, np.ndarray]:
            out = np.empty(shifts.shape[1:])
            return _slopes(self._spectra[task[0]], *self._part(task), shifts[task[0]], out), out

        for (b, _, _), (value, slope) in zip(self._tasks, self._run(of_rows, self._tasks)):
            values[b] += value
            slopes[b] += slope
        return values, slopes

    def curvature(self, shifts: np.ndarray, factors: np.ndarray) -> np.ndarray:
        shifts = np.ascontiguousarray(shifts, float)
        n = shifts.shape[1]
        products = np.zeros((2 * n, 2 * n))

        def of_rows(task: Tuple[int, int, int]) -> np.ndarray:
            band = self._part(task)
            derivatives = np.empty((2 * n, 2 * band.weight.size), np.float32)
            _derivatives(self._spectra[task[0]], *band, shifts[task[0]], derivatives)
            return derivatives @ derivatives.T

        for (b, _, _), of_task in zip(self._tasks, self._run(of_rows, self._tasks)):
            products += factors[b] * of_task
        return curvature_of_products(products)

    def _part(self, task: Tuple[int, int, int]) -> WeightedColumns:
        """The rows of a task."""
        rows = slice(*task[1:])
        band = self._band
        return band._replace(rows=band.rows[rows], weight=band.weight[rows], ky=band.ky[rows])


@njit(nogil=True, fastmath=True, error_model="numpy")
def _phases(frequencies, shifts):  # type: ignore[no-untyped-def]
    """Cosine and sine (n, m) float32 of -2 pi times shift (n,) times frequency (m,)."""
    cosine = np.empty((len(shifts), len(frequencies)), np.float32)
    sine = np.empty((len(shifts), len(frequencies)), np.float32)
    for t in range(len(shifts)):
        for k in range(len(frequencies)):
            angle = -2 * np.pi * frequencies[k] * shifts[t]
            cosine[t, k] = np.cos(angle)
            sine[t, k] = np.sin(angle)
    return cosine, sine


@njit(nogil=True, fastmath=True, error_model="numpy")
def _shifted(row, first, cos_y, sin_y, cos_x, sin_x, real, imaginary):  # type: ignore[no-untyped-def]
    """Real and imaginary parts (columns,) of a part of a row of one spectrum, times the phases of a shift."""
    for c in range(len(real)):
        z = row[first + c]
        a = z.real * cos_y - z.imag * sin_y
        b = z.real * sin_y + z.imag * cos_y
        real[c] = a * cos_x[c] - b * sin_x[c]
        imaginary[c] = a * sin_x[c] + b * cos_x[c]


@njit(nogil=True, fastmath=True, error_model="numpy")
def _slopes(spectra, rows, first, weight, ky, kx, shifts, slopes):  # type: ignore[no-untyped-def]
    """Fill `slopes` (n, 2) of one image with spectra (n, sy, sxh) and shifts (n, 2); returns the value."""
    n, columns = len(spectra), weight.shape[1]
    cos_y, sin_y = _phases(ky, shifts[:, 0])
    cos_x, sin_x = _phases(kx, shifts[:, 1])
    real, imaginary = np.empty((n, columns), np.float32), np.empty((n, columns), np.float32)
    sum_real, sum_imaginary = np.empty(columns, np.float32), np.empty(columns, np.float32)
    single, along_x = np.empty(columns, np.float32), kx.astype(np.float32)
    value = 0.0
    slopes[:] = 0.0
    for r in range(len(rows)):
        sum_real[:] = 0
        sum_imaginary[:] = 0
        single[:] = 0
        for t in range(n):
            re, im = real[t], imaginary[t]
            _shifted(spectra[t, rows[r]], first, cos_y[t, r], sin_y[t, r], cos_x[t], sin_x[t], re, im)
            for c in range(columns):
                sum_real[c] += re[c]
                sum_imaginary[c] += im[c]
                single[c] += re[c] * re[c] + im[c] * im[c]
        for c in range(columns):
            w = weight[r, c]
            value += w * (sum_real[c] * sum_real[c] + sum_imaginary[c] * sum_imaginary[c] - single[c])
            sum_real[c] *= w
            sum_imaginary[c] *= w
        for t in range(n):
            re, im = real[t], imaginary[t]
            turned, turned_x = np.float32(0), np.float32(0)
            for c in range(columns):
                product = sum_real[c] * im[c] - sum_imaginary[c] * re[c]
                turned += product
                turned_x += product * along_x[c]
            slopes[t, 0] += ky[r] * turned
            slopes[t, 1] += turned_x
    slopes *= 2 * np.pi
    return 0.5 * value


@njit(nogil=True, fastmath=True, error_model="numpy")
def _derivatives(spectra, rows, first, weight, ky, kx, shifts, out):  # type: ignore[no-untyped-def]
    """out[t], out[n + t] = derivatives of image t along y and x, without the factor -i, times the weight's root.

    spectra : (n, sy, sxh). out : (2 n, 2 rows columns) float32, real and imaginary parts.
    """
    n, columns = len(spectra), weight.shape[1]
    cos_y, sin_y = _phases(ky, shifts[:, 0])
    cos_x, sin_x = _phases(kx, shifts[:, 1])
    parts, root = np.empty((2, columns), np.float32), np.empty(columns, np.float32)
    along_x = kx.astype(np.float32)
    for r in range(len(rows)):
        along_y = np.float32(ky[r])
        for c in range(columns):
            root[c] = np.float32(2 * np.pi) * np.sqrt(weight[r, c])
        for t in range(n):
            _shifted(spectra[t, rows[r]], first, cos_y[t, r], sin_y[t, r], cos_x[t], sin_x[t], parts[0], parts[1])
            for part in range(2):
                at = (2 * r + part) * columns
                for c in range(columns):
                    v = parts[part, c] * root[c]
                    out[t, at + c] = v * along_y
                    out[n + t, at + c] = v * along_x[c]
