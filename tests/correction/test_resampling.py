"""The filter after the sum: noise stays white, signal is restored, binning keeps the low frequencies."""

from __future__ import annotations

import numpy as np
import pytest

from flexalign_plugin.backend import FrameSource
from flexalign_plugin.correction.resampling import binned_size, fourier_bin, plain_mix
from flexalign_plugin.kernels import select_backend
from flexalign_plugin.motion.model import MotionModel

from ..in_memory import Stack

NY, NX = 512, 600


def mean_of(frames, shifts, coefficients=None):
    model = MotionModel((NY, NX), len(frames), 0, np.asarray(shifts, float), coefficients, 1.0)
    n = len(frames)
    source = FrameSource(Stack(frames), None, None, None)
    backend = select_backend("cpu", 2)
    total = backend.warp_sum(source, model, range(n), np.full((1, n), 1 / n), np.zeros(n))
    return backend.mix(total, [plain_mix(model, range(n))])[0]


def radial(power):
    k = np.hypot(np.fft.fftfreq(NY)[:, None], np.fft.rfftfreq(NX))
    ring = np.minimum((k * 100).astype(int), 50)
    return np.bincount(ring.ravel(), power.ravel())[:50] / np.bincount(ring.ravel())[:50]


def test_without_motion_the_mean_comes_out_unchanged():
    frames = np.random.default_rng(0).standard_normal((3, NY, NX)).astype(np.float32)
    np.testing.assert_allclose(
        mean_of(frames, np.zeros((3, 2)))[14:-14, 14:-14], frames.mean(0)[14:-14, 14:-14], atol=2e-4
    )
    moved = mean_of(frames[:1], [[3.0, -5.0]])
    np.testing.assert_allclose(moved[20:-20, 20:-20], frames[0, 17:-23, 25:-15], atol=2e-4)


@pytest.mark.parametrize("local", [False, True])
def test_noise_stays_white_up_to_nyquist(local):
    """Rings hold over 1,000 coefficients, mean of 24 frames: 5 sd of a ring's mean power are 16 %."""
    rng = np.random.default_rng(1)
    frames = rng.standard_normal((24, NY, NX)).astype(np.float32)
    coefficients = rng.uniform(-2, 2, (2, 3, 3, 3)) if local else None
    out = mean_of(frames, rng.uniform(-5, 5, (24, 2)), coefficients)
    spectrum = radial(np.abs(np.fft.rfft2(out[:, :])) ** 2) / (NY * NX) * 24
    assert np.abs(spectrum[3:50] - 1).max() < 0.16


def test_signal_loses_little():
    """At 0.4 (0.8 Nyquist): mean of the quintic B-spline over all fractions against the root of its mean power, 0.996.

    The waves do not fit the window: their mirror image leaks 1 / (4 pi 57 periods) = 1.4e-3 and more into the figure.
    """
    rng = np.random.default_rng(2)
    y, x = np.mgrid[:NY, :NX]
    shifts = rng.uniform(-5, 5, (40, 2))
    for k, least in ((0.1, 0.995), (0.25, 0.995), (0.4, 0.99)):
        frames = np.stack([np.cos(2 * np.pi * k * (x + sx)) for _, sx in shifts]).astype(np.float32)
        out = mean_of(frames, shifts)[16:-16, 16:-16]
        wave = np.exp(-2j * np.pi * k * x[16:-16, 16:-16])
        amplitude = 2 * np.abs((out * wave).mean())
        assert least < amplitude < 1.005, (k, amplitude)


@pytest.mark.parametrize("n,factor", [(4096, 2.0), (3838, 2.0), (3710, 1.5), (5760, 1.25), (7676, 4.0), (101, 3.0)])
def test_binned_size_keeps_the_pixel_size_exact(n, factor):
    used, out = binned_size(n, factor)
    assert abs(used / out / factor - 1) < 1e-3
    assert n - 64 * factor <= used <= n


@pytest.mark.parametrize("shape", [(96, 120), (97, 121)])
@pytest.mark.parametrize("factor", [1.5, 2.0, 3.0])
def test_binning_samples_a_smooth_image(shape, factor):
    """A periodic image without high frequencies, binned, is that image at the larger pixels."""
    (uy, oy), (ux, ox) = (binned_size(n, factor) for n in shape)
    y, x = np.arange(shape[0])[:, None], np.arange(shape[1])

    def image(v, u):
        return 3 + np.cos(2 * np.pi * (3 * v / uy + 0.3)) + np.sin(2 * np.pi * (5 * u / ux - 2 * v / uy))

    out = fourier_bin(image(y, x).astype(np.float32), factor, select_backend("cpu", 2))
    expected = image(np.arange(oy)[:, None] * uy / oy, np.arange(ox) * ux / ox)
    assert out.shape == (oy, ox) and out.dtype == np.float32
    np.testing.assert_allclose(out, expected, atol=1e-5)
