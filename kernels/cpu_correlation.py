"""Numba kernels of the correlation: products of spectra and the search for a window's peak."""

from __future__ import annotations

import numba
import numpy as np

_jit = numba.njit(nogil=True, cache=True, error_model="numpy")


@numba.njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
def pair_products(groups, members, sizes, pairs, group, row_phase, column_phase, p0, p1, out):
    """out[r, p, c] = conj-product of the groups of pair p0 + p, times the phase that moves its centre to the origin.

    groups, members : (n, rows, cols) complex64, sums over each group and single frames.
    sizes : (n,) frames in each group. group : frames in a full group; 1 means groups are the frames.
    row_phase (n_pairs, rows), column_phase (n_pairs, cols) complex64, or empty.
    """
    n, rows, cols = groups.shape
    before = (group - 1) // 2
    after = group // 2
    for p in range(p0, p1):
        i = pairs[p, 0]
        j = pairs[p, 1]
        scale = np.float32(1.0 / (sizes[i] * sizes[j]))
        shared0 = max(i - before, j - before, 0)
        shared1 = min(i + after, j + after, n - 1)
        for r in range(rows):
            o = out[r, p - p0]
            gi = groups[i, r]
            gj = groups[j, r]
            for c in range(cols):
                o[c] = gi[c] * np.conj(gj[c])
            for s in range(shared0, shared1 + 1):
                m = members[s, r]
                for c in range(cols):
                    o[c] -= m[c].real * m[c].real + m[c].imag * m[c].imag
            if row_phase.size:
                f = row_phase[p, r] * scale
                g = column_phase[p]
                for c in range(cols):
                    o[c] *= f * g[c]
            else:
                for c in range(cols):
                    o[c] *= scale


# Coefficients of the quartic through values at -2, -1, 0, 1, 2 (Lagrange): row k gives the factor of u^k.
_QUARTIC = np.linalg.inv(np.vander(np.arange(-2.0, 3.0), 5, increasing=True))


@_jit
def _subpixel(window, y, x, quartic):
    """Maximum of the biquartic through the 5 x 5 values around (y, x): offset (dy, dx) and value.

    The correlation is oversampled by its low-pass, so that the polynomial follows it to about 1e-3 px, where a
    centroid or a parabola is drawn to the pixel grid. Newton's method; the integer position if it leaves the pixel.
    """
    c = np.zeros((5, 5))
    for k in range(5):
        for m in range(5):
            s = 0.0
            for a in range(5):
                for b in range(5):
                    s += quartic[k, a] * quartic[m, b] * window[y - 2 + a, x - 2 + b]
            c[k, m] = s
    u = 0.0
    v = 0.0
    for _ in range(20):
        f = fu = fv = fuu = fvv = fuv = 0.0
        for k in range(5):
            for m in range(5):
                a = c[k, m]
                pu = u**k
                pv = v**m
                du = k * u ** (k - 1) if k > 0 else 0.0
                dv = m * v ** (m - 1) if m > 0 else 0.0
                ddu = k * (k - 1) * u ** (k - 2) if k > 1 else 0.0
                ddv = m * (m - 1) * v ** (m - 2) if m > 1 else 0.0
                f += a * pu * pv
                fu += a * du * pv
                fv += a * pu * dv
                fuu += a * ddu * pv
                fvv += a * pu * ddv
                fuv += a * du * dv
        det = fuu * fvv - fuv * fuv
        if fuu >= 0 or det <= 0:
            return 0.0, 0.0, window[y, x]
        su = -(fvv * fu - fuv * fv) / det
        sv = -(fuu * fv - fuv * fu) / det
        u += su
        v += sv
        if abs(u) > 1.0 or abs(v) > 1.0:
            return 0.0, 0.0, window[y, x]
        if abs(su) + abs(sv) < 1e-6:
            break
    return u, v, f


@_jit
def _find_peak(window, cy, cx, radius, quartic, exclude):
    """(y, x, height, noise, on_rim) of the highest point within `radius` of (cy, cx)."""
    ny, nx = window.shape
    best = -np.inf
    by = bx = -1
    for y in range(max(0, int(np.floor(cy - radius))), min(ny, int(np.ceil(cy + radius)) + 1)):
        for x in range(max(0, int(np.floor(cx - radius))), min(nx, int(np.ceil(cx + radius)) + 1)):
            if (y - cy) ** 2 + (x - cx) ** 2 <= radius * radius and window[y, x] > best:
                best = window[y, x]
                by = y
                bx = x
    if by < 0:
        return cy, cx, 0.0, 0.0, True
    s = 0.0
    ss = 0.0
    n = 0
    for y in range(ny):
        for x in range(nx):
            if (y - by) ** 2 + (x - bx) ** 2 > exclude * exclude:
                s += window[y, x]
                ss += window[y, x] * window[y, x]
                n += 1
    noise = np.sqrt(max(ss / n - (s / n) ** 2, 0.0)) if n > 1 else 0.0
    if by < 2 or bx < 2 or by >= ny - 2 or bx >= nx - 2:
        return float(by), float(bx), best, noise, True
    for a in range(-1, 2):
        for b in range(-1, 2):
            if window[by + a, bx + b] > best:
                return float(by), float(bx), best, noise, True
    u, v, f = _subpixel(window, by, bx, quartic)
    return by + u, bx + v, f, noise, False


@_jit
def _find_peaks(windows, around, radius, quartic, exclude, position, height, noise, on_rim):
    for w in range(windows.shape[0]):
        y, x, h, s, rim = _find_peak(windows[w], around[w, 0], around[w, 1], radius, quartic, exclude)
        position[w, 0] = y
        position[w, 1] = x
        height[w] = h
        noise[w] = s
        on_rim[w] = rim


PEAK_RADIUS_PX = 4.0  # pixels around a maximum that belong to it and not to the noise


def find_peaks(windows: np.ndarray, around: np.ndarray, radius: float):
    """Peaks of (m, h, w) windows near `around` (m, 2), in window pixels: position, height, noise, on_rim."""
    m = len(windows)
    out = np.empty((m, 2)), np.empty(m), np.empty(m), np.empty(m, np.bool_)
    _find_peaks(windows, around, radius, _QUARTIC, PEAK_RADIUS_PX, *out)
    return out
