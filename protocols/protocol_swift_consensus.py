"""ProtSwiftConsensus: which of several alignments of the same particles agree, and their mean."""

from __future__ import annotations

from typing import Any, List, Optional, Tuple

import numpy as np
import pwem.objects as emobj
import pyworkflow.object as pwobj
import pyworkflow.protocol.params as params
from pwem.protocols import ProtAnalysis3D
from pyworkflow import BETA, VERSION_3_0

from flexalign_plugin.errors import SettingsError
from flexalign_plugin.files import atomic_path
from flexalign_plugin.output import particle_plots as plots
from flexalign_plugin.particles import symmetry
from flexalign_plugin.particles.consensus import Consensus, consensus
from flexalign_plugin.particles.poses import distances, matrices
from flexalign_plugin.particles.table import Table, image_keys

from . import form_values
from .label_and_help import LabelAndHelp
from .particle_sets import GrowingTable, to_scipion

OUT_PARTICLES, OUT_REJECTED = "outputParticles", "outputRejected"
TABLES = {OUT_PARTICLES: "particles.sqlite", OUT_REJECTED: "particles_rejected.sqlite"}
SPREADS, AGREEMENT = "spreads.tsv", "agreement.png"
# Attributes of the output particles: rms distances of the runs that agree from their mean, and their number.
ANGLE_SPREAD, SHIFT_SPREAD, RUNS = "_swift_angle_spread", "_swift_shift_spread", "_swift_runs"


