"""Doses of frames that differ, written as in SerialEM's FrameDosesAndNumber: dose and number of frames in turn."""

from __future__ import annotations

import math
from typing import List, Sequence, Tuple

from .errors import SettingsError

Pairs = List[Tuple[float, int]]
MOST_DOSE, MOST_FRAMES = 10_000.0, 100_000


def parse_doses(text: str) -> Pairs:
    """[(dose in e/A^2, number of frames), ...].

    Raises
    ------
    SettingsError : it is no such list, or a dose is negative or not finite.
    """
    words = text.replace(",", " ").split()
    pairs: Pairs = []
    try:
        for dose, count in zip(words[::2], words[1::2]):
            pairs.append((float(dose), int(count)))
    except ValueError:
        pairs = []
    fine = all(math.isfinite(dose) and 0 <= dose <= MOST_DOSE and 0 < count <= MOST_FRAMES for dose, count in pairs)
    if not pairs or len(words) % 2 or not fine:
        raise SettingsError(
            f"Doses of the frames are {text!r}: give a dose in e/A^2 and a number of frames in turn, for example "
            "'0.5 10 1.2 30'."
        )
    return pairs


def doses_text(pairs: Sequence[Tuple[float, int]]) -> str:
    """As `parse_doses` reads it; pairs without frames are left out."""
    return " ".join(f"{dose:.6g} {count}" for dose, count in pairs if count)


def each_dose(pairs: Sequence[Tuple[float, int]]) -> List[float]:
    """Dose of each frame."""
    return [dose for dose, count in pairs for _ in range(count)]
