"""How finely frames are compared and how far they are searched when the user leaves it to the program.

The resolution of the comparison decides what the pair search costs (the square of it) and where the spectra end. A
finer one than the paper's is kept only for movies that show fine detail. The largest shift has a start value;
`global_alignment` lets it grow where frames find no partner within it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import List, Optional, Tuple

from ..settings import FINEST_AUTO_A, PIXELS_IN_AUTO, Settings

USUAL_A = 30.0  # of the paper; frames of USUAL_WIDTH_A are compared to it
USUAL_WIDTH_A = 4096.0
FINE_DETAIL_A = 12.0  # signal to here is the sign that finer comparison pays; at 30 A spectra end at 9 A
START_SHIFT_A = 50.0


@dataclass(frozen=True)
class Limits:
    """Limits of one alignment.

    Attributes
    ----------
    max_res_A : resolution of the comparison (half height of the low-pass).
    max_shift_A : bound on the shift between consecutive frames.
    growing : the bound on the shift is only where the search starts.
    coarser_A : resolution to take instead for a movie without fine detail; None to keep it.
    """

    max_res_A: float
    max_shift_A: float
    growing: bool = False
    coarser_A: Optional[float] = None


def limits(settings: Settings, image: Tuple[int, int]) -> Limits:
    """The limits that the settings give, or automatic ones where they are 0, for frames of `image` (ny, nx) pixels."""
    resolution, coarser = settings.max_res_for_correlation, None
    if not resolution:
        resolution = automatic_resolution(settings, image)
        usual = min(USUAL_A, settings.min_local_res / 4)
        coarser = usual if resolution < usual else None
    return Limits(resolution, settings.max_shift or START_SHIFT_A, not settings.max_shift, coarser)


def automatic_resolution(settings: Settings, image: Tuple[int, int]) -> float:
    """Resolution in Angstrom to which frames of `image` (ny, nx) pixels are compared.

    That of the paper, or a finer one for a smaller field of view: its spectra hold fewer coefficients, and more of them
    cost no more than the usual ones of a large field. Coarse pixels and small patches set bounds.
    """
    width_A = math.sqrt(image[0] * image[1]) * settings.pixel_size
    wanted = min(max(USUAL_A * width_A / USUAL_WIDTH_A, FINEST_AUTO_A), USUAL_A)
    return max(min(wanted, settings.min_local_res / 4), PIXELS_IN_AUTO * settings.pixel_size)


def limit_notes(settings: Settings, used: Limits, max_shift_A: float) -> List[str]:
    """Sentence about what was chosen, if anything was; `max_shift_A` is what the largest shift grew to."""
    chosen = []
    if not settings.max_res_for_correlation:
        chosen.append(f"frames were compared to {used.max_res_A:.1f} A")
    if not settings.max_shift:
        chosen.append(f"shifts between consecutive frames searched to {max_shift_A:.0f} A")
    return [f"Automatic limits: {', '.join(chosen)}."] if chosen else []
