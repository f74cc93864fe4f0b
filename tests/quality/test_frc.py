"""Ring correlation of images with a known ratio of signal to noise."""

from __future__ import annotations

import numpy as np
import pytest

from flexalign_plugin.quality.frc import RINGS, _taper, halves_agreement, ring_correlation


def halves(signal_power, ny=512, nx=600, seed=0):
    """Common signal with a power that depends on the frequency, and noise of power 1 in each half."""
    rng = np.random.default_rng(seed)
    k = np.hypot(np.fft.fftfreq(ny)[:, None], np.fft.rfftfreq(nx))
    common = np.fft.rfft2(rng.standard_normal((ny, nx))) * np.sqrt(signal_power(k))
    common = np.fft.irfft2(common, (ny, nx))
    return [(100 + common + rng.standard_normal((ny, nx))).astype(np.float32) for _ in range(2)]


def test_curve_is_signal_over_signal_and_noise():
    """S / (S + 1) in each ring; sd below 1 / root of half a ring's coefficients."""
    curve = ring_correlation(*halves(lambda k: np.exp(-((k / 0.15) ** 2))))
    centre = (np.arange(RINGS) + 0.5) / (2 * RINGS)
    signal = np.exp(-((centre / 0.15) ** 2))
    count = 2 * np.pi * centre * 512 * 600 / (2 * RINGS)
    assert (np.abs(curve - signal / (1 + signal)) < 5 / np.sqrt(count / 2) + 0.01)[1:].all()


def test_crossings():
    """S / (S + 1) = 0.5 at S = 1 and 0.143 at S = 1 / 6: with S = 4 exp(-k / 0.1), k = 0.1 ln 4 and 0.1 ln 24."""
    figures = halves_agreement(*halves(lambda k: 4 * np.exp(-k / 0.1)), pixel_size_A=0.8, border_px=10)
    assert figures.finest_05_A == pytest.approx(0.8 / (0.1 * np.log(4)), rel=0.05)
    assert figures.finest_0143_A == pytest.approx(0.8 / (0.1 * np.log(24)), rel=0.05)
    assert len(figures.correlation) == len(figures.frequency_per_A) == RINGS


def test_noise_alone_never_reaches_the_thresholds_but_in_tiny_rings():
    figures = halves_agreement(*halves(lambda k: 0 * k, seed=3), pixel_size_A=1.0, border_px=0)
    assert figures.finest_05_A is None or figures.finest_05_A > 60
    assert np.abs(figures.correlation[8:]).max() < 0.1


def test_fill_beyond_the_frames_does_not_count():
    a, b = halves(lambda k: 0 * k, seed=4)
    for image in (a, b):
        image[:40] = np.random.default_rng(5).standard_normal((40, 600))
    assert np.abs(halves_agreement(a, b, 1.0, 40).correlation[8:]).max() < 0.1
    # With the fill, whose edge is a step of 100 sigma in both halves.
    assert np.mean(halves_agreement(a, b, 1.0, 0).correlation[8:]) > 0.5


def test_a_gradient_across_both_halves_is_no_agreement_on_detail():
    """Opposite borders differ by 9 times the noise: without the taper that edge correlates in all rings up to a fifth
    of Nyquist. Rings of 500 coefficients and more: what noise alone gives is below 4 / root of half of them."""
    a, b = halves(lambda k: 0 * k, seed=6)
    gradient = np.linspace(-3, 3, 512)[:, None] + np.linspace(-1.5, 1.5, 600)
    curve = ring_correlation(*((image + gradient).astype(np.float32) for image in (a, b)))
    count = 2 * np.pi * (np.arange(RINGS) + 0.5) * 512 * 600 / (2 * RINGS) ** 2
    assert (np.abs(curve) < 4 / np.sqrt(count / 2))[8:].all()
    bare = np.fft.rfft2(gradient)  # what the edge would do: its power at a fifth of Nyquist against that of noise
    assert np.abs(bare[1:52, 0]).min() ** 2 > 10 * 512 * 600


def test_the_taper_leaves_nine_tenths_of_each_axis():
    taper = _taper(200)
    assert (taper[10:-10] == 1).all() and (taper[:10] < 1).all() and (np.diff(taper[:11]) > 0).all()
    np.testing.assert_array_equal(taper, taper[::-1])
    assert taper.sum() == pytest.approx(190)
