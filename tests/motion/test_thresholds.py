"""Constants that decide between two outcomes, just below and just above them, and how often noise alone gets past."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import norm

from flexalign_plugin.band import Band
from flexalign_plugin.kernels import select_backend
from flexalign_plugin.motion import evidence, global_alignment
from flexalign_plugin.motion.band_movie import BandMovie
from flexalign_plugin.motion.evidence import FieldModes, Posterior, most_probable, space_modes, time_modes
from flexalign_plugin.motion.global_alignment import GlobalAlignment
from flexalign_plugin.motion.lowpass import correlation_band, lowpass
from flexalign_plugin.motion.pairwise import all_pairs, solve_pairs
from flexalign_plugin.motion.patches import lay_patches
from flexalign_plugin.motion.refine import WeightedSpectra, _signal_end, misfit
from flexalign_plugin.motion.spline_fit import field_basis, fit_field

# Evidence: when more control points are taken.


def chosen(monkeypatch, in_time, in_space):
    """Index of the chosen spline in time and in space when their logarithmic evidence is this."""
    values = {**dict(zip("abc", in_time)), **dict(zip("xyz", in_space))}

    def weigh(modes, *_):
        # The splines in time are compared with the coarsest in space, and then those in space with the best in time.
        value = values[modes.time] if modes.space == "x" else values[modes.space]
        return Posterior(modes, (1.0, 1.0), 1.0, value)

    monkeypatch.setattr(evidence, "_weigh", weigh)
    best = most_probable("abc", "xyz", np.ones(1), np.zeros((1, 2, 2)), np.zeros((1, 2, 2)), np.ones(2)).modes
    return "abc".index(best.time), "xyz".index(best.space)


@pytest.mark.parametrize(
    "in_time, in_space, expected",
    [
        ([100.0, 101.9, 101.9], [0.0, 0.0, 0.0], (0, 0)),
        ([100.0, 102.1, 104.0], [0.0, 0.0, 0.0], (1, 0)),
        ([100.0, 101.9, 102.1], [0.0, 0.0, 0.0], (2, 0)),
        # In time no relative gain is needed.
        ([1e5, 1e5 + 2.1, 0.0], [0.0, 0.0, 0.0], (1, 0)),
        # In space at least 2, and a thousandth: from 2000 on the latter is more.
        ([100.0, 0.0, 0.0], [100.0, 101.9, 101.9], (0, 0)),
        ([100.0, 0.0, 0.0], [100.0, 102.1, 102.1], (0, 1)),
        ([1900.0, 0.0, 0.0], [1900.0, 1901.95, 1902.05], (0, 2)),
        ([1e4, 0.0, 0.0], [1e4, 1e4 + 9.9, 0.0], (0, 0)),
        ([1e4, 0.0, 0.0], [1e4, 1e4 + 10.1, 0.0], (0, 1)),
    ],
)
def test_gain_of_evidence_that_more_control_points_need(monkeypatch, in_time, in_space, expected):
    assert chosen(monkeypatch, in_time, in_space) == expected


def test_noise_seldom_takes_more_control_points_than_the_field_has():
    """60 smooth fields of 4 x 4 control points, measured with noise. Were the coarse spline and its prior known, the
    finer one would be more probable by a factor of e^2 in at most e^-2 = 13.5 % of such data (Markov's inequality: on
    average the factor is 1). That it is at all more probable happens far more often."""
    rng, n, sd, shape = np.random.default_rng(0), 20, 0.3, (4000, 4600)
    at = np.stack(np.meshgrid(*(np.linspace(150, size - 150, 7) for size in shape), indexing="ij"), -1).reshape(-1, 2)
    weights, time = np.ones(len(at)), time_modes(5, n)
    coarse, fine = (space_modes((k, k), shape, at, weights) for k in (4, 7))
    modes = FieldModes(time, coarse, weights)
    prior = modes.roughness((30 / np.median(time.roughness), 30 / np.median(coarse.roughness)), 0.05)
    measured = taken = more_probable = 0
    for _ in range(60):
        field = modes.field(rng.standard_normal((2, *prior.shape)) / np.sqrt(prior))
        slope = (field + sd * rng.standard_normal(field.shape)) * sd**-2
        slope = slope - slope.mean(axis=1, keepdims=True)
        slope = slope - slope.mean(axis=0)
        alone, other, best = (
            most_probable([time], spaces, weights, 0 * field, slope, np.full(2, sd**-2))
            for spaces in ([coarse], [fine], [coarse, fine])
        )
        measured += alone.log_evidence > 0
        more_probable += other.log_evidence > alone.log_evidence
        taken += best.modes.space is fine
    assert measured > 50, "of almost no motion any spline would do"
    assert taken < math.exp(-2) * 60 < more_probable / 2


# Whole frames.


def fake_movie(n=16, size=(120, 120)):
    return BandMovie(None, None, Band((512, 512), size), n, (512, 512), 4.0)


def alignment(n=16, **values):
    return GlobalAlignment(
        np.zeros((n, 2)), 0, **{"rejected": 0.0, "on_rim": 0.0, "residual_px": 0.1, **values}, significance=9.0
    )


@pytest.mark.parametrize("rejected, searches", [(0.29, False), (0.31, True)])
@pytest.mark.parametrize("clearness, is_measured", [(4.9, False), (5.1, True)])
def test_when_pairs_are_searched_together_and_the_outcome_is_accepted(
    monkeypatch, rejected, searches, clearness, is_measured
):
    """With more than 30 % of the pairs rejected, if it stands 5 sigma above noise in frequencies not used for it."""
    monkeypatch.setattr(global_alignment, "_align_pairs", lambda *_: alignment(rejected=rejected))
    monkeypatch.setattr(global_alignment, "_search", lambda *_: (clearness, np.outer(np.arange(16), [1.0, 2.0])))
    found = global_alignment.align_globally(fake_movie(), 30.0, 50.0)
    assert found.by_search == searches
    assert found.is_measured == (is_measured or not searches)
    assert found.shifts_px.any() == (searches and is_measured)


@pytest.mark.parametrize("lost, gain, grows", [(16, 4.9, False), (16, 5.1, True), (1, 2.4, False), (1, 2.6, True)])
def test_when_a_larger_search_range_is_taken(monkeypatch, lost, gain, grows):
    """If it aligns the other frequencies better by 5 sigma; for 1 lost frame of 16 by 5 * 2 * sqrt(1 / 16) sigma."""
    clearness = iter([20.0, 20.0 + gain])
    monkeypatch.setattr(global_alignment, "_align_pairs", lambda *_: alignment(lost=lost))
    monkeypatch.setattr(global_alignment, "_significance_of_sum", lambda *_: next(clearness))
    found = global_alignment.align_globally(fake_movie(), 30.0, 20.0, growing=True)
    assert (found.max_shift_A > 20.0) == grows


def test_significance_of_sum_of_noise_has_mean_0_and_sd_1():
    """200 movies of 6 frames: the mean is 0 within 4 / sqrt(200) = 0.28, the sd 1 within 4 / sqrt(400) = 20 %."""
    rng, size, n = np.random.default_rng(0), (48, 60), 6
    backend, band = select_backend("cpu", threads=1), Band(size, size)
    weight = lowpass(band, 1.0, 6.0) ** 2
    values = []
    for _ in range(200):
        spectra = np.fft.rfft2(rng.standard_normal((1, n, *size))).astype(np.complex64)
        movie = BandMovie(backend, spectra, band, n, size, 1.0)
        values.append(global_alignment._significance_of_sum(movie, weight, rng.uniform(-5, 5, (n, 2))))
    assert abs(np.mean(values)) < 4 / np.sqrt(200)
    assert abs(np.std(values) - 1) < 4 / np.sqrt(400)


@pytest.mark.parametrize("strays, distance_px, lost", [(4, 9.0, 0), (5, 9.0, 1), (5, 0.95, 0), (5, 1.05, 1)])
def test_a_frame_is_lost_when_most_of_its_pairs_are_far_from_the_solution(strays, distance_px, lost):
    """Of the 8 pairs of frame 4 some lie this far from where the others say; each other frame has at most one."""
    n = 9
    pairs, shifts = all_pairs(n), np.random.default_rng(0).normal(0, 5, (n, 2))
    position = shifts[pairs[:, 1]] - shifts[pairs[:, 0]]
    of_frame_4 = np.flatnonzero((pairs == 4).any(axis=1))[:strays]
    for on_rim in (False, True):
        moved, rim = position.copy(), np.zeros((1, len(pairs)), bool)
        if on_rim:  # measures nothing, wherever it is
            rim[0, of_frame_4] = True
        else:
            moved[of_frame_4] += distance_px * np.array([0.6, -0.8])
        peaks = SimpleNamespace(position=moved[None], on_rim=rim)
        assert global_alignment._lost(n, pairs, shifts, peaks) == (int(strays > 4) if on_rim else lost)


@pytest.mark.parametrize("n, radius", [(2, 5.0 + 3), (4, 15.0 + 3), (5, 20.0 + 3), (12, 20.0 + 3)])
def test_range_of_the_pair_search(n, radius):
    """5 pixels between consecutive frames, up to four times that for frames further apart, and 3 pixels of rim."""

    class Asked(Exception):
        pass

    def correlate(spectra, size, weight, pairs, radius):
        raise Asked(radius)

    movie = BandMovie(SimpleNamespace(correlate=correlate), None, Band((512, 512), (120, 120)), n, (512, 512), 4.0)
    with pytest.raises(Asked) as asked:
        global_alignment._align_pairs(movie, np.ones((120, 61)), 5.0)
    assert asked.value.args == (radius,)


# Refinement.


def end_of_signal(squared_sds):
    n, count = 10, np.full(len(squared_sds), 50.0)
    signal = np.sqrt(np.array(squared_sds) / (n * (n - 1) * count))
    return _signal_end(signal, np.ones(len(signal)), count, n)


def test_rings_are_used_while_they_show_two_squared_sigmas_on_average():
    strong = [100.0] * 10
    assert end_of_signal(strong + [1.9] * 10) == 9
    assert end_of_signal(strong + [2.1] * 10) == 19
    assert end_of_signal(strong + [1.9, 2.15] * 5) == 19
    assert end_of_signal(strong + [1.9, 2.05] * 5) == 9


def test_an_image_without_signal_has_two_percent_of_the_power():
    """Where signal is weak, information grows with its square: a thousandth or less is left, but not nothing."""
    rings = np.ones(20)
    spectra = WeightedSpectra(10, np.ones((2, 2), np.float32), np.ones(2), 1e-3 * rings, rings, 1e4 * rings, 19)
    strengths = spectra.strengths(np.array([2.0] * 50 + [-0.5] * 50))
    assert strengths.min() == 0.02 and strengths[:50].min() > 1
    assert 0 < spectra.information(strengths).min() < 1e-3


def left_over(rng, modes, shape):
    """Random motion (p, n, 2) of mean square 1 in each axis that the modes can't follow."""
    left = rng.standard_normal(shape)
    left -= left.mean(axis=1, keepdims=True)
    left -= left.mean(axis=0)
    left -= modes.field(modes.amplitudes(left))
    return left / np.sqrt((left**2).mean(axis=(0, 1)))


