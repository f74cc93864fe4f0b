"""Automatic limits: resolution, largest shift, and the end of the signal of a movie."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from flexalign_plugin.aligner import align
from flexalign_plugin.backend import FrameSource
from flexalign_plugin.band import Band
from flexalign_plugin.kernels import select_backend
from flexalign_plugin.motion.band_movie import BandMovie
from flexalign_plugin.motion.global_alignment import align_globally
from flexalign_plugin.motion.limits import automatic_resolution, limits
from flexalign_plugin.motion.lowpass import correlation_band
from flexalign_plugin.motion.refine import weighted_spectra
from flexalign_plugin.phantoms.phantom import field_rms_error, particle_phantom
from flexalign_plugin.settings import Settings

from ..in_memory import Stack

N, SIZE, PIXEL_A = 10, 512, 4.0


@pytest.mark.parametrize(
    "pixel_size, image, patch, expected",
    [
        (1.0, (4096, 4096), 500.0, 30.0),
        (0.75, (4096, 4096), 500.0, 22.5),
        (0.35, (2048, 2048), 500.0, 20.0),
        (4.0, (4096, 4096), 500.0, 30.0),
        (16.0, (1024, 1024), 500.0, 48.0),  # 3 pixels
        (1.0, (4096, 4096), 100.0, 25.0),  # a quarter of the patch
    ],
)
def test_automatic_resolution(pixel_size, image, patch, expected):
    assert automatic_resolution(patch, pixel_size, image) == pytest.approx(expected)


def test_given_values_win():
    found = limits(17.0, 33.0, patch_A=500.0, pixel_size_A=1.0, image=(4096, 4096))
    assert (found.max_res_A, found.max_shift_A, found.growing) == (17.0, 33.0, False)


def moving(drift_px: float, decay: float, dose: float = 2.0, detail_A: float = 12.0):
    """Frames that drift within `decay` frames, and their truth."""
    ph = particle_phantom(
        (N, SIZE, SIZE), PIXEL_A, dose, band_limit_A=detail_A, drift_px=drift_px, local_px=0.2, control_points=3, seed=5
    )
    parameters = {**ph.truth.parameters, "drift_decay_frames": decay}
    ph = dataclasses.replace(ph, truth=dataclasses.replace(ph.truth, parameters=parameters))
    return np.stack(list(ph.frames())), ph.truth


def band_movie(frames: np.ndarray) -> BandMovie:
    band = correlation_band(frames.shape[1:], PIXEL_A, 30.0)
    backend = select_backend("cpu", threads=2)
    spectra = backend.spectra(FrameSource(Stack(frames), None, None, None), range(N), band)
    return BandMovie(backend, spectra, band, N, frames.shape[1:], PIXEL_A)


@pytest.mark.parametrize("drift_px, decay", [(90.0, 0.3), (200.0, 1e4)])
def test_the_search_grows_for_a_jump_and_for_a_steady_drift(drift_px, decay):
    """A jump of 350 A, or 90 A in every frame: frames are lost with 50 A, but right within 0.2 px automatically."""
    frames, truth = moving(drift_px, decay)
    results = {}
    for max_shift in (50.0, 0.0):
        settings = Settings(pixel_size=PIXEL_A, max_shift=max_shift, do_plots=False, do_compute_psd=False)
        results[max_shift] = align(Stack(frames), settings, select_backend("cpu", threads=2))
    errors = {key: field_rms_error(result.model, truth).rms_px for key, result in results.items()}
    assert errors[50.0] > 10
    assert errors[0.0] < 0.2
    assert results[50.0].figures.max_shift_A == 50.0
    assert results[0.0].figures.max_shift_A > 100


def test_the_search_does_not_grow_where_50_A_do():
    frames, _ = moving(6.0, 2.0)
    found = align_globally(band_movie(frames), 30.0, 50.0, growing=True)
    assert found.lost == 0 and found.max_shift_A == 50.0


def test_noise_does_not_make_the_search_grow():
    frames = np.random.default_rng(0).poisson(1.0, (N, SIZE, SIZE)).astype("u1")
    found = align_globally(band_movie(frames), 30.0, 50.0, growing=True)
    assert found.lost > 0 and found.max_shift_A == 50.0 and not found.is_measured


def test_a_frame_without_image_does_not_make_the_search_grow():
    frames, truth = moving(6.0, 2.0)
    frames[3] = np.random.default_rng(0).poisson(2.0, frames[3].shape)
    found = align_globally(band_movie(frames), 30.0, 50.0, growing=True)
    assert found.lost == 1 and found.max_shift_A == 50.0
    error = found.shifts_px - np.stack(truth.shift(np.arange(N), SIZE / 2, SIZE / 2), -1)
    error = np.delete(error, 3, axis=0)
    assert np.abs(error - error.mean(axis=0)).max() < 0.2


@pytest.mark.parametrize("detail_A, resolution", [(8.5, 20.0), (40.0, 30.0)])
def test_automatic_limits_are_reported_and_the_settings_are_kept(detail_A, resolution):
    """A small field of view is compared to 20 A if it shows fine detail, or else to 30 A."""
    frames, _ = moving(6.0, 2.0, detail_A=detail_A)
    settings = Settings(pixel_size=PIXEL_A, do_local_alignment=False, do_plots=False, do_compute_psd=False)
    result = align(Stack(frames), settings, select_backend("cpu", threads=2))
    assert (result.figures.max_res_for_correlation_A, result.figures.max_shift_A) == (resolution, 50.0)
    assert any(f"resolution of {resolution:.1f} A; shifts" in note and "50 A" in note for note in result.notes)
    saved = result.settings.to_dict()
    assert saved["max_res_for_correlation"] == saved["max_shift"] == 0.0


def powers(signal_to: float, strength: float, seed: int):
    """Powers of the sum and of each of 20 frames of noise 1, with signal below `signal_to` cycles per pixel."""
    rng = np.random.default_rng(seed)
    size, n = 256, 20
    k = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size))
    signal = np.fft.rfft2(rng.standard_normal((size, size))) * np.sqrt(strength) * (k < signal_to)
    frames = signal + np.fft.rfft2(rng.standard_normal((n, size, size)))
    return Band((size, size), (size, size)), np.abs(frames.sum(0)) ** 2, (np.abs(frames) ** 2).sum(0), n


@pytest.mark.parametrize("signal_to", [0.1, 0.25])
def test_the_end_of_the_signal(signal_to):
    """S / N = 0.05 below it: rings of 100 coefficients and more show it with 10 sigma; 3 rings are a hundredth."""
    found = weighted_spectra(*powers(signal_to, 0.05, 1), 0.01)
    assert abs(found.end / 256 - signal_to) < 0.012
    k = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.rfftfreq(256))
    assert found.weight[k > signal_to + 0.016].max() == 0 < found.weight[(k < 0.9 * signal_to) & (k > 0.05)].mean()


def test_noise_has_no_signal_but_coarse_rings_are_kept():
    ends = [weighted_spectra(*powers(0.0, 0.0, seed), 0.01).end for seed in range(10)]
    assert np.median(ends) < 8
    assert weighted_spectra(*powers(0.0, 0.0, 0), 0.01, always=0.125).end >= 32
