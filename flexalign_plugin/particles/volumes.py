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
MOST_PADDED = 1.25  # sides of a map may be enlarged up to this factor to meet a pixel size
EXACT = 1e-4  # relative error of a pixel size that is as good as none: 0.02 A over 200 A
MOST_UNEQUAL = 1.01  # sides of a voxel
SAME_PIXEL = 1e-3  # nominal pixel sizes are rounded: no message about smaller differences
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

    The map is first enlarged with zeros to a side that is a whole even number of the new pixels, as nearly as possible;
    then its transform is cropped or padded to that number, and the result cropped or padded to the box.

    Returns
    -------
    (box, box, box) float32, and a sentence if more than the box had to be changed.
    """
    values, notes = volume.values, []
    ratio = volume.pixel_A / pixel_A
    if abs(ratio - 1) > EXACT:
        n = len(values)
        sides = np.arange(n, max(int(MOST_PADDED * n), n + 16), 2)
        wanted = 2 * np.rint(sides * ratio / 2)
        error = np.abs(wanted / (sides * ratio) - 1)
        best = int(np.argmax(error < EXACT)) if (error < EXACT).any() else int(np.argmin(error))
        values = _resampled(_resized(values, int(sides[best])), int(wanted[best]))
        if abs(ratio - 1) > SAME_PIXEL:
            notes.append(
                f"{volume.name}: its voxels of {volume.pixel_A:.4g} A are rescaled to the particles' {pixel_A:.4g} A."
            )
    outside = _power_outside(values, box)
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


def _resampled(values: np.ndarray, n: int) -> np.ndarray:
    """(n, n, n) of the same side in A: the transform of (m, m, m) cropped or padded, both even."""
    m = len(values)
    half = fft.rfftn(fft.ifftshift(values))
    c = min(m, n) // 2 - 1  # without Nyquist, whose two halves are one coefficient
    rows = np.arange(-c, c + 1)
    out = np.zeros((n, n, n // 2 + 1), np.complex64)
    out[np.ix_(rows, rows, np.arange(c + 1))] = half[np.ix_(rows, rows, np.arange(c + 1))]
    return np.asarray(fft.fftshift(fft.irfftn(out, (n, n, n))) * (n / m) ** 3, np.float32)


def _power_outside(values: np.ndarray, box: int) -> float:
    if len(values) <= box:
        return 0.0
    total = float((values.astype(np.float64) ** 2).sum())
    return 1 - float((_resized(values, box).astype(np.float64) ** 2).sum()) / total