def misfit_modes():
    at = np.arange(4) * 100.0 + 50
    centres = np.stack(np.meshgrid(at, at, indexing="ij"), -1).reshape(-1, 2)
    return FieldModes(time_modes(3, 10), space_modes((3, 3), (400, 400), centres, np.ones(16)), np.ones(16))


@pytest.mark.parametrize("sigmas, clear", [(2.9, False), (3.1, True)])
def test_misfit_is_clear_of_noise_at_three_sigma(sigmas, clear):
    """Two halves with powers of 1 and the correlation r agree upon r in each axis, 2 r together; the noise of that is
    sqrt(2 / 160) for 16 x 10 patches and frames."""
    rng, modes, shape = np.random.default_rng(0), misfit_modes(), (16, 10, 2)
    one, other = left_over(rng, modes, shape), left_over(rng, modes, shape)
    other -= (other * one).mean(axis=(0, 1)) * one
    other /= np.sqrt((other**2).mean(axis=(0, 1)))
    r = sigmas * math.sqrt(2 / 160) / 2
    found = misfit(modes, one, r * one + math.sqrt(1 - r**2) * other, np.full(2, 2.0), 1.0)
    if clear:
        np.testing.assert_allclose(found, r, rtol=1e-6)
    else:
        assert not found.any()


