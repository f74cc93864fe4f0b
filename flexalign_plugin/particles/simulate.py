"""Particle images with known poses, for tests, benchmarks and the demo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Tuple

import numpy as np
from scipy import fft
from scipy.spatial.transform import Rotation

from .band import Band
from .ctf import Defocus, Optics, ctf
from .gallery import shift_phases
from .slices import Spectrum

DOMAINS, RESIDUE_A = 9, 3.8


@dataclass(frozen=True)
class Simulated:
    """Images and their truth.

    Attributes
    ----------
    images : (n, box, box) float32. poses : (n, 3, 3). positions : (n, 2) px of the particles, from the image's origin.
    defocus : of each particle. noise_sd : of a pixel. volume : (n,) number of the volume.
    """

    images: np.ndarray
    poses: np.ndarray
    positions: np.ndarray
    defocus: Defocus
    noise_sd: float
    volume: np.ndarray


def chains(box: int, pixel_A: float, diameter_A: float, n: int, seed: int, flatness: float = 1.0) -> np.ndarray:
    """A volume (box, box, box) float32 like a protein of several domains, without symmetry: random walks of residues,
    each within its own domain.

    Parameters
    ----------
    n : residues, 3.8 A apart along a chain. flatness : extent along z relative to that along x and y.
    """
    rng = np.random.default_rng(seed)
    radius_A = diameter_A / 2
    domains = rng.normal(size=(DOMAINS, 3))
    domains *= radius_A * rng.uniform(0.3, 0.7, (DOMAINS, 1)) / np.linalg.norm(domains, axis=1, keepdims=True)
    sizes = np.minimum(rng.uniform(0.2, 0.35, DOMAINS) * radius_A, 0.97 * radius_A - np.linalg.norm(domains, axis=1))
    points = np.empty((n, 3))
    bounds = np.linspace(0, n, DOMAINS + 1).astype(int)
    for number in range(DOMAINS):
        at = np.zeros(3)
        for i in range(bounds[number], bounds[number + 1]):
            step = rng.normal(size=3)
            moved = at + RESIDUE_A * step / np.linalg.norm(step)
            if np.linalg.norm(moved) > sizes[number]:
                moved = at - RESIDUE_A * at / np.linalg.norm(at)
            at = moved
            points[i] = domains[number] + at
    points[:, 2] *= flatness
    return beads(points, box, pixel_A)


def beads(points_A: np.ndarray, box: int, pixel_A: float) -> np.ndarray:
    """A volume (box, box, box) float32 of Gaussian beads at points (n, 3), x, y, z in Angstrom from its centre."""
    points = points_A / pixel_A
    volume = np.zeros((box,) * 3)
    axis = np.arange(box) - box // 2
    width = max(2.5 / pixel_A, 0.8)
    for start in range(0, len(points), 256):
        part = points[start : start + 256]
        x, y, z = (np.exp(-((axis[None, :] - part[:, i, None]) ** 2) / (2 * width**2)) for i in range(3))
        volume += np.einsum("nz,ny,nx->zyx", z, y, x, optimize=True)
    return volume.astype(np.float32)


def simulate(
    volumes: np.ndarray,
    n: int,
    optics: Optics,
    snr: float,
    shift_sd_px: float,
    seed: int,
    defocus_A: Tuple[float, float] = (5000.0, 25000.0),
    astigmatism_A: float = 500.0,
    max_shift_px: Optional[float] = None,
    poses: Optional[np.ndarray] = None,
    noise_amplitude: Optional[np.ndarray] = None,
) -> Simulated:
    """Images of random poses, with noise that is added after the CTF.

    Parameters
    ----------
    volumes : (v, N, N, N) float32; each particle shows one of them at random. snr : variance of the images without
        noise over the variance of the noise, over all pixels. shift_sd_px : of each coordinate of the position.
        max_shift_px : largest distance of a particle from the centre; None: no limit.
    poses : (n, 3, 3); None: evenly distributed. noise_amplitude : relative amplitude of the noise at 0, 1, 2, ...
        Fourier pixels; None: white.
    """
    rng = np.random.default_rng(seed)
    box = volumes.shape[-1]
    band = Band.of(box, box / 2 - 1)
    poses = Rotation.random(n, random_state=seed).as_matrix() if poses is None else poses
    positions = rng.normal(scale=shift_sd_px, size=(n, 2))
    if max_shift_px is not None:
        positions *= np.minimum(1, max_shift_px / np.linalg.norm(positions, axis=1, keepdims=True))
    u = rng.uniform(*defocus_A, n)
    v = u - rng.uniform(0, astigmatism_A, n)
    defocus = Defocus(u, v, rng.uniform(0, 180, n), np.zeros(n))
    which = rng.integers(0, len(volumes), n)
    images = np.empty((n, box, box), np.float32)
    spectra = [Spectrum.of(volume, band.radius) for volume in volumes]
    for start in range(0, n, 1000):
        rows = np.arange(start, min(start + 1000, n))
        transforms = np.empty((len(rows), len(band)), np.complex64)
        for number, spectrum in enumerate(spectra):
            own = which[rows] == number
            transforms[own] = spectrum.slices(poses[rows][own], band.kx, band.ky)
        transforms *= ctf(band.kx, band.ky, box, optics, defocus[rows])
        transforms *= shift_phases(band, -positions[rows])
        images[rows] = band.images(transforms)
    noise_sd = float(np.sqrt(images.var() / snr))
    for start in range(0, n, 1000):
        part = images[start : start + 1000]
        part += noise_sd * _noise(rng, part.shape, noise_amplitude)
    return Simulated(images, poses, positions, defocus, noise_sd, which)


def _noise(rng: np.random.Generator, shape: Tuple[int, ...], amplitude: Optional[np.ndarray]) -> np.ndarray:
    """Noise (n, box, box) float32 with variance 1."""
    white = rng.normal(size=shape).astype(np.float32)
    if amplitude is None:
        return white
    box = shape[-1]
    radius = np.hypot(np.fft.fftfreq(box, 1 / box)[:, None], np.arange(box // 2 + 1)[None])
    factor = np.interp(radius, np.arange(len(amplitude)), amplitude).astype(np.float32)
    noise = fft.irfft2(fft.rfft2(white) * factor, shape[1:])
    return (noise / noise.std()).astype(np.float32)
