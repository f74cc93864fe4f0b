"""Volumes: read from MRC maps, and brought to the box and the pixel size of the images in Fourier space."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import List, Tuple

import mrcfile
import numpy as np
from scipy import fft

from ..errors import ParticleError
from ..inputs import open_regular

MOST_PX = 2048
MOST_UNEQUAL = 1.01  # sides of a voxel
SAME_PIXEL = 1e-4  # pixel sizes are rounded: 0.01 A over 100 A is no difference
OUTLINE_A = 15.0  # resolution at which the outline of a particle is measured
OUTLINE_SHARE = 0.999  # of the positive density near the centre that counts as the particle


@dataclass(frozen=True)
class Volume:
    """A map.

    Attributes
    ----------
    name : of its file, for messages. values : (N, N, N) float32 [z, y, x], N even, origin at N // 2.
    pixel_A : pixel size.
    """

    name: str
    values: np.ndarray
    pixel_A: float


def read_volume(path: str, pixel_A: float = 0.0) -> Volume:
    """Read a map.

    Parameters
    ----------
    pixel_A : pixel size, if that in the file is not to be used; 0: that in the file.

    Raises
    ------
    ParticleError : it can't be read, is no volume, is empty or has values that are not numbers.
    """
    try:
        with open_regular(path):
            pass
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with mrcfile.open(path, permissive=True) as opened:
                data, stored_A = opened.data, _stored_pixel_A(opened)
                values = None if data is None else np.asarray(data, np.float32)
    except OSError as error:
        raise ParticleError(
            f"{path}: can't be read ({error.strerror or error}): check the name of the volume."
        ) from error
    except (ValueError, TypeError, AttributeError) as error:
        raise ParticleError(f"{path}: is not an MRC map: give the volume as .mrc or .map.") from error
    if values is None or values.ndim != 3 or min(values.shape) < 8:
        raise ParticleError(f"{path}: is not a volume of at least 8 x 8 x 8 voxels: give a map.")
    if max(values.shape) > MOST_PX:
        raise ParticleError(f"{path}: has {max(values.shape)} voxels a side: the largest allowed is {MOST_PX}.")
    return checked_volume(path, values, pixel_A or stored_A)


def checked_volume(name: str, values: np.ndarray, pixel_A: float) -> Volume:
    """A volume (nz, ny, nx), made cubic with even sides; ParticleError if it shows nothing that can be aligned."""
    if not 0.05 <= pixel_A <= 100:
        raise ParticleError(
            f"{name}: its pixel size is {pixel_A:g} A, which can't be: give the pixel size of the volume in A."
        )
    low, high = float(values.min()), float(values.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ParticleError(f"{name}: has voxels that are not numbers (NaN or infinite): write the volume again.")
    if low == high:
        raise ParticleError(f"{name}: is empty (all voxels are {low:g}): give another volume.")
    n = max(values.shape)
    return Volume(name, _resized(values, n + n % 2), pixel_A)


def fitted(volume: Volume, box: int, pixel_A: float) -> Tuple[np.ndarray, List[str]]:
    """The volume with `box` voxels of `pixel_A` a side, box even.

    The density between the voxels is that of the volume's Fourier series, without what is finer than the new pixels can
    show; this is exact for any ratio of the pixel sizes.

    Returns
    -------
    (box, box, box) float32, and a sentence if more than the box had to be changed.
    """
    values, notes = volume.values, []
    if abs(volume.pixel_A / pixel_A - 1) > SAME_PIXEL:
        matrix = _interpolation(len(values), volume.pixel_A, box, pixel_A)
        for _ in range(3):  # along the last axis, which becomes the first
            values = np.moveaxis(values @ matrix.T, -1, 0)
        notes.append(f"{volume.name}: its voxels of {volume.pixel_A:.4g} A are rescaled to {pixel_A:.4g} A.")
    outside = _power_outside(volume.values, box * pixel_A / volume.pixel_A)
    if outside > 0.01:
        notes.append(
            f"{volume.name}: is cropped to the particles' box of {box} pixels, without {100 * outside:.0f} % of its "
            "power."
        )
    return _resized(values, box), notes


def diameter_A(volume: Volume) -> float:
    """Diameter of the sphere around the origin that holds the particle: its outline at low resolution."""
    n = len(volume.values)
    half = fft.rfftn(fft.ifftshift(volume.values))
    f = [np.fft.fftfreq(n)] * 2 + [np.fft.rfftfreq(n)]
    s2 = (f[0][:, None, None] ** 2 + f[1][None, :, None] ** 2 + f[2][None, None, :] ** 2) / volume.pixel_A**2
    smooth = fft.fftshift(fft.irfftn(half * np.exp(-s2 * OUTLINE_A**2 * 2), (n, n, n)))
    axis = np.arange(n) - n // 2
    radius = np.sqrt(axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2)
    density = np.abs(smooth - np.median(smooth))
    density[density < 0.1 * density.max()] = 0
    sums = np.bincount(np.rint(radius).astype(int).ravel(), density.ravel())
    inside = np.cumsum(sums) / sums.sum()
    return float(2 * volume.pixel_A * (np.searchsorted(inside, OUTLINE_SHARE) + 1))


def _stored_pixel_A(opened: mrcfile.mrcfile.MrcFile) -> float:
    """The pixel size in the header; 0 if the voxels are no cubes."""
    sizes = [float(opened.voxel_size[axis]) for axis in "xyz"]
    return sizes[0] if max(sizes) <= min(sizes) * MOST_UNEQUAL else 0.0


def _resized(values: np.ndarray, n: int) -> np.ndarray:
    """(n, n, n): cropped and padded with zeros around the origin, which stays at half of every axis."""
    out = np.zeros((n, n, n), np.float32)
    source, target = [], []
    for size in values.shape:
        start = n // 2 - size // 2
        target.append(slice(max(start, 0), min(start + size, n)))
        source.append(slice(max(-start, 0), min(-start + n, size)))
    out[tuple(target)] = values[tuple(source)]
    return out


def _interpolation(n: int, old_A: float, box: int, new_A: float) -> np.ndarray:
    """(box, n) float32: values at `box` places `new_A` apart of the Fourier series of n values, `old_A` apart."""
    place = (np.arange(box) - box // 2) * (new_A / old_A)
    last = min(n // 2 - 1, int(n * old_A / (2 * new_A)))  # highest frequency
    angle = np.pi / n * (place[:, None] - (np.arange(n) - n // 2)[None, :])
    sine = np.sin(angle)
    near = np.abs(sine) < 1e-9
    kernel = np.where(near, 2 * last + 1, np.sin((2 * last + 1) * angle) / np.where(near, 1, sine)) / n
    kernel[np.abs(place) > n / 2] = 0  # outside of the volume, which the series would repeat
    return kernel.astype(np.float32)


def _power_outside(values: np.ndarray, side: float) -> float:
    """Share of the power of a volume outside of a cube with this side in voxels."""
    n = len(values)
    kept = np.abs(np.arange(n) - n // 2) <= side / 2
    if kept.all():
        return 0.0
    power = values.astype(np.float64) ** 2
    return 1 - float(power[np.ix_(kept, kept, kept)].sum() / power.sum())
