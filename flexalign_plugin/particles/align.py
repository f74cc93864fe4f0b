"""One alignment of particles with volumes: the table of contents.

1. The power spectrum of the noise, from the pixels around the first particles of each optics group.
2. The gallery: projections of the volumes at low resolution, as short vectors.
3. Sign and scale of the volumes against the images, from the first particles of each optics group.
4. For each particle: the coarse search, the local search, and how sure the result is.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Callable, List, Optional, Sequence, Tuple

import numpy as np

from . import local
from .band import Band
from .ctf import Defocus, Optics, ctf
from .gallery import STEP, Gallery, coarse_resolution_A, shift_grid, shift_phases
from .noise import noise_power
from .posterior import Best, best_of
from .search import Candidates, Search
from .slices import OVERSAMPLING, Spectrum

FIRST = 200  # particles of an optics group that noise, sign and scale are measured on
BLOCK = 32  # particles that a thread takes at once
STAGE = 1.7  # factor between the resolutions that the local search enters one after the other
SCALES = 0.25, 2.0  # limits of the correction of the scale
SAMPLED_VIEWS = 300  # of which the mean power of the projections is computed


@dataclass(frozen=True)
class Particles:
    """n particle images of one box and pixel size.

    Attributes
    ----------
    box : side in pixels, even. pixel_A : pixel size. optics : one for each optics group.
    group : (n,) number of the optics group. defocus : of each particle.
    read : gives the images (k, box, box) float32 of rows (k,). Thread-safe.
    """

    box: int
    pixel_A: float
    optics: Sequence[Optics]
    group: np.ndarray
    defocus: Defocus
    read: Callable[[np.ndarray], np.ndarray]

    def __len__(self) -> int:
        return len(self.group)


@dataclass(frozen=True)
class Options:
    """How particles are aligned.

    Attributes
    ----------
    max_resolution_A : the finest detail that is compared. diameter_A : of the particle.
    max_shift_A : largest distance of a particle from the centre of its image.
    symmetry : (g, 3, 3) rotations of the volumes, from `symmetry.rotations`; None: no symmetry.
    coarse_A : resolution of the coarse search; 0: from the diameter. threads : results do not depend on it.
    """

    max_resolution_A: float
    diameter_A: float
    max_shift_A: float
    symmetry: Optional[np.ndarray] = None
    coarse_A: float = 0.0
    threads: int = 1


class Alignment:
    """Aligns particles with volumes: steps 1 to 3 when it is made, step 4 for any rows.

    Attributes
    ----------
    gallery : the references. scales : factor from the volumes to the images of each optics group, negative if the
    contrast of one of them is inverted.
    """

    def __init__(self, particles: Particles, volumes: Sequence[np.ndarray], options: Options) -> None:
        """
        Parameters
        ----------
        volumes : (box, box, box) arrays [z, y, x] with the particles' pixel size.

        Raises
        ------
        ValueError : there are too few pixels around the particles to measure the noise.
        """
        self._particles, self._options = particles, options
        box, pixel = particles.box, particles.pixel_A
        coarse_A = options.coarse_A or coarse_resolution_A(options.diameter_A, options.max_resolution_A)
        self._band = Band.of(box, box * pixel / options.max_resolution_A)
        coarse = Band.of(box, box * pixel / coarse_A)
        self._n_coarse = len(coarse)
        self._counts = self._stages(coarse_A)
        self._max_shift_px = options.max_shift_A / pixel
        groups = range(len(particles.optics))
        self._half_power = [self._noise(self._first(g)) / 2 for g in groups]
        self._spectra = [Spectrum.of(volume, self._band.radius) for volume in volumes]
        self._stacked = np.stack([spectrum.flat for spectrum in self._spectra])
        self.scales = [1.0 for _ in groups]
        c, inverse = self._ctf_and_weight(np.concatenate([self._first(g) for g in groups]))
        mean = (c**2 * inverse).mean(axis=0)[: self._n_coarse]
        step = STEP * coarse_A / options.diameter_A
        self.gallery = Gallery.of(self._spectra, coarse, step, mean, options.symmetry)
        self._search = Search(self.gallery, shift_grid(self._max_shift_px, coarse_A / (2 * pixel)))
        self.scales = [self._scale(g) for g in groups]

    def align(self, rows: np.ndarray) -> Best:
        """The poses of the particles `rows` (k,)."""
        parts = [rows[i : i + BLOCK] for i in range(0, len(rows), BLOCK)]
        with ThreadPoolExecutor(self._options.threads) as pool:
            found = list(pool.map(self._align_block, parts))
        return Best(*(np.concatenate([getattr(best, f.name) for best in found]) for f in fields(Best)))

    def _align_block(self, rows: np.ndarray) -> Best:
        transforms = self._band.coefficients(self._particles.read(rows))
        return self._aligned(transforms, *self._ctf_and_weight(rows))

    def _aligned(self, f: np.ndarray, c: np.ndarray, inverse: np.ndarray) -> Best:
        """Poses of images with transforms f, CTFs c and weights 1 / sigma2, each (n, m)."""
        found = self._candidates(f, c, inverse)
        k = int(found.count.max())
        reference = found.reference[:, :k]
        poses, positions = self.gallery.poses[reference], self._search.shifts_px[found.shift[:, :k]]
        volume = self.gallery.volume[reference].astype(np.int64)
        score = np.zeros(reference.shape)
        information = np.zeros((*score.shape, local.PARAMETERS, local.PARAMETERS))
        root = np.sqrt(inverse)
        gaps = np.full(len(self._counts), local.KEPT_NATS)
        gaps[0] = local.COARSE_NATS
        same = np.full(len(self._counts), np.radians(4.0))
        same[0] = local.COARSE_SAME * self.gallery.step_rad
        traces = 1 + 2 * np.cos(same)
        local.refine_block(
            self._stacked,
            len(self._spectra[0].values),
            np.float32(OVERSAMPLING),
            volume,
            f * root,
            c * root,
            self._band.kx,
            self._band.ky,
            self._counts,
            self._band.box,
            poses,
            positions,
            score,
            information,
            found.count,
            gaps,
            traces,
            self._max_shift_px,
        )
        return best_of(local.Refined(poses, positions, score, information), volume, self._options.symmetry)

    def _candidates(self, f: np.ndarray, c: np.ndarray, inverse: np.ndarray) -> Candidates:
        f, c, inverse = (array[:, : self._n_coarse] for array in (f, c, inverse))
        return self._search.candidates(f * (c * inverse), c**2 * inverse)

    def _stages(self, coarse_A: float) -> np.ndarray:
        """Numbers of coefficients of the resolutions that the local search enters one after the other."""
        finest_A, size_A = self._options.max_resolution_A, self._particles.box * self._particles.pixel_A
        resolutions = [finest_A]
        while resolutions[-1] * STAGE < coarse_A:
            resolutions.append(resolutions[-1] * STAGE)
        if resolutions[-1] < coarse_A:
            resolutions.append(coarse_A)
        return np.array([self._band.first(size_A / resolution) for resolution in resolutions[::-1]], np.int64)

    def _first(self, group: int) -> np.ndarray:
        return np.flatnonzero(self._particles.group == group)[:FIRST]

    def _noise(self, rows: np.ndarray) -> np.ndarray:
        diameter_px = self._options.diameter_A / self._particles.pixel_A
        return noise_power(self._particles.read(rows), diameter_px, self._band)

    def _ctf_and_weight(self, rows: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """(k, m) float32: CTF times the scale of the volumes, and 1 / sigma2, sigma2 being half the noise's power."""
        c = np.empty((len(rows), len(self._band)), np.float32)
        inverse = np.empty_like(c)
        for g, optics in enumerate(self._particles.optics):
            own = self._particles.group[rows] == g
            if own.any():
                defocus = self._particles.defocus[rows[own]]
                values = ctf(self._band.kx, self._band.ky, self._band.box, optics, defocus)
                c[own] = values * np.float32(self.scales[g])
                inverse[own] = 1 / self._half_power[g]
        return c, inverse

    def _scale(self, group: int) -> float:
        """Factor from the volumes to the images of an optics group.

        A first size comes from the power above the noise, the sign from the coarse search with both. The size is then
        measured on half of the coefficients, at poses that were found with the other half: at poses found with the
        same coefficients, noise would count as signal.
        """
        rows = self._first(group)
        f = self._band.coefficients(self._particles.read(rows))
        c, inverse = self._ctf_and_weight(rows)
        signal = (np.abs(f) ** 2 * inverse - 2).sum()
        size = float(np.sqrt(max(signal / (c**2 * inverse * self._mean_power()).sum(), 1e-12)))
        gains = [self._candidates(f, sign * size * c, inverse).score[:, 0].sum() for sign in (1, -1)]
        scale = size if gains[0] >= gains[1] else -size
        c *= np.float32(scale)
        used = (np.arange(len(self._band)) % 2).astype(np.float32)
        best = self._aligned(f, c, inverse * used)
        projections = self._projections(best) * c
        weight = inverse * (1 - used)
        ratio = (np.real(f * projections.conj()) * weight).sum() / (np.abs(projections) ** 2 * weight).sum()
        return scale * float(np.clip(ratio, *SCALES))

    def _mean_power(self) -> np.ndarray:
        """(m,) mean |projection|^2 of the volumes over all views."""
        sample = self.gallery.poses[:: max(len(self.gallery.poses) // SAMPLED_VIEWS, 1)]
        powers: List[np.ndarray] = []
        for spectrum in self._spectra:
            powers.append((np.abs(spectrum.slices(sample, self._band.kx, self._band.ky)) ** 2).mean(axis=0))
        return np.mean(powers, axis=0)

    def _projections(self, best: Best) -> np.ndarray:
        """(n, m) complex64 transforms of the projections with these poses and positions, without CTF."""
        projections = np.empty((len(best.poses), len(self._band)), np.complex64)
        for number, spectrum in enumerate(self._spectra):
            own = best.volume == number
            projections[own] = spectrum.slices(best.poses[own], self._band.kx, self._band.ky)
        return projections * shift_phases(self._band, -best.positions)
