"""The local search: orientation and shift of particles at the full resolution, by Levenberg-Marquardt.

Maximises the likelihood over a rotation vector w, which turns the pose to exp([w]x) A, and the position t. The matrix
of second derivatives (Gauss-Newton) at the maximum is the inverse of the estimate's covariance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..jit import njit
from .band import Band
from .slices import OVERSAMPLING
from .spline import gradient_at

PARAMETERS = 5  # rotation about x, y, z of the image (radians), position x, y (px)
COARSE_STEPS = 2  # of every candidate, at the coarsest resolution
FIRST_STEPS = 3  # of those that remain, at each finer one
MORE_STEPS = 12  # of those that remain then
COARSE_NATS = 10.0  # candidates within this of the best go on to finer resolutions
COARSE_SAME = 0.85  # of resolution / diameter (radians): candidates this near then are on one hill
KEPT_NATS = 12.0  # the same at each finer resolution
SAME_RAD = np.radians(4.0)  # candidates this near are on one hill, at finer resolutions
CHUNK = 64  # coefficients whose products are summed in single precision
CONVERGED_NATS = 1e-3

_jit = njit(nogil=True, fastmath=True, error_model="numpy", boundscheck=False)
_jit_exact = njit(nogil=True, error_model="numpy", boundscheck=False)  # fast-math does not know infinity


@dataclass(frozen=True)
class Starts:
    """Where the local search of n particles starts.

    Attributes
    ----------
    poses : (n, K, 3, 3). positions : (n, K, 2) t in pixels. volume : (n, K) int64, which one the candidate shows.
    count : (n,) int32 candidates of each particle.
    """

    poses: np.ndarray
    positions: np.ndarray
    volume: np.ndarray
    count: np.ndarray


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


def refine(
    spectra: np.ndarray,
    band: Band,
    counts: np.ndarray,
    f: np.ndarray,
    c: np.ndarray,
    starts: Starts,
    max_shift_px: float,
    same_rad: float,
    first_steps: int = COARSE_STEPS,
) -> Refined:
    """Improve the candidates of n particles.

    Parameters
    ----------
    spectra : (V, 2 s^3) float32, the volumes' `Spectrum.flat`.
    counts : (bands,) int64 number of coefficients of the resolutions that are entered one after the other; the last
        is m.
    f, c : (n, m) transforms and CTFs, both over the sd of the noise.
    max_shift_px : largest distance of a particle from the centre.
    same_rad : candidates this near to each other after the first steps are on one hill.
    first_steps : of every candidate, at the coarsest resolution.
    """
    poses, positions = starts.poses.copy(), starts.positions.copy()
    score = np.zeros(starts.volume.shape)
    information = np.zeros((*score.shape, PARAMETERS, PARAMETERS))
    gaps, same = np.full(len(counts), KEPT_NATS), np.full(len(counts), SAME_RAD)
    gaps[0], same[0] = COARSE_NATS, same_rad
    _refine_block(
        spectra,
        round((spectra.shape[1] / 2) ** (1 / 3)),
        np.float32(OVERSAMPLING),
        starts.volume,
        f,
        c,
        band.kx,
        band.ky,
        counts,
        band.box,
        poses,
        positions,
        score,
        information,
        starts.count,
        gaps,
        1 + 2 * np.cos(same),
        first_steps,
        max_shift_px,
    )
    return Refined(poses, positions, score, information)


@_jit
def _evaluate(flat, n, o, f, c, kx, ky, m, box, a, t, scratch, gradient, h):
    """Score of a pose, and its derivatives.

    flat, n : spectrum of n^3 cells, sampled `o` times as finely as the image's. f : (m,) transform of the image.
    c : (m,) CTF. Both are divided by the sd of the noise.
    scratch : from `_scratch`. gradient (5,), h (5, 5) : results.
    """
    phase_x, phase_y, j = scratch
    centre = np.float32(n // 2)
    turn = -2 * np.pi / box
    for k in range(len(phase_x)):
        phase_x[k] = np.complex64(np.cos(turn * k * t[0]) + 1j * np.sin(turn * k * t[0]))
        phase_y[k] = np.complex64(np.cos(turn * k * t[1]) + 1j * np.sin(turn * k * t[1]))
    a00, a01, a02 = np.float32(a[0, 0]), np.float32(a[0, 1]), np.float32(a[0, 2])
    a10, a11, a12 = np.float32(a[1, 0]), np.float32(a[1, 1]), np.float32(a[1, 2])
    a20, a21, a22 = np.float32(a[2, 0]), np.float32(a[2, 1]), np.float32(a[2, 2])
    turn_1 = np.float32(turn)
    score = 0.0
    gradient[:] = 0
    h[:] = 0
    for start in range(0, m, CHUNK):
        end = min(start + CHUNK, m)
        for i in range(start, end):
            x, y = np.float32(kx[i]), np.float32(ky[i])
            vr, vi, xr, xi, yr, yi, zr, zi = gradient_at(
                flat,
                n,
                o * (a00 * x + a10 * y) + centre,
                o * (a01 * x + a11 * y) + centre,
                o * (a02 * x + a12 * y) + centre,
            )
            phase = phase_x[kx[i]] * (phase_y[ky[i]] if ky[i] >= 0 else np.conj(phase_y[-ky[i]])) * c[i]
            pr, pi = phase.real, phase.imag
            gr, gi = vr * pr - vi * pi, vr * pi + vi * pr
            # The gradient in the image's axes; the slice turns by -gradient . (w x k).
            pr, pi = pr * o, pi * o
            ur, ui = a20 * xr + a21 * yr + a22 * zr, a20 * xi + a21 * yi + a22 * zi
            zr_, zi_ = ur * pr - ui * pi, ur * pi + ui * pr
            q0, q1, q2 = y * a00 - x * a10, y * a01 - x * a11, y * a02 - x * a12
            ur, ui = q0 * xr + q1 * yr + q2 * zr, q0 * xi + q1 * yi + q2 * zi
            k = 2 * (i - start)
            j[0, k], j[0, k + 1] = -y * zr_, -y * zi_
            j[1, k], j[1, k + 1] = x * zr_, x * zi_
            j[2, k], j[2, k + 1] = ur * pr - ui * pi, ur * pi + ui * pr
            j[3, k], j[3, k + 1] = -turn_1 * x * gi, turn_1 * x * gr
            j[4, k], j[4, k + 1] = -turn_1 * y * gi, turn_1 * y * gr
            fr, fi = f[i].real, f[i].imag
            score += fr * gr + fi * gi - np.float32(0.5) * (gr * gr + gi * gi)
            j[5, k], j[5, k + 1] = fr - gr, fi - gi
        for p in range(PARAMETERS):
            for q in range(p + 1):
                total = np.float32(0)
                for k in range(2 * (end - start)):
                    total += j[p, k] * j[q, k]
                h[p, q] += total
            total = np.float32(0)
            for k in range(2 * (end - start)):
                total += j[p, k] * j[PARAMETERS, k]
            gradient[p] += total
    for p in range(PARAMETERS):
        for q in range(p):
            h[q, p] = h[p, q]
    return score


@_jit
def _scratch(kx, ky):
    """Memory for `_evaluate`: phases along x and y, and derivatives and residuals of a chunk of coefficients."""
    last = 0
    for i in range(len(kx)):
        last = max(last, abs(kx[i]), abs(ky[i]))
    phase_x, phase_y = np.empty(last + 1, np.complex64), np.empty(last + 1, np.complex64)
    return phase_x, phase_y, np.empty((PARAMETERS + 1, 2 * CHUNK), np.float32)


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
def _climb(flat, n, o, f, c, kx, ky, m, box, a, t, h, steps, max_t, scratch):
    """Improve a pose (a, t) in place; returns its score and fills h."""
    gradient, gradient2, h2, step = np.empty(5), np.empty(5), np.empty((5, 5)), np.empty(5)
    a2, t2 = np.empty((3, 3)), np.empty(2)
    score = _evaluate(flat, n, o, f, c, kx, ky, m, box, a, t, scratch, gradient, h)
    damping = 1e-3
    for _ in range(steps):
        if not _solve(h, damping, gradient, step):
            break
        _turned(a, step[:3], a2)
        t2[0], t2[1] = t[0] + step[3], t[1] + step[4]
        away = np.sqrt(t2[0] * t2[0] + t2[1] * t2[1])
        if away > max_t:  # stay in the range that the user allows
            t2 *= max_t / away
        score2 = _evaluate(flat, n, o, f, c, kx, ky, m, box, a2, t2, scratch, gradient2, h2)
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


@_jit_exact
def _prune(volume, a, score, gap, same_trace):
    """Drop candidates that are more than `gap` below the best, or on the hill of a better one."""
    best = score.max()
    for k in range(len(score)):
        if score[k] < best - gap:
            score[k] = -np.inf
    for k in range(len(score)):
        for other in range(len(score)):
            if score[k] == -np.inf:
                break
            if volume[other] == volume[k] and (score[other] > score[k] or (score[other] == score[k] and other < k)):
                trace = 0.0
                for p in range(3):
                    for q in range(3):
                        trace += a[k, p, q] * a[other, p, q]
                if trace > same_trace:
                    score[k] = -np.inf


@_jit_exact
def _refine_block(
    spectra, n, o, volume, f, c, kx, ky, counts, box, a, t, score, h, found, gaps, same_traces, first_steps, max_t
):
    """`refine` in place: a, t, score and h are those of the candidates, of which each particle has `found`.

    After each of the resolutions, candidates are dropped that are more than `gaps` nats below the best, or on the hill
    of a better one: the traces of A1^T A2 are above `same_traces`.
    """
    scratch = _scratch(kx, ky)
    for i in range(len(f)):
        score[i, : found[i]] = 0.0
        score[i, found[i] :] = -np.inf
        for b in range(len(counts) + 1):
            band, steps = min(b, len(counts) - 1), MORE_STEPS
            if b < len(counts):
                steps = first_steps if b == 0 else FIRST_STEPS
            for k in range(found[i]):
                if score[i, k] > -np.inf:
                    score[i, k] = _climb(
                        spectra[volume[i, k]],
                        n,
                        o,
                        f[i],
                        c[i],
                        kx,
                        ky,
                        counts[band],
                        box,
                        a[i, k],
                        t[i, k],
                        h[i, k],
                        steps,
                        max_t,
                        scratch,
                    )
            if b < len(counts):
                _prune(volume[i], a[i], score[i], gaps[band], same_traces[band])
