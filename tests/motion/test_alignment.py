"""Global and local alignment, refinement and search on spectra of moved images with known motion."""

from __future__ import annotations

import numpy as np
import pytest

from flexalign_plugin.backend import FrameSource
from flexalign_plugin.band import fft_size_below
from flexalign_plugin.kernels import select_backend
from flexalign_plugin.motion.band_movie import BandMovie
from flexalign_plugin.motion.global_alignment import align_globally, refine_globally
from flexalign_plugin.motion.local_alignment import align_locally
from flexalign_plugin.motion.lowpass import correlation_band
from flexalign_plugin.motion.patches import lay_patches
from flexalign_plugin.motion.refine import weighted_spectra
from flexalign_plugin.phantoms.phantom import particle_phantom

from ..in_memory import Stack

PIXEL_A = 2.5
N, NY, NX = 14, 768, 900


def band_movie(frames: np.ndarray, pixel_size_A: float = PIXEL_A) -> BandMovie:
    backend = select_backend("cpu", threads=2)
    shape = frames.shape[1:]
    band = correlation_band((fft_size_below(shape[0]), fft_size_below(shape[1])), pixel_size_A, 30.0)
    spectra = backend.spectra(FrameSource(Stack(frames), None, None, None), range(len(frames)), band)
    return BandMovie(backend, spectra, band, len(frames), shape, pixel_size_A)


def phantom(**options):
    options = {"shape": (N, NY, NX), "pixel_size_A": PIXEL_A, "band_limit_A": 10.0, "seed": 3, **options}
    return particle_phantom(**options)


def true_shifts(ph, y=None, x=None):
    y, x = (NY / 2, NX / 2) if y is None else (y, x)
    return np.stack(ph.truth.shift(np.arange(N)[:, None], np.atleast_1d(y), np.atleast_1d(x)), -1).transpose(1, 0, 2)


def error(shifts, truth):
    difference = shifts - truth
    return np.sqrt(((difference - difference.mean(axis=-2, keepdims=True)) ** 2).sum(axis=-1).mean())


@pytest.fixture(scope="module")
def drifting():
    ph = phantom(local_px=1e-9)
    return ph, band_movie(np.stack(list(ph.frames())))


@pytest.fixture(scope="module")
def bending():
    ph = phantom(local_px=5.0)
    movie = band_movie(np.stack(list(ph.frames())))
    start = align_globally(movie, 30.0, 50.0)
    return ph, movie, start, lay_patches(movie, start.shifts_px, 500.0)


def test_global_shifts(drifting):
    """Within 0.02 band pixels, the bias of the peak estimator, plus the noise of 14 frames: 0.1 px."""
    ph, movie = drifting
    found = align_globally(movie, 30.0, 50.0)
    assert error(found.shifts_px, true_shifts(ph)[0]) < 0.1
    assert found.is_measured and not found.by_search and found.rejected < 0.1
    assert (found.shifts_px[found.reference] == 0).all()


def test_refined_global_shifts_reach_the_bound_of_the_noise(drifting):
    """Within three times the Cramer-Rao bound of the shifts, taken from the known spectrum of the phantom."""
    ph, movie = drifting
    found = refine_globally(movie, align_globally(movie, 30.0, 50.0))
    power = movie.backend.power(movie.spectra, movie.band.size, found.shifts_px[None] / movie.band.scale)
    weighted = weighted_spectra(movie.band, *power, N, PIXEL_A / 300.0)
    # Curvature of one pair's likelihood c: the shifts, mean removed, have covariance (1 - 1/n) / (n c) per axis.
    variance = (1 - 1 / N) / (N * weighted.curvature)
    bound = np.sqrt((variance * movie.band.scale**2).sum())
    assert bound < 0.1
    assert error(found.shifts_px, true_shifts(ph)[0]) < 3 * bound + 0.01


