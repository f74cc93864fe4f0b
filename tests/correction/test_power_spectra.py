"""Power spectra of images whose spectrum is known: white noise, a wave, rings on a falling background."""

from __future__ import annotations

import numpy as np
import pytest

from flexalign_plugin.correction import power_spectra as psd
from flexalign_plugin.kernels.cpu import CpuBackend
from flexalign_plugin.output.pictures import spectra


@pytest.mark.parametrize("shape", [(1000, 1400), (384, 384), (1111, 500)])
def test_white_noise_is_flat(shape):
    sigma = 3.0
    image = np.random.default_rng(0).normal(7.0, sigma, shape).astype(np.float32)
    spectrum = psd.power_spectrum(image, CpuBackend(1))
    n_tiles = np.prod([len(psd._starts(n, psd.TILE, psd.OVERLAP)) for n in shape])
    assert spectrum.shape == (384, 384)
    assert spectrum.dtype == np.float32
    c = 192
    away = np.ones((384, 384), bool)
    away[c - 2 : c + 3, c - 2 : c + 3] = False  # the removed mean, spread by the taper
    relative = spectrum[away] / sigma**2 - 1
    # A bin is the mean of n_tiles exponential variables: relative deviation 1 / sqrt(n_tiles), a little more because
    # the tiles overlap. The mean over all bins is the noise's variance, known to sqrt(2 / pixels).
    assert 0.95 < relative.std() * np.sqrt(n_tiles) < 1.3
    assert abs(relative.mean()) < 5 * np.sqrt(2.0 / np.prod(shape)) * 1.6
    # Circles: pi r bins of 2.25 bins' correlation (Hann, two axes) are averaged.
    radii = np.arange(10, 192)
    expected = np.sqrt(2.25 / (np.pi * radii * n_tiles)) * 1.3
    assert np.all(np.abs(psd.radial_average(spectrum)[10:] / sigma**2 - 1) < 5 * expected)


@pytest.mark.parametrize(("ky", "kx"), [(30, -50), (-7, 100), (0, 64)])
def test_wave_peaks_at_its_bin_with_its_power(ky, kx):
    y, x = np.mgrid[:900, :700]
    amplitude = 1.5
    image = (4.0 + amplitude * np.cos(2 * np.pi * (ky * y + kx * x) / 384 + 0.3)).astype(np.float32)
    spectrum = psd.power_spectrum(image, CpuBackend(1))
    peaks = {tuple(p) for p in np.argwhere(spectrum > 0.9 * spectrum.max())}
    assert peaks == {(192 + ky, 192 + kx), (192 - ky, 192 - kx)}
    window = 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(384) + 0.5) / 384)
    gain = np.sum(window) ** 4 / np.sum(window**2) ** 2
    assert spectrum.max() == pytest.approx((amplitude / 2) ** 2 * gain, rel=1e-3)


@pytest.mark.parametrize(
    ("pixel_size_A", "shape", "size"), [(0.7, (1500, 1700), 512), (2.0, (900, 700), 512), (0.7, (600, 900), 300)]
)
def test_a_spectrum_for_ctf_programs_has_its_waves_at_their_frequencies(pixel_size_A, shape, size):
    """Up to 2.8 A, or up to the image's own Nyquist frequency; the last image is smaller than 512 pixels of 1.4 A."""
    tile = 1024 if pixel_size_A < 1 else 512
    tile = min(tile, *shape)
    ky, kx = 60, -100
    y, x = np.mgrid[: shape[0], : shape[1]]
    image = np.cos(2 * np.pi * (ky * y + kx * x) / tile).astype(np.float32)
    spectrum, spectrum_pixel_A = psd.ctf_power_spectrum(image, pixel_size_A, CpuBackend(1))
    assert spectrum.shape == (size, size)
    assert spectrum_pixel_A == pytest.approx(max(pixel_size_A, psd.CTF_PIXEL_A), rel=1 / size)
    peaks = {tuple(p - size // 2) for p in np.argwhere(spectrum > 0.9 * spectrum.max())}
    assert peaks == {(ky, kx), (-ky, -kx)}
    # The frequency of the wave, in 1/A, from the spectrum alone.
    assert ky / (size * spectrum_pixel_A) == pytest.approx(ky / (tile * pixel_size_A))


def test_odd_number_of_tiles_equals_single_transforms():
    image = np.random.default_rng(1).normal(size=(384, 384 * 2)).astype(np.float32)
    starts = psd._starts(768, 384, 0.4)
    assert len(starts) == 3
    window = 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(384) + 0.5) / 384)
    taper = np.outer(window, window)
    expected = np.zeros((384, 384))
    for x in starts:
        tile = image[:, x : x + 384].astype(float)
        expected += np.abs(np.fft.fft2((tile - tile.mean()) * taper)) ** 2 / (3 * np.sum(taper**2))
    np.testing.assert_allclose(
        psd.power_spectrum(image, CpuBackend(1)), np.fft.fftshift(expected), rtol=1e-3, atol=1e-4
    )


