"""Power spectrum of a micrograph as an averaged periodogram, and its flattened form, which shows Thon rings."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import List, Optional, Tuple

import numpy as np

from ..backend import Backend

TILE = 384  # size of the spectra, as Scipion's computePSD
OVERLAP = 0.4
# Where the image is large enough, spectra are computed from tiles of at least this length in A, in which the rings of a
# defocus of 2 um are still 3 samples apart at 4 A, and then sampled more coarsely.
TILE_LENGTH_A = 600.0
WIDE_OVERLAP = 0.25  # of these tiles
SECTORS = 12  # directions in which rings are looked for one by one, since astigmatism makes them elliptic
_AXIS_MARGIN = 2  # rows and columns beside the axes, which hold patterns of the camera
# Size and pixel size of RELION's spectra for CTF programs; ctffind resamples micrographs to the same pixel size. With
# a smaller one the tiles would be so small that the Thon rings of a strong defocus fall between the samples.
CTF_SIZE = 512
CTF_PIXEL_A = 1.4


@dataclass(frozen=True)
class FlattenedSpectrum:
    """A power spectrum and its flattened form, which shows Thon rings.

    Attributes
    ----------
    power : (tile, tile) float32, from `power_spectrum`.
    image : (tile, tile) float32, decimal logarithm without the smooth radial background.
    profile : (tile // 2,) float64, radial average of the logarithm without the same background.
    halves : `HalfSpectra` of the same image; None if it is too small for them.
    """

    power: np.ndarray
    image: np.ndarray
    profile: np.ndarray
    halves: Optional[HalfSpectra] = None


@dataclass(frozen=True)
class HalfSpectra:
    """Averages over sectors of two power spectra of one image, each of every other column of tiles. Their noise is
    independent, their Thon rings are the same.

    Attributes
    ----------
    profiles : (2, SECTORS, n) float64, mean of the decimal logarithm in each sector at a radius of 0, 1, ...
        samples; NaN where a sector has none.
    step_per_A : distance between samples in 1/A.
    """

    profiles: np.ndarray
    step_per_A: float


@dataclass(frozen=True)
class AmplitudeSpectrum:
    """What CTF programs read instead of a micrograph.

    Attributes
    ----------
    image : (n, n) float32 amplitudes, frequency zero at [n // 2, n // 2].
    pixel_size_A : pixel size of a real image with this spectrum: one pixel is 1 / (n pixel_size_A) in frequency.
    """

    image: np.ndarray
    pixel_size_A: float

    @classmethod
    def of_powers(cls, powers: List[Tuple[np.ndarray, float]]) -> AmplitudeSpectrum:
        """The root of the sum of power spectra of one size, as from `ctf_power_spectrum`."""
        return cls(np.sqrt(np.sum([power for power, _ in powers], axis=0)), powers[0][1])


@dataclass(frozen=True)
class Spectra:
    """Spectra of the mean of the frames with and without motion correction, unbinned and uncropped."""

    corrected: FlattenedSpectrum
    uncorrected: FlattenedSpectrum


def spectra_of(corrected: np.ndarray, uncorrected: np.ndarray, pixel_size_A: float, backend: Backend) -> Spectra:
    """Spectra of two images (ny, nx) float32 with the same pixel size."""
    return Spectra(*(_flattened_spectrum(image, pixel_size_A, backend) for image in (corrected, uncorrected)))


def _flattened_spectrum(image: np.ndarray, pixel_size_A: float, backend: Backend) -> FlattenedSpectrum:
    tile = wide_tile(image.shape, pixel_size_A)
    if tile is None:
        power = power_spectrum(image, backend)
        return FlattenedSpectrum(power, *flattened(power))
    rows, columns = (_starts(n, tile, WIDE_OVERLAP) for n in image.shape)
    sums = [backend.tile_power(image, rows, every_other, _hann(tile)) for every_other in (columns[::2], columns[1::2])]
    halves = HalfSpectra(np.stack([_sector_averages(power) for power in sums]), 1 / (tile * pixel_size_A))
    power = _normalised(_coarser(sums[0] + sums[1], tile // TILE), len(rows) * len(columns), tile)
    return FlattenedSpectrum(power, *flattened(power), halves)


def wide_tile(shape: Tuple[int, ...], pixel_size_A: float) -> Optional[int]:
    """Side of the tiles for spectra with halves: `TILE` times a power of two; None if the image is too small."""
    tile = 2 * TILE
    while tile * pixel_size_A < TILE_LENGTH_A and 3 * tile <= min(shape):
        tile *= 2
    # In an image of 1.5 tiles, the noise of neighbouring tiles has a correlation of 0.03.
    return tile if 3 * tile <= 2 * min(shape) else None


def power_spectrum(image: np.ndarray, backend: Backend, tile: int = TILE, overlap: float = OVERLAP) -> np.ndarray:
    """Averaged periodogram of overlapping tiles, each without its mean and tapered with a Hann window.

    Parameters
    ----------
    image : (ny, nx) float32.
    tile : side of the tiles in pixels; reduced to an even number for a smaller image.
    overlap : smallest fraction by which neighbouring tiles overlap; the tiles reach all edges.

    Returns
    -------
    (tile, tile) float32, frequency zero at [tile // 2, tile // 2]; for white noise it is the variance everywhere.
    """
    tile = min(tile, *(n // 2 * 2 for n in image.shape))
    rows, columns = (_starts(n, tile, overlap) for n in image.shape)
    return _normalised(backend.tile_power(image, rows, columns, _hann(tile)), len(rows) * len(columns), tile)


def _hann(n: int) -> np.ndarray:
    window: np.ndarray = 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(n) + 0.5) / n)
    return window


def _normalised(total: np.ndarray, n_tiles: int, tile: int) -> np.ndarray:
    """The sum of the powers of tiles of this size as a spectrum in which white noise has the value of its variance."""
    return np.fft.fftshift(total / (n_tiles * np.sum(_hann(tile) ** 2) ** 2)).astype(np.float32)


def _coarser(power: np.ndarray, times: int) -> np.ndarray:
    """A spectrum, frequency zero at [0, 0], with fewer samples: (n, n) to (n // times, n // times), `times` a power of
    two. The samples are smoothed with 1 4 6 4 1, which brings the taper's autocorrelation, at a quarter of the tile, to
    that of a Hann taper of half the length: 0.66 cos(pi / 4)^4 = 0.165 instead of 0.167."""
    while times > 1:
        for _ in range(2):  # rows, then columns
            one, two = (np.roll(power, d, 0) + np.roll(power, -d, 0) for d in (1, 2))
            power = ((6 * power + 4 * one + two) / 16)[::2].T
        times //= 2
    return power


def _sector_averages(power: np.ndarray) -> np.ndarray:
    """(SECTORS, n // 2) mean of the logarithm of a spectrum (n, n), frequency zero at [0, 0], in each sector and
    at each radius."""
    n = len(power)
    where, count = _sectors(n)
    # The other half plane holds the same values.
    logs = np.log10(np.maximum(power[:, : n // 2], np.finfo(np.float32).tiny)).astype(np.float32)
    sums = np.bincount(where.ravel(), logs.ravel(), SECTORS * (n // 2) + 1)[:-1]
    with np.errstate(invalid="ignore"):
        return (sums / count).reshape(SECTORS, n // 2)


@lru_cache(maxsize=2)
def _sectors(n: int) -> Tuple[np.ndarray, np.ndarray]:
    """For each sample of a half plane (n, n // 2) its place among sectors and radii, or a last one for samples that
    are left out; and the number of samples at each place but the last."""
    ky, kx = (n * np.fft.fftfreq(n))[:, None], np.arange(n // 2)[None, :]
    distance = np.rint(np.hypot(ky, kx)).astype(np.int32)
    sector = np.minimum((np.arctan2(ky, kx) / np.pi + 0.5) * SECTORS, SECTORS - 1).astype(np.int32)
    used = (abs(ky) > _AXIS_MARGIN) & (kx > _AXIS_MARGIN) & (distance < n // 2)
    where = np.where(used, sector * (n // 2) + distance, SECTORS * (n // 2))
    return where, np.bincount(where.ravel(), minlength=SECTORS * (n // 2) + 1)[:-1]


def ctf_power_spectrum(image: np.ndarray, pixel_size_A: float, backend: Backend) -> Tuple[np.ndarray, float]:
    """Power spectrum of an image (ny, nx) for CTF programs, up to the frequency 1 / (2 `CTF_PIXEL_A`) or Nyquist.

    Returns
    -------
    (n, n) float32, frequency zero at [n // 2, n // 2], and its pixel size in Angstrom, close to `CTF_PIXEL_A` unless
    the image's is larger. n is `CTF_SIZE`, and less for an image that is smaller than n of these pixels.
    """
    shrink = max(CTF_PIXEL_A / pixel_size_A, 1.0)
    whole = power_spectrum(image, backend, round(CTF_SIZE * shrink / 2) * 2)
    tile = len(whole)
    size = min(round(tile / shrink / 2) * 2, CTF_SIZE)
    first = (tile - size) // 2
    return whole[first : first + size, first : first + size], pixel_size_A * tile / size


def radial_average(spectrum: np.ndarray) -> np.ndarray:
    """Mean over circles about the centre: (tile // 2,) for radii 0, 1, ... pixels.

    The two axes are excluded (except at radius 0), because they contain row and column patterns of the camera.
    """
    n = len(spectrum)
    distance = radius(n)
    off_axis = np.ones((n, n), bool)
    off_axis[n // 2, :] = off_axis[:, n // 2] = False
    off_axis[n // 2, n // 2] = True
    bins = np.rint(distance[off_axis]).astype(int)
    count = np.bincount(bins)[: n // 2]
    return np.bincount(bins, weights=spectrum[off_axis])[: n // 2] / np.maximum(count, 1)


def flattened(spectrum: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Decimal logarithm of a spectrum without its smooth radial background, which leaves the Thon rings.

    Returns
    -------
    image : (tile, tile) float32, as `spectrum`.
    profile : (tile // 2,) float64, radial average of the logarithm without the same background.
    """
    n = len(spectrum)
    positive = spectrum[spectrum > 0]
    floor = float(positive.min()) if positive.size else 1.0
    log_power = np.log10(np.maximum(spectrum, floor))
    log_power[n // 2, n // 2] = log_power[n // 2, n // 2 + 1]  # the tiles' mean was removed
    profile = radial_average(log_power)
    background = _smooth(profile)
    image = log_power - np.interp(radius(n), np.arange(len(background)), background)
    return image.astype(np.float32), profile - background


def _starts(length: int, tile: int, overlap: float) -> np.ndarray:
    count = int(np.ceil((length - tile) / (tile * (1 - overlap)))) + 1
    return np.rint(np.linspace(0, length - tile, count)).astype(int)


def radius(n: int) -> np.ndarray:
    """(n, n) float64, distance of each pixel from the centre."""
    squared = (np.arange(n) - n // 2) ** 2
    return np.sqrt(squared[:, None] + squared)


def _smooth(profile: np.ndarray) -> np.ndarray:
    """Local straight-line fit with a Gaussian window whose width grows with the radius.

    The window is wider than the distance between Thon rings, which decreases with the radius, and narrow at low
    frequencies, where the spectrum falls steeply.
    """
    k = np.arange(len(profile), dtype=float)
    width = np.maximum(1.5, 0.2 * k)
    weights = np.exp(-0.5 * ((k[None, :] - k[:, None]) / width[:, None]) ** 2)
    weights[:, :2] = 0.0  # the lowest frequencies are dominated by the taper
    offset = k[None, :] - k[:, None]
    m0, m1, m2 = (np.sum(weights * offset**p, axis=1) for p in (0, 1, 2))
    v0, v1 = (np.sum(weights * offset**p * profile, axis=1) for p in (0, 1))
    determinant = m0 * m2 - m1**2
    safe = determinant > 1e-9 * m0 * np.maximum(m2, 1e-30)
    return np.where(safe, (m2 * v0 - m1 * v1) / np.where(safe, determinant, 1.0), v0 / np.maximum(m0, 1e-30))
