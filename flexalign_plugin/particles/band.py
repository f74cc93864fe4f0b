"""The Fourier coefficients of an image that are compared: one of each conjugate pair, up to a resolution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import fft


@dataclass(frozen=True)
class Band:
    """Half of the Fourier plane: kx > 0, or kx = 0 and ky > 0, with 0.5 < |k| <= radius.

    Each conjugate pair is there once, and the mean (k = 0) not at all.

    Attributes
    ----------
    box : pixels of the image's side (even). radius : in Fourier pixels: box * pixel size / resolution.
    kx, ky : (m,) int32, sorted by |k|. shell : (m,) int32 number of the ring that a coefficient belongs to.
    n_shells : number of rings.
    """

    box: int
    radius: float
    kx: np.ndarray
    ky: np.ndarray
    shell: np.ndarray
    n_shells: int

    @classmethod
    def of(cls, box: int, radius: float, shell_px: float = 0.5) -> Band:
        """The band of a box, with rings of `shell_px` Fourier pixels."""
        last = min(int(np.floor(radius)), box // 2 - 1)
        x, y = np.meshgrid(np.arange(last + 1), np.arange(-last, last + 1), indexing="ij")
        k2 = x * x + y * y
        chosen = ((x > 0) | (y > 0)) & (k2 > 0.25) & (k2 <= radius * radius)
        order = np.lexsort((y[chosen], x[chosen], k2[chosen]))
        kx, ky = x[chosen][order].astype(np.int32), y[chosen][order].astype(np.int32)
        ring = np.floor(np.hypot(kx, ky) / shell_px).astype(np.int64)
        _, shell = np.unique(ring, return_inverse=True)
        return cls(box, float(radius), kx, ky, shell.astype(np.int32), int(shell.max()) + 1)

    def __len__(self) -> int:
        return len(self.kx)

    def first(self, radius: float) -> int:
        """Number of coefficients with |k| <= radius: they come first."""
        return int(np.searchsorted(self.kx.astype(float) ** 2 + self.ky.astype(float) ** 2, radius**2 + 1e-9, "right"))

    def coefficients(self, images: np.ndarray) -> np.ndarray:
        """Transforms of images (n, box, box), with the origin at pixel box // 2.

        Returns
        -------
        (n, m) complex64.
        """
        spectra = fft.rfft2(fft.ifftshift(images.astype(np.float32, copy=False), axes=(-2, -1)))
        return np.ascontiguousarray(spectra[..., self.ky, self.kx]).astype(np.complex64, copy=False)

    def images(self, coefficients: np.ndarray) -> np.ndarray:
        """Images (n, box, box) float32 of coefficients (n, m): the inverse of `coefficients` within the band."""
        half = np.zeros((*coefficients.shape[:-1], self.box, self.box // 2 + 1), np.complex64)
        half[..., self.ky, self.kx] = coefficients
        axis = self.kx == 0  # the other half of this column is not implied
        half[..., -self.ky[axis], 0] = coefficients[..., axis].conj()
        return fft.fftshift(fft.irfft2(half, (self.box, self.box)), axes=(-2, -1)).astype(np.float32)

    def shell_sums(self, values: np.ndarray) -> np.ndarray:
        """(n, n_shells) float64 sums over each ring of values (n, m)."""
        flat = values.reshape(-1, len(self))
        sums = np.stack([np.bincount(self.shell, weights=row, minlength=self.n_shells) for row in flat])
        return sums.reshape(*values.shape[:-1], self.n_shells)

    def shell_means(self, values: np.ndarray) -> np.ndarray:
        """(n, n_shells) float64 means over each ring of values (n, m)."""
        return self.shell_sums(values) / np.bincount(self.shell, minlength=self.n_shells)
