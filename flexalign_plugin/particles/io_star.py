"""Particles in RELION's STAR files: read row by row into a `Table`, and written with poses in new columns.

RELION 3.1 and 5 have a table of optics groups and one of particles. Older files have a single table with everything in
it; they are read, and written in the new form. Columns and tables that are not known here pass through unchanged: when
the result is written, the input is read once more, row by row, so that only what `Table` holds is kept in memory.
"""

from __future__ import annotations

import io
import math
from array import array
from dataclasses import dataclass
from typing import Dict, Iterator, List, Mapping, Optional, Sequence, TextIO, Tuple

import numpy as np

from ..errors import ParticleError
from ..files import atomic_path
from ..inputs import State, file_state, open_regular, shortened
from ..star_format import star_loop, words, written_words
from .ctf import Defocus, Optics
from .io_stack import found_in
from .table import Known, OpticsGroup, Table

IMAGE, GROUP, CLASS, HALF = "rlnImageName", "rlnOpticsGroup", "rlnClassNumber", "rlnRandomSubset"
DEFOCUS, PHASE = ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle"), "rlnPhaseShift"
ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
ORIGINS_A, ORIGINS_PX = ("rlnOriginXAngst", "rlnOriginYAngst"), ("rlnOriginX", "rlnOriginY")
# {column: (field of the results, format)}. Those that RELION does not know are named as the attributes of Scipion's
# particles; RELION ignores and keeps them.
POSE_COLUMNS = {
    **dict(zip(ANGLES, (("rot", "%.6f"), ("tilt", "%.6f"), ("psi", "%.6f")))),
    **dict(zip(ORIGINS_A, (("x_A", "%.6f"), ("y_A", "%.6f")))),
}
CLASS_COLUMN = {CLASS: ("volume", "%d")}
RESULT_COLUMNS = {
    **POSE_COLUMNS,
    **CLASS_COLUMN,
    "swiftScore": ("score", "%.4f"),
    "swiftAngleSd": ("angle_sd", "%.4f"),
    "swiftShiftSd": ("shift_sd", "%.4f"),
    "swiftPosterior": ("posterior", "%.6f"),
    "swiftClassPosterior": ("class_posterior", "%.6f"),
}
PIXEL, SIZE, DIMENSIONS = "rlnImagePixelSize", "rlnImageSize", "rlnImageDimensionality"
VOLTAGE, CS, CONTRAST = MICROSCOPE = ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast")
MAGNIFICATION, DETECTOR = "rlnMagnification", "rlnDetectorPixelSize"
FLIPPED, PREMULTIPLIED = "rlnCtfDataArePhaseFlipped", "rlnCtfDataAreCtfPremultiplied"
# What old files have in the table of particles, and new ones in that of optics groups or not at all.
OLD_OPTICS = (*MICROSCOPE, MAGNIFICATION, DETECTOR, PIXEL)
OLD_ONLY = (*OLD_OPTICS, *ORIGINS_PX)
OPTICS_TABLE, PARTICLES_TABLE = "optics", "particles"
LINE_CHARACTERS = 1_000_000
MOST_GROUPS = 10_000
NOT_STAR = "is not a STAR file: give a list of particles as RELION writes it"
CTF_ADVICE = "estimate the CTF first, and give the particles with it"


@dataclass(frozen=True)
class Source:
    """The STAR file that a table was read from, to write its rows again with new columns.

    Attributes
    ----------
    path, state : of the file when it was read. particles, columns : name of the table of particles, and its columns.
    old : whether there is no table of optics groups. groups, group : those that were found, and that of each row.
    """

    path: str
    state: State
    particles: str
    columns: Sequence[str]
    old: bool
    groups: Sequence[OpticsGroup]
    group: np.ndarray


def read_star(path: str) -> Tuple[Table, Source]:
    """Read the particles of a STAR file. A row whose numbers make no sense is kept: it fails when it is aligned.

    Raises
    ------
    ParticleError : the file can't be read, or is not a list of particles with CTF.
    """
    state = file_state(path)
    reader = _Reader(path)
    for line in _parsed(path):
        reader.take(line)
    table = reader.table()
    return table, Source(path, state, reader.particles, reader.columns, not reader.optics, table.groups, table.group)