def test_small_image_gets_a_smaller_spectrum():
    spectrum = psd.power_spectrum(np.random.default_rng(0).normal(size=(255, 300)).astype(np.float32), CpuBackend(1))
    assert spectrum.shape == (254, 254)


@pytest.mark.parametrize(("pixel_size_A", "tile"), [(1.0, 768), (0.4, 1536)])
def test_a_spectrum_from_longer_tiles_is_that_of_short_ones(pixel_size_A, tile):
    """Same values for noise, and the same height and width of the peak of a wave."""
    shape, sigma, amplitude = (2304, 2400), 2.0, 0.5
    assert psd.wide_tile(shape, pixel_size_A) == tile
    y, x = np.mgrid[: shape[0], : shape[1]]
    image = np.random.default_rng(3).normal(5.0, sigma, shape) + amplitude * np.cos(2 * np.pi * (30 * y - 50 * x) / 384)
    image = image.astype(np.float32)
    long = psd.spectra_of(image, image, pixel_size_A, CpuBackend(1)).corrected.power
    short = psd.power_spectrum(image, CpuBackend(1))
    assert long.shape == short.shape == (384, 384)
    # (2304 / 384)^2 tiles without overlap are independent.
    assert np.median(long) == pytest.approx(np.median(short), rel=0.01)
    assert np.mean(long) / np.mean(short) == pytest.approx(1, abs=0.01)
    peak = np.s_[192 + 28 : 192 + 33, 192 - 52 : 192 - 47]
    assert np.sum(long[peak]) == pytest.approx(np.sum(short[peak]), rel=0.05)
    assert long[192 + 30, 192 - 50] == pytest.approx(short[192 + 30, 192 - 50], rel=0.2)


def test_flattening_keeps_rings_and_drops_the_background():
    n = 384
    k = psd.radius(n) / n
    rings = 0.2 * np.cos(2 * np.pi * 150 * k**2)
    spectrum = 10 ** (3 * np.exp(-k / 0.1) + 1 + rings)
    image, profile = psd.flattened(spectrum.astype(np.float32))
    zone = np.arange(n // 2)
    zone = zone[(zone > 60) & (zone < 150)]
    # Two and more rings fit into the smoothing window here: nearly all of the ring must be left, and nothing else.
    wanted = 0.2 * np.cos(2 * np.pi * 150 * (zone / n) ** 2)
    assert np.corrcoef(profile[zone], wanted)[0, 1] > 0.98
    assert np.abs(profile[zone] - wanted).max() < 0.06
    assert np.abs(image[(k > 0.16) & (k < 0.39)]).max() < 0.27


def test_constant_image_does_not_fail():
    spectrum = psd.power_spectrum(np.full((400, 400), 3.0, np.float32), CpuBackend(1))
    image, profile = psd.flattened(spectrum)
    assert np.isfinite(image).all()
    assert np.isfinite(profile).all()
    assert spectra(image, image).shape == (384, 384)
