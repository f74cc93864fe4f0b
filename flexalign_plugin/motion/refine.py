"""Joint refinement of all patches and all frames under the spline (not in the paper; docs/algorithm.md, section 5).

The objective is the power of the aligned sum, `sum_p sum_k W(k) |sum_t F_pt(k) exp(-2 pi i k s_p(t))|^2` over patches p
and frequencies k, without the power of each single frame, which does not depend on the shifts. Expanded, it is the sum
over all pairs of frames of their cross-correlation at the difference of their shifts. It is therefore evaluated on
small correlation windows.

With `W = S / (N (N + n S))`, where S and N are the spectral powers of signal and noise in one frame, it is the
log-likelihood of the shifts for a random signal of power S. Its expected curvature has a closed form, from which the
smoothness of the field and the number of control points are chosen (`evidence`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Sequence, Tuple

import numpy as np
from scipy.optimize import minimize

from ..backend import CorrelationWindows
from ..band import Band
from .evidence import FieldModes, Modes, Posterior, most_probable
from .lowpass import unusable
from .pairwise import all_pairs

WINDOW_A, WINDOW_STEP = 14.0, 0.5  # radius and sampling (band pixels) of the correlation windows
LOW_CUT_A = 300.0  # coarser structure (illumination, ice thickness) is not used
MAX_ITERATIONS = 100
EVIDENCE_ROUNDS = 4
CURVATURE_STEP = 0.1  # band pixels
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
class Refined:
    """Outcome of `refine_field`.

    Attributes
    ----------
    shifts : (n, 2) shifts of the frames, band pixels.
    amplitudes : (2, MT, MS) of the field's modes, band pixels.
    posterior : spline and prior that the amplitudes belong to.
    """

    shifts: np.ndarray
    amplitudes: np.ndarray
    posterior: Posterior


def refine_shifts(windows: CorrelationWindows, pair_weights: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Maximise the objective over shifts (n, 2), in band pixels, that are common to all images of the batch.

    Parameters
    ----------
    pair_weights : (batch, n_pairs), makes the objective a log-likelihood. shifts : (n, 2), the start.
    """
    batch = len(pair_weights)

    def negative(v: np.ndarray) -> Tuple[float, np.ndarray]:
        value, gradient = windows.objective(
            np.broadcast_to(v.reshape(shifts.shape), (batch, *shifts.shape)), pair_weights
        )
        return -value.sum(), -gradient.sum(axis=0).ravel()

    return _minimum(negative, shifts.ravel()).reshape(shifts.shape)


def shift_errors(
    windows: CorrelationWindows, pair_weights: np.ndarray, shifts: np.ndarray, expected: np.ndarray
) -> np.ndarray:
    """Standard errors (n, 2) of shifts common to all images, without their mean, from the measured curvature.

    Parameters
    ----------
    pair_weights : (p, n_pairs), makes the objective a log-likelihood.
    shifts : (p, n, 2) at its maximum.
    expected : (2,) expected curvature of each frame. Measured curvatures below a tenth of it are dominated by noise and
        set to a tenth.
    """
    n = shifts.shape[1]
    pairs = all_pairs(n)
    curvature = np.empty((n, n, 2))
    for t in range(n):
        # Only the pairs of frame t depend on its shift; pairs of weight 0 are not computed.
        weights = np.where((pairs == t).any(axis=1), pair_weights, 0.0)
        moved = shifts.copy()
        moved[:, t] += CURVATURE_STEP
        still, slope = (windows.objective(at, weights)[1].sum(axis=0) for at in (shifts, moved))
        curvature[t] = (still - slope) / CURVATURE_STEP
    curvature = 0.5 * (curvature + curvature.transpose(1, 0, 2))
    errors = np.empty((n, 2))
    for axis in (0, 1):
        values, vectors = np.linalg.eigh(curvature[..., axis])
        centred = vectors - vectors.mean(axis=0)
        values = np.maximum(values, 0.1 * expected[axis])
        errors[:, axis] = np.sqrt((centred**2 / values).sum(axis=1))
    return errors


def refine_field(
    windows: CorrelationWindows,
    pair_weights: np.ndarray,
    curvature: np.ndarray,
    times: Sequence[Modes],
    spaces: Sequence[Modes],
    weights: np.ndarray,
    shifts: np.ndarray,
    field: np.ndarray,
) -> Refined:
    """Maximise the posterior over frame shifts and field, with the spline and the prior of largest evidence.

    Parameters
    ----------
    windows : (p, n_pairs) correlation windows.
    pair_weights : (p, n_pairs), makes the objective a log-likelihood.
    curvature : (2,) expected curvature of one pair's log-likelihood, mean over the patches.
    times, spaces : candidate splines, each from coarse to fine.
    weights : (p,) information of the patches, mean 1.
    shifts, field : (n, 2) and (p, n, 2), the start, band pixels.
    """
    n_patches, n = field.shape[:2]
    # The Laplacian of all pairs of n frames is n I - 1 1^T: each frame has n times a pair's curvature.
    data = np.maximum(n * curvature, 1e-30)
    shift_unit = 1.0 / np.sqrt(n_patches * data)
    settled = None
    for _ in range(EVIDENCE_ROUNDS):
        slope = windows.objective(shifts[None] + field, pair_weights)[1]
        posterior = most_probable(times, spaces, weights, field, slope, data)
        if settled is not None and _alike(posterior, settled):
            posterior = settled
        modes, precision = posterior.modes, posterior.precision
        # In these units the curvature of the posterior is 1 in all directions.
        unit = 1.0 / np.sqrt(data[:, None, None] + precision)

        def negative(
            v: np.ndarray, modes: FieldModes = modes, precision: np.ndarray = precision, unit: np.ndarray = unit
        ) -> Tuple[float, np.ndarray]:
            g, a = v[: 2 * n].reshape(n, 2) * shift_unit, v[2 * n :].reshape(unit.shape) * unit
            value, gradient = windows.objective(g[None] + modes.field(a), pair_weights)
            bent = precision * a
            return 0.5 * float(np.sum(a * bent)) - value.sum(), -np.concatenate(
                [(shift_unit * gradient.sum(axis=0)).ravel(), (unit * (modes.adjoint(gradient) - bent)).ravel()]
            )

        start = np.concatenate([(shifts / shift_unit).ravel(), (modes.amplitudes(field) / unit).ravel()])
        v = _minimum(negative, start)
        shifts, amplitudes = v[: 2 * n].reshape(n, 2) * shift_unit, v[2 * n :].reshape(unit.shape) * unit
        field = modes.field(amplitudes)
        if posterior is settled:
            break
        settled = posterior
    return Refined(shifts, amplitudes, posterior)


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


def _minimum(function: Callable[[np.ndarray], Tuple[float, np.ndarray]], start: np.ndarray) -> np.ndarray:
    """Position of the minimum near `start` (m,); the function returns its value and gradient."""
    options = {"maxiter": MAX_ITERATIONS, "maxcor": 20}
    return minimize(function, start, jac=True, method="L-BFGS-B", options=options).x


def _column_weight(band: Band) -> np.ndarray:
    """Weight of each column of a real-input spectrum: 2, as it stands for two of the full one; 1 for first and last."""
    weight = np.full(band.size[1] // 2 + 1, 2.0)
    weight[0] = weight[-1] = 1.0
    return weight


def _smooth(profile: np.ndarray) -> np.ndarray:
    return np.convolve(np.pad(profile, 2, mode="edge"), np.array([1.0, 2, 3, 2, 1]) / 9, mode="valid")
