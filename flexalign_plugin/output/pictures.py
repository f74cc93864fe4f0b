"""Grey-scale pictures and PNG files.

In every picture and plot of this package row 0 of the image is at the top and y increases downwards, as in Scipion's
own viewers. Viewers with the origin at the lower left, such as IMOD, show the image upside down.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from ..correction.power_spectra import radius
from ..errors import ResultError
from ..inputs import open_regular

THUMBNAIL_SIZE = 512
_PNG_COMPRESSION = 6
MAX_PIXELS = 4_000_000  # of a picture that is read; the largest that we write has about 1,000,000
# What Pillow raises for damaged files: SyntaxError for broken chunks, struct.error for short ones.
PICTURE_ERRORS = (OSError, ValueError, SyntaxError, struct.error, zlib.error, Image.DecompressionBombError)


def thumbnail(image: np.ndarray, size: int = THUMBNAIL_SIZE) -> np.ndarray:
    """Small picture of a micrograph, smoothed and scaled so that particles and ice are visible.

    Parameters
    ----------
    image : (ny, nx) float32.
    size : longest side of the result in pixels; smaller images are not enlarged.

    Returns
    -------
    (my, mx) uint8.
    """
    ny, nx = image.shape
    scale = min(1.0, size / max(ny, nx))
    small = Image.fromarray(np.ascontiguousarray(image, np.float32)).resize(
        (max(1, round(nx * scale)), max(1, round(ny * scale))), Image.Resampling.BOX
    )
    smooth = gaussian_filter(np.asarray(small), 1.0)
    low, high = np.percentile(smooth, (0.5, 99.5))
    return to_grey(smooth, low, high)


def to_grey(image: np.ndarray, low: float, high: float) -> np.ndarray:
    """`image` as uint8, black at `low` and below, white at `high` and above; a flat image is mid-grey."""
    if not high > low:
        return np.full(image.shape, 128, np.uint8)
    return np.rint(np.clip((image - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def spectra(corrected: np.ndarray, uncorrected: np.ndarray) -> np.ndarray:
    """Picture of two flattened spectra: left half from the corrected, right half from the uncorrected, uint8.

    Both halves have the same grey scale, so that their rings can be compared.
    """
    n = corrected.shape[1]
    image = np.where(np.arange(n) < n // 2, gaussian_filter(corrected, 0.8), gaussian_filter(uncorrected, 0.8))
    ring_zone = (radius(n) > 0.06 * n) & (radius(n) < 0.45 * n)
    low, high = np.percentile(image[ring_zone], (1, 99.7))
    return np.rint(np.clip((image - low) / max(high - low, 1e-9), 0, 1) * 255).astype(np.uint8)


def read_png(path: str) -> Image.Image:
    """A picture that was written before, in grey or colour.

    Raises
    ------
    ResultError : it can't be read, is not a PNG file, or has more pixels than any picture that we write.
    """
    try:
        # Only as PNG, whatever the file says it is: Pillow would start Ghostscript for an EPS file.
        with open_regular(path) as file, Image.open(file, formats=("PNG",)) as picture:
            nx, ny = picture.size
            if nx * ny > MAX_PIXELS:
                raise ValueError(f"it has {nx} x {ny} pixels")
            return picture.convert("L" if picture.mode in ("1", "L", "I", "F") else "RGB")
    except PICTURE_ERRORS as error:
        raise ResultError(f"{path}: is not a PNG picture of FlexAlign ({error}).") from error


def write_png(path: str, pixels: np.ndarray) -> None:
    """Write (ny, nx) grey or (ny, nx, 3) colour uint8 pixels; no time stamp, no program name."""
    Image.fromarray(np.ascontiguousarray(pixels)).save(path, format="PNG", compress_level=_PNG_COMPRESSION)
