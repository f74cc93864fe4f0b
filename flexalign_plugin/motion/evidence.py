"""Flexibility of the field: its modes, the prior on them and the Bayesian evidence (docs/algorithm.md, section 5).

A field of patches and frames is expanded in *modes*: products of a function of time and a function of space, both
spanned by the B-spline. The functions are orthonormal over the frames and over the patches, with each patch weighted by
its information. In this basis the curvature of the likelihood and the roughness prior are both diagonal. The posterior
of the field, its standard errors and the evidence (the probability of the data under the prior, MacKay 1992, Neural
Computation 4:415) are therefore sums over modes. Constants in time or in space are not modes: the first depend on the
choice of the reference, the second are the shifts of whole frames.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass
from typing import List, Sequence, Tuple

import numpy as np
from scipy.interpolate import BSpline
from scipy.linalg import eigh
from scipy.optimize import minimize

from ..jit import njit
from .bspline import DEGREE, basis, gram, knot_vector

FINER_SPANS = (1.0, 1.5, 2.0, 3.0)  # numbers of spline pieces that are tried, relative to the published rule
# The increase of the logarithm of the evidence that is required for more control points: absolute and, in space, also
# relative. Smaller relative gains are within the errors of the model of the data, and a finer spline is poorly
# determined where there are no patches.
EVIDENCE_GAIN_NATS, EVIDENCE_GAIN_RELATIVE = 2.0, 1e-3
EARLY_FRAMES = 2.0
LARGEST_FIELD = 20.0  # band pixels, rms: standard deviation of the prior on modes without roughness
COMPLETION = 1e-7  # weight of the smoothness that determines the field where there are no patches
UNSEEN = 1e-6  # a function is no mode if less than this fraction of its power is at the patches
PRIOR_RANGE = (1e-8, 1e8)  # of the prior's strengths, relative to the data


@dataclass(frozen=True)
class Modes:
    """Functions of time, or of space, that one B-spline spans.

    Attributes
    ----------
    control_points : (KT,) or (KY, KX).
    values : (m, M) at the frames or patches: columns of zero mean, orthonormal under the patches' weights.
    roughness : (M,) integrated squared second derivative of each mode.
    coefficients : (KT or KY * KX, M) B-spline coefficients of each mode.
    """

    control_points: Tuple[int, ...]
    values: np.ndarray
    roughness: np.ndarray
    coefficients: np.ndarray


@dataclass(frozen=True)
class FieldModes:
    """Products of the modes in time and in space.

    Attributes
    ----------
    time, space : MT and MS modes.
    weights : (p,) information of each patch on its shifts, mean 1.
    """

    time: Modes
    space: Modes
    weights: np.ndarray

    @property
    def control_points(self) -> Tuple[int, int, int]:
        return (*self.time.control_points, *self.space.control_points)  # type: ignore[return-value]

    def field(self, amplitudes: np.ndarray) -> np.ndarray:
        """(p, n, 2) shifts for amplitudes (2, MT, MS)."""
        of_frames = np.ascontiguousarray((self.time.values @ amplitudes).transpose(0, 2, 1))
        return np.ascontiguousarray((self.space.values @ of_frames).transpose(1, 2, 0))

    def amplitudes(self, field: np.ndarray) -> np.ndarray:
        """(2, MT, MS) amplitudes of the projection of a field (p, n, 2) onto the modes."""
        return self.adjoint(self.weights[:, None, None] * field)

    def adjoint(self, gradient: np.ndarray) -> np.ndarray:
        """(2, MT, MS) gradient for the amplitudes from the gradient for the shifts (p, n, 2)."""
        # BLAS multiplies contiguous matrices; NumPy's loops for others take several times as long.
        return self.time.values.T @ (np.ascontiguousarray(gradient.transpose(2, 1, 0)) @ self.space.values)

    def coefficients(self, amplitudes: np.ndarray) -> np.ndarray:
        """(2, KT, KY * KX) coefficients of the spline (Strelak 2020, equation 4)."""
        return self.time.coefficients @ amplitudes @ self.space.coefficients.T

    def roughness(self, prior: Sequence[float], floor: float) -> np.ndarray:
        """(MT, MS) precision of the prior with strengths (time, space) and a floor for modes without roughness."""
        return prior[0] * self.time.roughness[:, None] + prior[1] * self.space.roughness + floor


@functools.lru_cache(maxsize=64)
def time_modes(points: int, n_frames: int, early: bool = False) -> Modes:
    """Modes of the frames.

    early : measure roughness in the time log(1 + t / EARLY_FRAMES), which allows faster changes in the first frames,
        where specimens move fastest.
    """
    design = basis(points, n_frames - 1, np.arange(n_frames))
    return _modes((points,), design, _roughness_in_time(points, n_frames, early), np.ones(n_frames))


def space_modes(
    points: Tuple[int, int], frame_shape: Tuple[int, int], centres_px: np.ndarray, weights: np.ndarray
) -> Modes:
    """Modes of patches with centres (p, 2), unbinned pixels, and weights (p,)."""
    by, bx = (basis(k, size - 1, at) for k, size, at in zip(points, frame_shape, centres_px.T))
    design = (by[:, :, None] * bx[:, None, :]).reshape(len(centres_px), -1)
    (my, mx), (dy, dx), (ry, rx) = ([_unit_gram(k, derivative) for k in points] for derivative in (0, 1, 2))
    return _modes(points, design, np.kron(ry, mx) + 2 * np.kron(dy, dx) + np.kron(my, rx), weights)


def _roughness_in_time(points: int, n_frames: int, early: bool) -> np.ndarray:
    """(KT, KT) integral of the squared second derivative in time, or in u = log(1 + t / tau) if `early`.

    The latter is taken as the integral over t of (1 + t / tau)^3 times the squared second derivative in t, which
    neglects first derivatives and a constant factor.
    """
    if not early:
        return _unit_gram(points, 2)
    degree = min(DEGREE, points - 1)
    if degree < 2:
        return np.zeros((points, points))
    spans = points - degree
    nodes, weights = np.polynomial.legendre.leggauss(4)
    at = ((np.arange(spans)[:, None] + 0.5 + 0.5 * nodes) / spans).ravel()
    values = BSpline(knot_vector(points, 1.0), np.eye(points), degree)(at, nu=2)
    stretch = (1 + at * (n_frames - 1) / EARLY_FRAMES) ** 3
    return values.T @ ((np.tile(0.5 * weights / spans, spans) * stretch)[:, None] * values)


def _unit_gram(n_points: int, derivative: int) -> np.ndarray:
    """`gram` with the whole axis as the unit of length: comparable between numbers of control points."""
    spans = n_points - min(DEGREE, n_points - 1)
    return gram(n_points, derivative) * float(spans) ** (2 * derivative - 1)


def _modes(points: Tuple[int, ...], design: np.ndarray, roughness: np.ndarray, weights: np.ndarray) -> Modes:
    """The functions that are orthonormal over the design's rows (frames or patches) and diagonal in roughness.

    They are the solutions of the generalised eigenvalue problem of the roughness and the design's normal matrix.
    Components that the rows do not determine are chosen as smooth as possible; they are orthogonal to all others in
    roughness.
    """
    centred = design - np.average(design, axis=0, weights=weights)
    # The constant, which is the sum of all basis functions, is excluded.
    free = np.linalg.qr(np.ones((design.shape[1], 1)), mode="complete")[0][:, 1:]
    seen = free.T @ (centred.T @ (weights[:, None] * centred)) @ free
    rough = free.T @ roughness @ free
    rough = 0.5 * (rough + rough.T)
    unit = np.trace(seen) / max(np.trace(rough), 1e-30) * COMPLETION
    values, vectors = eigh(rough, 0.5 * (seen + seen.T) + unit * rough + 1e-12 * np.trace(seen) * np.eye(len(seen)))
    visible = np.einsum("km,kl,lm->m", vectors, seen, vectors, optimize=True)
    keep = visible > UNSEEN
    modes = free @ vectors[:, keep] / np.sqrt(visible[keep])
    # The basis sums to 1: a constant is subtracted by subtracting it from all coefficients.
    modes = modes - np.average(design @ modes, axis=0, weights=weights)
    return Modes(points, design @ modes, np.clip(values[keep], 0, None) / visible[keep], modes)


@dataclass(frozen=True)
class Posterior:
    """Posterior of the field under the most probable prior.

    Attributes
    ----------
    modes : of the most probable spline.
    prior : strengths (time, space) of the roughness prior.
    floor : precision of the prior on modes without roughness.
    log_evidence : natural logarithm of the evidence for the field relative to no field.
    """

    modes: FieldModes
    prior: Tuple[float, float]
    floor: float
    log_evidence: float

    @property
    def precision(self) -> np.ndarray:
        """(MT, MS) precision of the prior."""
        return self.modes.roughness(self.prior, self.floor)


def most_probable(
    times: Sequence[Modes],
    spaces: Sequence[Modes],
    weights: np.ndarray,
    field: np.ndarray,
    slope: np.ndarray,
    data: np.ndarray,
) -> Posterior:
    """The splines and the prior with the largest evidence: first the spline in time is chosen, then the one in space.

    Parameters
    ----------
    times, spaces : candidates, each from coarse to fine.
    weights : (p,) of the patches, as in `FieldModes`.
    field : (p, n, 2) approximate field, band pixels.
    slope : (p, n, 2) gradient of the log-likelihood at `field`. Gradient and curvature give the field of maximum
        likelihood, whose noise the evidence takes into account.
    data : (2,) curvature of the log-likelihood: precision of the shift (y, x) of a patch of weight 1 in one frame.
    """
    best = _weigh(FieldModes(times[0], spaces[0], weights), field, slope, data)
    for time in times[1:]:
        other = _weigh(FieldModes(time, spaces[0], weights), field, slope, data)
        if other.log_evidence > best.log_evidence + EVIDENCE_GAIN_NATS:
            best = other
    for space in spaces[1:]:
        other = _weigh(FieldModes(best.modes.time, space, weights), field, slope, data)
        if other.log_evidence > best.log_evidence + max(EVIDENCE_GAIN_NATS, EVIDENCE_GAIN_RELATIVE * best.log_evidence):
            best = other
    return best


def _weigh(modes: FieldModes, field: np.ndarray, slope: np.ndarray, data: np.ndarray) -> Posterior:
    """The prior with the largest evidence for these modes; arguments as for `most_probable`."""
    amplitudes = modes.adjoint(modes.weights[:, None, None] * field + slope / data)
    floor = 1.0 / (LARGEST_FIELD**2 * field[..., 0].size)
    level = float(data.mean())
    # With a strength of 1 the precision of the prior on a median mode equals that of the data.
    units = [level / max(float(np.median(r)), 1e-30) for r in (modes.time.roughness, modes.space.roughness)]
    bounds = [np.log(PRIOR_RANGE)] * 2

    squares = amplitudes**2
    rough = modes.time.roughness, modes.space.roughness

    def negative(log_prior: np.ndarray) -> Tuple[float, np.ndarray]:
        strengths = np.exp(log_prior) * units
        value, slope = _log_evidence(strengths, floor, *rough, data, squares)
        return -value, -slope * strengths

    tries = itertools.product(np.linspace(-12, 12, 7), repeat=2)
    start = min(tries, key=lambda at: negative(np.array(at))[0])
    result = minimize(negative, np.array(start), jac=True, method="L-BFGS-B", bounds=bounds)
    prior = np.exp(result.x) * units
    return Posterior(modes, (float(prior[0]), float(prior[1])), floor, -float(result.fun))


@njit(nogil=True)
def _log_evidence(strengths, floor, time, space, data, squares):  # type: ignore[no-untyped-def]
    """Logarithm of the evidence for a prior, and its gradient for the prior's strengths (2,).

    time, space : (MT,), (MS,) roughness of the modes. data : (2,) precision. squares : (2, MT, MS) squared amplitudes.
    """
    value, slope = 0.0, np.zeros(2)
    for t in range(len(time)):
        for s in range(len(space)):
            prior = strengths[0] * time[t] + strengths[1] * space[s] + floor
            steepness = 0.0
            for axis in range(2):
                h = data[axis]
                power = squares[axis, t, s] * h * h / (prior + h)
                value += 0.5 * (np.log(prior / (prior + h)) + power)
                steepness += 0.5 * (1 / prior - 1 / (prior + h) - power / (prior + h))
            slope[0] += steepness * time[t]
            slope[1] += steepness * space[s]
    return value, slope


def finer(points: int, factor: float, limit: int) -> int:
    """Number of control points of a spline with `factor` times as many pieces, at most `limit`, at least `points`."""
    return max(points, min(math.ceil(points + (factor - 1) * max(points - DEGREE, 1)), limit))


def times_to_try(points: int, n_frames: int) -> List[Modes]:
    """The given number of control points and finer ones, each with roughness in uniform and in early time."""
    numbers = sorted({finer(points, factor, n_frames) for factor in FINER_SPANS})
    return [time_modes(k, n_frames, early) for k in numbers for early in (False, True)]


def spaces_to_try(
    points: Tuple[int, int],
    patches: Tuple[int, int],
    frame_shape: Tuple[int, int],
    centres_px: np.ndarray,
    weights: np.ndarray,
) -> List[Modes]:
    """The given numbers of control points and finer ones for this grid of patches."""
    numbers = sorted({tuple(finer(k, factor, n) for k, n in zip(points, patches)) for factor in FINER_SPANS})
    return [space_modes((ky, kx), frame_shape, centres_px, weights) for ky, kx in numbers]


def field_variance(posterior: Posterior, data: np.ndarray, frame_shape: Tuple[int, int], mesh: int) -> np.ndarray:
    """Posterior variance of the field, mean over the frames, on a mesh over the whole frame.

    Parameters
    ----------
    data : (2,) as for `most_probable`.

    Returns
    -------
    (2, mesh, mesh) float64, squared band pixels.
    """
    time, space = posterior.modes.time, posterior.modes.space
    ky, kx = space.control_points
    by, bx = (basis(k, n - 1, np.linspace(0, n - 1, mesh)) for k, n in zip((ky, kx), frame_shape))
    values = np.einsum("ym,xn,mnk->yxk", by, bx, space.coefficients.reshape(ky, kx, -1), optimize=True)
    variance = 1.0 / (data[:, None, None] + posterior.precision)
    return np.einsum("tk,akm,yxm->ayx", time.values**2, variance, values**2, optimize=True) / len(time.values)
