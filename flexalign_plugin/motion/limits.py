"""How finely frames are compared and how far they are searched when the user leaves it to the program.

The resolution of the comparison decides what the pair search costs (the square of it) and where the spectra end. What
the movie really shows below that is measured on its own spectra later (`refine.signal_end`). The largest shift has a
start value; `global_alignment` lets it grow where frames find no partner within it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import List, Tuple

from ..settings import FINEST_AUTO_A, PIXELS_IN_AUTO, Settings

USUAL_A = 30.0  # of the paper; frames of USUAL_WIDTH_A are compared to it
USUAL_WIDTH_A = 4096.0
START_SHIFT_A = 50.0


@dataclass(frozen=True)
class Limits:
    """Limits of one alignment.

    Attributes
    ----------
    max_res_A : resolution of the comparison (half height of the low-pass).
    max_shift_A : bound on the shift between consecutive frames.
    growing : the bound is only where the search starts.
    """

    max_res_A: float
    max_shift_A: float
    growing: bool = False


def limits(settings: Settings, image: Tuple[int, int]) -> Limits:
    """The limits that the settings give, or automatic ones where they are 0, for frames of `image` (ny, nx) pixels."""
    return Limits(
        settings.max_res_for_correlation or automatic_resolution(settings, image),
        settings.max_shift or START_SHIFT_A,
        growing=not settings.max_shift,
    )


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
