"""The images that are made of the frames: dose-weighted, halves, groups, all against sums of transforms of frames."""

from __future__ import annotations

import numpy as np
import pytest

from flexalign_plugin.backend import FrameSource
from flexalign_plugin.correction.dose import critical_dose
from flexalign_plugin.correction.motion_correction import MovedFrames, correct_motion
from flexalign_plugin.correction.sums import EVEN, ODD, PLAIN, WEIGHTED, images_of, plan_sums
from flexalign_plugin.kernels import select_backend
from flexalign_plugin.motion.model import MotionModel
from flexalign_plugin.settings import Settings

from ..emulation import emulated_backend
from ..in_memory import Stack

NY, NX = 240, 256
PIXEL_A = 0.9


def made(frames, settings, shifts=None, first=0, summed=None, backend=None):
    n = len(frames) - first
    model = MotionModel(frames.shape[1:], len(frames), first, np.zeros((n, 2)) if shifts is None else shifts, None, 1.0)
    source = FrameSource(Stack(frames), None, None, None)
    moved = MovedFrames(backend or select_backend("cpu", 2), source, model, np.zeros(n))
    window = slice(0, frames.shape[1]), slice(0, frames.shape[2])
    return correct_motion(moved, summed or model.aligned_frames, window, settings)


def by_definition(frames, numbers, dose, pre_exposure, voltage):
    """Weighted sum of the frames' transforms, noise kept as in the mean: one transform a frame, double precision."""
    ny, nx = frames.shape[1:]
    k = np.hypot(np.fft.fftfreq(ny)[:, None], np.fft.rfftfreq(nx)) / PIXEL_A
    k[0, 0] = 1e-9
    total, squares = 0, 0
    for t in numbers:
        w = np.exp(-(pre_exposure + dose * (t + 1)) / (2 * critical_dose(k, voltage)))
        total = total + w * np.fft.rfft2(frames[t].astype(float))
        squares = squares + w * w
    return np.fft.irfft2(total / np.sqrt(squares * len(numbers)), (ny, nx))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("low_memory", [False, True])
def test_weighted_sums_against_a_transform_of_every_frame(device, low_memory):
    """12 frames of noise of variance 1: weights to 1e-3 and a step of the radial table leave 2e-3 of the image."""
    frames = np.random.default_rng(1).standard_normal((12, NY, NX)).astype(np.float32)
    settings = Settings(
        pixel_size=PIXEL_A,
        dose_per_frame=2.5,
        pre_exposure=1.0,
        voltage=200,
        split_even_odd=True,
        low_memory=low_memory,
    )
    backend = emulated_backend() if device == "cuda" else None
    images = made(frames, settings, first=2, summed=range(3, 11), backend=backend)
    for image, numbers in (
        (images.weighted, range(3, 11)),
        (images.even, range(3, 11, 2)),
        (images.odd, range(4, 11, 2)),
    ):
        expected = by_definition(frames, numbers, 2.5, 1.0, 200)
        # The first and last rows take their neighbours from beyond the edge, where the definition wraps around.
        error = (image - expected)[16:-16, 16:-16].std()
        assert error < 2e-3 * expected.std()
    np.testing.assert_allclose(images.micrograph[16:-16, 16:-16], frames[3:11].mean(0)[16:-16, 16:-16], atol=5e-4)


def test_noise_stays_white_after_weighting():
    """16 frames of 1024^2, doses of 0 to 40 e/A^2: rings of 40 hold over 3,000 coefficients, flat to 2 % (1 sd: 1.8 %
    of a ring, so rings are compared after a parabola in frequency has taken up their scatter)."""
    rng = np.random.default_rng(2)
    frames = rng.standard_normal((16, 1024, 1024), dtype=np.float32)
    settings = Settings(pixel_size=1.0, dose_per_frame=2.5)
    images = made(frames, settings, shifts=rng.uniform(-5, 5, (16, 2)))
    power = np.abs(np.fft.rfft2(images.weighted[16:-16, 16:-16])) ** 2 / 992**2 * 16
    k = np.hypot(np.fft.fftfreq(992)[:, None], np.fft.rfftfreq(992))
    ring = np.minimum((k * 80).astype(int), 40)
    count = np.bincount(ring.ravel())[:40]
    mean = np.bincount(ring.ravel(), power.ravel())[:40] / count
    centre = (np.arange(40) + 0.5) / 80
    fit = np.polynomial.Polynomial.fit(centre[1:], mean[1:], 2, w=np.sqrt(count[1:]))(centre[1:])
    assert np.abs(fit - 1).max() < 0.02


