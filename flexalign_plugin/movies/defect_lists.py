"""Lists of defects: rectangles, SerialEM's camera defects, and the XML that EER gain references carry.

Pixels count from 0. The rows of a list of rectangles are those of the movie's file. SerialEM and the cameras count rows
from the top of the picture, as TIFF and EER files store them, so that their maps must be flipped upside down for an MRC
movie. The keys of SerialEM's file are explained in the manuals of IMOD and SerialEM.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from typing import Dict, List, NamedTuple, Optional, Tuple

import numpy as np
import tifffile

from ..errors import CorrectionError, MovieError
from ..inputs import cut, shortened
from .reading import first_bytes

MAX_BYTES = 16_000_000  # about a million single pixels
MAX_CAMERA = 4  # times the movie's frames: the largest camera that a list may state
MAX_SCALED = 4  # SerialEM's WasScaled
EER_DEFECTS_TAG = 65100  # of a gain reference's first TIFF page
# Number of values after each key of SerialEM's list; 0: one or more.
SERIALEM_KEYS = {
    "camerasizex": 1,
    "camerasizey": 1,
    "rotationandflip": 1,
    "wasscaled": 1,
    "usablearea": 4,
    "badcolumns": 0,
    "badrows": 0,
    "badpixels": 0,
    "partialbadcolumn": 4,
    "partialbadrow": 4,
}


class DefectMap(NamedTuple):
    """Defects of a list: `mask` (ny, nx) bool on the movie's frames, or on the camera with its top row first."""

    mask: np.ndarray
    on_camera: bool