class ProtSwiftConsensus(LabelAndHelp, ProtAnalysis3D):
    """Compares alignments of the same particles, by any programs, against the same volume. A particle is kept if more
    than half of the alignments agree on its orientation, its shift and its class; of two, both must. It gets the mean
    orientation and shift of those that agree.

    A particle that several programs orient in the same way is rarely wrong. They must not have started from each
    other's angles, though.
    """

    _label = "SwiftAlign consensus"
    _devStatus = BETA
    _lastUpdateVersion = VERSION_3_0
    aboutParticles = True
    _possibleOutputs = {OUT_PARTICLES: emobj.SetOfParticles, OUT_REJECTED: emobj.SetOfParticles}

    # --------------------------- Form ---------------------------
    def _defineParams(self, form: Any) -> None:
        form.addSection(label="Input")
        form.addParam(
            "inputAlignments",
            params.MultiPointerParam,
            pointerClass="SetOfParticles",
            minNumObjects=2,
            important=True,
            label="Aligned particles",
            help="Two or more alignments of the same particles against the same volume. The order does not matter, but "
            "the output particles have the images and the properties of the first set. Pixel sizes may differ.",
        )
        form.addParam(
            "symmetryGroup",
            params.StringParam,
            default="C1",
            label="Symmetry",
            help="Symmetry of the volume: orientations that differ by it are the same.",
        )
        form.addParam(
            "maxAngle",
            params.FloatParam,
            default=10.0,
            label="Maximum angle (deg)",
            help="Orientations agree if they are not further apart.",
        )
        form.addParam(
            "maxShiftDifference",
            params.FloatParam,
            default=10.0,
            label="Maximum shift difference (A)",
            help="Shifts agree if they are not further apart.",
        )
        form.addParam(
            "compareClasses",
            params.BooleanParam,
            default=False,
            label="Compare classes?",
            help="With *Yes* alignments agree only if they put the particle into the same class. The classes must have "
            "the same numbers in all alignments.",
        )

    # --------------------------- Steps ---------------------------
    def _insertAllSteps(self) -> None:
        values = [
            getattr(self, name).get() for name in ("symmetryGroup", "maxAngle", "maxShiftDifference", "compareClasses")
        ]
        self._insertFunctionStep("consensusStep", *values)

    def consensusStep(self, symmetry_name: str, max_deg: float, max_A: float, with_classes: bool) -> None:
        """Compare the alignments and write the outputs. The arguments are the values of the form."""
        tables = [self._table(pointer) for pointer in self.inputAlignments]
        rows = matched(tables)
        if not len(rows):
            raise RuntimeError(
                "No particle is in at least two of the alignments: give alignments of the same particles."
            )
        group = symmetry.rotations(symmetry_name)
        present = rows.T >= 0
        poses, shifts_A, volume = _stacked(tables, rows)
        found = consensus(
            poses,
            -shifts_A,  # in Angstrom instead of pixels
            volume if with_classes else np.ones_like(volume),
            max_deg,
            max_A,
            group,
            present,
        )
        if not with_classes:
            found = _with_volume(found, volume, present)
        off = np.stack(
            [np.where(there, distances(run, found.poses, group), np.nan) for run, there in zip(poses, present)]
        )
        ids = _ids_of_first(tables, rows)
        self._write_spreads(ids, found, off)
        plots.save(plots.agreement(off, self._names(), max_deg), self._getExtraPath(AGREEMENT))
        with self._lock:
            self._make_sets(ids, rows, found)
        kept = int(found.agrees.sum())
        median = float(np.median(found.spread_deg[found.agrees])) if kept else 0.0
        lines = [
            f"{kept} of {len(ids)} particles ({100 * kept / len(ids):.0f} %) have alignments that agree; their spread "
            f"is {median:.1f} degrees (median)."
        ]
        for name, distance in zip(self._names(), off):
            known = distance[np.isfinite(distance)]
            lines.append(
                f"{name}: {100 * (known <= max_deg).mean():.0f} % within {max_deg:g} degrees of the consensus."
            )
        self.summaryVar.set("\n".join(lines))
        self._store(self.summaryVar)

    def _table(self, pointer: pwobj.Pointer) -> Table:
        particles = pointer.get()
        table = GrowingTable(_name(pointer), with_poses=True)
        table.read(particles)
        particles.close()
        return table.table()

    def _write_spreads(self, ids: np.ndarray, found: Consensus, off: np.ndarray) -> None:
        """A line for each particle: id, whether it is kept, the spread, and the distance of each run in degrees."""
        head = ["id", "kept", "spread_deg", "spread_A", *(f"deg_{i}" for i in range(1, len(off) + 1))]
        with atomic_path(self._getExtraPath(SPREADS)) as temporary, open(temporary, "w", encoding="utf-8") as file:
            file.write("".join(f"# deg_{i}: {name}\n" for i, name in enumerate(self._names(), 1)))
            file.write("\t".join(head) + "\n")
            for i, number in enumerate(ids):
                values = [found.spread_deg[i], found.spread_px[i], *off[:, i]]
                numbers = "\t".join(f"{value:.3f}" for value in values)
                file.write(f"{number}\t{int(found.agrees[i])}\t{numbers}\n")

    def _make_sets(self, ids: np.ndarray, rows: np.ndarray, found: Consensus) -> None:
        """Write the particles that agree, with their mean poses, and the others as they are in the first set."""
        place = {int(number): i for i, number in enumerate(ids) if rows[i, 0] >= 0}
        source = self.inputAlignments[0].get()
        pixel_A = float(source.getSamplingRate())
        mean = to_scipion(found.poses, -found.positions / pixel_A)
        sets = {name: self._new_set(name, source) for name in TABLES}
        for particle in source.iterItems():
            i = place.get(particle.getObjId())
            if i is None:
                continue
            copy = particle.clone()
            setattr(copy, ANGLE_SPREAD, pwobj.Float(float(found.spread_deg[i])))
            setattr(copy, SHIFT_SPREAD, pwobj.Float(float(found.spread_px[i] / pixel_A)))
            setattr(copy, RUNS, pwobj.Integer(int(found.runs[:, i].sum())))
            if found.agrees[i]:
                copy.setTransform(emobj.Transform(mean[i]))
                if copy.getClassId() is not None:
                    copy.setClassId(int(found.volume[i]))
            sets[OUT_PARTICLES if found.agrees[i] else OUT_REJECTED].append(copy)
        for name, output in sets.items():
            if not output.isEmpty():
                self._defineOutputs(**{name: output})
                for pointer in self.inputAlignments:
                    self._defineSourceRelation(pointer, output)

    def _new_set(self, name: str, source: emobj.SetOfParticles) -> emobj.SetOfParticles:
        suffix = TABLES[name][len("particles") : -len(".sqlite")]
        output = self._createSetOfParticles(suffix)
        output.copyInfo(source)
        output.setAlignmentProj()
        return output

    def _names(self) -> List[str]:
        return [_name(pointer) for pointer in self.inputAlignments]

    # --------------------------- Information ---------------------------
    def _validate(self) -> List[str]:
        if form_values.empty_numbers(self):
            return []  # Scipion reports these itself
        errors = []
        try:
            symmetry.rotations(self.symmetryGroup.get() or "")
        except SettingsError as error:
            errors.append(str(error))
        if not 0 < self.maxAngle.get() <= 180:
            errors.append(f"Maximum angle is {self.maxAngle.get():g}: it must be above 0 and at most 180 degrees.")
        if not 0 < self.maxShiftDifference.get() < np.inf:
            errors.append(f"Maximum shift difference is {self.maxShiftDifference.get():g}: it must be above 0 A.")
        given = [pointer for pointer in self.inputAlignments if pointer.get() is not None]
        if len(given) < 2:
            errors.append("Give at least two alignments of the same particles.")
        for pointer in given:
            if not pointer.get().hasAlignmentProj():
                errors.append(f"{_name(pointer)}: its particles have no orientations: give aligned particles.")
        return errors

    def _summary(self) -> List[str]:
        return (self.summaryVar.get("") or "Not finished yet.").splitlines()

    def _methods(self) -> List[str]:
        output = getattr(self, OUT_PARTICLES, None)
        if output is None:
            return []
        n = len(self.inputAlignments)
        return [
            f"{output.getSize()} particles were kept, on whose orientation more than half of {n} alignments agreed "
            f"within {self.maxAngle.get():g} degrees and {self.maxShiftDifference.get():g} A; their mean was used."
        ]


