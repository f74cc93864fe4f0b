"""The gallery: projections of one or several volumes at low resolution, as short vectors.

The log-likelihood of an image against a projection a with a CTF C, less what no pose changes, is

    score = q . a - 1/2 b . P(a),   q = C F / sigma2,   b_j = mean of C^2 / sigma2 in ring j,

where F is the transform of the image with its shift removed, sigma2 half the noise power, and P_j the sum of |a|^2 over
ring j. So one vector [a, -P / 2] for each reference and one query [q, b] for each image and shift give the score as one
scalar product, whatever the CTF. The vectors a are shortened by a principal component analysis without centring, in the
metric W = sqrt(mean of C^2 / sigma2) of the data: a' = U^T W a and q' = U^T q / W.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Optional, Sequence

import numpy as np

from .band import Band
from .slices import Spectrum
from .sphere import pose_grid

AXES = 64  # of the principal component analysis
COARSE_PART = 7.0  # of the diameter: the coarse resolution
COARSEST_A, FINEST_A = 40.0, 12.0  # limits of the coarse resolution
STEP = 1.15  # of the grid, in units of resolution / diameter (radians)


def coarse_resolution_A(diameter_A: float, max_resolution_A: float) -> float:
    """Resolution of the gallery: a part of the particle's diameter, and never finer than the alignment's own."""
    return max(min(max(diameter_A / COARSE_PART, FINEST_A), COARSEST_A), max_resolution_A)


def real_pairs(coefficients: np.ndarray) -> np.ndarray:
    """(..., 2 m) float32: real and imaginary parts of complex64 coefficients, in turn. Re sum X conj(Y) = x . y."""
    return np.ascontiguousarray(coefficients, np.complex64).view(np.float32)


@dataclass(frozen=True)
class Gallery:
    """References of all volumes.

    Attributes
    ----------
    band : the coefficients that are compared. step_rad : distance of neighbouring poses.
    poses : (M, 3, 3) float64. volume : (M,) int16 number of the volume that a reference shows, from 0.
    vectors : (M, d + rings) float32 [a', -P / 2]. axes : (2 m, d) float32 U. weight : (2 m,) float32 W.
    """

    band: Band
    step_rad: float
    poses: np.ndarray
    volume: np.ndarray
    vectors: np.ndarray
    axes: np.ndarray
    weight: np.ndarray

    @classmethod
    def of(
        cls,
        spectra: Sequence[Spectrum],
        band: Band,
        step_rad: float,
        mean_c2_over_sigma2: np.ndarray,
        group: Optional[np.ndarray] = None,
        seed: Optional[int] = None,
        max_psi_deg: float = 180.0,
        n_axes: int = AXES,
        threads: int = 1,
    ) -> Gallery:
        """The gallery of volumes.

        Parameters
        ----------
        mean_c2_over_sigma2 : (m,) mean over the particles of C^2 / sigma2.
        group, seed, max_psi_deg : as for `pose_grid`.
        """
        grid = pose_grid(step_rad, group, seed, max_psi_deg)
        # A coefficient without any information (a zero of all CTFs) must not divide by zero below.
        weight = np.sqrt(np.maximum(mean_c2_over_sigma2, 1e-6 * mean_c2_over_sigma2.max()))
        weight = np.repeat(weight, 2).astype(np.float32)
        weighted: List[np.ndarray] = []
        power: List[np.ndarray] = []
        for spectrum in spectra:
            slices = spectrum.slices(grid, band.kx, band.ky, threads)
            power.append(band.shell_sums(np.abs(slices) ** 2))
            weighted.append(real_pairs(slices) * weight)
        axes = _main_axes(weighted, min(n_axes, 2 * len(band)))
        vectors = [np.hstack([x @ axes, -0.5 * p]).astype(np.float32) for x, p in zip(weighted, power)]
        volume = np.repeat(np.arange(len(spectra), dtype=np.int16), len(grid))
        return cls(band, step_rad, np.concatenate([grid] * len(spectra)), volume, np.concatenate(vectors), axes, weight)

    def queries(self, products: np.ndarray, c2_over_sigma2: np.ndarray) -> np.ndarray:
        """Queries [q', b].

        Parameters
        ----------
        products : (n, S, m) complex64 C F / sigma2 at each of S shifts. c2_over_sigma2 : (n, m) float32.

        Returns
        -------
        (n, S, d + rings) float32.
        """
        n, s, _ = products.shape
        q = (real_pairs(products).reshape(n * s, -1) / self.weight) @ self.axes
        b = self.band.shell_means(c2_over_sigma2).astype(np.float32)
        return np.concatenate([q.reshape(n, s, -1), np.repeat(b[:, None, :], s, axis=1)], axis=2)


def _main_axes(vectors: Sequence[np.ndarray], n: int) -> np.ndarray:
    moment = sum((v.T @ v).astype(float) for v in vectors)
    _, axes = np.linalg.eigh(moment)
    return np.ascontiguousarray(axes[:, ::-1][:, :n]).astype(np.float32)


def shift_grid(max_shift_px: float, step_px: float) -> np.ndarray:
    """(S, 2) float64 positions (x, y) of the particle, in a disc of radius max_shift + step / 2."""
    n = int(np.ceil(max_shift_px / step_px))
    x, y = np.meshgrid(np.arange(-n, n + 1), np.arange(-n, n + 1))
    t = np.stack([x.ravel(), y.ravel()], axis=1) * step_px
    return t[np.hypot(t[:, 0], t[:, 1]) <= max_shift_px + step_px / 2]


def shift_phases(band: Band, t: np.ndarray) -> np.ndarray:
    """(S, m) complex64 exp(+2 pi i k.t / N), which move a particle from t to the origin of its image."""
    angle = 2 * np.pi / band.box * (np.outer(t[:, 0], band.kx) + np.outer(t[:, 1], band.ky))
    return np.exp(1j * angle).astype(np.complex64)
