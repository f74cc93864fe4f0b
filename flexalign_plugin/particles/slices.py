"""Central slices through the spectrum of a volume: the transforms of its projections, and their derivatives.

The spectrum is sampled twice as finely as the volume's own (zero padding) and interpolated with cubic B-splines. The
volume is first divided by the transform of the spline, so that no prefilter is needed. Against the exact transform of
point-like beads the error is about 1e-4 up to two thirds of Nyquist.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from scipy import fft

from ..jit import njit
from .spline import gradient_at

OVERSAMPLING = 2
MARGIN = 2  # cells around the band that the spline reads

_jit = njit(nogil=True, fastmath=True, error_model="numpy", boundscheck=False)


@dataclass(frozen=True)
class Spectrum:
    """The spectrum of a volume around the origin.

    Attributes
    ----------
    values : (n, n, n) complex64 [z, y, x], the origin in the middle. box : side of the volume in voxels.
    radius : largest frequency in Fourier pixels of the volume that slices may have.
    """

    values: np.ndarray
    box: int
    radius: float

    @classmethod
    def of(cls, volume: np.ndarray, radius: float) -> Spectrum:
        """The spectrum of a volume (N, N, N), N even, up to `radius` Fourier pixels."""
        n = volume.shape[0]
        padded_n = OVERSAMPLING * n
        fade = np.sinc((np.arange(n) - n // 2) / padded_n) ** 4
        weighted = volume.astype(np.float32) / (fade[:, None, None] * fade[None, :, None] * fade[None, None, :])
        start = padded_n // 2 - n // 2
        padded = np.zeros((padded_n,) * 3, np.float32)
        padded[start : start + n, start : start + n, start : start + n] = weighted
        half = fft.rfftn(fft.ifftshift(padded))
        c = min(math.ceil(OVERSAMPLING * radius) + MARGIN, n)
        rows = np.arange(-c, c + 1)
        positive = half[np.ix_(rows, rows, np.arange(c + 1))].astype(np.complex64)
        values = np.empty((2 * c + 1,) * 3, np.complex64)
        values[:, :, c:] = positive
        values[:, :, :c] = positive[::-1, ::-1, :0:-1].conj()
        return cls(values, n, min(radius, (c - MARGIN) / OVERSAMPLING))

    def scaled(self, factor: float) -> Spectrum:
        """The spectrum of the volume times a factor."""
        return Spectrum(self.values * np.float32(factor), self.box, self.radius)

    def within(self, flat: np.ndarray) -> Spectrum:
        """The same spectrum, whose values are in an array `flat` of the same kind."""
        return Spectrum(flat.view(np.complex64).reshape(self.values.shape), self.box, self.radius)

    def power(self, radius: float) -> float:
        """Mean |spectrum|^2 of the cells with 1 <= |k| <= radius, in Fourier pixels."""
        k = (np.arange(len(self.values)) - len(self.values) // 2) / OVERSAMPLING
        near = np.abs(k) <= radius
        part, axis = self.values[np.ix_(near, near, near)], k[near] ** 2
        k2 = axis[:, None, None] + axis[None, :, None] + axis[None, None, :]
        return float((np.abs(part[(k2 >= 1) & (k2 <= radius**2)]).astype(float) ** 2).mean())

    @property
    def flat(self) -> np.ndarray:
        """The values as a flat float32 array, real and imaginary parts in turn."""
        return self.values.reshape(-1).view(np.float32)

    def slices(self, poses: np.ndarray, kx: np.ndarray, ky: np.ndarray, threads: int = 1) -> np.ndarray:
        """Transforms of the projections for poses (n, 3, 3) at Fourier pixels (kx, ky) of the projection.

        Returns
        -------
        (n, m) complex64, with the particle at the origin and without CTF.

        Raises
        ------
        ValueError : if a frequency is above `radius`.
        """
        if np.hypot(kx, ky).max(initial=0) > self.radius + 1e-6:
            raise ValueError(f"the spectrum ends at {self.radius:g} Fourier pixels")
        poses = np.ascontiguousarray(poses, np.float32)
        out = np.empty((len(poses), len(kx)), np.complex64)
        n, step = len(self.values), max(-(-len(poses) // threads), 1)
        with ThreadPoolExecutor(threads) as pool:
            parts = [slice(i, i + step) for i in range(0, len(poses), step)]
            list(pool.map(lambda part: _slices(self.flat, n, poses[part], kx, ky, out[part]), parts))
        return out


@_jit
def _slices(flat, n, poses, kx, ky, out):
    c = np.float32(n // 2)
    for i in range(len(poses)):
        a = poses[i] * np.float32(OVERSAMPLING)
        for k in range(len(kx)):
            x, y = np.float32(kx[k]), np.float32(ky[k])
            px = a[0, 0] * x + a[1, 0] * y + c
            py = a[0, 1] * x + a[1, 1] * y + c
            pz = a[0, 2] * x + a[1, 2] * y + c
            found = gradient_at(flat, n, px, py, pz)  # the derivatives are not used, and not computed
            out[i, k] = np.complex64(found[0] + 1j * found[1])
