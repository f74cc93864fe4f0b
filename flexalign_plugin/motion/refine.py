"""Joint refinement: all patches and all frames at once, under the spline (ALGORITHM.md, section 5).

The measure is the power of the aligned sum in the band, `sum_p sum_k W(k) |sum_t F_pt(k) exp(-2 pi i k s_p(t))|^2`,
without every frame's own power, which no shift changes. Written out it is the sum over all pairs of frames of their
cross-correlation at the difference of their shifts, so that it is evaluated on small correlation windows.

With `W = S / (N (N + n S))`, S and N the spectral powers of signal and noise in one frame, it is the logarithm of
the likelihood of the shifts for a random signal of power S. Its expected curvature is then known in closed form, and
with it how smooth the field should be and how many control points it needs (`evidence`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Sequence, Tuple

import numpy as np
from scipy.optimize import minimize

from ..band import Band
from .evidence import FieldModes, Modes, Posterior, most_probable
from .lowpass import unusable
from .pairwise import all_pairs

WINDOW_A, WINDOW_STEP = 14.0, 0.5  # radius and sampling (band pixels) of the correlation windows
LOW_CUT_A = 300.0  # coarser structure (illumination, ice thickness) does not enter
MAX_ITERATIONS = 100
EVIDENCE_ROUNDS = 4
CURVATURE_STEP = 0.1  # band pixels
WEAKEST_IMAGE = 0.02  # of the mean power of the signal: an image that shows nothing
RING_COST = 2.0  # squared sds by which a ring must show signal, on average over the last ones, to be used
ALWAYS_USED_A = 60.0
CLEAR_MISFIT_SIGMA = 3.0  # sds of the noise, which the misfit must exceed to be told


@dataclass(frozen=True)
class WeightedSpectra:
    """The best weight of each spatial frequency and what follows from it.

    Attributes
    ----------
    n : frames.
    weight : (by, bx // 2 + 1) float32, S / (N (N + n S)).
    curvature : (2,) expected second derivative of one pair's log-likelihood with respect to its shift (y, x), per
        squared band pixel and image: sum of W S (2 pi k)^2.
    signal, noise : (rings,) radial S and N of one frame.
    coefficients : (rings,) number of coefficients of the full spectrum that count.
    end : the finest ring that shows signal; what lies beyond has no weight.
    """

    n: int
    weight: np.ndarray
    curvature: np.ndarray
    signal: np.ndarray
    noise: np.ndarray
    coefficients: np.ndarray
    end: int

    def information(self, strength: np.ndarray) -> np.ndarray:
        """(p,) information on the shifts in images with `strength` (p,) times the signal's power, relative to 1."""
        k2 = np.arange(len(self.signal)) ** 2 * self.coefficients
        s = strength[:, None] * self.signal
        return (k2 * s**2 / (self.noise * (self.noise + self.n * s))).sum(axis=1) / max(
            (k2 * self.signal**2 / (self.noise * (self.noise + self.n * self.signal))).sum(), 1e-30
        )

    def strengths(self, values: np.ndarray) -> np.ndarray:
        """(p,) power of each image's signal relative to their mean, from the objective's values (p,).

        The noise of the values is known; only what they differ by beyond it is taken for real.
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
    low_cut : frequencies below, in cycles per image pixel, get no weight (illumination and ice gradients).
    axes : use the axes of the spectrum as well.
    images : independent images that the powers are averaged over.
    always : frequencies below, in cycles per image pixel, count even if they show no signal.
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
    """The finest ring that shows signal beyond noise: as an information criterion sets the length of a series.

    Where there is none, its estimate from `count` coefficients of n frames has the sd power / sqrt(n (n - 1) count).
    Rings without signal would not only add nothing: noise taken for signal lends weight to noise, and makes the
    expected errors too small.
    """
    sds = signal * np.sqrt(n * (n - 1) * count) / np.maximum(power, 1e-30)
    return int(np.cumsum(np.where(power > 0, np.sign(sds) * sds**2 - RING_COST, 0.0)).argmax())


@dataclass(frozen=True)
class Refined:
    """Per-frame shifts (n, 2) and amplitudes (2, MT, MS) of the field in band pixels; the posterior they follow
    from."""

    shifts: np.ndarray
    amplitudes: np.ndarray
    posterior: Posterior


def refine_shifts(windows: Any, pair_weights: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Maximise the objective over shifts (n, 2) that all images of the batch share."""
    batch = len(pair_weights)

    def negative(v: np.ndarray) -> Tuple[float, np.ndarray]:
        value, gradient = windows.objective(
            np.broadcast_to(v.reshape(shifts.shape), (batch, *shifts.shape)), pair_weights
        )
        return -value.sum(), -gradient.sum(axis=0).ravel()

    return _minimum(negative, shifts.ravel()).reshape(shifts.shape)


def shift_errors(windows: Any, pair_weights: np.ndarray, shifts: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Standard errors (n, 2) of per-frame shifts that all images share, their mean aside, from the curvature found.

    Parameters
    ----------
    pair_weights : (p, n_pairs), makes the objective a log-likelihood.
    shifts : (p, n, 2) at its maximum.
    expected : (2,) curvature that is expected for every frame. Where less than a tenth of it is found, noise hides the
        curvature and a tenth is taken.
    """
    n = shifts.shape[1]
    pairs = all_pairs(n)
    found = np.empty((n, n, 2))
    for t in range(n):
        # Only the pairs of frame t feel it move; the others cost nothing.
        weights = np.where((pairs == t).any(axis=1), pair_weights, 0.0)
        moved = shifts.copy()
        moved[:, t] += CURVATURE_STEP
        still, slope = (windows.objective(at, weights)[1].sum(axis=0) for at in (shifts, moved))
        found[t] = (still - slope) / CURVATURE_STEP
    found = 0.5 * (found + found.transpose(1, 0, 2))
    errors = np.empty((n, 2))
    for axis in (0, 1):
        values, vectors = np.linalg.eigh(found[..., axis])
        centred = vectors - vectors.mean(axis=0)
        values = np.maximum(values, 0.1 * expected[axis])
        errors[:, axis] = np.sqrt((centred**2 / values).sum(axis=1))
    return errors


def refine_field(
    windows: Any,
    pair_weights: np.ndarray,
    curvature: np.ndarray,
    times: Sequence[Modes],
    spaces: Sequence[Modes],
    weights: np.ndarray,
    shifts: np.ndarray,
    field: np.ndarray,
) -> Refined:
    """Maximise the posterior over per-frame shifts and field together, with the most probable spline and prior.

    Parameters
    ----------
    windows : `kernels.backend.Windows` of (p, n_pairs).
    pair_weights : (p, n_pairs), makes the objective a log-likelihood.
    curvature : (2,) of one pair's log-likelihood, mean over the patches.
    times, spaces : splines to choose from, each from coarse to fine.
    weights : (p,) of the patches, mean 1.
    shifts, field : (n, 2) and (p, n, 2), the start, band pixels.
    """
    n_patches, n = field.shape[:2]
    # All pairs of n frames make n - 1 1^T in time: the precision of each patch's shift in each frame, their mean aside.
    data = np.maximum(n * curvature, 1e-30)
    shift_unit = 1.0 / np.sqrt(n_patches * data)
    settled = None
    for _ in range(EVIDENCE_ROUNDS):
        slope = windows.objective(shifts[None] + field, pair_weights)[1]
        posterior = most_probable(times, spaces, weights, field, slope, data)
        if settled is not None and _alike(posterior, settled):
            posterior = settled
        modes, precision = posterior.modes, posterior.precision
        # In these units the curvature of the posterior is one in all directions.
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
    """(2,) mean square (y, x) of the motion that no field of these modes follows, in squared band pixels; 0 if unclear.

    At the maximum the slopes tell where each patch of each frame still wants to go: because of noise, or because the
    field can't follow. Noise differs between two halves of the frequencies; what they agree upon is real.

    Parameters
    ----------
    half, other : (p, n, 2) slopes of the log-likelihood at its maximum from two halves of the frequencies.
    precision : (2,) of the shift of an average patch in one frame, from all frequencies.
    independent : fraction of the patches' pixels that are not counted twice.
    """
    wishes = []
    for slope in (half, other):
        # Weights are as in the modes: a patch that tells more has more to say.
        wish = slope / (0.5 * precision * modes.weights[:, None, None])
        wish -= wish.mean(axis=1, keepdims=True)
        wish -= np.average(wish, axis=0, weights=modes.weights)
        wishes.append(wish - modes.field(modes.amplitudes(wish)))
    weights = modes.weights[:, None] / (modes.weights.sum() * half.shape[1])
    agreed, *powers = (
        np.einsum("pt,pta->a", weights, a * b)
        for a, b in ((wishes[0], wishes[1]), (wishes[0], wishes[0]), (wishes[1], wishes[1]))
    )
    noise = np.sqrt(powers[0] * powers[1] / (independent * half[..., 0].size))
    clear = agreed.sum() > CLEAR_MISFIT_SIGMA * np.hypot(*noise)
    return np.maximum(agreed, 0.0) if clear else np.zeros(2)


def _alike(one: Posterior, other: Posterior) -> bool:
    """Whether two rounds came to (nearly) the same conclusion."""
    same = one.modes.time is other.modes.time and one.modes.space is other.modes.space
    return same and all(abs(np.log(a / b)) < 0.5 for a, b in zip(one.prior, other.prior))


def _minimum(function: Any, start: np.ndarray) -> np.ndarray:
    options = {"maxiter": MAX_ITERATIONS, "maxcor": 20}
    return minimize(function, start, jac=True, method="L-BFGS-B", options=options).x


def _column_weight(band: Band) -> np.ndarray:
    """Every column of a real-input spectrum stands for two of the full one, but for the first and the last."""
    weight = np.full(band.size[1] // 2 + 1, 2.0)
    weight[0] = weight[-1] = 1.0
    return weight


def _smooth(profile: np.ndarray) -> np.ndarray:
    return np.convolve(np.pad(profile, 2, mode="edge"), np.array([1.0, 2, 3, 2, 1]) / 9, mode="valid")
