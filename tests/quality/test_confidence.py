"""Expected errors against true ones on phantoms, and the figures and warnings of paths that are known to be wrong."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from flexalign_plugin.aligner import align
from flexalign_plugin.backend import FrameSource
from flexalign_plugin.kernels import select_backend
from flexalign_plugin.motion import MotionModel
from flexalign_plugin.motion.band_movie import BandMovie
from flexalign_plugin.motion.evidence import FieldModes, space_modes, time_modes
from flexalign_plugin.motion.global_alignment import GlobalAlignment, align_globally, refine_globally
from flexalign_plugin.motion.local_alignment import LocalAlignment, align_locally
from flexalign_plugin.motion.lowpass import correlation_band
from flexalign_plugin.motion.patches import lay_patches
from flexalign_plugin.motion.refine import misfit
from flexalign_plugin.phantoms.phantom import field_rms_error, particle_phantom
from flexalign_plugin.quality.confidence import motion_doubts, with_confidence
from flexalign_plugin.quality.figures import Figures
from flexalign_plugin.quality.judgement import with_doses
from flexalign_plugin.settings import Settings

from ..in_memory import Stack

PIXEL_A, N = 2.5, 14


def band_movie(size: int, **options):
    ph = particle_phantom((N, size, size), pixel_size_A=PIXEL_A, **options)
    band = correlation_band((size, size), PIXEL_A, 30.0)
    backend = select_backend("cpu", threads=2)
    source = FrameSource(Stack(np.stack(list(ph.frames()))), None, None, None)
    return ph.truth, BandMovie(backend, backend.spectra(source, range(N), band), band, N, (size, size), PIXEL_A)


def test_two_thirds_of_the_frames_lie_within_one_sigma():
    """6 movies x 14 frames x 2 axes = 168 errors: 68 % of them are within sigma, with a tolerance of 3 sigma of that
    count, 11 %; their rms in units of sigma is 1, with a tolerance of 3 / sqrt(2 * 168) = 16 %."""
    ratios = []
    for seed in range(6):
        truth, movie = band_movie(384, seed=100 + seed, local_px=0.0, drift_px=5.0, dose=0.5)
        found = refine_globally(movie, align_globally(movie, 30.0, 50.0))
        true = np.stack(truth.shift(np.arange(N), 0.0, 0.0), -1)
        error = found.shifts_px - true
        ratios.append((error - error.mean(axis=0)) / found.shift_sigma_px)
    ratios = np.array(ratios)
    assert abs((np.abs(ratios) < 1).mean() - 0.68) < 0.11
    assert abs(np.sqrt((ratios**2).mean()) - 1) < 0.16


def test_a_frame_with_less_signal_is_less_certain():
    """The contrast of frame 4 is lost by half: its standard error is larger than that of the others."""
    ph = particle_phantom((N, 384, 384), pixel_size_A=PIXEL_A, seed=7, local_px=0.0)
    frames = np.stack(list(ph.frames()))
    rng = np.random.default_rng(0)
    frames[4] = np.where(rng.random(frames[4].shape) < 0.5, frames[4], rng.poisson(1.0, frames[4].shape))
    band = correlation_band((384, 384), PIXEL_A, 30.0)
    backend = select_backend("cpu", threads=2)
    spectra = backend.spectra(FrameSource(Stack(frames), None, None, None), range(N), band)
    movie = BandMovie(backend, spectra, band, N, (384, 384), PIXEL_A)
    sigma = refine_globally(movie, align_globally(movie, 30.0, 50.0)).shift_sigma_px.mean(axis=1)
    assert sigma[4] > 1.3 * np.delete(sigma, 4).max()


def test_expected_error_of_the_field():
    """Field and shifts together, 3 movies whose errors come from noise: the rms error is the expected one within 30 %
    (a field has about 30 independent amplitudes, 100 in all: 3 sigma are 21 %, and patches blur the motion)."""
    seen, expected = [], []
    for seed in (1, 2, 3):
        truth, movie = band_movie(768, seed=200 + seed, local_px=3.0, dose=0.2, control_points=3)
        start = align_globally(movie, 30.0, 50.0)
        local = align_locally(movie, lay_patches(movie, start.shifts_px, 400.0), start, 30.0, 50.0, 3, (4, 4, 4), True)
        model = MotionModel((768, 768), N, 0, local.shifts_px, local.coefficients_px, PIXEL_A)
        figures = with_confidence(Figures(), start, local, model)
        seen.append(field_rms_error(model, truth).rms_px ** 2)
        expected.append(figures.expected_error_px**2)
        assert figures.field_misfit_px < 0.5 * figures.expected_error_px
        assert figures.field_sigma_px > 0 and len(figures.field_sigma_mesh_px) == 9
        assert 3 < figures.motion_over_error < 100
    assert abs(np.sqrt(np.mean(seen) / np.mean(expected)) - 1) < 0.3


def test_expected_error_of_motion_that_no_spline_follows():
    """The local motion ends within the first frame, which even the finest spline for 14 frames can't follow. The noise
    alone explains less than half of the mean square error; with the misfit the rms is right within 30 %."""
    seen, noise, expected = [], [], []
    for seed in (1, 2):
        ph = particle_phantom((N, 768, 768), PIXEL_A, seed=300 + seed, local_px=5.0, control_points=3)
        parameters = {**ph.truth.parameters, "local_decay_frames": 0.5, "drift_decay_frames": 0.5}
        ph = dataclasses.replace(ph, truth=dataclasses.replace(ph.truth, parameters=parameters))
        settings = Settings(pixel_size=PIXEL_A, do_plots=False, do_compute_psd=False)
        result = align(Stack(np.stack(list(ph.frames()))), settings, select_backend("cpu", threads=2))
        seen.append(field_rms_error(result.model, ph.truth).rms_px ** 2)
        expected.append(result.figures.expected_error_px**2)
        noise.append(expected[-1] - result.figures.field_misfit_px**2)
    assert np.mean(noise) < 0.5 * np.mean(seen)
    assert abs(np.sqrt(np.mean(seen) / np.mean(expected)) - 1) < 0.3


@pytest.mark.parametrize("left_px, reported", [(0.0, False), (0.7, True)])
def test_misfit_is_common_to_two_sets_of_frequencies(left_px, reported):
    """16 x 10 patches and frames, noise of 1 px in each set, so that the mean square of each axis has a sigma of
    0.08 px^2. 0.7 px that the modes can't follow are measured, on average within 0.1 px; without them, at least 9 of 10
    times the misfit is 0."""
    rng = np.random.default_rng(1)
    y, x = np.meshgrid(np.arange(4) * 100.0 + 50, np.arange(4) * 100.0 + 50, indexing="ij")
    centres = np.stack([y.ravel(), x.ravel()], axis=1)
    modes = FieldModes(time_modes(3, 10), space_modes((3, 3), (400, 400), centres, np.ones(16)), np.ones(16))
    smooth = modes.field(rng.standard_normal((2, modes.time.values.shape[1], modes.space.values.shape[1])))
    found = []
    for _ in range(40):
        left = rng.standard_normal((16, 10, 2))
        left -= modes.field(modes.amplitudes(left))
        left *= left_px / np.sqrt((left**2).mean())
        slopes = [0.5 * 4.0 * (smooth + left + rng.standard_normal(left.shape)) for _ in range(2)]
        found.append(misfit(modes, slopes[0], slopes[1], np.full(2, 4.0), 1.0))
    found = np.array(found)
    if reported:
        assert (found > 0).mean() > 0.9
        assert abs(np.sqrt(found.mean()) - left_px) < 0.1
    else:
        assert (found > 0).mean() < 0.1


def figures_of(shifts, sigma=0.1, dose=None, is_measured=True, local=True):
    """Figures and warnings of a movie without local motion above the noise, or without local alignment."""
    n = len(shifts)
    model = MotionModel((500, 400), n, 0, np.asarray(shifts, float), None, 2.0)
    errors = None if sigma is None else np.full((n, 2), sigma)
    overall = GlobalAlignment(
        model.global_shifts_px, 0, 0.0, 0.0, 0.1, 9.0, is_measured=is_measured, shift_sigma_px=errors
    )
    nothing = LocalAlignment(model.global_shifts_px, None, None, None, 0.0, None, -1.0, shift_sigma_px=errors)
    after = None if dose is None else [dose * (i + 1) for i in range(n)]
    figures = with_doses(with_confidence(Figures(), overall, nothing if local else None, model), model, after, 0.0)
    return figures, " ".join(motion_doubts(figures, model))


def test_figures_of_a_smooth_drift():
    figures, doubts = figures_of(np.outer(np.linspace(0, 9, 10), [0.6, 0.8]), dose=1.0)
    assert figures.roughness < 1e-9
    assert figures.expected_error_px == pytest.approx(0.1 * np.sqrt(2))
    # Steps of 1 px = 2 A, 1 e/A^2 each.
    assert figures.late_drift_A_per_dose == pytest.approx(2.0)
    # RMS distance of ten even steps from their mean: sqrt(99 / 12).
    assert figures.motion_over_error == pytest.approx(np.sqrt(99 / 12) / (0.1 * np.sqrt(2)))
    assert figures.confidence == pytest.approx(np.exp(-((np.pi * 0.1) ** 2) / 2))
    assert "still drifts by 2.0 A" in doubts and "zigzag" not in doubts and "uncertain" not in doubts


def test_without_local_alignment_only_the_error_of_the_whole_frame_is_known():
    """Local motion of up to 3 px that nothing measures: the error of the whole-frame shifts is right within 50 % (28
    amplitudes: 3 sigma are 40 %), the true error of the motion is many times larger, and no figure hides that."""
    ph = particle_phantom((N, 768, 768), PIXEL_A, seed=400, local_px=3.0, dose=0.5, control_points=3)
    settings = Settings(pixel_size=PIXEL_A, do_plots=False, do_compute_psd=False, do_local_alignment=False)
    result = align(Stack(np.stack(list(ph.frames()))), settings, select_backend("cpu", threads=2))
    figures, true = result.figures, field_rms_error(result.model, ph.truth).rms_px
    best = MotionModel(result.model.frame_shape, N, 0, mean_motion(ph.truth, 768), None, PIXEL_A)
    of_frames = result.model.global_shifts_px - best.global_shifts_px
    of_frames = np.sqrt(((of_frames - of_frames.mean(axis=0)) ** 2).sum(axis=1).mean())
    assert figures.global_error_px == pytest.approx(of_frames, rel=0.5)
    assert true > 5 * figures.global_error_px
    assert figures.expected_error_px is None and figures.confidence is None and figures.motion_over_error is None
    (note,) = (note for note in result.notes if "Local motion was not measured" in note)
    assert f"whole-frame shifts alone is {figures.global_error_px:.2f} px" in note


def mean_motion(truth, size):
    """(N, 2) mean of the true motion over the frame, on the mesh of `field_rms_error`."""
    at = np.linspace(0, size - 1, 41)
    shifts = truth.shift(np.arange(N)[:, None, None], at[:, None], at)
    return np.stack([s.mean(axis=(1, 2)) for s in shifts], axis=1)


def test_a_high_error_of_the_whole_frame_is_named_as_such():
    assert "error of the whole-frame shifts alone is 1.41 px" in figures_of(np.zeros((10, 2)), 1.0, local=False)[1]
    assert figures_of(np.zeros((10, 2)), 0.1, local=False)[1] == ""


def test_warnings():
    back_and_forth = np.stack([np.arange(12) % 2 * 3.0, np.zeros(12)], axis=1)
    assert "zigzag with steps of 3.0 px" in figures_of(back_and_forth)[1]
    assert figures_of(back_and_forth / 10)[1] == ""
    assert "expected error is 1.41 px" in figures_of(np.zeros((10, 2)), sigma=1.0)[1]


def test_figures_without_dose_or_errors_are_none():
    figures, doubts = figures_of(np.zeros((3, 2)), sigma=None)
    assert figures.confidence is None and figures.expected_error_px is None and doubts == ""
    assert figures.late_drift_A_per_dose is None
    assert figures_of(np.zeros((2, 2)), sigma=None, is_measured=False)[0].confidence == 0.0


@pytest.mark.parametrize("error_px, warns", [(0.49, False), (0.51, True)])
def test_warning_of_a_high_error(error_px, warns):
    """0.5 px leaves exp(-(pi / 4)^2) = 0.54 of the amplitude at Nyquist."""
    assert ("uncertain" in figures_of(np.zeros((10, 2)), sigma=error_px / np.sqrt(2))[1]) == warns


def zigzag(roughness, step_px, n_frames=11):
    """Steps b + a, b - a, b + a ... along y, with rms step_px: second differences are all 2 a."""
    a = roughness * step_px / 2
    b = np.sqrt(step_px**2 - a**2)
    steps = b + a * (-1.0) ** np.arange(n_frames - 1)
    return np.stack([np.concatenate([[0], np.cumsum(steps)]), np.zeros(n_frames)], axis=1)


@pytest.mark.parametrize(
    "roughness, step_px, n_frames, warns",
    [(1.45, 3.0, 11, False), (1.55, 3.0, 11, True), (1.9, 0.9, 11, False), (1.9, 1.1, 11, True), (1.9, 3.0, 4, False)],
)
def test_warning_of_a_zigzag(roughness, step_px, n_frames, warns):
    """Above 1.5, between a random walk and independent positions, and only with steps above 1 px and 5 frames."""
    figures, doubts = figures_of(zigzag(roughness, step_px, n_frames))
    if n_frames % 2:  # as many steps of each kind
        assert figures.roughness == pytest.approx(roughness)
    assert ("zigzag" in doubts) == warns


def test_roughness_of_a_random_walk_and_of_noise():
    """sqrt(2) and sqrt(3), within 5 %: 2000 frames in two axes determine both to about 2 %."""
    rng = np.random.default_rng(0)
    steps = 3 * rng.standard_normal((2000, 2))
    walk, doubts_of_walk = figures_of(np.cumsum(steps, axis=0))
    noise, doubts_of_noise = figures_of(steps)
    assert walk.roughness == pytest.approx(np.sqrt(2), rel=0.05) and "zigzag" not in doubts_of_walk
    assert noise.roughness == pytest.approx(np.sqrt(3), rel=0.05) and "zigzag" in doubts_of_noise


@pytest.mark.parametrize("drift_A, warns", [(0.95, False), (1.05, True)])
def test_warning_of_a_fast_drift(drift_A, warns):
    """Frames of 1 e/A^2; a pixel is 2 A."""
    figures, doubts = figures_of(np.outer(np.arange(10), [drift_A / 2, 0.0]), dose=1.0)
    assert figures.late_drift_A_per_dose == pytest.approx(drift_A)
    assert ("still drifts" in doubts) == warns


def test_drift_is_late_after_four_electrons():
    """Frames of 1 e/A^2: the fifth is the first that ends after 4 e/A^2. Steps before it do not count, the next does:
    1 px = 2 A, over the 5 e/A^2 from the fifth to the tenth frame."""
    before, after = np.zeros((10, 2)), np.zeros((10, 2))
    before[:, 0] = np.minimum(np.arange(10), 4) * 3.0
    after[5:, 0] = 1.0
    assert figures_of(before, dose=1.0)[0].late_drift_A_per_dose == 0.0
    assert figures_of(after, dose=1.0)[0].late_drift_A_per_dose == pytest.approx(2.0 / 5)