# Patches and outliers.


@pytest.mark.parametrize("rooms, fits", [(1.2, False), (1.3, True)])
def test_patches_need_room_for_one_and_a_quarter(rooms, fits):
    movie = BandMovie(None, None, correlation_band((1024, 1024), 1.0, 30.0), 3, (1024, 1024), 1.0)
    whole = lay_patches(movie, np.zeros((3, 2)), 500.0)
    for axis in (0, 1):
        shifts = np.zeros((3, 2))
        shifts[1, axis] = 1024 - rooms * whole.size[axis] * movie.band.scale[axis]
        assert (lay_patches(movie, shifts, 500.0) is not None) == fits


@pytest.mark.parametrize("counts, fits", [((2, 2), True), ((1, 2), False), ((2, 1), False)])
def test_there_are_at_least_two_patches_on_each_axis(counts, fits):
    movie = BandMovie(None, None, correlation_band((2048, 2048), 1.0, 30.0), 3, (2048, 2048), 1.0)
    layout = lay_patches(movie, np.zeros((3, 2)), 500.0, counts)
    assert (layout is not None) == fits and (not fits or layout.counts == counts)


def rejected_noise(sigmas):
    """Fraction of points with noise in two axes that are rejected when those beyond `sigmas` standard deviations of the
    kept ones in either axis are, repeatedly."""
    at = sigmas
    for _ in range(50):
        at = sigmas * math.sqrt(1 - 2 * at * norm.pdf(at) / (2 * norm.cdf(at) - 1))
    return 1 - (2 * norm.cdf(at) - 1) ** 2