def matched(tables: List[Table]) -> np.ndarray:
    """(n, tables) rows of the same particle in all tables, -1 where one does not have it; those in at least two.

    Particles are the same if their images are; if the alignments are of different images, such as binned ones, if their
    ids are, which Scipion keeps from one set to the next.
    """
    by_image, by_id = _matched(image_keys(tables)), _matched([table.row for table in tables])
    return by_image if len(by_image) >= len(by_id) else by_id


def _matched(keys: List[np.ndarray]) -> np.ndarray:
    everything = np.unique(np.concatenate(keys))
    rows = np.full((len(everything), len(keys)), -1)
    for number, own in enumerate(keys):
        rows[np.searchsorted(everything, own), number] = np.arange(len(own))
    return rows[(rows >= 0).sum(axis=1) >= 2]


def _stacked(tables: List[Table], rows: np.ndarray) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(R, n, 3, 3) poses, (R, n, 2) shifts in Angstrom and (R, n) classes; those of absent particles mean nothing."""
    poses, shifts, volume = [], [], []
    for number, table in enumerate(tables):
        own = np.maximum(rows[:, number], 0)
        known = table.known
        assert known.angles is not None and known.shifts_A is not None and known.volume is not None
        poses.append(matrices(*known.angles[own].T))
        shifts.append(known.shifts_A[own].astype(float))
        volume.append(known.volume[own])
    return np.stack(poses), np.stack(shifts), np.stack(volume)


def _with_volume(found: Consensus, volume: np.ndarray, present: np.ndarray) -> Consensus:
    """The consensus with the class that the first of its runs has given."""
    first = np.where(found.runs.any(axis=0), found.runs.argmax(axis=0), present.argmax(axis=0))
    own = volume[first, np.arange(volume.shape[1])]
    return Consensus(found.poses, found.positions, own, found.agrees, found.runs, found.spread_deg, found.spread_px)


def _ids_of_first(tables: List[Table], rows: np.ndarray) -> np.ndarray:
    """(n,) ids in the first table that has the particle."""
    first: Optional[np.ndarray] = None
    for number in range(len(tables) - 1, -1, -1):
        own = rows[:, number]
        ids = tables[number].row[np.maximum(own, 0)]
        first = ids if first is None else np.where(own >= 0, ids, first)
    assert first is not None
    return first


def _name(pointer: pwobj.Pointer) -> str:
    """Label of the run that an input comes from."""
    owner = pointer.getObjValue()
    return str(owner.getRunName()) if hasattr(owner, "getRunName") else str(pointer.get().getNameId())
