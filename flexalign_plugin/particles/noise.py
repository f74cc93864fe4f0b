"""The power spectrum of the noise of particle images, from the pixels around the particles."""

from __future__ import annotations

import numpy as np
from scipy import fft

from .band import Band

CLEARANCE = 1.1  # the circle that is left out, in units of the particle's diameter
LEAST_SHARE = 0.05  # of the pixels that must lie outside the circle


def outside(box: int, diameter_px: float) -> np.ndarray:
    """(box, box) bool: pixels outside the particle's circle and its clearance."""
    y, x = np.mgrid[:box, :box] - box // 2
    return np.hypot(x, y) > CLEARANCE * diameter_px / 2


def noise_power(images: np.ndarray, diameter_px: float, band: Band) -> np.ndarray:
    """Mean |transform|^2 of the noise of one coefficient of an image.

    Parameters
    ----------
    images : (n, box, box).

    Returns
    -------
    (m,) float64, the same within each Fourier pixel's ring.

    Raises
    ------
    ValueError : if fewer than 5 % of the pixels are outside the particle.
    """
    mask = outside(band.box, diameter_px)
    share = mask.mean()
    if share < LEAST_SHARE:
        raise ValueError("there are too few pixels around the particle")
    values = np.where(mask, images, 0).astype(np.float64)
    mean = values.sum(axis=(1, 2)) / mask.sum()
    values -= mean[:, None, None] * mask
    spectra = fft.rfft2(values)
    power = (np.abs(spectra) ** 2).mean(axis=0) / share
    radius = np.hypot(np.fft.fftfreq(band.box, 1 / band.box)[:, None], np.arange(power.shape[1])[None, :])
    ring = np.rint(radius).astype(int)
    weight = np.ones_like(power)
    weight[:, 1:-1] = 2  # their conjugates are not stored
    sums = np.bincount(ring.ravel(), (power * weight).ravel())
    means = sums / np.bincount(ring.ravel(), weight.ravel())
    k = np.hypot(band.kx, band.ky)
    return np.interp(k, np.arange(1, len(means)), means[1:])
