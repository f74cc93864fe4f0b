"""Numba kernels that resample a frame through a smooth shift field, in two one-dimensional passes.

A frame's shift changes by less than 1e-2 px from one pixel to the next, so that the two-dimensional quintic B-spline
separates: first along x within each source row, then along y. The shift field is given on a mesh and linear between
its nodes. Along a mesh cell the integer part of the shift is (nearly always) constant, hence the inner loops read
consecutive pixels and vectorise.

The B-spline is not prefiltered here: the filter is the same for all frames and commutes with the sum
(correction/resampling.py applies it once, to the result).
"""

from __future__ import annotations

import numpy as np

from ..jit import njit

_jit = njit(nogil=True, fastmath=True, error_model="numpy", boundscheck=False)

FLAT_SLOPE = 1e-8  # px per px: negligible over a mesh cell


@_jit
def _split(s0, slope, length, k):
    """Integer offset m = floor(-s) at index k of a linear shift s0 + slope * k, and the index at which it changes."""
    p = -(s0 + slope * k)
    m = int(np.floor(p))
    end = length
    if abs(slope) < FLAT_SLOPE:
        return m, end
    if slope < 0:  # -s grows: m changes when it reaches m + 1
        end = min(length, int(np.ceil((s0 + m + 1) / -slope)))
    else:
        end = min(length, int(np.floor((-s0 - m) / slope)) + 1)
    return m, max(end, k + 1)


@_jit
def _second(f, f2):
    """120 times the quintic B-spline at 1 + f, f2 = f * f."""
    inner = np.float32(20) + f * (np.float32(5) * f - np.float32(20))
    return np.float32(26) + f * (np.float32(-50) + f * (np.float32(20) + f * inner))


@_jit
def _resample_row(row, base, s0, slope, x0, length, out):
    """out[x0 + k] = B-spline sum of `row` at x0 + k - shift(k); row[base] is the pixel x = 0."""
    k = 0
    while k < length:
        m, end = _split(s0, slope, length, k)
        f0 = np.float32(-(s0 + slope * k) - m)
        df = np.float32(-slope)
        src = row[base + x0 + k + m - 2 :]
        dst = out[x0 + k :]
        for i in range(end - k):
            f = f0 + df * np.float32(i)
            g = np.float32(1) - f
            f2, g2 = f * f, g * g
            w0, w5 = g2 * g2 * g, f2 * f2 * f
            w1, w4 = _second(f, f2), _second(g, g2)
            w2 = np.float32(66) + f2 * (np.float32(-60) + f2 * (np.float32(30) - np.float32(10) * f))
            w3 = np.float32(120) - w0 - w1 - w2 - w4 - w5
            left = w0 * src[i] + w1 * src[i + 1] + w2 * src[i + 2]
            dst[i] = (left + w3 * src[i + 3] + w4 * src[i + 4] + w5 * src[i + 5]) * np.float32(1 / 120)
        k = end


@_jit
def _resample_column(source, row, s0, slope, x0, length, out):
    """out[x0 + k] = 120 times the B-spline sum over rows of `source` at row - shift(k)."""
    k = 0
    while k < length:
        m, end = _split(s0, slope, length, k)
        f0 = np.float32(-(s0 + slope * k) - m)
        df = np.float32(-slope)
        r0 = source[row + m - 2, x0 + k :]
        r1 = source[row + m - 1, x0 + k :]
        r2 = source[row + m, x0 + k :]
        r3 = source[row + m + 1, x0 + k :]
        r4 = source[row + m + 2, x0 + k :]
        r5 = source[row + m + 3, x0 + k :]
        dst = out[x0 + k :]
        for i in range(end - k):
            f = f0 + df * np.float32(i)
            g = np.float32(1) - f
            f2, g2 = f * f, g * g
            w0, w5 = g2 * g2 * g, f2 * f2 * f
            w1, w4 = _second(f, f2), _second(g, g2)
            w2 = np.float32(66) + f2 * (np.float32(-60) + f2 * (np.float32(30) - np.float32(10) * f))
            w3 = np.float32(120) - w0 - w1 - w2 - w4 - w5
            dst[i] = w0 * r0[i] + w1 * r1[i] + w2 * r2[i] + w3 * r3[i] + w4 * r4[i] + w5 * r5[i]
        k = end


@_jit
def _add(row, scale, out):
    for x in range(len(row)):
        out[x] += scale * row[x]


@_jit
def _mesh_row(mesh, y, spacing, out):
    """Mesh values of one component interpolated to row y: out (nodes_x,)."""
    at = min(max(y / spacing, 0.0), mesh.shape[0] - 1.000001)
    i = int(at)
    f = at - i
    for n in range(mesh.shape[1]):
        out[n] = mesh[i, n] * (1 - f) + mesh[i + 1, n] * f


@_jit
def warp_rows(rows, first_row, pad, mesh, spacing, y0, y1, scales, buffer, sums):
    """Add the rows y0..y1 of one resampled frame to each sum.

    rows : (h, nx + 2 pad) float32 source rows first_row .. first_row + h - 1, `pad` columns of fill on either side.
    mesh : (2, my, mx) float64 shift (sy, sx) at multiples of `spacing` px.
    scales : (n_sums,) float32 weights. buffer : (h, nx) float32 scratch. sums : (n_sums, ny, nx) float32.
    """
    h = rows.shape[0]
    nx = rows.shape[1] - 2 * pad
    nodes = mesh.shape[2]
    sy = np.empty(nodes)
    moved = np.empty(nx, np.float32)
    for r in range(h):
        # The source row y is moved to the output row y + sy, where sx is evaluated.
        y = float(first_row + r)
        _mesh_row(mesh[0], y, spacing, sy)
        middle = sy[nodes // 2]
        _mesh_row(mesh[0], y + middle, spacing, sy)
        for n in range(nodes - 1):
            x0 = n * spacing
            length = min(spacing, nx - x0)
            if length <= 0:
                break
            at = min(max((y + 0.5 * (sy[n] + sy[n + 1])) / spacing, 0.0), mesh.shape[1] - 1.000001)
            i = int(at)
            f = at - i
            a = mesh[1, i, n] * (1 - f) + mesh[1, i + 1, n] * f
            b = mesh[1, i, n + 1] * (1 - f) + mesh[1, i + 1, n + 1] * f
            _resample_row(rows[r], pad, a, (b - a) / spacing, x0, length, buffer[r])
    for y in range(y0, y1):
        _mesh_row(mesh[0], float(y), spacing, sy)
        for n in range(nodes - 1):
            x0 = n * spacing
            length = min(spacing, nx - x0)
            if length <= 0:
                break
            _resample_column(buffer, y - first_row, sy[n], (sy[n + 1] - sy[n]) / spacing, x0, length, moved)
        for s in range(sums.shape[0]):
            if scales[s] != 0:
                _add(moved, scales[s] * np.float32(1 / 120), sums[s, y])
