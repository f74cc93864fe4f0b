"""One alignment of particles with volumes: the table of contents.

1. The power spectrum of the noise, from the pixels around the first particles of each optics group.
2. The gallery: projections of the volumes at low resolution, as short vectors.
3. Sign and scale of the volumes against the images, from the first particles of each optics group.
4. For each particle: the coarse search, the local search, and how sure the result is.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass, fields, replace
from typing import Callable, List, Optional, Sequence, Tuple

import numpy as np
from scipy.spatial.transform import Rotation

from . import local
from .band import Band
from .ctf import Defocus, Optics, ctf
from .gallery import STEP, Gallery, coarse_resolution_A, shift_grid
from .noise import noise_power
from .poses import euler_angles
from .posterior import Best, best_of, most_probable_scale
from .search import Search
from .slices import Spectrum
from .threads import one_blas_thread

FIRST = 200  # particles of an optics group that noise, sign and scale are measured on
BLOCK = 32  # particles that a thread takes at once
STAGE = 1.7  # factor between the resolutions that the local search enters one after the other
SCALES = 0.25, 2.0  # limits of the correction of the scale
PSI_MARGIN_DEG = 5.0  # how far the local search may go beyond the limit of the in-plane angle
SAME_POWER_A = 40.0  # several volumes have the same power up to this resolution
SAMPLED_VIEWS = 300  # of which the mean power of the projections is computed


@dataclass(frozen=True)
class Particles:
    """n particle images of one box and pixel size.

    Attributes
    ----------
    box : side in pixels, even. pixel_A : pixel size. optics : one for each optics group.
    group : (n,) number of the optics group; noise, sign and scale are not measured on particles of group -1.
    defocus : of each particle.
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
class Start:
    """A previous alignment of n particles: poses (n, 3, 3) and positions (n, 2) in pixels, as in `Best`."""

    poses: np.ndarray
    positions: np.ndarray


@dataclass(frozen=True)
class Options:
    """How particles are aligned.

    Attributes
    ----------
    max_resolution_A : the finest detail that is compared. diameter_A : of the particle.
    max_shift_A : largest distance of a particle from the centre of its image.
    symmetry : (g, 3, 3) rotations of the volumes, from `symmetry.rotations`; None: no symmetry.
    coarse_A : resolution of the coarse search; 0: from the diameter. threads : results do not depend on it.
    start : the local search starts here, and there is no other; the posterior then compares volumes only. None: the
        whole sphere is searched.
    max_psi_deg : largest in-plane angle, in both senses; the local search may go a few degrees further, and any
        distance if nothing within the limit fits.
    seed : turns the grid of the coarse search by a random rotation, so that repetitions differ; None: no turn.
    approximate : the coarse search uses a FAISS index (`index`) instead of all references.
    """

    max_resolution_A: float
    diameter_A: float
    max_shift_A: float
    symmetry: Optional[np.ndarray] = None
    coarse_A: float = 0.0
    threads: int = 1
    start: Optional[Start] = None
    max_psi_deg: float = 180.0
    seed: Optional[int] = None
    approximate: bool = False


