"""One alignment of particles with volumes: the table of contents.

1. The power spectrum of the noise, from the pixels around the first particles of each optics group.
2. The gallery: projections of the volumes at low resolution, as short vectors.
3. Sign and scale of the volumes against the images, from the first particles of each optics group.
4. For each particle: the coarse search, the local search, and how sure the result is.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass, fields
from typing import Callable, List, Optional, Sequence, Tuple

import numpy as np

from . import local
from .band import Band
from .ctf import Defocus, Optics, ctf
from .gallery import STEP, Gallery, coarse_resolution_A, shift_grid, shift_phases
from .noise import noise_power
from .poses import euler_angles
from .posterior import Best, best_of
from .search import Candidates, Search
from .slices import OVERSAMPLING, Spectrum

FIRST = 200  # particles of an optics group that noise, sign and scale are measured on
BLOCK = 32  # particles that a thread takes at once
STAGE = 1.7  # factor between the resolutions that the local search enters one after the other
SCALES = 0.25, 2.0  # limits of the correction of the scale
SAMPLED_VIEWS = 300  # of which the mean power of the projections is computed


@dataclass(frozen=True)
class Start:
    """Poses of n particles that only have to be improved: (n, 3, 3) poses, (n, 2) positions in pixels, (n,) volume."""

    poses: np.ndarray
    positions: np.ndarray
    volume: np.ndarray


@dataclass(frozen=True)
class Particles:
    """n particle images of one box and pixel size.

    Attributes
    ----------
    box : side in pixels, even. pixel_A : pixel size. optics : one for each optics group.
    group : (n,) number of the optics group; noise, sign and scale are not measured on particles of group -1.
    defocus : of each particle.
    read : gives the images (k, box, box) float32 of rows (k,). Thread-safe.
    start : gives where the search of rows (k,) starts if it is local only.
    """

    box: int
    pixel_A: float
    optics: Sequence[Optics]
    group: np.ndarray
    defocus: Defocus
    read: Callable[[np.ndarray], np.ndarray]
    start: Optional[Callable[[np.ndarray], Start]] = None

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
    coarse_A : resolution of the coarse search; 0: from the diameter.
    max_psi_deg : largest in-plane angle either way. local_only : whether the particles' start is only improved.
    threads : results do not depend on it.
    """

    max_resolution_A: float
    diameter_A: float
    max_shift_A: float
    symmetry: Optional[np.ndarray] = None
    coarse_A: float = 0.0
    threads: int = 1
    max_psi_deg: float = 180.0
    local_only: bool = False


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
        self._stacked = np.stack([spectrum.values for spectrum in self._spectra])
        self._axes = np.stack([local.principal_axes(volume) for volume in volumes])
        self.scales = [1.0 for _ in groups]
        c, inverse = self._ctf_and_weight(np.concatenate([self._first(g) for g in groups]))
        mean = (c**2 * inverse).mean(axis=0)[: self._n_coarse]
        step = STEP * coarse_A / options.diameter_A
        self.gallery = Gallery.of(self._spectra, coarse, step, mean, options.symmetry)
        self._psi_limit_deg = options.max_psi_deg + np.degrees(step) / 2
        self.gallery = self.gallery.subset(self._psi_allowed(self.gallery.poses))
        self._search = Search(self.gallery, shift_grid(self._max_shift_px, coarse_A / (2 * pixel)))
        self.scales = [self._scale(g) for g in groups]

    def of(self, particles: Particles) -> Alignment:
        """The same volumes, noise, sign and scale, for other particles of the same optics groups and box."""
        other = copy(self)
        other._particles = particles
        return other

    def align(self, rows: np.ndarray) -> Best:
        """The poses of the particles `rows` (k,)."""
        parts = [rows[i : i + BLOCK] for i in range(0, len(rows), BLOCK)]
        with ThreadPoolExecutor(self._options.threads) as pool:
            found = list(pool.map(self._align_block, parts))
        return Best(*(np.concatenate([getattr(best, f.name) for best in found]) for f in fields(Best)))

    def _align_block(self, rows: np.ndarray) -> Best:
        transforms = self._band.coefficients(self._particles.read(rows))
        start = self._particles.start if self._options.local_only else None
        return self._aligned(transforms, *self._ctf_and_weight(rows), None if start is None else start(rows))

    def _aligned(self, f: np.ndarray, c: np.ndarray, inverse: np.ndarray, start: Optional[Start] = None) -> Best:
        """Poses of images with transforms f, CTFs c and weights 1 / sigma2, each (n, m): the best of all, or improved
        from the start."""
        more = ((0, 0), (0, local.MIRRORED))
        if start is None:
            found = self._candidates(f, c, inverse)
            count, k = found.count, int(found.count.max())
            reference, shift = np.pad(found.reference[:, :k], more), np.pad(found.shift[:, :k], more)
            poses, positions = self.gallery.poses[reference], self._search.shifts_px[shift]
            volume = self.gallery.volume[reference].astype(np.int64)
            score = np.pad(found.score[:, :k].astype(float), more, constant_values=-np.inf)
        else:
            count = np.ones(len(f), np.int32)
            poses, positions = (np.repeat(a[:, None], 1 + local.MIRRORED, 1) for a in (start.poses, start.positions))
            volume = np.repeat(start.volume[:, None].astype(np.int64), 1 + local.MIRRORED, 1)
            score = np.pad(np.zeros((len(f), 1)), more, constant_values=-np.inf)
        information = np.zeros((*score.shape, local.PARAMETERS, local.PARAMETERS))
        local.refine_block(
            self._stacked,
            np.float32(OVERSAMPLING),
            self._axes,
            volume,
            f,
            c,
            inverse,
            self._band.kx,
            self._band.ky,
            self._counts,
            self._band.box,
            poses,
            positions,
            score,
            information,
            count,
            self._max_shift_px,
        )
        if start is not None:
            score[:, 1:] = -np.inf  # the mirror images that the local search adds are another pose
        elif self._options.max_psi_deg < 180:
            score[:, 1:][~self._psi_allowed(poses[:, 1:].reshape(-1, 3, 3)).reshape(score[:, 1:].shape)] = -np.inf
        return best_of(local.Refined(poses, positions, score, information), volume, self._options.symmetry)

    def _psi_allowed(self, poses: np.ndarray) -> np.ndarray:
        """(n,) bool: whether the in-plane angle of a pose (n, 3, 3) or of a symmetry mate is small enough."""
        if self._options.max_psi_deg >= 180:
            return np.ones(len(poses), bool)
        mates = np.eye(3)[None] if self._options.symmetry is None else self._options.symmetry
        return np.any([np.abs(euler_angles(poses @ g)[2]) <= self._psi_limit_deg for g in mates], axis=0)

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
