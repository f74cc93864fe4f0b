"""Slices, bands, CTF and noise against exact transforms of beads and known curves."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from flexalign_plugin.particles import local
from flexalign_plugin.particles.band import Band
from flexalign_plugin.particles.ctf import Defocus, Optics, ctf, wavelength_A
from flexalign_plugin.particles.gallery import shift_phases
from flexalign_plugin.particles.noise import noise_power
from flexalign_plugin.particles.slices import OVERSAMPLING, Spectrum

BOX, WIDTH = 48, 1.2


@pytest.fixture(scope="module")
def beads():
    """(volume, exact transform of its projection at Fourier pixels for a pose)."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(150, 3)) * 6
    points = points[np.linalg.norm(points, axis=1) < 13]
    heights = rng.uniform(0.5, 1, len(points))
    axis = np.arange(BOX) - BOX // 2
    x, y, z = (np.exp(-((axis[None] - points[:, i, None]) ** 2) / (2 * WIDTH**2)) for i in range(3))
    volume = np.einsum("nz,ny,nx->zyx", z * heights[:, None], y, x, optimize=True).astype(np.float32)

    def exact(pose, kx, ky):
        k = np.stack([kx, ky, np.zeros_like(kx)], axis=1) @ pose
        falloff = (2 * np.pi) ** 1.5 * WIDTH**3 * np.exp(-2 * (np.pi * WIDTH / BOX) ** 2 * (k**2).sum(axis=1))
        return np.exp(-2j * np.pi / BOX * (k @ points.T)) @ heights * falloff

    return volume, exact


def test_coefficients_are_each_conjugate_pair_once():
    for radius, n in ((17.07, 458), (40.0, 2512), (64.0, 6426)):
        band = Band.of(160, radius)
        assert len(band) == n
        assert len({(x, y) for x, y in zip(band.kx, band.ky)} | {(-x, -y) for x, y in zip(band.kx, band.ky)}) == 2 * n
        assert band.first(radius) == n and (np.diff(np.hypot(band.kx, band.ky)) >= -1e-9).all()


def test_power_of_images_is_that_of_the_coefficients():
    band = Band.of(BOX, 15.0)
    rng = np.random.default_rng(1)
    coefficients = (rng.normal(size=(3, len(band))) + 1j * rng.normal(size=(3, len(band)))).astype(np.complex64)
    images = band.images(coefficients)
    np.testing.assert_allclose(band.coefficients(images), coefficients, atol=1e-4)
    power = 2 * (np.abs(coefficients) ** 2).sum(axis=1) / BOX**2
    np.testing.assert_allclose((images.astype(float) ** 2).sum(axis=(1, 2)), power, rtol=1e-5)


def test_slices_are_the_transforms_of_projections(beads):
    volume, exact = beads
    band = Band.of(BOX, 16.0)
    spectrum = Spectrum.of(volume, band.radius)
    poses = Rotation.random(20, random_state=2).as_matrix()
    found = spectrum.slices(poses, band.kx, band.ky, threads=2)
    wanted = np.array([exact(pose, band.kx, band.ky) for pose in poses])
    assert np.sqrt((np.abs(found - wanted) ** 2).sum() / (np.abs(wanted) ** 2).sum()) < 2e-4
    np.testing.assert_array_equal(found, spectrum.slices(poses, band.kx, band.ky))
    # Without a turn the slice is the transform of the sum along z.
    straight = spectrum.slices(np.eye(3)[None], band.kx, band.ky)[0]
    np.testing.assert_allclose(straight, band.coefficients(volume.sum(axis=0)), atol=2e-3 * np.abs(straight).max())


def test_slices_reach_to_the_edge_of_the_spectrum_and_not_further(beads):
    volume, _ = beads
    spectrum = Spectrum.of(volume, BOX / 2 - 1)
    band = Band.of(BOX, BOX / 2 - 1)
    assert np.isfinite(spectrum.slices(Rotation.random(50, random_state=3).as_matrix(), band.kx, band.ky)).all()
    with pytest.raises(ValueError, match="ends at"):
        Spectrum.of(volume, 10.0).slices(np.eye(3)[None], np.array([11]), np.array([0]))


