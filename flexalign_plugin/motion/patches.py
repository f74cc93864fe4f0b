"""Positions of the patches of the local alignment (Strelak 2020, sections 2.1.2 and 4.2.4)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Optional, Tuple

import numpy as np

from ..band import fft_size_above
from .band_movie import BandMovie

MIN_PATCHES = 2
MIN_ROOM = 1.25  # patch sizes; with less room two patches would show nearly the same area


@dataclass(frozen=True)
class PatchLayout:
    """Patches of equal size on a regular grid. The outer ones are flush with the edges of the area all frames share.

    Attributes
    ----------
    counts : (n_y, n_x).
    corners : (p, 2) int, first row and column of each patch in the band image.
    size : (py, px) even, band pixels.
    centres_px : (p, 2) float64 (y, x), unbinned pixels of the full frame.
    """

    counts: Tuple[int, int]
    corners: np.ndarray
    size: Tuple[int, int]
    centres_px: np.ndarray


def lay_patches(
    movie: BandMovie, shifts_px: np.ndarray, patch_A: float, counts: Optional[Tuple[int, int]] = None
) -> Optional[PatchLayout]:
    """Patches for frames with these global shifts, or None if fewer than two fit along an axis.

    Parameters
    ----------
    shifts_px : (n, 2) global shifts, unbinned pixels.
    patch_A : requested patch size; the actual one is FFT-friendly and at least as large.
    counts : (n_y, n_x), or None for as many as cover the frame without gaps.
    """
    band = movie.band
    firsts, sizes, numbers = [], [], []
    for axis in (0, 1):
        scale = band.scale[axis]
        low = max(0, math.ceil(shifts_px[:, axis].max() / scale))
        high = band.size[axis] + min(0, math.floor(shifts_px[:, axis].min() / scale))
        size = fft_size_above(patch_A / movie.pixel_size_A / scale)
        number = counts[axis] if counts else math.ceil(band.full[axis] * movie.pixel_size_A / patch_A)
        if number < MIN_PATCHES or high - low < size * MIN_ROOM:
            return None
        firsts.append(np.round(np.linspace(low, high - size, number)).astype(int))
        sizes.append(size)
        numbers.append(number)
    corners = np.stack(np.meshgrid(*firsts, indexing="ij"), axis=-1).reshape(-1, 2)
    centres = np.array(movie.offset_px) + (corners + (np.array(sizes) - 1) / 2) * band.scale
    return PatchLayout((numbers[0], numbers[1]), corners, (sizes[0], sizes[1]), centres)
