"""A movie as the alignment sees it: the cropped spectra of its frames, on a device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Tuple

from ..band import Band


@dataclass(frozen=True)
class BandMovie:
    """Spectra of the frames to align and what is needed to read them.

    Attributes
    ----------
    backend : `kernels.backend.Backend` that holds the spectra.
    spectra : (1, n, by, bx // 2 + 1), opaque.
    band : how the spectra were cropped.
    n : frames.
    frame_shape : (ny, nx) of the unbinned frame.
    pixel_size_A : of the unbinned frame.
    """

    backend: Any
    spectra: Any
    band: Band
    n: int
    frame_shape: Tuple[int, int]
    pixel_size_A: float

    @property
    def band_pixel_A(self) -> float:
        return self.pixel_size_A * float(self.band.scale.mean())

    @property
    def offset_px(self) -> Tuple[int, int]:
        """(y, x) of the transformed part within the frame."""
        (ny, nx), (fy, fx) = self.frame_shape, self.band.full
        return (ny - fy) // 2, (nx - fx) // 2
