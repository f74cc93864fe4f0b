"""How finely frames may be compared when the user leaves it to the program: bounds of the automatic resolution."""

from __future__ import annotations

FINEST_AUTO_A = 20.0
PIXELS_IN_AUTO = 3.0


def finest_automatic_resolution_A(pixel_size_A: float) -> float:
    """The finest resolution that frames with such pixels are compared to."""
    return max(FINEST_AUTO_A, PIXELS_IN_AUTO * pixel_size_A)
