"""Automatic resolution of the comparison and automatic largest shift.

The resolution determines the cost of the pair search, which grows with its square, and where the spectra end. A finer
resolution than the paper's is kept only for movies that show fine detail. The largest shift has a start value;
`global_alignment` increases it if frames cannot be aligned within it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import List, Optional, Tuple

from ..resolution import FINEST_AUTO_A, PIXELS_IN_AUTO

USUAL_A = 30.0  # resolution of the paper, for frames of USUAL_WIDTH_A
USUAL_WIDTH_A = 4096.0
FINE_DETAIL_A = 12.0  # movies with signal to this resolution are compared more finely; at 30 A spectra end at 9 A
START_SHIFT_A = 50.0


@dataclass(frozen=True)
class Limits:
    """Limits of one alignment.

    Attributes
    ----------
    max_res_A : resolution of the comparison (half height of the low-pass).
    max_shift_A : bound on the shift between consecutive frames.
    growing : whether `max_shift_A` may be increased.
    coarser_A : resolution for a movie without fine detail; None: always `max_res_A`.
    """

    max_res_A: float
    max_shift_A: float
    growing: bool = False
    coarser_A: Optional[float] = None


def limits(max_res_A: float, max_shift_A: float, patch_A: float, pixel_size_A: float, image: Tuple[int, int]) -> Limits:
    """The user's limits; those that are 0 are replaced by automatic ones.

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

    It is the paper's 30 A for a field of view of 4096 A and proportionally finer, down to FINEST_AUTO_A, for a smaller
    one: its spectra contain fewer coefficients, so a finer comparison costs no more. It is at most a quarter of a patch
    and never finer than PIXELS_IN_AUTO pixels.
    """
    width_A = math.sqrt(image[0] * image[1]) * pixel_size_A
    wanted = min(max(USUAL_A * width_A / USUAL_WIDTH_A, FINEST_AUTO_A), USUAL_A)
    return max(min(wanted, patch_A / 4), PIXELS_IN_AUTO * pixel_size_A)


def limit_notes(max_res_A: float, max_shift_A: float, used: Limits, searched_A: float) -> List[str]:
    """Sentence about the limits that were chosen automatically; empty if there are none.

    Parameters
    ----------
    max_res_A, max_shift_A : as for `limits`. searched_A : final bound on the shift between consecutive frames.
    """
    chosen = []
    if not max_res_A:
        chosen.append(f"frames were compared up to a resolution of {used.max_res_A:.1f} A")
    if not max_shift_A:
        chosen.append(f"shifts between consecutive frames were searched up to {searched_A:.0f} A")
    return [f"Automatic limits: {'; '.join(chosen)}."] if chosen else []
