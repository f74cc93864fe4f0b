"""How free the field may be: its modes, the prior on them, and the evidence of the data for both (ALGORITHM.md, 5).

A field of patches and frames is written in *modes*: products of functions of time and of space that the B-spline
spans, orthonormal over the frames and over the patches, each patch counting as much as it tells. In these coordinates
the curvature of the data and the roughness prior are both diagonal, so that the most probable field, its uncertainty
and the evidence (the probability of the data under the prior, MacKay 1992, Neural Computation 4:415) are sums over
modes. A constant in time or in space is no mode: the first is the free choice of the reference, the second belongs to
the shifts of whole frames.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, List, Sequence, Tuple

import numpy as np
from scipy.linalg import eigh
from scipy.optimize import minimize

from .bspline import DEGREE, basis, gram

FINER_SPANS = (1.0, 1.5, 2.0, 3.0)  # pieces of the spline that are tried, relative to the published rule
# By how much the logarithm of the evidence must grow before more control points are taken: at all, and relatively.
# Smaller gains are within what the model of the data is good for, and a finer spline runs wild where nothing is seen.
PAYS, PAYS_RELATIVE = 2.0, 1e-3
LARGEST_FIELD = 20.0  # band pixels, rms: the sd of the prior on what has no roughness
COMPLETION = 1e-7  # weight of smoothness in what no patch sees
UNSEEN = 1e-6  # fraction of a function that the patches see, below which it is no mode
PRIOR_RANGE = (1e-8, 1e8)  # relative to the data


@dataclass(frozen=True)
class FieldModes:
    """The modes of one spline over given frames and patches.

    Attributes
    ----------
    control_points : (KT, KY, KX).
    weights : (p,) how much each patch tells, mean 1.
    temporal, spatial : (n, MT), (p, MS) orthonormal columns without mean, the spatial ones under the weights.
    time_roughness, space_roughness : (MT,), (MS,) integrated squared second derivative of each.
    to_time, to_space : (KT, MT), (KY * KX, MS) coefficients of the modes in the spline.
    """

    control_points: Tuple[int, int, int]
    weights: np.ndarray
    temporal: np.ndarray
    spatial: np.ndarray
    time_roughness: np.ndarray
    space_roughness: np.ndarray
    to_time: np.ndarray
    to_space: np.ndarray

    def field(self, amplitudes: np.ndarray) -> np.ndarray:
        """(p, n, 2) shifts for amplitudes (2, MT, MS)."""
        return (self.spatial @ (self.temporal @ amplitudes).transpose(0, 2, 1)).transpose(1, 2, 0)

    def amplitudes(self, field: np.ndarray) -> np.ndarray:
        """(2, MT, MS) of the nearest field in the modes."""
        return self.adjoint(self.weights[:, None, None] * field)

    def adjoint(self, gradient: np.ndarray) -> np.ndarray:
        """(2, MT, MS) gradient for the amplitudes from the gradient for the shifts (p, n, 2)."""
        return self.temporal.T @ (gradient.transpose(2, 1, 0) @ self.spatial)

    def coefficients(self, amplitudes: np.ndarray) -> np.ndarray:
        """(2, KT, KY * KX) coefficients of the spline."""
        return self.to_time @ amplitudes @ self.to_space.T

    def roughness(self, prior: Sequence[float], floor: float) -> np.ndarray:
        """(MT, MS) precision of the prior with strengths (time, space) and a floor for what has no roughness."""
        return prior[0] * self.time_roughness[:, None] + prior[1] * self.space_roughness + floor


def field_modes(
    control_points: Tuple[int, int, int],
    n_frames: int,
    frame_shape: Tuple[int, int],
    centres_px: np.ndarray,
    weights: np.ndarray,
) -> FieldModes:
    """Modes for patches with centres (p, 2), unbinned pixels, and weights (p,)."""
    kt, ky, kx = control_points
    temporal = basis(kt, n_frames - 1, np.arange(n_frames))
    by, bx = (basis(k, size - 1, at) for k, size, at in zip((ky, kx), frame_shape, centres_px.T))
    spatial = (by[:, :, None] * bx[:, None, :]).reshape(len(centres_px), -1)
    (_, my, mx), (_, dy, dx), (rt, ry, rx) = (
        [_unit_gram(k, derivative) for k in control_points] for derivative in (0, 1, 2)
    )
    to_time, time_roughness = _modes(temporal, rt, np.ones(n_frames))
    to_space, space_roughness = _modes(spatial, np.kron(ry, mx) + 2 * np.kron(dy, dx) + np.kron(my, rx), weights)
    return FieldModes(
        control_points,
        weights,
        temporal @ to_time,
        spatial @ to_space,
        time_roughness,
        space_roughness,
        to_time,
        to_space,
    )


def _unit_gram(n_points: int, derivative: int) -> np.ndarray:
    """`gram` with the whole axis as the unit of length, so that bases of different numbers compare."""
    spans = n_points - min(DEGREE, n_points - 1)
    return gram(n_points, derivative) * float(spans) ** (2 * derivative - 1)


def _modes(design: np.ndarray, roughness: np.ndarray, weights: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Coefficients (K, M) of the functions that are orthonormal over the design's rows and diagonal in roughness.

    What the rows don't see is chosen as smooth as possible: such functions are orthogonal to all others in roughness.
    """
    centred = design - np.average(design, axis=0, weights=weights)
    # Without the constant, which is the sum of all basis functions.
    free = np.linalg.qr(np.ones((design.shape[1], 1)), mode="complete")[0][:, 1:]
    seen = free.T @ (centred.T @ (weights[:, None] * centred)) @ free
    rough = free.T @ roughness @ free
    rough = 0.5 * (rough + rough.T)
    unit = np.trace(seen) / max(np.trace(rough), 1e-30) * COMPLETION
    found, vectors = eigh(rough, 0.5 * (seen + seen.T) + unit * rough + 1e-12 * np.trace(seen) * np.eye(len(seen)))
    visible = np.einsum("km,kl,lm->m", vectors, seen, vectors, optimize=True)
    keep = visible > UNSEEN
    modes = free @ vectors[:, keep] / np.sqrt(visible[keep])
    # The basis sums to 1: a constant comes off all coefficients.
    modes = modes - np.average(design @ modes, axis=0, weights=weights)
    return modes, np.clip(found[keep], 0, None) / visible[keep]