def write_star(
    path: str, source: Source, found: np.ndarray, columns: Mapping[str, Tuple[str, str]] = RESULT_COLUMNS
) -> int:
    """Write the rows of `source` that were aligned, with their poses; returns their number.

    Parameters
    ----------
    found : (n,) structured, as `results.DTYPE`, in any order; `row` counts the rows of the source from 1, and rows that
        are not `aligned` are left out. columns : {column to write: (field of `found`, format)}.

    Raises
    ------
    OutputError : it can't be written. ParticleError : the source was changed since it was read.
    """
    found = found[found["aligned"]]
    found = found[np.argsort(found["row"], kind="stable")]
    if file_state(source.path) != source.state:
        raise ParticleError(f"{source.path}: was changed while its particles were aligned: align them again.")
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", errors="surrogateescape") as file:
        for text in _rewritten(source, found, columns):
            file.write(text)
    return len(found)


@dataclass(frozen=True)
class _Line:
    """A line of a STAR file.

    Attributes
    ----------
    text, number : of the line. kind : TABLE, LOOP, COLUMN, SINGLE, ROW or OTHER (empty or comment).
    table : name of the table that it belongs to. values : its values.
    """

    text: str
    number: int
    kind: str
    table: str
    values: Sequence[str] = ()


TABLE, LOOP, COLUMN, SINGLE, ROW, OTHER = "table", "loop", "column", "single", "row", "other"


def _parsed(path: str) -> Iterator[_Line]:
    """The lines of a STAR file. Raises ParticleError if it can't be read or is not one."""
    try:
        with io.TextIOWrapper(open_regular(path), encoding="utf-8", errors="surrogateescape") as file:
            yield from _classified(path, file)
    except OSError as error:
        raise ParticleError(f"{path}: can't be read ({error.strerror}): check its name.") from error


def _classified(path: str, file: TextIO) -> Iterator[_Line]:
    table: Optional[str] = None
    in_loop, number = False, 0
    while True:
        text = file.readline(LINE_CHARACTERS)
        number += 1
        if not text:
            return
        if "\0" in text or len(text) >= LINE_CHARACTERS:
            raise ParticleError(f"{path}: {NOT_STAR}.")
        plain = '"' not in text and "'" not in text and "#" not in text
        values = text.split() if plain else words(text)
        if not values:
            yield _Line(text, number, OTHER, table or "")
        elif len(values) == 1 and values[0].startswith("data_"):
            table, in_loop = values[0][len("data_") :], False
            yield _Line(text, number, TABLE, table)
        elif table is None:
            raise ParticleError(f"{path}: {NOT_STAR}.")
        elif len(values) == 1 and values[0] == "loop_":
            in_loop = True
            yield _Line(text, number, LOOP, table)
        elif text.lstrip().startswith("_"):
            yield _Line(text, number, COLUMN if in_loop else SINGLE, table, [values[0][1:], *values[1:]])
        elif in_loop:
            yield _Line(text, number, ROW, table, values)
        else:
            raise ParticleError(
                f"{path}: line {number} is neither a table nor a value of one ({shortened(text.strip())}): write the "
                "file again."
            )