def test_three_sigma_reject_less_than_one_percent_of_good_measurements():
    """0.65 % of noise. 76000 pairs determine the fraction to 0.03 %, 40000 patch shifts to 0.04 %: within 0.2 %; limits
    of 2.8 and 3.3 sigma would differ by 0.6 % and 0.4 %."""
    expected = rejected_noise(3.0)
    assert 0.006 < expected < 0.007
    rng, n, pairs = np.random.default_rng(0), 20, all_pairs(20)
    solved = solve_pairs(n, pairs, rng.standard_normal((400, len(pairs), 2)), np.ones((400, len(pairs))))
    assert abs(solved.rejected.mean() - expected) < 0.002

    at = np.linspace(200, 3800, 20)
    centres = np.stack(np.meshgrid(at, at, indexing="ij"), -1).reshape(-1, 2)
    field = field_basis((4, 4, 4), n, (4000, 4000), centres)
    precision = np.tile(n * np.eye(n) - 1.0, (len(centres), 1, 1))
    rejected = [1 - fit_field(field, rng.standard_normal((400, n, 2)), precision, 1e-9)[1].mean() for _ in range(5)]
    assert abs(np.mean(rejected) - expected) < 0.002


@pytest.mark.parametrize("away_px, rejected", [(0.0025, 0), (0.005, 1)])
def test_residuals_that_can_not_be_measured_are_no_outliers(away_px, rejected):
    """Everything is exact but for one measurement: beyond 3 sigma in any case, but sigma is taken as at least 1e-3."""
    n, pairs = 20, all_pairs(20)
    measured = np.zeros((1, len(pairs), 2))
    measured[0, 7, 1] = away_px
    solved = solve_pairs(n, pairs, measured, np.ones((1, len(pairs))))
    assert np.flatnonzero(solved.weights[0] == 0).tolist() == [7] * rejected

    at = np.linspace(200, 3800, 10)
    centres = np.stack(np.meshgrid(at, at, indexing="ij"), -1).reshape(-1, 2)
    shifts = np.zeros((len(centres), n, 2))
    shifts[34, 7, 1] = away_px
    precision = np.tile(n * np.eye(n) - 1.0, (len(centres), 1, 1))
    _, kept = fit_field(field_basis((4, 4, 4), n, (4000, 4000), centres), shifts, precision, 1e-9)
    assert np.argwhere(~kept).tolist() == [[34, 7]] * rejected
