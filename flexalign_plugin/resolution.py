"""Bounds of the automatic resolution of the comparison of frames."""

from __future__ import annotations

FINEST_AUTO_A = 20.0
PIXELS_IN_AUTO = 3.0  # smallest number of pixels in the automatic resolution


def finest_automatic_resolution_A(pixel_size_A: float) -> float:
    """The finest automatic resolution for frames with this pixel size."""
    return max(FINEST_AUTO_A, PIXELS_IN_AUTO * pixel_size_A)