def defect_text(path: str) -> str:
    """Content of a defect file; CorrectionError if the file can't be read or is no text file."""
    try:
        content = first_bytes(path, MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise MovieError(f"{path}: has more than {MAX_BYTES / 1e6:g} MB: give a list of defects.")
        return content.decode()
    except UnicodeDecodeError as error:
        raise CorrectionError(
            f"Defect file {path}: is no text file: give lines of 'x y width height' or SerialEM's list of camera "
            "defects; an image is given as defect map."
        ) from error
    except MovieError as error:
        raise CorrectionError(f"Defect file {error}") from error


def read_defect_file(path: str, shape: Tuple[int, int]) -> DefectMap:
    """Defects of a text file, whose kind is recognised by its content.

    Parameters
    ----------
    shape : (ny, nx) of the movie's frames.

    Raises
    ------
    CorrectionError : the file can't be read, or one of its lines is invalid.
    """
    text = defect_text(path)
    if text.lstrip().startswith("<"):
        try:
            return DefectMap(defects_of_xml(text, shape), True)
        except ValueError as error:
            raise CorrectionError(f"Defect file {path}: {error}: check the file.") from error
    lines = [(number, line.split("#")[0].replace(",", " ").split()) for number, line in enumerate(text.splitlines(), 1)]
    lines = [(number, words) for number, words in lines if words]
    if any(words[0].lower() in SERIALEM_KEYS for _, words in lines):
        return DefectMap(_serialem(path, lines, shape), True)
    return DefectMap(_rectangles(path, lines, shape), False)


def _rectangles(path: str, lines: List[Tuple[int, List[str]]], shape: Tuple[int, int]) -> np.ndarray:
    """Lines `x y width height`; rectangles are cut at the edge of the frame."""
    marked = _Marked(shape)
    for number, words in lines:
        numbers = _whole(words)
        if numbers is None or len(numbers) != 4 or min(numbers[2:]) < 1:
            raise CorrectionError(
                f"Defect file {path}: line {number} is {shortened(' '.join(words))}: write four whole numbers, "
                "'x y width height'."
            )
        x, y, width, height = numbers
        if x >= shape[1] or y >= shape[0]:
            raise CorrectionError(
                f"Defect file {path}: line {number} starts at x {x}, y {y}, outside the frames of {shape[1]} x "
                f"{shape[0]}: count pixels from 0 on this movie's frames."
            )
        if not marked.add(x, y, x + width - 1, y + height - 1):
            raise _too_many(path, number, shape)
    return marked.mask


def _too_many(path: str, line: int, shape: Tuple[int, int]) -> CorrectionError:
    return CorrectionError(
        f"Defect file {path}: up to line {line} it marks more than twice as many pixels as the {shape[1]} x {shape[0]} "
        "that there are: check the file."
    )


class _Marked:
    """A map that is filled box by box; no more pixels than twice those of the map, so that no list takes for ever."""

    def __init__(self, shape: Tuple[int, int]) -> None:
        self.mask = np.zeros(shape, bool)
        self._left = 2 * self.mask.size

    def add(self, x0: int, y0: int, x1: int, y1: int) -> bool:
        """Mark a box, ends included, as far as it is inside; False if that is too many pixels."""
        box = self.mask[y0 : y1 + 1, x0 : x1 + 1]
        self._left -= box.size
        if self._left < 0:
            return False
        box[...] = True
        return True


def _serialem(path: str, lines: List[Tuple[int, List[str]]], shape: Tuple[int, int]) -> np.ndarray:
    """SerialEM's list as a map of the camera; keys that do not mark pixels are skipped. shape : of the frames."""
    entries: List[Tuple[int, str, List[int]]] = []
    single: Dict[str, int] = {}
    for number, (key, *words) in lines:
        wanted = SERIALEM_KEYS.get(key.lower())
        if wanted is None:
            continue
        values = _whole(words)
        paired = key.lower() != "badpixels" or len(words) % 2 == 0
        if not values or not paired or (wanted and len(values) != wanted):
            count = {0: "pairs of whole numbers" if not paired else "whole numbers", 1: "a whole number"}
            raise CorrectionError(
                f"Defect file {path}: line {number} is {shortened(' '.join([key, *words]))}: {key} is followed by "
                f"{count.get(wanted, f'{wanted} whole numbers')}, none of them negative: correct the line."
            )
        if wanted == 1:
            single[key.lower()] = values[0]
        else:
            entries.append((number, key.lower(), values))
    ny, nx = single.get("camerasizey", 0), single.get("camerasizex", 0)
    if min(ny, nx) < 1:
        raise CorrectionError(
            f"Defect file {path}: the size of the camera is missing: add the lines CameraSizeX and CameraSizeY."
        )
    if max(ny, nx) > MAX_CAMERA * max(shape) or single.get("wasscaled", 0) > MAX_SCALED:
        raise CorrectionError(
            f"Defect file {path}: its camera of {nx} x {ny} pixels, scaled {single.get('wasscaled', 0)} times, can't "
            f"be that of frames of {shape[1]} x {shape[0]}: give the list that was saved with these movies."
        )
    marked = _Marked((ny, nx))
    block = 1 << single.get("wasscaled", 0)  # pixels of a list scaled to super-resolution are blocks
    for number, key, values in entries:
        for x0, y0, x1, y1 in _boxes(key, values, (ny, nx), block):
            if not (x0 <= x1 < nx and y0 <= y1 < ny):
                raise CorrectionError(
                    f"Defect file {path}: line {number} marks x {x0} to {x1}, y {y0} to {y1}, which is not inside its "
                    f"camera of {nx} x {ny}: correct the line or the camera's size."
                )
            if not marked.add(x0, y0, x1, y1):
                raise _too_many(path, number, (ny, nx))
    return marked.mask


def _boxes(key: str, v: List[int], shape: Tuple[int, int], block: int) -> List[Tuple[int, int, int, int]]:
    """The (x0, y0, x1, y1) that an entry of SerialEM's list marks, ends included."""
    ny, nx = shape
    if key == "badcolumns":
        return [(x, 0, x, ny - 1) for x in v]
    if key == "badrows":
        return [(0, y, nx - 1, y) for y in v]
    if key == "badpixels":
        return [(x, y, min(x + block, nx) - 1, min(y + block, ny) - 1) if x < nx and y < ny else (x, y, x, y)
                for x, y in zip(v[::2], v[1::2])]  # fmt: skip
    if key == "partialbadcolumn":
        return [(v[0], v[2], v[0] + v[1] - 1, v[3])]
    if key == "partialbadrow":
        return [(v[2], v[0], v[3], v[0] + v[1] - 1)]
    top, left, bottom, right = v  # of the usable area; 0: no limit on this side
    boxes = []
    if top:
        boxes.append((0, 0, nx - 1, top - 1))
    if left:
        boxes.append((0, 0, left - 1, ny - 1))
    if bottom and bottom != ny - 1:
        boxes.append((0, bottom + 1, nx - 1, ny - 1))
    if right and right != nx - 1:
        boxes.append((right + 1, 0, nx - 1, ny - 1))
    return boxes


def gain_defects(path: str, shape: Tuple[int, int]) -> Optional[np.ndarray]:
    """Map of the defects that a TIFF gain reference lists in its own tag, rows as stored; None without such a tag.

    Raises
    ------
    ValueError : the tag exists but can't be parsed.
    """
    with tifffile.TiffFile(path) as tiff:
        tag = tiff.pages[0].tags.get(EER_DEFECTS_TAG)  # type: ignore[union-attr]
        if tag is None:
            return None
        value = tag.value
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return defects_of_xml(text.strip("\0 \r\n\t"), shape)


def defects_of_xml(text: str, shape: Tuple[int, int]) -> np.ndarray:
    """Map of `<defects>` made of `<point>x,y`, `<area>x0,y0,x1,y1`, `<col>` and `<row>` with numbers and ranges.

    Raises
    ------
    ValueError : the text is no such list, or lists pixels outside `shape`.
    """
    if "<!DOCTYPE" in text or "<!ENTITY" in text:  # abbreviations that can stand for gigabytes
        raise ValueError("its XML has definitions of its own")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ValueError(f"its XML can't be read ({error})") from error
    if root.tag != "defects":
        raise ValueError(f"its XML holds '{root.tag}', not 'defects'")
    ny, nx = shape
    marked, lines = _Marked(shape), {"row": np.zeros(ny, bool), "col": np.zeros(nx, bool)}
    for element in root.iter():
        kind, words = element.tag.replace("nonmasking", ""), element.text or ""
        if kind not in ("point", "area", "row", "col"):
            continue
        ranges = _ranges(words)
        wanted = {"point": 2, "area": 4}.get(kind, len(ranges))
        if not ranges or len(ranges) != wanted or (kind in ("point", "area") and any(a != b for a, b in ranges)):
            raise ValueError(f"{shortened(words)} is no {kind} of its list of defects")
        fits = True
        if kind in lines:
            for first, last in ranges:
                fits = fits and first <= last < len(lines[kind])
                lines[kind][first : last + 1] = True
        else:
            (x0, _), (y0, _), (x1, _), (y1, _) = (*ranges, *ranges)[:4]
            fits = x0 <= x1 < nx and y0 <= y1 < ny
            if fits and not marked.add(x0, y0, x1, y1):
                raise ValueError(f"its list marks more than twice as many pixels as the {nx} x {ny} that there are")
        if not fits:
            raise ValueError(f"the {kind} {cut(words)} of its list of defects is outside its {nx} x {ny} pixels")
    marked.mask[lines["row"]] = True
    marked.mask[:, lines["col"]] = True
    return marked.mask


def _ranges(text: str) -> List[Tuple[int, int]]:
    """`1,4-6` as [(1, 1), (4, 6)]; an empty list if the text is no such list."""
    ranges: List[Tuple[int, int]] = []
    for part in re.split(r"[,\s]+", text.strip()):
        match = re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?", part)
        if match is None:
            return []
        ranges.append((int(match[1]), int(match[2] or match[1])))
    return ranges


def _whole(words: List[str]) -> Optional[List[int]]:
    """The words as non-negative integers, or None if one of them is something else."""
    return [int(word) for word in words] if all(re.fullmatch(r"\d{1,9}", word) for word in words) else None
