"""Numba kernels of the correlation: products of spectra and the search for a window's peak."""

from __future__ import annotations

import numpy as np

from ..backend import PEAK_RADIUS_PX
from ..jit import njit

_jit = njit(nogil=True, error_model="numpy")


class CentralTransform:
    """Central windows of cross-correlations: the inverse transform of products of spectra by two small matrices.

    As cosines are even and sines odd, each needs only the sum or the difference of the rows of opposite frequencies and
    only positions >= 0. This is a quarter of the work of a product with complex matrices.

    Parameters
    ----------
    ky, kx : frequencies of the rows and columns, cycles per pixel. column_factor : of each column.
    half_width, step : the positions are -half_width .. half_width times step, in pixels.
    """

    def __init__(self, ky: np.ndarray, kx: np.ndarray, column_factor: np.ndarray, half_width: int, step: float):
        self._positions = half_width + 1
        offsets = step * np.arange(self._positions)
        distinct, place = np.unique(np.abs(ky), return_inverse=True)
        # Rows of the frequencies k and -k, or -1.
        self._rows = np.full((2, len(distinct)), -1)
        self._rows[(ky < 0).astype(int), place] = np.arange(len(ky))
        along_y, along_x = 2 * np.pi * np.outer(offsets, distinct), 2 * np.pi * np.outer(kx, offsets)
        self._even, self._odd = np.cos(along_y).astype(np.float32), np.sin(along_y[1:]).astype(np.float32)
        self._cosine = (column_factor[:, None] * np.cos(along_x)).astype(np.float32)
        self._sine = (column_factor[:, None] * np.sin(along_x)).astype(np.float32)

    def windows(
        self, groups: np.ndarray, members: np.ndarray, sizes: np.ndarray, pairs: np.ndarray, group: int, out: np.ndarray
    ) -> None:
        """Fill `out` (m, width, width) float32 for pairs (m, 2); the other arguments as for `_pair_products`."""
        m, n_rows, n_cols = len(pairs), self._rows.shape[1], len(self._cosine)
        products = np.empty((2, 2, n_rows, m, n_cols), np.float32)
        _pair_products(groups, members, sizes, pairs, group, self._rows, products)
        products = products.reshape(2, 2, n_rows, m * n_cols)
        even, odd = ((matrix @ part).reshape(2, -1, n_cols) for matrix, part in zip((self._even, self._odd), products))
        shape = (-1, m, self._positions)
        _mirror(
            (even[0] @ self._cosine).reshape(shape),
            (even[1] @ self._sine).reshape(shape),
            (odd[1] @ self._cosine).reshape(shape),
            (odd[0] @ self._sine).reshape(shape),
            out,
        )


@njit(nogil=True, fastmath=True, error_model="numpy")
def _mirror(even_cosine, even_sine, odd_cosine, odd_sine, out):  # type: ignore[no-untyped-def]
    """Put the parts (positions, m, positions) that are even and odd along y and x together; odd ones begin at 1."""
    positions, m, _ = even_cosine.shape
    h = positions - 1
    for p in range(m):
        window = out[p]
        for y in range(positions):
            for x in range(positions):
                cosine, sine = even_cosine[y, p, x], even_sine[y, p, x]
                if y == 0:
                    window[h, h + x] = cosine - sine
                    window[h, h - x] = cosine + sine
                else:
                    other_cosine, other_sine = odd_cosine[y - 1, p, x], odd_sine[y - 1, p, x]
                    window[h + y, h + x] = cosine - other_cosine - sine - other_sine
                    window[h + y, h - x] = cosine - other_cosine + sine + other_sine
                    window[h - y, h + x] = cosine + other_cosine - sine + other_sine
                    window[h - y, h - x] = cosine + other_cosine + sine - other_sine


@njit(nogil=True, fastmath=True, error_model="numpy")
def _pair_products(groups, members, sizes, pairs, group, folded, out):
    """Products of spectra, group_i * conj(group_j), without what single frames contribute to both groups.

    groups, members : (n, rows, cols) complex64, sums over each group and single frames; rows and columns of a spectrum.
    sizes : (n,) frames in each group. group : frames in a full group; 1 means groups are the frames.
    folded : (2, frequencies) rows of the frequencies k and -k, or -1.
    out : (2, 2, frequencies, pairs, cols) float32: sum and difference of the products of the two rows; real and
        imaginary part.
    """
    n, _, cols = groups.shape
    before = (group - 1) // 2
    after = group // 2
    for p in range(len(pairs)):
        i = pairs[p, 0]
        j = pairs[p, 1]
        scale = np.float32(1.0 / (sizes[i] * sizes[j]))
        shared0 = max(i - before, j - before, 0)
        shared1 = min(i + after, j + after, n - 1)
        for k in range(folded.shape[1]):
            one, other = folded[0, k], folded[1, k]
            sum_real, sum_imaginary = out[0, 0, k, p], out[0, 1, k, p]
            difference_real, difference_imaginary = out[1, 0, k, p], out[1, 1, k, p]
            if one < 0 or other < 0:
                gi, gj = groups[i, max(one, other)], groups[j, max(one, other)]
                for c in range(cols):
                    sum_real[c] = (gi[c].real * gj[c].real + gi[c].imag * gj[c].imag) * scale
                    sum_imaginary[c] = (gi[c].imag * gj[c].real - gi[c].real * gj[c].imag) * scale
                for s in range(shared0, shared1 + 1):
                    m = members[s, max(one, other)]
                    for c in range(cols):
                        sum_real[c] -= (m[c].real * m[c].real + m[c].imag * m[c].imag) * scale
                sign = np.float32(1.0 if other < 0 else -1.0)
                for c in range(cols):
                    difference_real[c] = sign * sum_real[c]
                    difference_imaginary[c] = sign * sum_imaginary[c]
                continue
            gi, gj, hi, hj = groups[i, one], groups[j, one], groups[i, other], groups[j, other]
            for c in range(cols):
                real = (gi[c].real * gj[c].real + gi[c].imag * gj[c].imag) * scale
                imaginary = (gi[c].imag * gj[c].real - gi[c].real * gj[c].imag) * scale
                other_real = (hi[c].real * hj[c].real + hi[c].imag * hj[c].imag) * scale
                other_imaginary = (hi[c].imag * hj[c].real - hi[c].real * hj[c].imag) * scale
                sum_real[c] = real + other_real
                sum_imaginary[c] = imaginary + other_imaginary
                difference_real[c] = real - other_real
                difference_imaginary[c] = imaginary - other_imaginary
            for s in range(shared0, shared1 + 1):
                m, o = members[s, one], members[s, other]
                for c in range(cols):
                    power = (m[c].real * m[c].real + m[c].imag * m[c].imag) * scale
                    other_power = (o[c].real * o[c].real + o[c].imag * o[c].imag) * scale
                    sum_real[c] -= power + other_power
                    difference_real[c] -= power - other_power


