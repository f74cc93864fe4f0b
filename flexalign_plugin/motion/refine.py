"""Joint refinement of all patches and all frames under the spline (not in the paper; docs/algorithm.md, section 5).

The objective is the power of the aligned sum, `sum_p sum_k W(k) |sum_t F_pt(k) exp(-2 pi i k s_p(t))|^2` over patches p
and frequencies k, without the power of each single frame, which does not depend on the shifts (`backend.AlignedPower`).
Newton's method climbs it with the curvature measured at the start: each step costs one pass over the spectra.

With `W = S / (N (N + n S))`, where S and N are the spectral powers of signal and noise in one frame, it is the
log-likelihood of the shifts for a random signal of power S. Its expected curvature has a closed form, from which the
smoothness of the field and the number of control points are chosen (`evidence`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Sequence, Tuple

import numpy as np

from ..backend import AlignedPower
from ..band import Band
from .evidence import FieldModes, Modes, Posterior, most_probable
from .lowpass import unusable

FAR_A = 7.0  # if a shift changes by more, the weights of the frequencies are computed again
LOW_CUT_A = 300.0  # coarser structure (illumination, ice thickness) is not used
MAX_STEPS = 40
NEGLIGIBLE_GAIN_NATS = 0.005  # of a step; all following ones together gain less
ROUNDING = 1e-6  # relative error of a likelihood, a sum of terms in float32
EVIDENCE_ROUNDS = 4
# Measured curvatures below these parts of the expected one are set to them, for errors and for steps.
LEAST_CURVATURE, TRUSTED_CURVATURE = 0.1, 0.3
WEAKEST_IMAGE = 0.02  # smallest signal power of an image, relative to the mean over the images
# Squared significance (in standard deviations) that the finest rings must reach on average to be used.
RING_COST = 2.0
ALWAYS_USED_A = 60.0  # rings up to this resolution are used even without significant signal
CLEAR_MISFIT_SIGMA = 3.0  # standard deviations of the noise that the misfit must exceed to be reported


@dataclass(frozen=True)
class WeightedSpectra:
    """The optimal weight of each spatial frequency and the quantities that follow from it.

    Attributes
    ----------
    n : number of frames.
    weight : (by, bx // 2 + 1) float32, S / (N (N + n S)).
    curvature : (2,) expected curvature (negative second derivative) of one pair's log-likelihood with respect to its
        shift (y, x), per squared band pixel and image: sum of W S (2 pi k)^2.
    signal, noise : (rings,) radial averages of S and N of one frame.
    coefficients : (rings,) number of coefficients of the full spectrum that are used.
    end : index of the finest ring with signal; finer rings have weight 0.
    """

    n: int
    weight: np.ndarray
    curvature: np.ndarray
    signal: np.ndarray
    noise: np.ndarray
    coefficients: np.ndarray
    end: int

    def information(self, strength: np.ndarray) -> np.ndarray:
        """(p,) information on the shifts in images with `strength` (p,) times the signal's power, 1 for strength 1."""
        k2 = np.arange(len(self.signal)) ** 2 * self.coefficients
        s = strength[:, None] * self.signal
        return (k2 * s**2 / (self.noise * (self.noise + self.n * s))).sum(axis=1) / max(
            (k2 * self.signal**2 / (self.noise * (self.noise + self.n * self.signal))).sum(), 1e-30
        )

    def strengths(self, values: np.ndarray) -> np.ndarray:
        """(p,) power of each image's signal relative to their mean, from the objective's values (p,).

        The values scatter because of noise of known variance. Their differences from the mean are reduced by the
        fraction of their variance that is due to noise.
        """
        weight = self.signal / (self.noise * (self.noise + self.n * self.signal))
        power = (self.coefficients * weight * self.signal).sum()
        noise = 2 * (self.coefficients * (weight * self.noise) ** 2).sum() / (self.n * (self.n - 1))
        if values.mean() <= 0:
            return np.ones(len(values))
        relative = values / values.mean()
        spread = float(relative.var())
        real = max(spread - noise / max(power, 1e-30) ** 2, 0.0) / max(spread, 1e-30)
        return np.clip(1 + real * (relative - 1), WEAKEST_IMAGE, None)


def weighted_spectra(
    band: Band,
    power_of_sum: np.ndarray,
    sum_of_powers: np.ndarray,
    n: int,
    low_cut: float,
    axes: bool = False,
    images: float = 1.0,
    always: float = 0.0,
) -> WeightedSpectra:
    """Weights from the spectra of n roughly aligned frames.

    Parameters
    ----------
    power_of_sum, sum_of_powers : (by, bx // 2 + 1), |sum_t F_t|^2 and sum_t |F_t|^2, averaged over patches. The first
        is n^2 S + n N, the second n (S + N).
    low_cut : frequencies below this, in cycles per image pixel, get no weight (illumination and ice gradients).
    axes : use the axes of the spectrum as well.
    images : number of independent images that the powers are averaged over.
    always : frequencies below this, in cycles per image pixel, are used even if they show no signal.
    """
    fy, fx = band.frequencies()
    radius = np.hypot(fy[:, None], fx[None, :])
    ring_width = 1.0 / min(band.full)
    ring = np.round(radius / ring_width).astype(int)
    top = int(0.5 * min(b / f for b, f in zip(band.size, band.full)) / ring_width)
    usable = ~unusable(band, axes) & (ring <= top) & (radius >= low_cut)
    count = np.maximum(np.bincount(ring[usable], minlength=top + 1), 1)
    total = np.bincount(ring[usable], power_of_sum[usable], minlength=top + 1)
    single = np.bincount(ring[usable], sum_of_powers[usable], minlength=top + 1)
    raw = (total - single) / count / (n * (n - 1))
    signal, power = _smooth(raw), _smooth(single / count / n)
    end = max(_signal_end(raw, power, count * images, n), min(int(always / ring_width), top))
    signal = np.where(np.arange(top + 1) <= end, np.clip(signal, 0, 0.95 * power), 0.0)
    noise = np.maximum(power - signal, 1e-30)
    profile = signal / (noise * (noise + n * signal))
    at = np.minimum(ring, top)
    weight = np.where(usable, profile[at], 0)
    information = weight * signal[at] * _column_weight(band)
    by, bx = band.size
    # Cycles per band pixel.
    ky, kx = np.fft.fftfreq(by)[:, None], np.arange(bx // 2 + 1)[None, :] / bx
    curvature = np.array([(information * (2 * np.pi * k) ** 2).sum() for k in (ky, kx)])
    coefficients = np.bincount(ring[usable], np.broadcast_to(_column_weight(band), ring.shape)[usable], top + 1)
    return WeightedSpectra(n, weight.astype(np.float32), curvature, signal, noise, coefficients, end)


def _signal_end(signal: np.ndarray, power: np.ndarray, count: np.ndarray, n: int) -> int:
    """Index of the finest ring with significant signal, chosen like the length of a series by an information criterion.

    Without signal, the estimate of S from `count` coefficients of n frames has the standard deviation
    power / sqrt(n (n - 1) count). Rings are added as long as their squared significance exceeds RING_COST on average.
    In rings without signal, noise that is mistaken for signal would be given weight, and the expected errors would be
    too small.
    """
    significance = signal * np.sqrt(n * (n - 1) * count) / np.maximum(power, 1e-30)
    gain = np.where(power > 0, np.sign(significance) * significance**2 - RING_COST, 0.0)
    return int(np.cumsum(gain).argmax())


@dataclass(frozen=True)
class Likelihood:
    """Log-likelihood of the shifts of a batch of images, sets of n frames, without what does not depend on them.

    Attributes
    ----------
    power : with the weights of the frequencies.
    factors : (p,) of each image's power.
    expected : (2,) expected curvature for one frame's shift (y, x), mean over the images.
    """

    power: AlignedPower
    factors: np.ndarray
    expected: np.ndarray

    def slopes(self, shifts: np.ndarray) -> Tuple[float, np.ndarray]:
        """Value and gradient (p, n, 2) at shifts (p, n, 2)."""
        values, slopes = self.power.slopes(shifts)
        return float(self.factors @ values), self.factors[:, None, None] * slopes

    def curvature(self, shifts: np.ndarray) -> np.ndarray:
        """(2, n, 2, n) mean over the images of the measured curvature, as `AlignedPower.curvature`."""
        return self.power.curvature(shifts, self.factors / len(self.factors))

    def errors(self, shifts: np.ndarray) -> np.ndarray:
        """Standard errors (n, 2) of shifts common to all images, without their mean, from the measured curvature.

        shifts : (p, n, 2), the maximum.
        """
        measured = len(self.factors) * self.curvature(shifts)
        errors = np.empty(shifts.shape[1:])
        for axis in (0, 1):
            values, vectors = np.linalg.eigh(measured[axis, :, axis])
            centred = vectors - vectors.mean(axis=0)
            values = np.maximum(values, LEAST_CURVATURE * len(self.factors) * self.expected[axis])
            errors[:, axis] = np.sqrt((centred**2 / values).sum(axis=1))
        return errors


@dataclass(frozen=True)
class Refined:
    """Outcome of `refine_field`.

    Attributes
    ----------
    shifts : (n, 2) shifts of the frames, band pixels.
    amplitudes : (2, MT, MS) of the field's modes, band pixels.
    posterior : spline and prior that the amplitudes belong to.
    slope : (p, n, 2) gradient of the log-likelihood, at most one negligible step before the maximum.
    """

    shifts: np.ndarray
    amplitudes: np.ndarray
    posterior: Posterior
    slope: np.ndarray


def refine_shifts(likelihood: Likelihood, shifts: np.ndarray) -> np.ndarray:
    """Maximise the likelihood over shifts (n, 2), in band pixels, that are common to all images, from a start."""
    images = len(likelihood.factors)

    def value(at: np.ndarray) -> Tuple[float, np.ndarray]:
        total, slope = likelihood.slopes(np.broadcast_to(at, (images, *shifts.shape)))
        return total, slope.sum(axis=0)

    inverse = np.linalg.inv(images * _positive(likelihood, np.broadcast_to(shifts, (images, *shifts.shape))))

    def step(slope: np.ndarray) -> np.ndarray:
        return (inverse @ slope.T.ravel()).reshape(2, -1).T

    return climb(value, step, shifts)


def refine_field(
    likelihood: Likelihood,
    times: Sequence[Modes],
    spaces: Sequence[Modes],
    weights: np.ndarray,
    shifts: np.ndarray,
    field: np.ndarray,
    slope: np.ndarray,
) -> Refined:
    """Maximise the posterior over frame shifts and field, with the spline and the prior of largest evidence.

    Parameters
    ----------
    times, spaces : candidate splines, each from coarse to fine.
    weights : (p,) information of the patches, mean 1.
    shifts, field : (n, 2) and (p, n, 2), the start, band pixels.
    slope : (p, n, 2) gradient of the likelihood there.
    """
    n_patches, n = field.shape[:2]
    data = np.maximum(likelihood.expected, 1e-30)
    # Of one patch of weight 1: that of patch p is taken to be weights[p] times as large.
    curvature = _positive(likelihood, shifts + field)
    of_shifts = np.linalg.inv(n_patches * curvature)
    settled = None
    for _ in range(EVIDENCE_ROUNDS):
        posterior = most_probable(times, spaces, weights, field, slope, data)
        if settled is not None and _alike(posterior, settled):
            posterior = settled
        top = _FieldPosterior(likelihood, posterior, curvature, of_shifts)
        start = top.joined(shifts, posterior.modes.amplitudes(field))
        shifts, amplitudes = top.split(climb(top.value, top.step, start))
        field, slope = posterior.modes.field(amplitudes), top.slope
        if posterior is settled:
            break
        settled = posterior
    return Refined(shifts, amplitudes, posterior, slope)


class _FieldPosterior:
    """The posterior of frame shifts (n, 2) and field amplitudes (2, MT, MS) as a function of one vector of both.

    Parameters
    ----------
    curvature : (2 n, 2 n) of the likelihood of a patch of weight 1. of_shifts : its inverse for all patches together.

    Attributes
    ----------
    slope : (p, n, 2) gradient of the likelihood at the last position.
    """

    slope: np.ndarray

    def __init__(self, likelihood: Likelihood, posterior: Posterior, curvature: np.ndarray, of_shifts: np.ndarray):
        self._likelihood, self._modes, self._precision = likelihood, posterior.modes, posterior.precision
        self._of_shifts = of_shifts
        # Modes in space are orthonormal under the weights of the patches, so they are independent of each other: the
        # curvature for the modes in time of each of them.
        time = np.kron(np.eye(2), self._modes.time.values)
        prior = np.tile(self._precision.T, 2)
        self._of_modes = np.linalg.inv(time.T @ curvature @ time + prior[:, :, None] * np.eye(time.shape[1]))

    @staticmethod
    def joined(shifts: np.ndarray, amplitudes: np.ndarray) -> np.ndarray:
        return np.concatenate([shifts.ravel(), amplitudes.ravel()])

    def split(self, at: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        n = len(self._of_shifts) // 2
        return at[: 2 * n].reshape(n, 2), at[2 * n :].reshape(2, *self._precision.shape)

    def value(self, at: np.ndarray) -> Tuple[float, np.ndarray]:
        """Logarithm, without constants, and gradient."""
        shifts, amplitudes = self.split(at)
        total, self.slope = self._likelihood.slopes(shifts + self._modes.field(amplitudes))
        bent = self._precision * amplitudes
        gradient = self.joined(self.slope.sum(axis=0), self._modes.adjoint(self.slope) - bent)
        return total - 0.5 * float(np.sum(amplitudes * bent)), gradient

    def step(self, gradient: np.ndarray) -> np.ndarray:
        """Newton's step."""
        of_shifts, of_amplitudes = self.split(gradient)
        time, space = self._precision.shape
        amplitudes = self._of_modes @ of_amplitudes.reshape(2 * time, space).T[:, :, None]
        shifts = (self._of_shifts @ of_shifts.T.ravel()).reshape(2, -1).T
        return self.joined(shifts, amplitudes[:, :, 0].T)


def climb(
    function: Callable[[np.ndarray], Tuple[float, np.ndarray]],
    newton: Callable[[np.ndarray], np.ndarray],
    start: np.ndarray,
) -> np.ndarray:
    """Position of the maximum near `start` by Newton's method with a fixed curvature.

    Parameters
    ----------
    function : returns a log-likelihood and its gradient. newton : the step for a gradient.

    Notes
    -----
    As the curvature is that of the start, the steps become smaller by a constant factor. A step that loses likelihood
    is halved.
    """
    at = start
    value, slope = function(at)
    step = newton(slope)
    for _ in range(MAX_STEPS):
        gain = 0.5 * float(np.sum(slope * step))
        if gain < NEGLIGIBLE_GAIN_NATS:
            return at + step
        new_value, new_slope = function(at + step)
        if new_value < value - ROUNDING * abs(value):
            step = 0.5 * step
            continue
        at, value, slope = at + step, new_value, new_slope
        step = newton(slope)
    return at


def _positive(likelihood: Likelihood, shifts: np.ndarray) -> np.ndarray:
    """Measured curvature at shifts (p, n, 2), mean over the images, as a positive definite matrix (2 n, 2 n).

    Curvatures below a part of the expected one are dominated by noise; those of shifts common to all frames are 0.
    """
    n = shifts.shape[1]
    values, vectors = np.linalg.eigh(likelihood.curvature(shifts).reshape(2 * n, 2 * n))
    least = TRUSTED_CURVATURE * max(float(likelihood.expected.mean()), 1e-30)
    return (vectors * np.maximum(values, least)) @ vectors.T


def misfit(
    modes: FieldModes, half: np.ndarray, other: np.ndarray, precision: np.ndarray, independent: float
) -> np.ndarray:
    """Mean square of the motion that no field of these modes can follow.

    At the maximum of the likelihood the slopes give the remaining shift of each patch in each frame. It is due to noise
    and to motion that the field cannot follow. The noise of two sets of frequencies is independent, so the common part
    of their remaining shifts, outside the modes, is misfit.

    Parameters
    ----------
    half, other : (p, n, 2) slopes of the log-likelihood at its maximum from two sets of frequencies.
    precision : (2,) of the shift of an average patch in one frame, from all frequencies.
    independent : fraction of the patches' pixels that are not counted twice.

    Returns
    -------
    (2,) mean square (y, x) in squared band pixels; 0 if it is not significant (CLEAR_MISFIT_SIGMA).
    """
    remaining = []
    for slope in (half, other):
        # Newton's step, with the weights of the modes.
        step = slope / (0.5 * precision * modes.weights[:, None, None])
        step -= step.mean(axis=1, keepdims=True)
        step -= np.average(step, axis=0, weights=modes.weights)
        remaining.append(step - modes.field(modes.amplitudes(step)))
    weights = modes.weights[:, None] / (modes.weights.sum() * half.shape[1])
    common, *powers = (
        np.einsum("pt,pta->a", weights, a * b)
        for a, b in ((remaining[0], remaining[1]), (remaining[0], remaining[0]), (remaining[1], remaining[1]))
    )
    noise = np.sqrt(powers[0] * powers[1] / (independent * half[..., 0].size))
    clear = common.sum() > CLEAR_MISFIT_SIGMA * np.hypot(*noise)
    return np.maximum(common, 0.0) if clear else np.zeros(2)


def _alike(one: Posterior, other: Posterior) -> bool:
    """Whether two rounds chose the same spline and nearly the same prior."""
    same = one.modes.time is other.modes.time and one.modes.space is other.modes.space
    return same and all(abs(np.log(a / b)) < 0.5 for a, b in zip(one.prior, other.prior))


def _column_weight(band: Band) -> np.ndarray:
    """Weight of each column of a real-input spectrum: 2, as it stands for two of the full one; 1 for first and last."""
    weight = np.full(band.size[1] // 2 + 1, 2.0)
    weight[0] = weight[-1] = 1.0
    return weight


def _smooth(profile: np.ndarray) -> np.ndarray:
    return np.convolve(np.pad(profile, 2, mode="edge"), np.array([1.0, 2, 3, 2, 1]) / 9, mode="valid")
