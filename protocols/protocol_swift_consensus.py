"""ProtSwiftConsensus: which of several alignments of the same particles agree, and their mean."""

from __future__ import annotations

import dataclasses
from typing import Any, List, Tuple

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
from flexalign_plugin.particles.consensus import Consensus
from flexalign_plugin.particles.table import Table
from flexalign_plugin.runs.particle_consensus import (
    AGREEMENT,
    SPREADS,
    compare,
    matched,
    stacked,
    write_spreads,
)

from . import form_values
from .label_and_help import LabelAndHelp
from .particle_sets import GrowingTable, to_scipion

OUT_PARTICLES, OUT_REJECTED = "outputParticles", "outputRejected"
TABLES = {OUT_PARTICLES: "particles.sqlite", OUT_REJECTED: "particles_rejected.sqlite"}
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
        first, rows = same_particles(tables)
        if not len(first):
            raise RuntimeError(
                f"{self._names()[0]}: none of its particles is in another alignment: give alignments of the same "
                "particles."
            )
        group = symmetry.rotations(symmetry_name)
        found, off = compare(tables, rows, max_deg, max_A, group, with_classes)
        if not with_classes:
            found = dataclasses.replace(found, volume=stacked(tables[:1], rows[:1])[2][0])
        ids = tables[0].row[first]
        path = self._getExtraPath(SPREADS)
        write_spreads(path, self._names(), ids, found.agrees, found.spread_deg, found.spread_px, off)
        with atomic_path(self._getExtraPath(AGREEMENT)) as temporary:
            plots.save(plots.agreement(off, self._names(), max_deg), temporary)
        with self._lock:
            self._make_sets(ids, found)
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

    def _make_sets(self, ids: np.ndarray, found: Consensus) -> None:
        """Write the particles that agree, with their mean poses, and the others as they are in the first set."""
        place = {int(number): i for i, number in enumerate(ids)}
        source = self.inputAlignments[0].get()
        pixel_A = float(source.getSamplingRate())
        mean = to_scipion(found.poses, -found.positions / pixel_A)
        for name in TABLES:
            if self.hasAttribute(name):  # of an earlier run with other values
                self.deleteOutput(getattr(self, name))
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

    def _warnings(self) -> List[str]:
        return [
            f"{_name(pointer)}: is still growing; only the particles that it has when the run starts are compared."
            for pointer in self.inputAlignments
            if pointer.get() is not None and pointer.get().isStreamOpen()
        ]

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


def same_particles(tables: List[Table]) -> Tuple[np.ndarray, np.ndarray]:
    """As `runs.particle_consensus.matched`, by their images; if the alignments are of other images of the particles,
    such as binned ones, by their ids, which Scipion keeps from one set to the next."""
    by_image, by_id = matched(tables), matched(tables, [table.row for table in tables])
    return by_image if len(by_image[0]) >= len(by_id[0]) else by_id


def _name(pointer: pwobj.Pointer) -> str:
    """Label of the run that an input comes from."""
    owner = pointer.getObjValue()
    return str(owner.getRunName()) if hasattr(owner, "getRunName") else str(pointer.get().getNameId())
