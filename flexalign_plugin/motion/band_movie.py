"""The input of the alignment: the cropped spectra of a movie's frames, on a device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple

from ..backend import Backend, OnDevice
from ..band import Band


@dataclass(frozen=True)
class BandMovie:
    """Spectra of the frames to align, with the sizes needed to interpret them.

    Attributes
    ----------
    backend : the device that holds the spectra.
    spectra : (1, n, by, bx // 2 + 1) complex64 on the device, from `Backend.spectra`.
    band : how the spectra were cropped.
    n : number of frames.
    frame_shape : (ny, nx) of the unbinned frame.
    pixel_size_A : pixel size of the unbinned frame, A.
    """

    backend: Backend
    spectra: OnDevice
    band: Band
    n: int
    frame_shape: Tuple[int, int]
    pixel_size_A: float

    @property
    def band_pixel_A(self) -> float:
        """Pixel size of the cropped image in A, mean of both axes."""
        return self.pixel_size_A * float(self.band.scale.mean())

    @property
    def offset_px(self) -> Tuple[int, int]:
        """(y, x) of the transformed part within the frame."""
        (ny, nx), (fy, fx) = self.frame_shape, self.band.full
        return (ny - fy) // 2, (nx - fx) // 2
