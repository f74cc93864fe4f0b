"""The local search: orientation and shift of particles at the full resolution, by Levenberg-Marquardt.

Maximises the likelihood over a rotation vector w, which turns the pose to exp([w]x) A, and the position t. The matrix
of second derivatives (Gauss-Newton) at the maximum is the inverse of the estimate's covariance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..jit import njit
from .slices import gradient_at

PARAMETERS = 5  # rotation about x, y, z of the image (radians), position x, y (px)
FIRST_STEPS = 4  # of every candidate
MORE_STEPS = 12  # of candidates that remain
MIRRORED = 3  # candidates that the local search adds
KEPT_NATS = 12.0  # candidates within this of the best go on
CONVERGED_NATS = 1e-3

_jit = njit(nogil=True, fastmath=True, error_model="numpy", boundscheck=False)


@dataclass(frozen=True)
class Refined:
    """Candidates after the local search.

    Attributes
    ----------
    poses : (n, K, 3, 3) float64. positions : (n, K, 2) float64 t in pixels. score : (n, K) float64 nats, -inf if the
    candidate does not exist. information : (n, K, 5, 5) float64 inverse covariance.
    """

    poses: np.ndarray
    positions: np.ndarray
    score: np.ndarray
    information: np.ndarray


@_jit
def _evaluate(values, o, f, c, inverse, kx, ky, m, box, a, t, phase_x, phase_y, w, gradient, h):
    """Score of a pose, and its derivatives.

    values : spectrum, sampled `o` times as finely as the image's. f : (m,) transform of the image. c : (m,) CTF.
    inverse : (m,) 1 / sigma2.
    phase_x, phase_y, w : scratch. gradient (5,), h (5, 5) : results.
    """
    centre = values.shape[0] // 2
    turn = -2 * np.pi / box
    last = len(phase_x) - 1
    for k in range(last + 1):
        phase_x[k] = np.complex64(np.cos(turn * k * t[0]) + 1j * np.sin(turn * k * t[0]))
        phase_y[k] = np.complex64(np.cos(turn * k * t[1]) + 1j * np.sin(turn * k * t[1]))
    a00, a01, a02 = np.float32(a[0, 0]), np.float32(a[0, 1]), np.float32(a[0, 2])
    a10, a11, a12 = np.float32(a[1, 0]), np.float32(a[1, 1]), np.float32(a[1, 2])
    a20, a21, a22 = np.float32(a[2, 0]), np.float32(a[2, 1]), np.float32(a[2, 2])
    score = 0.0
    gradient[:] = 0
    h[:] = 0
    j = np.empty((5, 2), np.float32)
    for i in range(m):
        x, y = np.float32(kx[i]), np.float32(ky[i])
        v, vx, vy, vz = gradient_at(
            values,
            o * (a00 * x + a10 * y) + centre,
            o * (a01 * x + a11 * y) + centre,
            o * (a02 * x + a12 * y) + centre,
            w,
        )
        phase = phase_x[kx[i]] * (phase_y[ky[i]] if ky[i] >= 0 else np.conj(phase_y[-ky[i]]))
        factor = phase * c[i]
        g = v * factor
        # The gradient in the image's axes; the slice turns by -gradient . (w x k).
        factor = factor * o
        gx = factor * (a00 * vx + a01 * vy + a02 * vz)
        gy = factor * (a10 * vx + a11 * vy + a12 * vz)
        gz = factor * (a20 * vx + a21 * vy + a22 * vz)
        d0, d1, d2 = -y * gz, x * gz, y * gx - x * gy
        shift = np.complex64(1j) * g * np.float32(turn)
        d3, d4 = shift * x, shift * y
        j[0, 0], j[0, 1] = d0.real, d0.imag
        j[1, 0], j[1, 1] = d1.real, d1.imag
        j[2, 0], j[2, 1] = d2.real, d2.imag
        j[3, 0], j[3, 1] = d3.real, d3.imag
        j[4, 0], j[4, 1] = d4.real, d4.imag
        s = inverse[i]
        fr, fi = f[i].real, f[i].imag
        score += s * (fr * g.real + fi * g.imag - np.float32(0.5) * (g.real * g.real + g.imag * g.imag))
        rr, ri = fr - g.real, fi - g.imag
        for p in range(5):
            gradient[p] += s * (j[p, 0] * rr + j[p, 1] * ri)
            for q in range(p + 1):
                h[p, q] += s * (j[p, 0] * j[q, 0] + j[p, 1] * j[q, 1])
    for p in range(5):
        for q in range(p):
            h[q, p] = h[p, q]
    return score


@_jit
def _solve(h, damping, gradient, step):
    """step = (H + damping diag H)^-1 gradient by Cholesky; False if the matrix is not positive."""
    low = np.zeros((5, 5))
    for p in range(5):
        for q in range(p + 1):
            total = h[p, q] * (1 + damping) if p == q else h[p, q]
            for r in range(q):
                total -= low[p, r] * low[q, r]
            if p == q:
                if total <= 1e-12 * h[p, p] or total <= 0:
                    return False
                low[p, p] = np.sqrt(total)
            else:
                low[p, q] = total / low[q, q]
    for p in range(5):
        total = gradient[p]
        for r in range(p):
            total -= low[p, r] * step[r]
        step[p] = total / low[p, p]
    for p in range(4, -1, -1):
        total = step[p]
        for r in range(p + 1, 5):
            total -= low[r, p] * step[r]
        step[p] = total / low[p, p]
    return True


@_jit
def _turned(a, w, out):
    """out = exp([w]x) a."""
    angle = np.sqrt(w[0] * w[0] + w[1] * w[1] + w[2] * w[2])
    s = np.sin(angle) / angle if angle > 1e-12 else 1.0
    half = np.sin(angle / 2) / (angle / 2) if angle > 1e-12 else 1.0
    e = half * half / 2
    for c in range(3):
        x, y, z = a[0, c], a[1, c], a[2, c]
        cx, cy, cz = w[1] * z - w[2] * y, w[2] * x - w[0] * z, w[0] * y - w[1] * x
        out[0, c] = x + s * cx + e * (w[1] * cz - w[2] * cy)
        out[1, c] = y + s * cy + e * (w[2] * cx - w[0] * cz)
        out[2, c] = z + s * cz + e * (w[0] * cy - w[1] * cx)


@_jit
def _climb(values, o, f, c, inverse, kx, ky, m, box, a, t, h, steps, max_t, scratch):
    """Improve a pose (a, t) in place; returns its score and fills h."""
    phase_x, phase_y, w = scratch
    gradient, gradient2, h2, step = np.empty(5), np.empty(5), np.empty((5, 5)), np.empty(5)
    a2, t2 = np.empty((3, 3)), np.empty(2)
    score = _evaluate(values, o, f, c, inverse, kx, ky, m, box, a, t, phase_x, phase_y, w, gradient, h)
    damping = 1e-3
    for _ in range(steps):
        if not _solve(h, damping, gradient, step):
            break
        _turned(a, step[:3], a2)
        t2[0], t2[1] = t[0] + step[3], t[1] + step[4]
        away = np.sqrt(t2[0] * t2[0] + t2[1] * t2[1])
        if away > max_t:  # stay in the range that the user allows
            t2 *= max_t / away
        score2 = _evaluate(values, o, f, c, inverse, kx, ky, m, box, a2, t2, phase_x, phase_y, w, gradient2, h2)
        if score2 > score:
            gain = score2 - score
            score, damping = score2, max(damping / 10, 1e-6)
            a[:], t[:], h[:], gradient[:] = a2, t2, h2, gradient2
            if gain < CONVERGED_NATS:
                break
        else:
            damping *= 10
            if damping > 1e3:
                break
    return score


def principal_axes(volume: np.ndarray) -> np.ndarray:
    """(3, 3) rows: principal axes (x, y, z) of a volume [z, y, x], weighted by its squared density."""
    weight = volume.astype(np.float64) ** 2
    axis = np.arange(len(volume)) - len(volume) // 2
    sums = [weight.sum(axis=(0, 1)), weight.sum(axis=(0, 2)), weight.sum(axis=(1, 2))]  # along x, y, z
    mean = np.array([(s * axis).sum() for s in sums]) / weight.sum()
    moments = np.zeros((3, 3))
    planes = {(0, 1): weight.sum(axis=0), (0, 2): weight.sum(axis=1), (1, 2): weight.sum(axis=2)}
    for (i, j), plane in planes.items():  # plane[j, i]
        moments[i, j] = moments[j, i] = axis @ plane @ axis / weight.sum() - mean[i] * mean[j]
    for i in range(3):
        moments[i, i] = (sums[i] * axis**2).sum() / weight.sum() - mean[i] ** 2
    return np.ascontiguousarray(np.linalg.eigh(moments)[1].T)


@_jit
def _add_mirrored(axes, volume, a, t, score, n):
    """Add the mirror images of the best candidate, through the volume's three principal planes; returns their number.

    A flat volume nearly is its own mirror image, and a projection does not change if it is mirrored along the beam. So
    with D = diag(1, 1, -1) the pose D A (1 - 2 u u^T) looks nearly the same as A, for a plane with the normal u.
    """
    best = 0
    for k in range(1, n):
        if score[k] > score[best]:
            best = k
    for p in range(MIRRORED):
        u, k = axes[volume[best], p], n + p
        for i in range(3):
            along = a[best, i, 0] * u[0] + a[best, i, 1] * u[1] + a[best, i, 2] * u[2]
            sign = -1.0 if i == 2 else 1.0
            for j in range(3):
                a[k, i, j] = sign * (a[best, i, j] - 2 * along * u[j])
        t[k] = t[best]
        volume[k] = volume[best]
    return MIRRORED


@_jit
def refine_block(spectra, o, axes, volume, f, c, inverse, kx, ky, counts, box, a, t, score, h, n, max_t):
    """Improve the candidates of a block of particles, in place.

    Parameters
    ----------
    spectra : (V, s, s, s) complex64. o : `OVERSAMPLING` of `slices`.
    axes : (V, 3, 3) principal axes of the volumes, as rows.
    volume : (n, K) which of them a candidate shows.
    f, c, inverse : (n, m) transforms, CTF, 1 / sigma2, sorted by resolution. counts : (bands,) number of coefficients
        of the resolutions that are entered one after the other; the last is m.
    a, t, score, h : (n, K, 3, 3), (n, K, 2), (n, K), (n, K, 5, 5) of the candidates. n : (n,) number of candidates,
        at most K - MIRRORED.
    max_t : largest distance of a particle from the centre, in pixels.
    """
    last = 0
    for i in range(len(kx)):
        last = max(last, abs(kx[i]), abs(ky[i]))
    scratch = (np.empty(last + 1, np.complex64), np.empty(last + 1, np.complex64), np.empty((6, 4), np.float32))
    for i in range(len(f)):
        used = n[i]
        for b in range(len(counts)):
            for phase in range(3):
                # First every candidate; then the mirror images of the best; then those near the best, to the end.
                first = 0
                if phase == 1:
                    if b > 0:
                        continue
                    first = used
                    used += _add_mirrored(axes, volume[i], a[i], t[i], score[i], used)
                best = -np.inf
                for k in range(used):
                    best = max(best, score[i, k])
                for k in range(first, used):
                    if (b == 0 and phase < 2) or score[i, k] > best - KEPT_NATS:
                        score[i, k] = _climb(
                            spectra[volume[i, k]],
                            o,
                            f[i],
                            c[i],
                            inverse[i],
                            kx,
                            ky,
                            counts[b],
                            box,
                            a[i, k],
                            t[i, k],
                            h[i, k],
                            FIRST_STEPS if phase < 2 else MORE_STEPS,
                            max_t,
                            scratch,
                        )
                    elif phase == 0:
                        score[i, k] = -np.inf  # scores of another resolution can't be compared
        for k in range(used, score.shape[1]):
            score[i, k] = -np.inf
