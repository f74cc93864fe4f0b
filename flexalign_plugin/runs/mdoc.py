"""Reads and writes SerialEM's `.mdoc`, which describes the tilts of a series. Lines that are not used are kept as they
are.

Three kinds describe tilts: `[ZValue = n]` sections, each with a movie (saved with the stack of tilts); `[FrameSet = n]`
sections, each with a movie (saved with the frames); and one `[FrameSet]` with a movie that holds all tilts, of which
`[ZValue]` sections name the frames (`FrameTSStartEndFrames`).

The format is simple enough for a parser of our own; the existing package would add pandas and pydantic as dependencies.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Dict, List, Optional, Sequence, Tuple

from ..errors import MovieError, SettingsError
from ..frame_doses import Pairs, parse_doses
from ..inputs import cut, read_text

SECTION = re.compile(r"\[\s*(ZValue|FrameSet|MontSection)\s*=\s*(\d+)\s*\]", re.IGNORECASE)
MAX_ANGLE = 360.0  # degrees
NUMBERS = (("TiltAngle", -MAX_ANGLE, MAX_ANGLE), ("ExposureDose", 0.0, 10_000.0), ("PriorRecordDose", 0.0, 100_000.0))
SHOWN = 40  # characters of a value in an error message
MAX_DIGITS = 9  # of the number of a section or frame
DATE_FORMATS = ("%d-%b-%y %H:%M:%S", "%d-%b-%Y %H:%M:%S")


@dataclass(frozen=True)
class Tilt:
    """One tilt.

    Attributes
    ----------
    z : number of the section. angle : tilt angle in degrees.
    movie : name of the movie's file without its folder; empty if there is none.
    dose : of this tilt in e/A^2; None if unknown. prior_dose : dose of the specimen before this tilt in e/A^2.
    time : of the recording. lines : of the section, without its heading.
    frame_doses : doses and numbers of frames of the movie, as stated; empty if they are not.
    of_frames : whether it is a frame set.
    span : first and last number of `FrameTSStartEndFrames`, if the movie holds several tilts.
    pixel_size_A : of the movie; None if unknown.
    problem : why the tilt can't be used, as a sentence; empty if it can. An impossible angle is NaN, a dose None.
    """

    z: int
    angle: float
    movie: str
    dose: Optional[float]
    prior_dose: Optional[float]
    time: Optional[datetime]
    lines: Sequence[str]
    frame_doses: Pairs = field(default_factory=list)
    of_frames: bool = False
    span: Optional[Tuple[int, int]] = None
    pixel_size_A: Optional[float] = None
    problem: str = ""


@dataclass(frozen=True)
class Mdoc:
    """The lines before the first tilt, and the tilts in the order of the file."""

    head: Sequence[str]
    tilts: Sequence[Tilt]


def read_mdoc(path: str) -> Mdoc:
    """Read the `.mdoc` of a tilt series.

    Raises
    ------
    MovieError : it can't be read, or does not describe tilts.
    """
    try:
        lines = read_text(path, errors="replace").splitlines()
    except OSError as error:
        raise MovieError(f"{path}: can't be read ({error.strerror}): check the name.") from error
    starts = [i for i, line in enumerate(lines) if SECTION.match(line.strip())]
    if not starts:
        raise MovieError(
            f"{path}: contains no section [ZValue = ...] or [FrameSet = ...]: give the .mdoc of a tilt series."
        )
    ends = starts[1:] + [len(lines)]
    return Mdoc(lines[: starts[0]], _tilts(path, [_Section(path, lines[i:end]) for i, end in zip(starts, ends)]))


class _Section:
    """A section: its kind in lower case, its number, its values by key in lower case, and its lines."""

    def __init__(self, path: str, lines: List[str]) -> None:
        match = SECTION.match(lines[0].strip())
        assert match is not None
        if len(match[2]) > MAX_DIGITS:
            raise MovieError(
                f"{path}: section [{match[1]} = {cut(match[2], 20)}] has an impossible number: correct the file."
            )
        self.kind, self.z, self.lines = match[1].lower(), int(match[2]), lines[1:]
        pairs = (line.split("=", 1) for line in self.lines if "=" in line)
        self.values: Dict[str, str] = {key.strip().lower(): value.strip() for key, value in pairs}

    @property
    def name(self) -> str:
        return f"section {self.z}" if self.kind == "zvalue" else f"frame set {self.z}"


def _tilts(path: str, sections: List[_Section]) -> List[Tilt]:
    """The tilts that the sections describe."""
    spans = [one for one in sections if one.kind == "zvalue" and "frametsstartendframes" in one.values]
    sets = [one for one in sections if one.kind == "frameset"]
    if not spans:
        images = [one for one in sections if one.kind == "zvalue"]
        # A movie's own .mdoc may lack the name of the movie, which is that of the .mdoc.
        return [_tilt(path, one) for one in images] or [_with_movie(_tilt(path, one), path) for one in sets]
    tilts = []
    of_movie: Optional[_Section] = None
    for one in sections:
        if one.kind == "frameset":
            of_movie = one
        elif one in spans:
            # Values that the tilt does not state are those of the movie's frame set: the last one before it.
            shared = of_movie or (sets[0] if sets else None)
            tilts.append(_with_movie(_tilt(path, one, shared), path))
    return tilts


def _with_movie(tilt: Tilt, path: str) -> Tilt:
    """The tilt; the name of its movie is that of the `.mdoc` without the ending, if it is not stated."""
    return tilt if tilt.movie else replace(tilt, movie=os.path.basename(re.sub(r"\.mdoc$", "", path, flags=re.I)))


def _tilt(path: str, section: _Section, shared: Optional[_Section] = None) -> Tilt:
    """The tilt of a section; `shared` is that of the movie, if it holds several tilts."""
    values, of_movie = section.values, {} if shared is None else shared.values
    stated = {name: values.get(name.lower(), "") for name, _, _ in NUMBERS}
    stated["TiltAngle"] = values.get("tiltangle", of_movie.get("tiltangle", ""))
    numbers: Dict[str, Optional[float]] = {}
    problems: List[str] = []
    for name, low, high in NUMBERS:
        numbers[name] = _number(stated[name], low, high)
        if stated[name] and numbers[name] is None:
            problems.append(
                f"{path}: {section.name}: {name} is '{cut(stated[name], SHOWN)}', but it must be a number from {low:g} "
                f"to {high:g}: correct the .mdoc."
            )
    angle, dose = numbers["TiltAngle"], numbers["ExposureDose"]
    if not stated["TiltAngle"]:
        problems.append(f"{path}: {section.name} has no TiltAngle: give the .mdoc of a tilt series.")
    span, fault = _span(path, section)
    movie = values.get("subframepath", of_movie.get("subframepath", ""))
    lines = list(section.lines)
    if movie and "subframepath" not in values:
        lines.insert(0, f"SubFramePath = {movie}")
    frame_doses = _frame_doses(values.get("framedosesandnumber", of_movie.get("framedosesandnumber", "")))
    if not dose and frame_doses and shared is None:
        dose = sum(each * count for each, count in frame_doses)
    return Tilt(
        z=section.z,
        angle=math.nan if angle is None else angle,
        movie=re.split(r"[/\\]", movie)[-1],
        dose=dose if dose is not None and dose > 0 else None,  # 0 if the dose is not calibrated in SerialEM
        prior_dose=numbers["PriorRecordDose"],
        time=_time(values.get("datetime", "")),
        lines=lines,
        frame_doses=frame_doses,
        of_frames=section.kind == "frameset",
        problem=" ".join([*problems, *fault]),
        span=span,
        pixel_size_A=_number(values.get("pixelspacing", of_movie.get("pixelspacing", "")), 0.01, 1000.0),
    )


def _frame_doses(text: str) -> Pairs:
    """Empty if they are not stated, or all 0 because the dose is not calibrated."""
    try:
        pairs = parse_doses(text)
    except SettingsError:
        return []
    return pairs if any(dose for dose, _ in pairs) else []


def _span(path: str, section: _Section) -> Tuple[Optional[Tuple[int, int]], List[str]]:
    """First and last frame of the tilt if its movie holds several; a sentence if they can't be read."""
    text = section.values.get("frametsstartendframes")
    if text is None:
        return None, []
    words = text.split()
    if len(words) == 2 and all(word.isdigit() and len(word) <= MAX_DIGITS for word in words):
        return (int(words[0]), int(words[1])), []
    return None, [
        f"{path}: {section.name} has FrameTSStartEndFrames = {cut(text, SHOWN)}: two numbers of frames are needed."
    ]


