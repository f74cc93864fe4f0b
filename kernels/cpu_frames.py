"""Numba kernels on raw frames: sum, correction, defect replacement. All release the GIL and work on a range of rows."""

from __future__ import annotations

import numpy as np

from ..jit import njit

_jit = njit(nogil=True, fastmath=False, error_model="numpy")


def native(raw: np.ndarray) -> np.ndarray:
    """The frame in a type that numba supports: float16 becomes float32, another byte order the native one."""
    if raw.dtype == np.float16:
        return raw.astype(np.float32)
    if not raw.dtype.isnative:
        return raw.astype(raw.dtype.newbyteorder("="))
    return raw


@_jit
def add_rows(raw, y0, y1, total):
    """total[y0:y1] += raw[y0:y1]; returns the sum of these raw values in float64."""
    s = np.float64(0.0)
    for y in range(y0, y1):
        for x in range(raw.shape[1]):
            v = np.float32(raw[y, x])
            total[y, x] += v
            s += v
    return s


@_jit
def correct_rows(raw, dark, gain, y0, y1, out, row, column):
    """out[row + y - y0, column:column + nx] = (raw[y] - dark[y]) * gain[y]; empty dark or gain: not applied."""
    nx = raw.shape[1]
    for y in range(y0, y1):
        o = out[row + y - y0]
        for x in range(nx):
            o[column + x] = np.float32(raw[y, x])
        if dark.size:
            for x in range(nx):
                o[column + x] -= dark[y, x]
        if gain.size:
            for x in range(nx):
                o[column + x] *= gain[y, x]


@_jit
def replace_defects(raw, dark, gain, rows, cols, indptr, neighbours, y0, y1, out, row, column):
    """Defects (sorted by row) in rows y0..y1 become the mean of their good neighbours' corrected values."""
    nx = raw.shape[1]
    first = np.searchsorted(rows, y0)
    last = np.searchsorted(rows, y1)
    for d in range(first, last):
        s = np.float64(0.0)
        for n in range(indptr[d], indptr[d + 1]):
            y = neighbours[n] // nx
            x = neighbours[n] - y * nx
            v = np.float64(raw[y, x])
            if dark.size:
                v -= dark[y, x]
            if gain.size:
                v *= gain[y, x]
            s += v
        count = indptr[d + 1] - indptr[d]
        out[row + rows[d] - y0, column + cols[d]] = s / count if count else 0.0