@dataclass(frozen=True)
class Belief:
    """What the data say about the field, under the most probable prior.

    Attributes
    ----------
    modes : of the most probable spline.
    prior : strengths (time, space) of the roughness prior.
    floor : precision of the prior on what has no roughness.
    log_evidence : logarithm of the evidence for a field against none.
    """

    modes: FieldModes
    prior: Tuple[float, float]
    floor: float
    log_evidence: float

    @property
    def precision(self) -> np.ndarray:
        """(MT, MS) of the prior."""
        return self.modes.roughness(self.prior, self.floor)


def most_probable(candidates: Sequence[FieldModes], field: np.ndarray, slope: np.ndarray, data: np.ndarray) -> Belief:
    """The spline and prior under which the data are most probable; ever finer ones only where that pays.

    Parameters
    ----------
    candidates : from coarse to fine.
    field : (p, n, 2) somewhere near, band pixels.
    slope : (p, n, 2) of the log-likelihood there. With the curvature it tells which field the data alone would choose:
        a noisy one, but the evidence knows how noisy.
    data : (2,) curvature of the log-likelihood: precision of the shift (y, x) of a patch of weight 1 in one frame.
    """
    best = _weigh(candidates[0], field, slope, data)
    for modes in candidates[1:]:
        other = _weigh(modes, field, slope, data)
        if other.log_evidence > best.log_evidence + max(PAYS, PAYS_RELATIVE * best.log_evidence):
            best = other
    return best


def _weigh(modes: FieldModes, field: np.ndarray, slope: np.ndarray, data: np.ndarray) -> Belief:
    h = data[:, None, None]
    amplitudes = modes.amplitudes(field) + modes.adjoint(slope) / h
    floor = 1.0 / (LARGEST_FIELD**2 * field[..., 0].size)
    level = float(data.mean())
    # A strength of 1 is where the prior on an average mode equals the data.
    units = [level / max(float(np.median(r)), 1e-30) for r in (modes.time_roughness, modes.space_roughness)]
    bounds = [np.log(PRIOR_RANGE)] * 2

    def negative(log_prior: np.ndarray) -> Tuple[float, np.ndarray]:
        strengths = np.exp(log_prior) * units
        prior = modes.roughness(strengths, floor)
        gain = 0.5 * (np.log(prior / (prior + h)) + amplitudes**2 * h**2 / (prior + h))
        slope = 0.5 * (1 / prior - 1 / (prior + h) - amplitudes**2 * h**2 / (prior + h) ** 2).sum(axis=0)
        return -gain.sum(), -np.array(
            [
                strengths[0] * (slope * modes.time_roughness[:, None]).sum(),
                strengths[1] * (slope * modes.space_roughness).sum(),
            ]
        )

    tries = itertools.product(np.linspace(-12, 12, 7), repeat=2)
    start = min(tries, key=lambda at: negative(np.array(at))[0])
    found: Any = minimize(negative, np.array(start), jac=True, method="L-BFGS-B", bounds=bounds)
    prior = np.exp(found.x) * units
    return Belief(modes, (float(prior[0]), float(prior[1])), floor, -float(found.fun))


def finer_control_points(
    published: Tuple[int, int, int], n_frames: int, patches: Tuple[int, int]
) -> List[Tuple[int, int, int]]:
    """Numbers of control points to choose from, the published ones first.

    More than the frames, or than the patches of an axis, can't be determined.
    """

    def more(points: int, factor: float, limit: int) -> int:
        spans = max(points - DEGREE, 1)
        return max(points, min(math.ceil(points + (factor - 1) * spans), limit))

    found = []
    for in_space, in_time in itertools.product(FINER_SPANS, repeat=2):
        kt = more(published[0], in_time, n_frames)
        ky, kx = (more(k, in_space, count) for k, count in zip(published[1:], patches))
        if (kt, ky, kx) not in found:
            found.append((kt, ky, kx))
    return sorted(found, key=lambda k: k[0] * k[1] * k[2])


def field_variance(belief: Belief, data: np.ndarray, frame_shape: Tuple[int, int], mesh: int) -> np.ndarray:
    """(2, mesh, mesh) variance of the field, mean over the frames, on a mesh over the whole frame; squared band pixels.

    Parameters
    ----------
    data : (2,) as for `most_probable`.
    """
    modes = belief.modes
    _, ky, kx = modes.control_points
    by, bx = (basis(k, n - 1, np.linspace(0, n - 1, mesh)) for k, n in zip((ky, kx), frame_shape))
    spatial = np.einsum("ym,xn,mnk->yxk", by, bx, modes.to_space.reshape(ky, kx, -1), optimize=True)
    variance = 1.0 / (data[:, None, None] + belief.precision)
    return np.einsum("tk,akm,yxm->ayx", modes.temporal**2, variance, spatial**2, optimize=True) / len(modes.temporal)