def _number(text: str, low: float, high: float) -> Optional[float]:
    """The number, or None if it is none, not finite or out of bounds."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if low <= number <= high else None


def _time(text: str) -> Optional[datetime]:
    for form in DATE_FORMATS:
        try:
            return datetime.strptime(" ".join(text.split()), form)
        except ValueError:
            continue
    return None


def join_mdocs(mdocs: Sequence[Mdoc]) -> Mdoc:
    """One series of the tilts of several files, such as those that SerialEM saves with each movie.

    Raises
    ------
    MovieError : no tilt has an angle.
    """
    tilts = [tilt for mdoc in mdocs for tilt in mdoc.tilts]
    if tilts and all(math.isnan(tilt.angle) for tilt in tilts):
        raise MovieError(tilts[0].problem)
    if len(mdocs) == 1:
        return mdocs[0]
    return Mdoc(mdocs[0].head, [replace(tilt, z=z) for z, tilt in enumerate(tilts)])


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
    stated = {line.split("=", 1)[0].strip().lower() for line in mdoc.head if "=" in line}
    lines = [line for key, line in whole.items() if key not in stated] + lines  # frame sets have no image
    for z, tilt in enumerate(tilts):
        lines += [f"[ZValue = {z}]"] + [_replaced(line, spacing) for line in tilt.lines]
        if lines[-1].strip():
            lines.append("")
    return "\n".join(lines).rstrip("\n") + "\n"


def _replaced(line: str, new: Dict[str, str]) -> str:
    return new.get(line.split("=", 1)[0].strip().lower(), line) if "=" in line else line