def test_a_single_frequency_comes_out_with_the_predicted_weight():
    """A wave that fades frame by frame: sum of w_t a_t / sqrt(n sum w_t^2)."""
    y, x = np.mgrid[:NY, :NX]
    wave = np.cos(2 * np.pi * (48 * x / NX + 30 * y / NY))
    amplitude = np.linspace(3, 1, 10)
    frames = (amplitude[:, None, None] * wave).astype(np.float32)
    images = made(frames, Settings(pixel_size=PIXEL_A, dose_per_frame=4.0, voltage=300))
    k = np.hypot(48 / NX, 30 / NY) / PIXEL_A
    weights = np.exp(-4.0 * np.arange(1, 11) / (2 * critical_dose(np.array([k]), 300)))
    expected = (weights * amplitude).sum() / np.sqrt(10 * (weights**2).sum())
    inside = np.s_[20:-20, 20:-20]
    found = (images.weighted * wave)[inside].sum() / (wave**2)[inside].sum()
    assert found == pytest.approx(expected, rel=2e-3)


def test_no_dose_is_the_plain_mean():
    frames = np.random.default_rng(3).standard_normal((5, NY, NX)).astype(np.float32)
    images = made(frames, Settings(pixel_size=1.0, dose_per_frame=0.0))
    np.testing.assert_allclose(images.weighted, images.micrograph, atol=1e-5)


def test_halves_of_a_plain_mean():
    frames = np.random.default_rng(4).standard_normal((5, NY, NX)).astype(np.float32)
    images = made(frames, Settings(pixel_size=1.0, split_even_odd=True))
    inside = np.s_[16:-16, 16:-16]
    np.testing.assert_allclose(images.even[inside], frames[1::2].mean(0)[inside], atol=1e-3)
    np.testing.assert_allclose(images.odd[inside], frames[::2].mean(0)[inside], atol=1e-3)
    assert images.weighted is None


@pytest.mark.parametrize("low_memory", [False, True])
def test_amplitude_spectrum_of_groups(low_memory):
    """8 frames of 1.3 e/A^2 make groups of 3, 3 and 2: a wave in all frames and noise that groups average down."""
    rng = np.random.default_rng(5)
    frames = rng.standard_normal((8, 512, 512), dtype=np.float32)
    settings = Settings(pixel_size=1.0, dose_per_frame=1.3, do_save_ps=True, low_memory=low_memory, split_even_odd=True)
    images = made(frames, settings)
    # One tile of 512 pixels of 1 A, up to the Nyquist frequency of 1.4 A.
    assert images.amplitudes.image.shape == (366, 366)
    assert images.amplitudes.pixel_size_A == pytest.approx(512 / 366)
    # The mean over all frequencies is as exact as its 67,000 independent values, 0.4 %.
    assert np.mean(images.amplitudes.image[::3, ::3] ** 2) == pytest.approx(1 / 3 + 1 / 3 + 1 / 2, rel=0.02)


def test_few_sums_do():
    model = MotionModel((64, 64), 60, 0, np.zeros((60, 2)), None, 1.0)
    settings = Settings(pixel_size=0.6, dose_per_frame=1.0, split_even_odd=True)
    assert images_of(settings) == [PLAIN, WEIGHTED, EVEN, ODD]
    assert len(plan_sums(settings, model, range(60)).sums) <= 12
