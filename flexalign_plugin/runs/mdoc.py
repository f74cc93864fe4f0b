"""Reads and writes SerialEM's `.mdoc`, which describes the tilts of a series. Lines that are not used are kept as they
are.

The format is simple enough for a parser of our own; the existing package would add pandas and pydantic as dependencies.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Dict, List, Optional, Sequence

from ..errors import MovieError
from ..inputs import cut, read_text

SECTION = re.compile(r"\[\s*ZValue\s*=\s*(\d+)\s*\]", re.IGNORECASE)
MAX_DIGITS = 9  # of the number of a section
DATE_FORMATS = ("%d-%b-%y %H:%M:%S", "%d-%b-%Y %H:%M:%S")


@dataclass(frozen=True)
class Tilt:
    """One section.

    Attributes
    ----------
    z : number of the section. angle : tilt angle in degrees.
    movie : name of the movie's file without its folder; empty if there is none.
    dose : of this tilt in e/A^2; None if unknown. prior_dose : dose of the specimen before this tilt in e/A^2.
    time : of the recording. lines : of the section, without its heading.
    """

    z: int
    angle: float
    movie: str
    dose: Optional[float]
    prior_dose: Optional[float]
    time: Optional[datetime]
    lines: Sequence[str]


@dataclass(frozen=True)
class Mdoc:
    """The lines before the first tilt, and the tilts in the order of the file."""

    head: Sequence[str]
    tilts: Sequence[Tilt]


def read_mdoc(path: str) -> Mdoc:
    """Read the `.mdoc` of a tilt series.

    Raises
    ------
    MovieError : it can't be read, or does not describe a tilt series.
    """
    try:
        lines = read_text(path, errors="replace").splitlines()
    except OSError as error:
        raise MovieError(f"{path}: can't be read ({error.strerror}): check the name.") from error
    starts = [i for i, line in enumerate(lines) if SECTION.match(line.strip())]
    if not starts:
        raise MovieError(f"{path}: contains no section [ZValue = ...]: give the .mdoc of a tilt series.")
    ends = starts[1:] + [len(lines)]
    return Mdoc(lines[: starts[0]], [_tilt(path, lines[start:end]) for start, end in zip(starts, ends)])


def _tilt(path: str, lines: List[str]) -> Tilt:
    match = SECTION.match(lines[0].strip())
    assert match is not None
    if len(match[1]) > MAX_DIGITS:
        raise MovieError(f"{path}: section [ZValue = {cut(match[1], 20)}] has an impossible number: correct the file.")
    pairs = (line.split("=", 1) for line in lines[1:] if "=" in line)
    values: Dict[str, str] = {key.strip().lower(): value.strip() for key, value in pairs}
    angle = _number(values.get("tiltangle"))
    if angle is None:
        raise MovieError(f"{path}: section {match[1]} has no TiltAngle: give the .mdoc of a tilt series.")
    dose = _number(values.get("exposuredose"))
    return Tilt(
        z=int(match[1]),
        angle=angle,
        movie=re.split(r"[/\\]", values.get("subframepath", ""))[-1],
        dose=dose if dose is not None and dose > 0 else None,  # 0 if the dose is not calibrated in SerialEM
        prior_dose=_number(values.get("priorrecorddose")),
        time=_time(values.get("datetime", "")),
        lines=lines[1:],
    )


def _number(text: Optional[str]) -> Optional[float]:
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _time(text: str) -> Optional[datetime]:
    for form in DATE_FORMATS:
        try:
            return datetime.strptime(" ".join(text.split()), form)
        except ValueError:
            continue
    return None


def prior_doses(tilts: Sequence[Tilt]) -> List[Optional[float]]:
    """Dose in e/A^2 that the specimen had received before each tilt; None where it is unknown.

    It is taken from the file if stated there for every tilt, else it is the sum over the tilts recorded before: ordered
    by time or, if the time of any tilt is unknown, as in the file.
    """
    if all(tilt.prior_dose is not None for tilt in tilts):
        return [tilt.prior_dose for tilt in tilts]
    doses = [tilt.dose for tilt in tilts]
    if any(dose is None for dose in doses):
        return [None] * len(tilts)
    order = list(range(len(tilts)))
    if all(tilt.time is not None for tilt in tilts):
        order.sort(key=lambda i: (tilts[i].time, i))
    prior: List[Optional[float]] = [0.0] * len(tilts)
    before = 0.0
    for i in order:
        prior[i] = before
        before += doses[i] or 0.0
    return prior


def mdoc_text(mdoc: Mdoc, tilts: Sequence[Tilt], image: str, pixel_size_A: float, size: Sequence[int]) -> str:
    """The `.mdoc` of a stack of these tilts.

    Parameters
    ----------
    tilts : in the order of the stack. image : path of the stack. size : (nx, ny) of an image in pixels.
    """
    spacing = {"pixelspacing": f"PixelSpacing = {pixel_size_A:g}"}
    whole = {**spacing, "imagefile": f"ImageFile = {os.path.basename(image)}"}
    whole["imagesize"] = f"ImageSize = {size[0]} {size[1]}"
    lines = [_replaced(line, whole) for line in mdoc.head]
    for z, tilt in enumerate(tilts):
        lines += [f"[ZValue = {z}]"] + [_replaced(line, spacing) for line in tilt.lines]
        if lines[-1].strip():
            lines.append("")
    return "\n".join(lines).rstrip("\n") + "\n"


def _replaced(line: str, new: Dict[str, str]) -> str:
    return new.get(line.split("=", 1)[0].strip().lower(), line) if "=" in line else line
