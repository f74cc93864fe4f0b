"""The images that are made of the moved frames, and the small number of sums of frames that they need.

A direct implementation of weights w(t, k) that depend on frame and frequency needs the Fourier transform of every
frame. As functions of t, however, the weights are smooth curves, and a few basis curves v_r(t) from a singular value
decomposition represent all of them: w(t, k) = sum_r u_r(k) v_r(t). The frames are summed in real space with the weights
v_r(t), in one pass over the movie. Only these sums are transformed and combined with u_r(k) (`Backend.mix`). If means
of even and odd frames are requested, these are summed separately and the full mean is combined from both.

The noise of an image stays white: at each frequency the weights are divided by the root of the sum of their squares.
The powers of the interpolation are weighted by the same squares (`correction.resampling`).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Dict, List

import numpy as np

from ..backend import Mix
from ..motion.model import MotionModel
from ..settings import Settings
from .dose import dose_weights
from .resampling import frame_powers

N_RADIAL = 4096  # steps of radial frequency: a weight changes by less than 1e-3 from one to the next
WEIGHT_ERROR = 1e-3  # of the root of the sum of a frequency's squared weights
NEGLIGIBLE_FACTOR = 1e-6  # smaller factors of a sum in an image are rounding errors
GROUP_DOSE = 4.0  # e/A^2 in each of RELION's groups of frames for power spectra
PLAIN, WEIGHTED, EVEN, ODD = "plain", "weighted", "even", "odd"


@dataclass(frozen=True)
class Plan:
    """How the images are made of sums of frames.

    Attributes
    ----------
    frames : 0-based frames of the movie. sums : (n_sums, n) float64 weights of each frame in each sum.
    mixes : {name of an image: its mix of the sums}; the images are those of `images_of` and `groups`.
    groups : names of the means of groups of successive frames, for `Images.amplitudes`.
    """

    frames: range
    sums: np.ndarray
    mixes: Dict[str, Mix]
    groups: List[str]

    def needed(self, name: str) -> Plan:
        """Plan of one image alone, with only the sums that it needs."""
        mix = self.mixes[name]
        used = mix.factors.any(axis=0)
        alone = Mix(np.ascontiguousarray(mix.factors[:, used]), mix.power)
        return Plan(self.frames, self.sums[used], {name: alone}, self.groups)


def images_of(settings: Settings) -> List[str]:
    """Names of the images that the settings request; PLAIN is always the first."""
    weighted = [WEIGHTED] if settings.is_dose_weighted else []
    return [PLAIN, *weighted, *([EVEN, ODD] if settings.split_even_odd else [])]


def plan_sums(settings: Settings, model: MotionModel, frames: range) -> Plan:
    """Sums and mixes of all images. Even and odd refer to the frame's number in the movie, counted from 1."""
    n = len(frames)
    whole: np.ndarray = np.ones(n, bool)
    even: np.ndarray = (np.array(frames) + 1) % 2 == 0
    constant = np.ones((1, n))
    decay = _decay(settings, frames) if settings.is_dose_weighted else constant
    halves: List[np.ndarray] = [even, ~even] if settings.split_even_odd else [whole]
    curves = _curves(_normalised(decay, whole))  # restricted to even and odd frames they represent those weights too
    shared = np.concatenate([curves * half for half in halves])
    groups = _dose_groups(settings, frames) if settings.do_save_ps else []
    of_groups = np.array([[(k in group) / len(group) for k in range(n)] for group in groups]).reshape(-1, n)
    sums = np.concatenate([shared, of_groups])
    powers = frame_powers(model, frames)
    mixes = {}
    wanted = {PLAIN: (constant, whole), WEIGHTED: (decay, whole), EVEN: (decay, even), ODD: (decay, ~even)}
    for name in images_of(settings):
        weights = _normalised(*wanted[name])
        factors = weights @ np.linalg.pinv(shared)
        factors[:, np.abs(factors).max(axis=0) < NEGLIGIBLE_FACTOR] = 0  # saves transforms
        mixes[name] = _mix(np.pad(factors, ((0, 0), (0, len(groups)))), weights, powers)
    names = [f"group {k + 1}" for k in range(len(groups))]
    for k, name in enumerate(names):
        only = np.zeros((1, len(sums)))
        only[0, len(shared) + k] = 1
        mixes[name] = _mix(only, of_groups[k : k + 1], powers)
    return Plan(frames, sums, mixes, names)


def _mix(factors: np.ndarray, weights: np.ndarray, powers: np.ndarray) -> Mix:
    """Factors (m, n_sums) with the interpolation's power under the frames' weights (m, n)."""
    factors = np.where(
        np.abs(factors).max(axis=0) > NEGLIGIBLE_FACTOR, factors, 0.0
    )  # such a sum need not be transformed
    squares = weights**2
    shares = squares / np.maximum(squares.sum(axis=1, keepdims=True), 1e-300)
    return Mix(factors.astype(np.float32), np.einsum("kt,tlm->klm", shares, powers).astype(np.float32))


def _decay(settings: Settings, frames: range) -> np.ndarray:
    """(N_RADIAL, n) remaining signal after the dose of each frame, at the middle of each radial step."""
    frequency = (np.arange(N_RADIAL) + 0.5) / N_RADIAL * np.sqrt(0.5) / settings.pixel_size
    dose = settings.pre_exposure + np.array(settings.dose_after(frames) or np.zeros(len(frames)))
    return dose_weights(frequency, dose, settings.voltage)


def _dose_groups(settings: Settings, frames: range) -> List[range]:
    """Groups of successive frames, by index in `frames`, with about GROUP_DOSE each; the last may be smaller."""
    doses = settings.doses(frames.stop)
    if doses is None:
        return [range(len(frames))]
    groups, start = [], 0
    while start < len(frames):
        reached = list(accumulate(doses[i] for i in frames[start:]))
        size = 1 + min(range(len(reached)), key=lambda k: abs(reached[k] - GROUP_DOSE))
        groups.append(range(start, start + size))
        start += size
    return groups


def _normalised(decay: np.ndarray, part: np.ndarray) -> np.ndarray:
    """(m, n) weights of the frames in `part` (n,), normalised to the noise of their plain mean at every frequency.

    The weights of an empty part (a single frame has no even frames) are 0.
    """
    weights = decay * part
    size = np.sqrt((weights**2).sum(axis=1, keepdims=True) * max(part.sum(), 1))
    return weights / np.where(size > 0, size, 1.0)


def _curves(family: np.ndarray) -> np.ndarray:
    """Few orthonormal curves (r, n) that represent all rows of `family` (m, n) to WEIGHT_ERROR; constants are exact."""
    n = family.shape[1]
    mean = np.full((1, n), 1 / np.sqrt(n))
    remainder = family - (family @ mean.T) @ mean
    # A few hundred rows give the same curves as all of them.
    _, size, shapes = np.linalg.svd(remainder[:: max(len(remainder) // 512, 1)], full_matrices=False)
    norm = np.linalg.norm(family, axis=1)
    curves = mean
    for shape in shapes[size > 1e-9]:
        error = np.linalg.norm(family - (family @ curves.T) @ curves, axis=1)
        if (error <= WEIGHT_ERROR * norm).all():
            break
        curves = np.concatenate([curves, shape[None]])
    return curves
