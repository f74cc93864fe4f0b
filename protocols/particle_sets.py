"""Particles between Scipion's sets and tables: which image, which CTF, which pose.

Scipion's matrix of a projection alignment is [A^T | A^T s], with A and s as in `flexalign_plugin.particles.poses`.
"""

from __future__ import annotations

import os
from array import array
from typing import Any, Dict, Iterator, List, Optional, Tuple

import numpy as np
import pwem.objects as emobj
import pyworkflow.object as pwobj

from flexalign_plugin.particles.ctf import Defocus, Optics
from flexalign_plugin.particles.poses import euler_angles
from flexalign_plugin.particles.results import DTYPE, matrices_of, shifts_A_of
from flexalign_plugin.particles.table import Known, OpticsGroup, Table
from flexalign_plugin.star_format import words

# {attribute of a particle: field of the results}
COLUMNS = {
    "_swift_score": "score",
    "_swift_angle_sd": "angle_sd",
    "_swift_shift_sd": "shift_sd",
    "_swift_posterior": "posterior",
    "_swift_class_posterior": "class_posterior",
}
OPTICS_GROUP, HALF = "_rlnOpticsGroup", "_rlnRandomSubset"  # attributes that RELION's import gives to particles
_OPTICS_COLUMNS = ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast")


class GrowingTable:
    """The particles of a set, which may still be growing, in the order of their ids."""

    def __init__(self, name: str, with_poses: bool = False) -> None:
        """
        Parameters
        ----------
        name : of the set, for messages. with_poses : whether the poses of the particles are read too.
        """
        self._name, self._with_poses = name, with_poses
        self._groups: Dict[Tuple[Any, ...], int] = {}
        self._optics: List[OpticsGroup] = []
        self._files: Dict[str, int] = {}
        self._file, self._index, self._group = array("i"), array("i"), array("i")
        self._row, self._class, self._half = array("q"), array("i"), array("i")
        self._defocus = [array("d") for _ in range(4)]
        self._matrix = array("d")

    def __len__(self) -> int:
        return len(self._row)

    def read(self, particles: emobj.SetOfParticles) -> int:
        """Add the particles that are new in the set; returns their number."""
        before = len(self._row)
        acquisition, pixel_A = particles.getAcquisition(), float(particles.getSamplingRate())
        named = optics_groups(acquisition)
        flipped = bool(particles.isPhaseFlipped())
        last = self._row[-1] if before else -1
        for particle in particles.iterItems(where=f"id > {last}"):
            own = particle.getAcquisition() if particle.hasAcquisition() else acquisition
            number = _value(particle, OPTICS_GROUP)
            microscope = named.get(number) or (
                own.getVoltage(),
                own.getSphericalAberration(),
                own.getAmplitudeContrast(),
            )
            self._add(particle, (number, *microscope, pixel_A, flipped))
        return len(self._row) - before

    def _add(self, particle: emobj.Particle, key: Tuple[Any, ...]) -> None:
        if key not in self._groups:
            number, voltage, cs, contrast, pixel_A, flipped = key
            self._groups[key] = len(self._optics)
            label = f"optics group {number} of {self._name}" if number is not None else self._name
            self._optics.append(OpticsGroup(label, Optics(pixel_A, voltage, cs, contrast, flipped)))
        index, path = particle.getLocation()
        self._file.append(self._files.setdefault(os.path.abspath(path.split(":")[0]), len(self._files)))
        self._index.append(max(int(index), 1) - 1)
        self._group.append(self._groups[key])
        self._row.append(particle.getObjId())
        self._class.append(int(particle.getClassId() or 0))
        self._half.append(int(_value(particle, HALF) or 0))
        ctf = particle.getCTF()
        u, v, angle = (getattr(ctf, f"getDefocus{x}")() if ctf is not None else None for x in ("U", "V", "Angle"))
        phase = ctf.getPhaseShift() if ctf is not None else None
        for column, value in zip(self._defocus, (u, v, angle, phase or 0.0)):
            column.append(np.nan if value is None else float(value))
        if self._with_poses:
            transform = particle.getTransform()
            matrix = transform.getMatrix() if transform is not None else np.full((4, 4), np.nan)
            self._matrix.extend(np.asarray(matrix, float)[:3].ravel())

    def table(self) -> Table:
        """All particles that were read so far."""
        return Table(
            name=self._name,
            groups=list(self._optics),
            files=list(self._files),
            file=np.array(self._file, np.int32),
            index=np.array(self._index, np.int32),
            group=np.array(self._group, np.int16),
            defocus=Defocus(*(np.array(column, np.float32) for column in self._defocus)),
            row=np.array(self._row, np.int64),
            known=self._known(),
        )

    def _known(self) -> Known:
        volume, half = np.array(self._class, np.int32), np.array(self._half, np.int8)
        if not self._with_poses:
            return Known(volume=volume, half=half)
        a, s_px = from_scipion(np.array(self._matrix).reshape(-1, 3, 4))
        pixel_A = np.array([group.optics.pixel_A for group in self._optics])[np.array(self._group, int)]
        angles = np.stack(euler_angles(a), axis=1)
        return Known(angles, (s_px * pixel_A[:, None]).astype(np.float32), volume, half)


