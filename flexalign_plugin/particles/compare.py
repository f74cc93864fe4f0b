"""Images of particles beside the projections that they were aligned with, for pictures."""

from __future__ import annotations

from typing import Sequence, Tuple

import numpy as np

from .align import Particles
from .band import Band
from .ctf import ctf
from .gallery import shift_phases
from .slices import Spectrum


def side_by_side(
    particles: Particles,
    volumes: Sequence[np.ndarray],
    rows: np.ndarray,
    poses: np.ndarray,
    positions: np.ndarray,
    volume: np.ndarray,
    scales: Sequence[float],
    resolution_A: float,
) -> Tuple[np.ndarray, np.ndarray]:
    """Particle images and their projections, both up to a resolution and with the particle in the middle.

    Parameters
    ----------
    volumes : (N, N, N) arrays with the box and the pixel size of the particles. rows : (k,) of `particles`.
    poses, positions, volume : (k, 3, 3), (k, 2) px and (k,) of these rows, as in `Best`.
    scales : from the volumes to the images, of each optics group.

    Returns
    -------
    (k, N, N) float32 images, and projections with the CTF and the contrast of the images.
    """
    band = Band.of(particles.box, particles.box * particles.pixel_A / resolution_A)
    transforms = band.coefficients(particles.read(rows)) * shift_phases(band, positions)
    projections = np.empty_like(transforms)
    for number in np.unique(volume):
        own = volume == number
        projections[own] = Spectrum.of(volumes[number], band.radius).slices(poses[own], band.kx, band.ky)
    for g, optics in enumerate(particles.optics):
        own = particles.group[rows] == g
        if own.any():
            transfer = ctf(band.kx, band.ky, band.box, optics, particles.defocus[rows[own]])
            projections[own] *= transfer * np.float32(scales[g])
    return band.images(transforms), band.images(projections)