def test_derivatives_are_the_differences(beads):
    volume, exact = beads
    band, pose, t = Band.of(BOX, 14.0), Rotation.random(random_state=4).as_matrix(), np.array([0.7, -1.3])
    rng = np.random.default_rng(5)
    c = rng.uniform(-1, 1, len(band)).astype(np.float32)
    image = exact(pose, band.kx, band.ky) * c * shift_phases(band, -t[None])[0]
    image = (image + 30 * rng.normal(size=len(band))).astype(np.complex64)
    inverse = rng.uniform(0.5, 1, len(band)).astype(np.float32) / 900
    spectrum, root = Spectrum.of(volume, band.radius), np.sqrt(inverse)
    scratch = local._scratch(band.kx, band.ky)

    def evaluated(w, shift, gradient, h):
        at, o = Rotation.from_rotvec(w).as_matrix() @ pose, np.float32(OVERSAMPLING)
        grid = spectrum.flat, len(spectrum.values), o, image * root, c * root, band.kx, band.ky, len(band), BOX
        return local._evaluate(*grid, at, t + shift, scratch, gradient, h)

    start = np.array([0.02, -0.03, 0.01])
    gradient, h, unused = np.empty(5), np.empty((5, 5)), np.empty((5, 5))
    evaluated(start, np.array([0.2, 0.1]), gradient, h)
    step, differences = 1e-3, []
    for i in range(5):
        d = np.zeros(5)
        d[i] = step
        # The rotation is applied to the turned pose: exp([d]x) exp([start]x) A.
        turns = [(Rotation.from_rotvec(s * d[:3]) * Rotation.from_rotvec(start)).as_rotvec() for s in (1, -1)]
        scores = [
            evaluated(turn, np.array([0.2, 0.1]) + s * d[3:], np.empty(5), unused) for turn, s in zip(turns, (1, -1))
        ]
        differences.append((scores[0] - scores[1]) / (2 * step))
    np.testing.assert_allclose(gradient, differences, rtol=2e-3, atol=2e-3 * np.abs(gradient).max())
    assert (np.linalg.eigvalsh(h) > 0).all()


def test_ctf_has_the_sign_of_relion():
    optics = Optics(1.5, 300.0, 2.7, 0.1)
    assert wavelength_A(300.0) == pytest.approx(0.019687, abs=1e-6)
    defocus = Defocus(np.array([10000.0]), np.array([10000.0]), np.zeros(1), np.zeros(1))
    k = np.arange(60)
    values = ctf(k, 0 * k, 120, optics, defocus)[0]
    assert values[0] == pytest.approx(0.1)
    s = k / (120 * 1.5)
    phase = np.pi * 0.019687 * 1e4 * s**2 - np.pi / 2 * 2.7e7 * 0.019687**3 * s**4 + np.arcsin(0.1)
    np.testing.assert_allclose(values, np.sin(phase), atol=2e-3)
    flipped = ctf(k, 0 * k, 120, Optics(1.5, 300.0, 2.7, 0.1, phase_flipped=True), defocus)[0]
    np.testing.assert_allclose(flipped, np.abs(values))
    # The defocus u is that along its angle.
    tilted = Defocus(np.array([12000.0]), np.array([8000.0]), np.array([90.0]), np.zeros(1))
    along = ctf(0 * k, k, 120, optics, tilted)[0]
    np.testing.assert_allclose(
        along, ctf(k, 0 * k, 120, optics, Defocus(*np.full((2, 1), 12000.0), np.zeros(1), np.zeros(1)))[0], atol=1e-5
    )


def test_noise_is_measured_around_the_particles():
    """Coloured noise with a particle in the middle: within 5 % in rings 2 and more, 25 % in the first."""
    box, rng = 64, np.random.default_rng(6)
    band = Band.of(box, 30.0)
    radius = np.hypot(np.fft.fftfreq(box, 1 / box)[:, None], np.arange(box // 2 + 1)[None])
    amplitude = 1 + 4 * np.exp(-radius / 6)
    white = rng.normal(size=(400, box, box))
    images = np.fft.irfft2(np.fft.rfft2(white) * amplitude, s=(box, box))
    y, x = np.mgrid[:box, :box] - box // 2
    images += 20 * (np.hypot(x, y) < 16)
    k = np.hypot(band.kx, band.ky)
    truth = box**2 * (1 + 4 * np.exp(-k / 6)) ** 2
    ratio = noise_power(images, 34.0, band) / truth
    assert np.abs(ratio[k >= 4] - 1).mean() < 0.05 and np.abs(ratio[k < 2] - 1).max() < 0.3
    with pytest.raises(ValueError, match="too few pixels"):
        noise_power(images, 90.0, band)
