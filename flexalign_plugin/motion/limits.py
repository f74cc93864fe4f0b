"""How finely frames are compared and how far they are searched when the user leaves it to the program.

The resolution of the comparison decides what the pair search costs (the square of it) and where the spectra end. A
finer one than the paper's is kept only for movies that show fine detail. The largest shift has a start value;
`global_alignment` lets it grow where frames find no partner within it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import List, Optional, Tuple

from ..resolution import FINEST_AUTO_A, PIXELS_IN_AUTO

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


def limits(max_res_A: float, max_shift_A: float, patch_A: float, pixel_size_A: float, image: Tuple[int, int]) -> Limits:
    """The limits that the user gave, or automatic ones where they are 0.

    Parameters
    ----------
    max_res_A, max_shift_A : as in `Limits`, or 0. patch_A : size of the patches of the local alignment.
    image : (ny, nx) pixels of the frames.
    """
    resolution, coarser = max_res_A, None
    if not resolution:
        resolution = automatic_resolution(patch_A, pixel_size_A, image)
        usual = min(USUAL_A, patch_A / 4)
        coarser = usual if resolution < usual else None
    return Limits(resolution, max_shift_A or START_SHIFT_A, not max_shift_A, coarser)


def automatic_resolution(patch_A: float, pixel_size_A: float, image: Tuple[int, int]) -> float:
    """Resolution in Angstrom to which frames of `image` (ny, nx) pixels are compared.

    That of the paper, or a finer one for a smaller field of view: its spectra hold fewer coefficients, and more of them
    cost no more than the usual ones of a large field. Coarse pixels and small patches set bounds.
    """
    width_A = math.sqrt(image[0] * image[1]) * pixel_size_A
    wanted = min(max(USUAL_A * width_A / USUAL_WIDTH_A, FINEST_AUTO_A), USUAL_A)
    return max(min(wanted, patch_A / 4), PIXELS_IN_AUTO * pixel_size_A)


def limit_notes(max_res_A: float, max_shift_A: float, used: Limits, searched_A: float) -> List[str]:
    """Sentence about what was chosen automatically, if anything was.

    Parameters
    ----------
    max_res_A, max_shift_A : as for `limits`. searched_A : bound on the shift between consecutive frames at the end.
    """
    chosen = []
    if not max_res_A:
        chosen.append(f"frames were compared to {used.max_res_A:.1f} A")
    if not max_shift_A:
        chosen.append(f"shifts between consecutive frames searched to {searched_A:.0f} A")
    return [f"Automatic limits: {', '.join(chosen)}."] if chosen else []
