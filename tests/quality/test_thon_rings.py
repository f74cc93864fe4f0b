"""The resolution to which rings are seen, on images whose contrast transfer, envelope and noise are known."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.fft

from flexalign_plugin.correction import power_spectra as psd
from flexalign_plugin.kernels.cpu import CpuBackend
from flexalign_plugin.quality import thon_rings as rings

PIXEL_A, SIZE = 1.0, 2400
TILE = 768
LAMBDA_A, CS_A = 0.0197, 2.7e7


def transfer(k, angle, defocus_A, astigmatism_A=0.0):
    """Contrast transfer at frequency k (1/A) in the direction `angle`."""
    defocus = defocus_A + astigmatism_A / 2 * np.cos(2 * (angle - 0.4))
    return np.sin(np.pi * LAMBDA_A * k**2 * (defocus - 0.5 * CS_A * LAMBDA_A**2 * k**2) + 0.1)


def signal(k, b_factor_A2, strength):
    """Power of the specimen relative to white noise of power 1, before the contrast transfer."""
    return strength * np.exp(-b_factor_A2 * k**2 / 2)


def image(seed=1, defocus_A=10000.0, astigmatism_A=0.0, b_factor_A2=60.0, strength=3.0, blur=lambda ky, kx: 1.0):
    """White noise of variance 1 and a specimen, band for band."""
    rng = np.random.default_rng(seed)
    ky, kx = scipy.fft.fftfreq(SIZE, PIXEL_A)[:, None], scipy.fft.rfftfreq(SIZE, PIXEL_A)[None, :]
    k = np.hypot(ky, kx)
    specimen = scipy.fft.rfft2(rng.standard_normal((SIZE, SIZE), np.float32))
    specimen *= np.sqrt(signal(k, b_factor_A2, strength)) * transfer(k, np.arctan2(ky, kx), defocus_A, astigmatism_A)
    specimen = specimen * blur(ky, kx)
    return (scipy.fft.irfft2(specimen, (SIZE, SIZE)) + rng.standard_normal((SIZE, SIZE))).astype(np.float32)


def seen_to(picture):
    both = psd.spectra_of(picture, picture, PIXEL_A, CpuBackend(1)).corrected
    return rings.thon_rings(both.halves).seen_to_A


def predicted_radius(defocus_A, b_factor_A2, strength):
    """Radius, in samples of a tile's spectrum, at which the variance of the expected rings falls to that of the noise
    of one half in a sector; and how fast the correlation falls there, per sample.

    The expected spectrum is the true one, seen through the taper. The logarithm of a mean of T exponential variables
    has the variance 0.434^2 / T; an arc of m samples, of which neighbours in a row have the correlations 4/9 and 1/36
    (Hann), has 1.94 / m of it.
    """
    fine = 8
    k = np.arange(-TILE * fine // 2, TILE * fine // 2) / (TILE * fine * PIXEL_A)
    power = 1 + signal(k, b_factor_A2, strength) * transfer(abs(k), 0.0, defocus_A) ** 2
    taper = np.zeros(TILE * fine)
    taper[:TILE] = psd._hann(TILE)
    kernel = np.fft.fftshift(abs(np.fft.fft(taper)) ** 2)
    seen = np.convolve(power, kernel / kernel.sum(), "same")[TILE * fine // 2 :: fine]
    used = np.log10(seen)[rings.FIRST_RADIUS :]
    background, window = rings._filters(TILE // 2)
    rest = used - used @ background
    variance = (rest**2) @ window / window.sum(axis=0)
    starts = psd._starts(SIZE, TILE, psd.WIDE_OVERLAP)
    tiles = len(starts) * len(starts) // 2
    radius = np.arange(rings.FIRST_RADIUS, TILE // 2)
    noise = 0.434**2 / tiles * 1.94 / (np.pi * radius / psd.SECTORS)
    curve = variance / (variance + noise)
    last = rings.last_seen(curve)
    near = int(last) - rings.FIRST_RADIUS
    return last, (curve[near - 6] - curve[near + 6]) / 12


@pytest.mark.parametrize(
    ("defocus_A", "b_factor_A2", "strength"),
    [(10000.0, 60.0, 3.0), (10000.0, 150.0, 3.0), (18000.0, 60.0, 1.0), (6000.0, 30.0, 1.0)],
)
def test_rings_are_seen_to_where_they_are_as_strong_as_the_noise(defocus_A, b_factor_A2, strength):
    predicted, slope = predicted_radius(defocus_A, b_factor_A2, strength)
    found = TILE * PIXEL_A / seen_to(image(1, defocus_A, 0.0, b_factor_A2, strength))
    # A correlation near 0.5 has an error of 0.75 / sqrt(samples); the window holds sqrt(4 pi) WINDOW radii in each
    # sector, of which 1.94 are as good as one. The window itself is WINDOW wide.
    error = 0.75 / np.sqrt(np.sqrt(4 * np.pi) * rings.WINDOW * psd.SECTORS / 1.94)
    assert abs(found - predicted) < rings.WINDOW + 3 * error / slope
    assert error / slope < 14
    assert 60 < predicted < 0.9 * TILE / 2  # neither end of the spectrum gives the answer


def test_astigmatism_does_not_hide_the_rings():
    """With 1500 A of it the mean over whole circles has no rings at 5.4 A, where the phase 2 pi lambda defocus k^2 runs
    through 2 pi. In a sector of 15 degrees, in which the defocus changes by 390 A at most, it does so at 2.8 A, and
    64 % of the amplitude is left at 3.9 A."""
    round_rings, elliptic = (seen_to(image(2, 12000.0, a, 40.0, 2.0)) for a in (0.0, 1500.0))
    assert round_rings <= elliptic < 3.9


def test_drift_hides_rings_where_its_transfer_says_so():
    """A drift of 6 A along x leaves sinc(6 kx) of the amplitude. Half of the directions, those within 45 degrees of x,
    have lost all of it at 4.2 A; in none is it below 1 / 2 before 10 A."""
    sharp, blurred = (seen_to(image(3, 10000.0, 0.0, 60.0, 2.0, blur)) for blur in (lambda ky, kx: 1.0, drift))
    assert sharp < 4.2 < blurred < 10.0


def drift(ky, kx):
    return np.sinc(6.0 * kx) * np.ones_like(ky)


@pytest.mark.parametrize("seed", range(3))
def test_there_are_no_rings_in_noise(seed):
    assert seen_to(image(seed, strength=0.0)) is None


def test_smooth_spectra_and_a_ring_of_ice_are_no_thon_rings():
    """The noise of a detector falls to Nyquist, and ice has one broad ring at 3.7 A."""
    ky, kx = scipy.fft.fftfreq(SIZE, PIXEL_A)[:, None], scipy.fft.rfftfreq(SIZE, PIXEL_A)[None, :]
    k = np.hypot(ky, kx)
    noise = 1 - 0.6 * (2 * k * PIXEL_A).clip(0, 1) ** 2 + 20 * np.exp(-k / 0.01)
    ice = 2 * np.exp(-0.5 * ((k - 0.27) / 0.006) ** 2)
    thon = transfer(k, 0.0, 10000.0) ** 2 * signal(k, 300.0, 10.0)
    seen = []
    for power in (noise, noise + thon, noise + thon + ice):
        white = scipy.fft.rfft2(np.random.default_rng(5).standard_normal((SIZE, SIZE)))
        seen.append(seen_to(scipy.fft.irfft2(white * np.sqrt(power), (SIZE, SIZE)).astype(np.float32)))
    assert seen[0] is None or seen[0] > 15
    # At 6 A the specimen has 15 % of the power of the noise.
    assert 5 < seen[1] == pytest.approx(seen[2], rel=1e-6)


def test_a_small_frame_has_spectra_but_no_answer():
    picture = np.random.default_rng(1).normal(size=(900, 1400)).astype(np.float32)
    both = psd.spectra_of(picture, picture, PIXEL_A, CpuBackend(1))
    assert both.corrected.halves is None and both.corrected.power.shape == (384, 384)


def test_the_curve_ends_below_nyquist_and_begins_where_it_is_known():
    both = psd.spectra_of(image(), image(), PIXEL_A, CpuBackend(1)).corrected
    found = rings.thon_rings(both.halves)
    assert len(found.correlation) == rings.POINTS
    known = [i for i, c in enumerate(found.correlation) if c is not None]
    assert known == list(range(known[0], rings.POINTS))
    first_A = 2 * PIXEL_A * rings.POINTS / known[0]
    assert first_A <= TILE * PIXEL_A / rings.FIRST_RADIUS
    crossing = found.correlation[int(2 * PIXEL_A * rings.POINTS / found.seen_to_A)]
    assert abs(crossing - rings.SEEN) < 0.15
