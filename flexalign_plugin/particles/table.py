"""A table of particles, whatever file or set it comes from: which image, which CTF, and what was known before.

About 100 bytes a particle; nothing else of a run grows with their number.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from typing import Dict, List, Optional, Sequence

import numpy as np

from .ctf import Defocus, Optics


@dataclass(frozen=True)
class OpticsGroup:
    """What the particles of one optics group share.

    Attributes
    ----------
    name : for messages. optics : pixel size, voltage, aberration and contrast of its images.
    """

    name: str
    optics: Optics


@dataclass(frozen=True)
class Known:
    """What is known of n particles before the alignment.

    Attributes
    ----------
    angles : (n, 3) float64 rot, tilt, psi in degrees; None: no orientations.
    shifts_A : (n, 2) float32 shifts (x, y) to be added to the content of the image, in Angstrom; None: all 0.
    volume : (n,) int32 number of the class, from 1, 0 if a particle has none; None: no classes.
    half : (n,) int8 1 or 2, 0 if a particle has none; None: no half sets.
    """

    angles: Optional[np.ndarray] = None
    shifts_A: Optional[np.ndarray] = None
    volume: Optional[np.ndarray] = None
    half: Optional[np.ndarray] = None

    def __getitem__(self, rows: np.ndarray) -> Known:
        return Known(*(None if a is None else a[rows] for a in (self.angles, self.shifts_A, self.volume, self.half)))


@dataclass(frozen=True)
class Table:
    """n particles.

    Attributes
    ----------
    name : of the file or set, for messages. groups : the optics groups.
    files : paths of the stacks. file : (n,) int32 number of the stack in `files`.
    index : (n,) int32 number of the image in its stack, from 0.
    group : (n,) int16 number of the optics group in `groups`. defocus : of each particle.
    row : (n,) int64 what identifies a particle where it comes from: the row of a STAR file, from 1, or the id of an
    item of a Scipion set. known : orientations, shifts, classes and half sets.
    """

    name: str
    groups: Sequence[OpticsGroup]
    files: Sequence[str]
    file: np.ndarray
    index: np.ndarray
    group: np.ndarray
    defocus: Defocus
    row: np.ndarray
    known: Known = Known()

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, rows: np.ndarray) -> Table:
        """The particles `rows`, with all files and optics groups."""
        return replace(
            self,
            file=self.file[rows],
            index=self.index[rows],
            group=self.group[rows],
            defocus=self.defocus[rows],
            row=self.row[rows],
            known=self.known[rows],
        )

    def image_name(self, i: int) -> str:
        """Name of the particle `i` as in a STAR file: `000001@stack.mrcs`."""
        return f"{self.index[i] + 1:06d}@{self.files[self.file[i]]}"

    def fingerprint(self, n: int) -> str:
        """Hash of the first n particles: which image, which CTF, which start."""
        total = hashlib.sha256()
        for path in self.files[: int(self.file[:n].max(initial=-1)) + 1]:
            total.update(path.encode("utf-8", "surrogateescape") + b"\0")
        for group in self.groups[: int(self.group[:n].max(initial=-1)) + 1]:
            total.update(repr(group.optics).encode())
        d, known = self.defocus, self.known
        columns: List[Optional[np.ndarray]] = [self.file, self.index, self.group, self.row]
        columns += [d.u_A, d.v_A, d.angle_deg, d.phase_deg, known.angles, known.shifts_A, known.volume]
        for column in columns:
            total.update(b"-" if column is None else np.ascontiguousarray(column[:n]).tobytes())
        return total.hexdigest()


def image_keys(tables: Sequence[Table]) -> List[np.ndarray]:
    """For each table, (n,) int64: a number for each image, the same for the same image of the same file in all."""
    numbers: Dict[str, int] = {}
    keys = []
    for table in tables:
        own = np.array([numbers.setdefault(os.path.abspath(path), len(numbers)) for path in table.files], np.int64)
        keys.append((own[table.file] << 32) | table.index.astype(np.int64))
    return keys