class Alignment:
    """Aligns particles with volumes: steps 1 to 3 when it is made, step 4 for any rows.

    Attributes
    ----------
    scales : factor from the volumes to the images of each optics group, negative if the contrast of one of them is
    inverted.
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
        self._coarse_A = options.coarse_A or coarse_resolution_A(options.diameter_A, options.max_resolution_A)
        self._band = Band.of(box, box * pixel / options.max_resolution_A)
        self._counts = self._stages()
        self._max_shift_px = options.max_shift_A / pixel
        groups = range(len(particles.optics))
        self._measured = [self._usable(np.flatnonzero(particles.group == g)[:FIRST]) for g in groups]
        with one_blas_thread():
            self._half_power = [self._noise(rows) / 2 for rows in self._measured]
            spectra = self._same_power([Spectrum.of(volume, self._band.radius) for volume in volumes])
            self._stacked = np.stack([spectrum.flat for spectrum in spectra])
            self._spectra = [spectrum.within(flat) for spectrum, flat in zip(spectra, self._stacked)]
            self.scales = [1.0 for _ in groups]
            self._search = None if options.start else self._coarse_search()
            self.scales = [self._scale(g) for g in groups]

    @property
    def gallery(self) -> Optional[Gallery]:
        """The references; None if the search is only local."""
        return self._search.gallery if self._search else None

    def of(self, particles: Particles, start: Optional[Start] = None) -> Alignment:
        """The same volumes, noise, sign and scale, for other particles of the same optics groups, box and pixel size;
        with another start if the search is only local."""
        other = copy(self)
        other._particles, other._options = particles, replace(self._options, start=start)
        return other

    def align(self, rows: np.ndarray) -> Best:
        """The poses of the particles `rows` (k,). They do not depend on which rows are given at once.

        An image that is not finite has a score of NaN and a posterior of 0.
        """
        order = np.argsort(rows, kind="stable")
        blocks = np.split(rows[order], np.flatnonzero(np.diff(rows[order] // BLOCK)) + 1)
        with one_blas_thread(), ThreadPoolExecutor(self._options.threads) as pool:
            found = list(pool.map(self._align_block, blocks))
        back = np.argsort(order, kind="stable")
        return Best(*(np.concatenate([getattr(best, f.name) for best in found])[back] for f in fields(Best)))

    def _align_block(self, rows: np.ndarray) -> Best:
        transforms = self._band.coefficients(self._particles.read(rows))
        bad = ~np.isfinite(transforms).all(axis=1)
        transforms[bad] = 0  # compiled code does not check for NaN
        best = self._aligned(rows, transforms, *self._ctf_and_weight(rows))
        best.score[bad], best.posterior[bad], best.class_posterior[bad] = np.nan, 0, 0
        return best

    def _aligned(self, rows: np.ndarray, f: np.ndarray, c: np.ndarray, inverse: np.ndarray) -> Best:
        """Poses of particles with transforms f, CTFs c and weights 1 / sigma2, each (n, m)."""
        refined, volume = self._refined(rows, f, c, inverse)
        return best_of(refined, volume, self._options.symmetry)

    def _refined(
        self, rows: np.ndarray, f: np.ndarray, c: np.ndarray, inverse: np.ndarray
    ) -> Tuple[local.Refined, np.ndarray]:
        """Candidates after the local search, and the volumes (n, K) that they show; arguments as for `_aligned`."""
        found = self._starts(rows) if self._search is None else self._candidates(rows, f, c, inverse)
        root = np.sqrt(inverse)
        refined = local.refine(
            self._stacked,
            self._band,
            self._counts,
            f * root,
            c * root,
            found,
            self._max_shift_px,
            self._same_rad(),
            local.MORE_STEPS if self._search is None else local.COARSE_STEPS,
        )
        return self._within_psi(refined), found.volume

    def _within_psi(self, refined: local.Refined) -> local.Refined:
        """Without the candidates that have left the limit of the in-plane angle, unless all of a particle's have."""
        if self._options.max_psi_deg >= 180 or self._search is None:
            return refined
        _, _, psi = euler_angles(refined.poses.reshape(-1, 3, 3))
        outside = (np.abs(psi) > self._options.max_psi_deg + PSI_MARGIN_DEG).reshape(refined.score.shape)
        others = (np.isfinite(refined.score) & ~outside).any(axis=1, keepdims=True)
        return replace(refined, score=np.where(outside & others, -np.inf, refined.score))

    def _starts(self, rows: np.ndarray) -> local.Starts:
        """The previous pose of each particle, in every volume."""
        start, k = self._options.start, len(self._spectra)
        assert start is not None
        exact = Rotation.from_matrix(np.asarray(start.poses, float)[rows]).as_matrix()  # orthogonal to the last digit
        poses = np.repeat(exact[:, None], k, axis=1)
        positions = np.asarray(start.positions, float)[rows]
        away = np.maximum(np.linalg.norm(positions, axis=1, keepdims=True), 1e-9)
        positions = np.repeat((positions * np.minimum(1, self._max_shift_px / away))[:, None], k, axis=1)
        volume = np.tile(np.arange(k, dtype=np.int64), (len(rows), 1))
        return local.Starts(poses, positions, volume, np.full(len(rows), k, np.int32))

    def _candidates(self, rows: np.ndarray, f: np.ndarray, c: np.ndarray, inverse: np.ndarray) -> local.Starts:
        assert self._search is not None
        gallery = self._search.gallery
        f, c, inverse = (array[:, : len(gallery.band)] for array in (f, c, inverse))
        found = self._search.candidates(f * (c * inverse), c**2 * inverse, rows)
        k = int(found.count.max())
        reference, shift = found.reference[:, :k], found.shift[:, :k]
        volume = gallery.volume[reference].astype(np.int64)
        return local.Starts(gallery.poses[reference], self._search.shifts_px[shift], volume, found.count)

    def _coarse_search(self) -> Search:
        options, pixel = self._options, self._particles.pixel_A
        coarse = Band.of(self._band.box, self._band.box * pixel / self._coarse_A)
        c, inverse = self._ctf_and_weight(np.concatenate(self._measured))
        mean = (c**2 * inverse).mean(axis=0)[: len(coarse)]
        gallery = Gallery.of(
            self._spectra,
            coarse,
            STEP * self._coarse_A / options.diameter_A,
            mean,
            options.symmetry,
            options.seed,
            options.max_psi_deg,
            threads=options.threads,
        )
        shifts = shift_grid(self._max_shift_px, self._coarse_A / (2 * pixel))
        if options.approximate:
            from .index import Index  # FAISS is optional

            return Index(gallery, shifts)
        return Search(gallery, shifts)

    def _same_rad(self) -> float:
        """Distance within which two candidates are on one hill of the coarsest resolution."""
        return local.COARSE_SAME * self._coarse_A / self._options.diameter_A

    def _same_power(self, spectra: List[Spectrum]) -> List[Spectrum]:
        """Spectra scaled to the power of the first below 40 A: volumes often come with different scales."""
        box_A = self._particles.box * self._particles.pixel_A
        radius = min(max(box_A / SAME_POWER_A, 2.0), self._band.radius)
        powers = [spectrum.power(radius) for spectrum in spectra]
        return [spectra[0]] + [s.scaled(np.sqrt(powers[0] / p)) for s, p in zip(spectra[1:], powers[1:])]

    def _stages(self) -> np.ndarray:
        """Numbers of coefficients of the resolutions that the local search enters one after the other."""
        coarse_A = self._coarse_A
        finest_A, size_A = self._options.max_resolution_A, self._particles.box * self._particles.pixel_A
        resolutions = [finest_A]
        while resolutions[-1] * STAGE < coarse_A:
            resolutions.append(resolutions[-1] * STAGE)
        if resolutions[-1] < coarse_A:
            resolutions.append(coarse_A)
        return np.array([self._band.first(size_A / resolution) for resolution in resolutions[::-1]], np.int64)

    def _usable(self, rows: np.ndarray) -> np.ndarray:
        """Those of the rows whose images are finite and not constant."""
        if not len(rows):  # a file may name optics groups without particles
            return rows
        spread = np.ptp(self._particles.read(rows), axis=(1, 2))
        return rows[np.isfinite(spread) & (spread > 0)]

    def _noise(self, rows: np.ndarray) -> np.ndarray:
        if not len(rows):
            return np.ones(len(self._band))
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

        A first size comes from the power above the noise, the sign from searches with both. The size is then the most
        probable one over all candidates: measured at the best pose only, noise would count as signal.
        """
        rows = self._measured[group]
        if not len(rows):
            return 1.0
        f = self._band.coefficients(self._particles.read(rows))
        c, inverse = self._ctf_and_weight(rows)
        signal = (np.abs(f) ** 2 * inverse - 2).sum()
        size = float(np.sqrt(max(signal / (c**2 * inverse * self._mean_power()).sum(), 1e-12)))
        signs = [(sign, *self._refined(rows, f, sign * size * c, inverse)) for sign in (1, -1)]
        sign, refined, volume = max(signs, key=lambda found: found[1].score.max(axis=1).sum())
        power = self._powers(refined, volume, size**2 * c**2 * inverse)
        return sign * size * most_probable_scale(refined, power, SCALES)

    def _mean_power(self) -> np.ndarray:
        """(m,) mean |projection|^2 of the volumes over all views."""
        sample = Rotation.random(SAMPLED_VIEWS, random_state=0).as_matrix()
        powers: List[np.ndarray] = []
        for spectrum in self._spectra:
            powers.append((np.abs(spectrum.slices(sample, self._band.kx, self._band.ky)) ** 2).mean(axis=0))
        return np.mean(powers, axis=0)

    def _powers(self, refined: local.Refined, volume: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """(n, K) sums of |projection|^2, times weights (n, m), of candidates; 0 if a candidate does not exist."""
        powers = np.zeros(volume.shape)
        for k in range(volume.shape[1]):
            for number, spectrum in enumerate(self._spectra):
                own = np.isfinite(refined.score[:, k]) & (volume[:, k] == number)
                slices = spectrum.slices(refined.poses[own, k], self._band.kx, self._band.ky)
                powers[own, k] = (np.abs(slices) ** 2 * weight[own]).sum(axis=1)
        return powers