def test_a_drift_longer_than_the_bound_between_frames(drifting):
    """80 px = 200 A, four times the largest shift between frames, which is a bound on consecutive frames only."""
    ph = phantom(local_px=1e-9, drift_px=80.0, seed=4)
    found = align_globally(band_movie(np.stack(list(ph.frames()))), 30.0, 50.0)
    assert error(found.shifts_px, true_shifts(ph)[0]) < 0.15


def test_no_motion_is_detected_in_pure_noise():
    frames = np.random.default_rng(0).poisson(1.0, (N, 512, 512)).astype("u1")
    found = align_globally(band_movie(frames), 30.0, 50.0)
    assert not found.is_measured
    assert (found.shifts_px == 0).all()


def test_joint_search_aligns_frames_whose_single_pairs_fail():
    """At 0.05 e/px/frame most single pairs are outliers, but the sum over all pairs has a clear maximum."""
    ph = phantom(local_px=1e-9, dose=0.05, seed=5)
    movie = band_movie(np.stack(list(ph.frames())))
    found = align_globally(movie, 30.0, 50.0)
    assert found.by_search and found.is_measured
    assert error(found.shifts_px, true_shifts(ph)[0]) < 1.0


def local_error(ph, local, layout):
    t = np.arange(N)
    kt, ky, kx = local.coefficients_px.shape[1:]
    from flexalign_plugin.motion import MotionModel

    model = MotionModel((NY, NX), N, 0, local.shifts_px, local.coefficients_px, PIXEL_A)
    y, x = layout.centres_px.T
    found = np.stack(model.shift(t[:, None], y, x), -1).transpose(1, 0, 2)
    return error(found, true_shifts(ph, y, x))


@pytest.mark.parametrize("refinement,limit", [(False, 0.35), (True, 0.25)])
def test_local_motion_of_5_px(bending, refinement, limit):
    """Far below the error of global shifts alone; the size of the patches, which blur the motion, sets the limit."""
    ph, movie, start, layout = bending
    left = error(start.shifts_px[None], true_shifts(ph, *layout.centres_px.T))
    local = align_locally(movie, layout, start, 30.0, 50.0, 3, (4, 5, 5), refinement)
    found = local_error(ph, local, layout)
    assert left > 0.6
    assert found < limit
    assert local.rejected < 0.1