def from_scipion(matrices: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """(n, 3, 3) matrices A and (n, 2) shifts s in pixels of Scipion's matrices (n, 3 or 4, 4)."""
    rotation, translation = matrices[:, :3, :3], matrices[:, :3, 3]
    return np.swapaxes(rotation, 1, 2), np.einsum("nji,nj->ni", rotation, translation)[:, :2]


def to_scipion(a: np.ndarray, s_px: np.ndarray) -> np.ndarray:
    """Scipion's matrices (n, 4, 4) of matrices A (n, 3, 3) and shifts s (n, 2) in pixels."""
    matrices = np.zeros((len(a), 4, 4))
    matrices[:, :3, :3] = np.swapaxes(a, 1, 2)
    matrices[:, :3, 3] = np.einsum("nji,nj->ni", a[:, :2], s_px)
    matrices[:, 3, 3] = 1
    return matrices


def optics_groups(acquisition: emobj.Acquisition) -> Dict[Optional[int], Tuple[float, float, float]]:
    """{number: (voltage, spherical aberration, amplitude contrast)} of the optics groups that RELION's plugin keeps
    with a set, as the text of a STAR file; empty if there are none."""
    columns: List[str] = []
    groups: Dict[Optional[int], Tuple[float, float, float]] = {}
    for line in (acquisition.opticsGroupInfo.get() or "").splitlines():
        values = words(line)
        if values and values[0].startswith("_"):
            columns.append(values[0][1:])
        elif columns and len(values) == len(columns):
            row = dict(zip(columns, values))
            try:
                voltage, cs, contrast = (float(row[name]) for name in _OPTICS_COLUMNS)
                groups[int(row[OPTICS_GROUP[1:]])] = voltage, cs, contrast
            except (KeyError, ValueError):
                return {}
    return groups


def with_poses(
    particles: emobj.SetOfParticles, found: np.ndarray, among: Optional[range] = None
) -> Iterator[emobj.Particle]:
    """Copies of the particles that were aligned, with their poses and what is known of them.

    Parameters
    ----------
    found : (n,) `results.DTYPE`, `row` being the id of a particle. among : ids to look at; None: all.
    """
    found = found[found["aligned"]]
    found = found[np.argsort(found["row"], kind="stable")]
    matrices = to_scipion(matrices_of(found), shifts_A_of(found) / float(particles.getSamplingRate()))
    where = "1" if among is None else f"id >= {among.start} AND id < {among.stop}"
    for particle in particles.iterItems(where=where):
        place = int(np.searchsorted(found["row"], particle.getObjId()))
        if place == len(found) or found["row"][place] != particle.getObjId():
            continue
        copy = particle.clone()
        copy.setTransform(emobj.Transform(matrices[place]))
        copy.setClassId(int(found["volume"][place]))
        for name, field in COLUMNS.items():
            setattr(copy, name, pwobj.Float(float(found[field][place])))
        yield copy


def found_in(particles: emobj.SetOfParticles, most: int) -> np.ndarray:
    """(n,) `results.DTYPE` of a set with projection alignment, of at most `most` particles spread over the set.

    Columns that the set lacks, as one of another program does, are 0.
    """
    step = -(-particles.getSize() // most)
    rows, matrices = [], []
    for particle in particles.iterItems(where=f"id % {step} = 0" if step > 1 else "1"):
        columns = [getattr(particle, name, None) for name in COLUMNS]
        values = [0.0 if column is None or column.get() is None else column.get() for column in columns]
        rows.append((particle.getObjId(), particle.getClassId() or 0, *values))
        matrices.append(particle.getTransform().getMatrix()[:3])
    found = np.zeros(len(rows), DTYPE)
    if rows:
        for name, column in zip(("row", "volume", *COLUMNS.values()), zip(*rows)):
            found[name] = column
        a, s_px = from_scipion(np.array(matrices, float))
        found["rot"], found["tilt"], found["psi"] = euler_angles(a)
        found["x_A"], found["y_A"] = s_px.T * float(particles.getSamplingRate())
        found["aligned"] = True
    return found


def _value(item: Any, name: str) -> Optional[int]:
    attribute = getattr(item, name, None)
    return None if attribute is None or attribute.get() is None else int(attribute.get())