# Coefficients of the quartic through values at -2, -1, 0, 1, 2 (Lagrange): row k gives the factor of u^k.
_QUARTIC = np.linalg.inv(np.vander(np.arange(-2.0, 3.0), 5, increasing=True))


@_jit
def _subpixel(window, y, x, quartic):
    """Maximum of the biquartic through the 5 x 5 values around (y, x): offset (dy, dx) and value.

    The correlation is oversampled by its low-pass, so that the polynomial is accurate to about 1e-3 px, whereas
    a centroid or a parabola is biased to the pixel grid. Newton's method; offset 0 if it leaves the pixel.
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


def find_peaks(windows: np.ndarray, around: np.ndarray, radius: float):
    """Peaks of (m, h, w) windows near `around` (m, 2), in window pixels: position, height, noise, on_rim."""
    m = len(windows)
    out = np.empty((m, 2)), np.empty(m), np.empty(m), np.empty(m, np.bool_)
    _find_peaks(windows, around, radius, _QUARTIC, PEAK_RADIUS_PX, *out)
    return out


@_jit
def spline_coefficients(windows):
    """Turn (m, h, w) windows into their cubic B-spline coefficients, in place (mirror boundaries)."""
    pole = np.sqrt(3.0) - 2.0
    for m in range(windows.shape[0]):
        for axis in range(2):
            image = windows[m] if axis == 0 else windows[m].T
            for k in range(image.shape[0]):
                line = image[k]
                n = len(line)
                first = line[0]
                z = pole
                for i in range(1, n):
                    first += z * line[i]
                    z *= pole
                line[0] = first * 6.0
                for i in range(1, n):
                    line[i] = line[i] * 6.0 + pole * line[i - 1]
                line[n - 1] = pole / (pole * pole - 1.0) * (line[n - 1] + pole * line[n - 2])
                for i in range(n - 2, -1, -1):
                    line[i] = pole * (line[i + 1] - line[i])


@_jit
def pair_objective(coefficients, pairs, shifts, weights, gradient):
    """Sum over pairs of weight * window(shift_j - shift_i), and its gradient (n, 2) with respect to the shifts.

    coefficients : (n_pairs, h, w) B-spline coefficients. shifts : (n, 2) in window samples, 0 is the window's centre.
    Beyond its rim a window is constant: the gradient of a pair outside is 0.
    """
    n_pairs, h, w = coefficients.shape
    wy = np.empty(4)
    wx = np.empty(4)
    dy = np.empty(4)
    dx = np.empty(4)
    total = 0.0
    gradient[:] = 0.0
    for p in range(n_pairs):
        if weights[p] == 0.0:
            continue
        i = pairs[p, 0]
        j = pairs[p, 1]
        y = shifts[j, 0] - shifts[i, 0] + h // 2
        x = shifts[j, 1] - shifts[i, 1] + w // 2
        cy = min(max(y, 1.0), h - 2.000001)
        cx = min(max(x, 1.0), w - 2.000001)
        y0 = int(cy)
        x0 = int(cx)
        _cubic(cy - y0, wy, dy)
        _cubic(cx - x0, wx, dx)
        f = gy = gx = 0.0
        for a in range(4):
            row = gradient_row = 0.0
            for b in range(4):
                c = coefficients[p, y0 - 1 + a, x0 - 1 + b]
                row += c * wx[b]
                gradient_row += c * dx[b]
            f += wy[a] * row
            gy += dy[a] * row
            gx += wy[a] * gradient_row
        total += weights[p] * f
        if cy == y:
            gradient[j, 0] += weights[p] * gy
            gradient[i, 0] -= weights[p] * gy
        if cx == x:
            gradient[j, 1] += weights[p] * gx
            gradient[i, 1] -= weights[p] * gx
    return total


@_jit
def _cubic(f, w, d):
    """Cubic B-spline weights and derivatives at -1 .. 2 for the fraction f."""
    g = 1.0 - f
    w[0] = g * g * g / 6
    w[1] = (4 - 6 * f * f + 3 * f * f * f) / 6
    w[2] = (4 - 6 * g * g + 3 * g * g * g) / 6
    w[3] = f * f * f / 6
    d[0] = -0.5 * g * g
    d[1] = -2 * f + 1.5 * f * f
    d[2] = 2 * g - 1.5 * g * g
    d[3] = 0.5 * f * f