def test_rejected_pairs_identify_a_frame_and_a_patch_without_signal():
    """One frame, and one corner of all frames, contain only noise: their pairs are the rejected ones."""
    ph = phantom(local_px=2.0)
    frames = np.stack(list(ph.frames())).astype(np.float32)
    noise = np.random.default_rng(3)
    frames[4] = noise.normal(frames[4].mean(), frames[4].std(), frames[4].shape)
    found = align_globally(band_movie(frames), 30.0, 50.0)
    assert found.frames_rejected.argmax() == 4
    assert found.frames_rejected[4] > 0.7 > 0.2 > np.median(found.frames_rejected)

    frames = np.stack(list(ph.frames())).astype(np.float32)
    corner = frames[:, : NY // 2, : NX // 2]
    corner[:] = noise.normal(frames.mean(), frames.std(), corner.shape)
    movie = band_movie(frames)
    start = align_globally(movie, 30.0, 50.0)
    layout = lay_patches(movie, start.shifts_px, 300.0)
    local = align_locally(movie, layout, start, 30.0, 50.0, 3, (4, 4, 4), False)
    assert local.patches_rejected.shape == (len(layout.centres_px),)
    assert (layout.centres_px[local.patches_rejected.argmax()] < (NY / 2, NX / 2)).all()
    assert local.patches_rejected.mean() == pytest.approx(local.rejected)


def test_a_field_finer_than_the_published_rule():
    """Motion through 6 x 6 random values, which 3 x 4 control points can't represent: the evidence selects more control
    points, with less than half the error; the published mode keeps its rule."""
    ph = phantom(local_px=6.0, control_points=6, seed=8)
    movie = band_movie(np.stack(list(ph.frames())))
    start = align_globally(movie, 30.0, 50.0)
    layout = lay_patches(movie, start.shifts_px, 300.0)
    fixed, free = (
        align_locally(movie, layout, start, 30.0, 50.0, 3, (4, 3, 4), True, choose_points=chosen)
        for chosen in (False, True)
    )
    assert fixed.coefficients_px.shape == (2, 4, 3, 4)
    assert free.coefficients_px.size > fixed.coefficients_px.size
    assert local_error(ph, free, layout) < 0.5 * local_error(ph, fixed, layout)


def test_no_local_motion_gives_no_field(drifting):
    ph, movie = drifting
    start = align_globally(movie, 30.0, 50.0)
    layout = lay_patches(movie, start.shifts_px, 500.0)
    local = align_locally(movie, layout, start, 30.0, 50.0, 3, (4, 5, 5), True)
    assert local.coefficients_px is None
    assert error(local.shifts_px, true_shifts(ph)[0]) < 0.1


def test_weighted_spectra_estimate_signal_and_noise():
    """S = 0.5 below a quarter of Nyquist, else 0, N = 2: the radial ratio is right within 5 sigma of its own noise."""
    rng = np.random.default_rng(1)
    from flexalign_plugin.band import Band

    band, n = Band((256, 256), (256, 256)), 20
    k = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.rfftfreq(256))
    signal = np.fft.rfft2(rng.standard_normal((256, 256))) / 256 * np.sqrt(0.5) * (k < 0.125)
    frames = signal + np.fft.rfft2(rng.standard_normal((n, 256, 256))) / 256 * np.sqrt(2.0)
    weighted = weighted_spectra(band, np.abs(frames.sum(0)) ** 2, (np.abs(frames) ** 2).sum(0), n, 0.01)
    # Rings of 100 coefficients and more, smoothed over 3: relative sd of S below 0.1.
    assert np.abs((weighted.signal / weighted.noise)[10:28] / 0.25 - 1).max() < 0.4
    assert (weighted.signal / weighted.noise)[40:].max() < 0.05
    inside = (k > 0.04) & (k < 0.11)
    inside[0] = inside[:, 0] = False
    expected = 0.5 / (2 * (2 + n * 0.5))
    assert abs(weighted.weight[inside].mean() / expected - 1) < 0.15


@pytest.mark.parametrize("strong", [1.0, 1.6])
def test_strengths_estimate_the_signal_of_each_image(strong):
    """200 images, half with `strong` and half with 2 - `strong` times the mean signal, S / N = 0.1: the strengths come
    out on average, and without a difference the noise of the values (8 % each) is not taken for one.
    Their random power itself differs by 4 %."""
    from flexalign_plugin.band import Band

    rng, size, n, p = np.random.default_rng(2), 48, 10, 200
    band = Band((size, size), (size, size))
    true = np.where(np.arange(p) % 2, strong, 2 - strong)
    sd = np.sqrt(0.1 * true)[:, None, None]
    signal = np.fft.rfft2(sd * rng.standard_normal((p, size, size)))
    of_sum, of_each = np.empty(signal.shape), np.zeros(signal.shape)
    total = n * signal
    for _ in range(n):
        noise = np.fft.rfft2(rng.standard_normal((p, size, size)))
        total += noise
        of_each += np.abs(signal + noise) ** 2
    of_sum = np.abs(total) ** 2
    weighted = weighted_spectra(band, of_sum.mean(0), of_each.mean(0), n, 0.01)
    columns = np.where(np.arange(size // 2 + 1) % (size // 2), 2, 1)
    values = 0.5 * (columns * weighted.weight * (of_sum - of_each)).sum(axis=(1, 2))
    found = weighted.strengths(values)
    for kind in (strong, 2 - strong):
        assert abs(found[true == kind].mean() - kind) < 0.05
    assert found[true == strong].std() < (0.12 if strong > 1 else 0.07)
    information = weighted.information(np.array([1e-6, 1.0, 1e6]))
    assert information[0] < 1e-6 and abs(information[1] - 1) < 1e-12
    # With signal in plenty the information only grows with S itself, in little with its square.
    assert 0.5e6 < information[2] < 3e6