class _Reader:
    """Collects the optics groups and, column by column, the numbers of the particles."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.optics: List[Dict[str, str]] = []  # of a new file
        self._columns: Dict[str, List[str]] = {}  # {table: its columns}
        self._single: Dict[str, str] = {}  # the optics table as a list
        self.particles = ""  # name of the table of particles
        self.columns: Sequence[str] = ()  # of the particles
        self._at: Dict[str, int] = {}  # {column of the particles: its place}
        self._group_columns: List[int] = []
        self._groups: Dict[Tuple[str, ...], int] = {}  # {what particles of a group have in common: number}
        self._numbers: Dict[str, array[float]] = {}
        self._files: Dict[str, int] = {}
        self._file, self._index, self._group = array("i"), array("i"), array("i")

    def take(self, line: _Line) -> None:
        if line.kind == COLUMN:
            self._columns.setdefault(line.table, []).append(line.values[0])
        elif line.kind == SINGLE and line.table == OPTICS_TABLE and len(line.values) > 1:
            self._single[line.values[0]] = line.values[1]
        elif line.kind == ROW and line.table == OPTICS_TABLE:
            self.optics.append(dict(zip(self._columns[line.table], self._checked(line))))
        elif line.kind == ROW and IMAGE in self._columns[line.table]:
            if not self.columns:
                self._start(line.table)
            if line.table == self.particles:
                self._add(self._checked(line))

    def _checked(self, line: _Line) -> Sequence[str]:
        n = len(self._columns[line.table])
        if len(line.values) != n:
            raise ParticleError(
                f"{self._path}: line {line.number} has {len(line.values)} values, but the table data_{line.table} has "
                f"{n} columns: the file is damaged or was cut off: write it again."
            )
        return line.values

    def _start(self, table: str) -> None:
        self.particles, self.columns = table, self._columns[table]
        self._at = at = {name: i for i, name in enumerate(self.columns)}
        missing = [name for name in DEFOCUS if name not in at]
        if missing:
            raise ParticleError(f"{self._path}: its particles have no CTF (no column {missing[0]}): {CTF_ADVICE}.")
        numbers = [*DEFOCUS, PHASE, *ANGLES, *ORIGINS_A, *ORIGINS_PX, CLASS, HALF]
        self._numbers = {name: array("d") for name in numbers if name in at}
        # The table of optics groups may follow: until then it is not known whether the file is an old one.
        self._group_columns = [at[name] for name in (GROUP, *OLD_OPTICS) if name in at]

    def _add(self, values: Sequence[str]) -> None:
        at = self._at
        for name, column in self._numbers.items():
            column.append(_number(values[at[name]]))
        image, _, stack = values[at[IMAGE]].rpartition("@")
        self._file.append(self._files.setdefault(stack, len(self._files)))
        self._index.append(_index(image))
        key = tuple(values[place] for place in self._group_columns)
        self._group.append(self._groups.setdefault(key, len(self._groups)))

    def table(self) -> Table:
        if not self.columns:
            what = "holds no particles" if self._columns or self._single else "is not a STAR file of particles"
            raise ParticleError(f"{self._path}: {what} (no rows with the column {IMAGE}): give a list of particles.")
        if self._single and not self.optics:
            self.optics.append(self._single)
        rows, group = self._grouped()
        groups = [self._group_of(row, i + 1) for i, row in enumerate(rows)]
        n = len(self._index)
        columns = {name: np.array(column) for name, column in self._numbers.items()}
        u, v, angle = (columns[name].astype(np.float32) for name in DEFOCUS)
        defocus = Defocus(u, v, angle, columns.get(PHASE, np.zeros(n)).astype(np.float32))
        return Table(
            name=self._path,
            groups=groups,
            files=found_in(list(self._files), self._path),
            file=np.array(self._file, np.int32),
            index=np.array(self._index, np.int32),
            group=group,
            defocus=defocus,
            row=np.arange(1, n + 1),
            known=self._known(columns, groups, group),
        )

    def _grouped(self) -> Tuple[Sequence[Mapping[str, str]], np.ndarray]:
        """Columns of each optics group, and (n,) the group of each particle."""
        keys = np.array(self._group, np.int32)
        if max(len(self.optics), len(self._groups)) > MOST_GROUPS:
            raise ParticleError(
                f"{self._path}: has more than {MOST_GROUPS} optics groups: join those of the same microscope settings."
            )
        if not self.optics:
            names = [name for name in (GROUP, *OLD_OPTICS) if name in self._at]
            return [dict(zip(names, key)) for key in self._groups], keys.astype(np.int16)
        if GROUP in self._at:
            places = {row.get(GROUP, str(i + 1)): i for i, row in enumerate(self.optics)}
            place = [places.get(key[0], -1) for key in self._groups]
        elif len(self.optics) == 1:
            place = [0] * len(self._groups)
        else:
            raise ParticleError(
                f"{self._path}: has {len(self.optics)} optics groups, but its particles have no column {GROUP}: "
                "write the file again."
            )
        return self.optics, np.array(place, np.int16)[keys]

    def _known(self, columns: Mapping[str, np.ndarray], groups: Sequence[OpticsGroup], group: np.ndarray) -> Known:
        shifts = None
        if all(name in columns for name in ORIGINS_A):
            shifts = np.stack([columns[name] for name in ORIGINS_A], axis=1)
        elif all(name in columns for name in ORIGINS_PX):
            pixel_A = np.array([g.optics.pixel_A for g in groups])[group]
            shifts = np.stack([columns[name] for name in ORIGINS_PX], axis=1) * pixel_A[:, None]
        return Known(
            angles=np.stack([columns[name] for name in ANGLES], axis=1) if all(a in columns for a in ANGLES) else None,
            shifts_A=None if shifts is None else shifts.astype(np.float32),
            volume=_whole(columns.get(CLASS), np.int32),
            half=_whole(columns.get(HALF), np.int8),
        )

    def _group_of(self, row: Mapping[str, str], number: int) -> OpticsGroup:
        name = f"optics group {row.get(GROUP, number)} of {self._path}" if self.optics else self._path
        if row.get(DIMENSIONS, "2") not in ("2", "2.0"):
            raise ParticleError(f"{name}: holds volumes, not images: give single-particle images.")
        if row.get(PREMULTIPLIED, "0") not in ("0", "0.0"):
            raise ParticleError(
                f"{name}: its images are multiplied by the CTF, which changes their noise: give images that are not, "
                "or only phase-flipped."
            )
        values = {column: self._optics_number(row, column, name) for column in MICROSCOPE}
        if PIXEL in row:
            pixel_A = self._optics_number(row, PIXEL, name)
        elif not (MAGNIFICATION in row and DETECTOR in row):
            raise ParticleError(
                f"{name}: has no pixel size (no column {PIXEL}, nor both {MAGNIFICATION} and {DETECTOR}): add it."
            )
        else:
            pixel_A = self._optics_number(row, DETECTOR, name) * 1e4 / self._optics_number(row, MAGNIFICATION, name)
        flipped = row.get(FLIPPED, "0") not in ("0", "0.0")
        return OpticsGroup(name, optics_of(name, pixel_A, values[VOLTAGE], values[CS], values[CONTRAST], flipped))

    def _optics_number(self, row: Mapping[str, str], column: str, name: str) -> float:
        if column not in row:
            raise ParticleError(f"{name}: has no column {column}: {CTF_ADVICE}.")
        value = _number(row[column])
        if not math.isfinite(value):
            raise ParticleError(f"{name}: {column} is {shortened(row[column])}: give a number.")
        return value


def optics_of(
    name: str, pixel_A: float, voltage_kV: float, cs_mm: float, amplitude_contrast: float, phase_flipped: bool
) -> Optics:
    """The optics of a group called `name`; ParticleError if a number is not one of a microscope."""
    for label, value, low, high, unit in (
        ("pixel size", pixel_A, 0.05, 100, "A"),
        ("voltage", voltage_kV, 10, 2000, "kV"),
        ("spherical aberration", cs_mm, 0, 100, "mm"),
        ("amplitude contrast", amplitude_contrast, 0, 1, ""),
    ):
        if not low <= value <= high:
            raise ParticleError(
                f"{name}: its {label} is {f'{value:g} {unit}'.rstrip()}: it must be at least {low:g} and at most "
                f"{high:g}: correct the value and write the particles again."
            )
    return Optics(pixel_A, voltage_kV, cs_mm, amplitude_contrast, phase_flipped)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _index(text: str) -> int:
    """Index of `000001` in `000001@stack`, from 0; 0 for a file of one image; -1 if it is no number of an image."""
    if not text:
        return 0
    return int(text) - 1 if text.isdecimal() and len(text) < 10 else -1


def _whole(column: Optional[np.ndarray], dtype: type) -> Optional[np.ndarray]:
    if column is None:
        return None
    return np.where((column >= 0) & (column <= np.iinfo(dtype).max), column, 0).astype(dtype)


def _rewritten(source: Source, found: np.ndarray, columns: Mapping[str, Tuple[str, str]]) -> Iterator[str]:
    """The text of the source with new columns, without the rows that are not in `found`, which is sorted by row."""
    kept = [name for name in source.columns if not (source.old and name in OLD_ONLY)]
    added = [name for name in ((GROUP,) if source.old else ()) if name not in kept]
    names = [*kept, *added, *(name for name in columns if name not in kept)]
    places = [source.columns.index(name) for name in kept]
    new = {names.index(name): about for name, about in columns.items()}
    group_place = names.index(GROUP) if source.old else -1
    row, following = 0, 0
    for line in _parsed(source.path):
        if line.table != source.particles:
            yield line.text
        elif line.kind == TABLE:
            if source.old:
                yield "# version 30001\n\n" + _optics_text(source.groups) + "\n# version 30001\n\n"
            yield f"data_{PARTICLES_TABLE if source.old else source.particles}\n\nloop_\n"
            yield "".join(f"_{name} #{i + 1}\n" for i, name in enumerate(names))
        elif line.kind == ROW:
            row += 1
            if following < len(found) and found["row"][following] == row:
                own = found[following]
                values = written_words(line.text)
                values = [values[place] for place in places] + [""] * (len(names) - len(kept))
                for place, (field, form) in new.items():
                    values[place] = form % own[field]
                if source.old:
                    values[group_place] = str(source.group[row - 1] + 1)
                following += 1
                yield " ".join(values) + "\n"
        elif line.kind == OTHER and row:
            yield line.text


def _optics_text(groups: Sequence[OpticsGroup]) -> str:
    columns = (GROUP, "rlnOpticsGroupName", *MICROSCOPE, PIXEL, DIMENSIONS)
    rows = [
        (
            str(i + 1),
            f"opticsGroup{i + 1}",
            f"{g.optics.voltage_kV:.6f}",
            f"{g.optics.cs_mm:.6f}",
            f"{g.optics.amplitude_contrast:.6f}",
            f"{g.optics.pixel_A:.6f}",
            "2",
        )
        for i, g in enumerate(groups)
    ]
    return star_loop(OPTICS_TABLE, columns, rows)
