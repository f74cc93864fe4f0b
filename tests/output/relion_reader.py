"""A reader of per-movie STAR files that behaves as RELION 5.0's `Micrograph` does, with its weak points.

The stream is one for all blocks. Each block is searched by its name from the beginning; a stream that has failed can't
go back to it, and the search that runs into the end makes the stream usable again. A loop ends at an empty line; a loop
that ends with the file leaves the stream failed. The blocks are read as general, local_motion_model, global_shift,
hot_pixels. A frame without a shift has that of the last one before it, or zero.
"""

from __future__ import annotations

import io
import shlex
from typing import Any, Dict, List, Tuple

import numpy as np

NOT_OBSERVED = -9999.0


class Stream:
    """`std::ifstream` with `getline`: reading past the end makes it fail, and `seekg` does nothing until `clear`."""

    def __init__(self, text: str) -> None:
        self._text = io.StringIO(text)
        self.failed = False

    def getline(self) -> Any:
        line = "" if self.failed else self._text.readline()
        self.failed = self.failed or not line
        return None if self.failed else line.rstrip("\n")

    def seekg(self, position: int) -> None:
        if not self.failed:
            self._text.seek(position)

    def tellg(self) -> int:
        return self._text.tell()


def read_block(stream: Stream, name: str) -> List[Dict[str, str]]:
    stream.seekg(0)
    while True:
        line = stream.getline()
        if line is None:
            stream.failed = False
            return []
        at = line.find("data_")
        if at < 0 or line[at + 5 :].strip() != name:
            continue
        position = stream.tellg()
        while True:
            line = stream.getline()
            if line is None:
                break
            if "loop_" in line:
                return _loop(stream)
            if line.startswith("_"):
                stream.seekg(position)
                return [_list(stream)]


def _loop(stream: Stream) -> List[Dict[str, str]]:
    columns, rows = [], []
    line = stream.getline()
    while line is not None and (not line.strip() or line.strip()[0] in "#;_"):
        if line.strip().startswith("_"):
            columns.append(line.split("#")[0].strip()[1:])
        line = stream.getline()
    while line is not None and line.strip():
        values = shlex.split(line)
        assert len(values) == len(columns), line
        rows.append(dict(zip(columns, values)))
        line = stream.getline()
    return rows


def _list(stream: Stream) -> Dict[str, str]:
    values = {}
    line, last_good = stream.getline(), stream.tellg()
    while line is not None:
        words = shlex.split(line, comments=True)
        if words and words[0].startswith("_"):
            values[words[0][1:]] = words[1]
            last_good = stream.tellg()
        elif words and words[0].startswith("data_"):
            stream.seekg(last_good)
            return values
        line = stream.getline()
    return values


class Micrograph:
    """What RELION has of a micrograph after reading its metadata."""

    def __init__(self, text: str) -> None:
        stream = Stream(text)
        (self.general,) = read_block(stream, "general")
        self.width, self.height, self.n_frames = (int(self.general[f"rlnImageSize{axis}"]) for axis in "XYZ")
        self.first_frame = int(self.general.get("rlnMicrographStartFrame", 1))
        self.coefficients = None
        if self.general.get("rlnMotionModelVersion") == "1":
            rows = read_block(stream, "local_motion_model")
            assert len(rows) == 36, "ThirdOrderPolynomialModel coefficients table: incomplete values"
            self.coefficients = np.zeros(36)
            for row in rows:
                self.coefficients[int(row["rlnMotionModelCoeffsIdx"])] = float(row["rlnMotionModelCoeff"])
        self.shifts = np.full((self.n_frames, 2), NOT_OBSERVED)
        for row in read_block(stream, "global_shift"):
            x, y = float(row["rlnMicrographShiftX"]), float(row["rlnMicrographShiftY"])
            self.shifts[int(row["rlnMicrographFrameNumber"]) - 1] = x, y
        self.hot_pixels = [
            (int(float(row["rlnCoordinateX"])), int(float(row["rlnCoordinateY"])))
            for row in read_block(stream, "hot_pixels")
        ]

    def shift(self, frame: int, y: float, x: float) -> Tuple[float, float]:
        """(sy, sx) in frame 1, 2, ... of a particle at y, x: unbinned pixels of the micrograph."""
        observed = [row for row in self.shifts[: frame - 1] if row[0] != NOT_OBSERVED]
        if self.shifts[frame - 1, 0] == NOT_OBSERVED:
            sx, sy = observed[-1] if observed else (0.0, 0.0)
            return sy, sx
        sx, sy = self.shifts[frame - 1]
        if self.coefficients is not None:
            z, u, v = frame - self.first_frame, x / self.width - 0.5, y / self.height - 0.5
            terms = np.outer([1, u, u * u, v, v * v, u * v], [z, z**2, z**3]).ravel()
            sx, sy = sx + self.coefficients[:18] @ terms, sy + self.coefficients[18:] @ terms
        return sy, sx
