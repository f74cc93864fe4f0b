"""ProtSwiftAlign: orientations, shifts and volumes of particles.

The particles are read from the input set into a table and aligned batch by batch; what was found is saved after each
batch, so that a run that was stopped goes on where it was. The output set is filled from the results. If the input
grows, the step waits for more particles until the set is closed.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import os
import time
from typing import Any, Dict, List, Optional

import numpy as np
import pwem.objects as emobj
import pyworkflow.object as pwobj
import pyworkflow.utils as pwutils
from pwem.protocols import ProtAnalysis3D
from pyworkflow import BETA, VERSION_3_0
from pyworkflow.utils.retry_streaming import retry_on_sqlite_lock

from flexalign_plugin.errors import FlexAlignError, SettingsError
from flexalign_plugin.particles.align import FIRST
from flexalign_plugin.particles.settings import ParticleSettings
from flexalign_plugin.particles.table import Table
from flexalign_plugin.particles.volumes import Volume, fitted, read_volume
from flexalign_plugin.result_files import FAILED_PARTICLES
from flexalign_plugin.runs.particle_report import report_particles
from flexalign_plugin.runs.particles import PARTS, ParticleAligner, ParticleResult

from . import form_values, particle_form
from .label_and_help import LabelAndHelp
from .particle_sets import GrowingTable, with_poses
from .protocol_flexalign import is_locked
from .records import numbers_in_set, read_values, remove_unfit_set, write_values

OUT_PARTICLES, OUT_CLASSES = "outputParticles", "outputClasses"
PARTICLES_TABLE = "particles.sqlite"
ASKED, ASKED_FORMAT = "asked.json", "flexalign-particles-1"  # what the results in the folder were asked for
PROGRESS_S = 20.0  # between two lines of the log
REPORT_S = 60.0  # between two reports of a run that goes on
STACK_ENDINGS = (".mrcs", ".mrc", ".st", ".map")
SURE = 0.9
logger = logging.getLogger(__name__)


class ProtSwiftAlign(LabelAndHelp, ProtAnalysis3D):
    """Finds the orientation and the shift of every particle by comparing it with projections of one or several
    volumes: first coarsely with projections in all orientations, then finely around the best of them. No previous
    alignment is needed. With several volumes each particle is given to the one that it fits best.

    Every particle also gets the predicted error of its angle and of its shift, and the probability of its orientation
    and of its volume.
    """

    _label = "SwiftAlign"
    _devStatus = BETA
    _lastUpdateVersion = VERSION_3_0
    aboutParticles = True
    _possibleOutputs = {OUT_PARTICLES: emobj.SetOfParticles, OUT_CLASSES: emobj.SetOfClasses3D}

    _reported = -math.inf  # when the report was written

    # --------------------------- Form ---------------------------
    def _defineParams(self, form: Any) -> None:
        particle_form.define_form(form)

    def getTotalThreads(self) -> int:
        return self.getBinThreads()  # cores of a job; Scipion would add one for the thread that waits for the others

    # --------------------------- Steps ---------------------------
    def _insertAllSteps(self) -> None:
        # The settings are an argument, so that Continue repeats the step if one of them was changed.
        settings = json.dumps(ParticleSettings(**particle_form.settings_values(self)).result_of())
        self._insertFunctionStep("alignStep", settings)
        self._insertFunctionStep("createOutputStep")

    def alignStep(self, settings: str) -> None:
        """Align all particles of the input, and those that arrive until it is closed.

        Parameters
        ----------
        settings : JSON of those that the result depends on.
        """
        values = {**particle_form.settings_values(self), **json.loads(settings)}
        try:
            self._align(self._volumes(), ParticleSettings.from_dict(values))
        except BaseException:
            self._closeOutputSet()  # protocols that wait for more particles stop waiting
            raise

    def _align(self, volumes: List[Volume], settings: ParticleSettings) -> None:
        self._start_again_if_changed(settings)
        aligner = ParticleAligner(volumes, settings, self._getExtraPath(), self._say)
        table = GrowingTable(self.inputParticles.get().getNameId(), self.considerInputAlignment.get())
        if remove_unfit_set(self._getPath(PARTICLES_TABLE), self._ids_of_input()):
            self.warning(f"{self._getPath(PARTICLES_TABLE)} is not complete and is made again.")
        told = 0
        while True:
            is_closed = self._read(table)
            if is_closed and not len(table):
                raise RuntimeError(
                    "The input is closed and has no particles: check the run that should have produced them."
                )
            # Noise and scale are measured on the first particles of an optics group.
            if len(table) > told and (is_closed or told or len(table) >= FIRST):
                self.info(f"{len(table) - told} new particles.")
                known = table.table()
                result = aligner.align(known, self._progress())
                self._add_to_output(result)
                self._report(known, result, volumes, settings, not is_closed)
                told = len(table)
            elif told and is_closed:
                self._report(known, result, volumes, settings, False)
            if is_closed:
                return
            self._wait()

    def _start_again_if_changed(self, settings: ParticleSettings) -> None:
        """Remove what an earlier run has found if the form was changed since, before *Continue*."""
        pointers = [self.inputParticles, self.inputVolumes, self.inputMask]
        asked = {**settings.result_of(), "input": [pointer.getUniqueId() for pointer in pointers if pointer.hasValue()]}
        path = self._getExtraPath(ASKED)
        try:
            earlier = read_values(path, ASKED_FORMAT)
        except ValueError:  # none
            earlier = asked
        if earlier != json.loads(json.dumps(asked)):
            self.info("The form was changed: all particles are aligned again.")
            pwutils.cleanPath(self._getExtraPath(PARTS), self._getPath(PARTICLES_TABLE))
            for name in (OUT_PARTICLES, OUT_CLASSES):
                if self.hasAttribute(name):
                    self.deleteOutput(getattr(self, name))
        write_values(path, ASKED_FORMAT, asked)

    def _wait(self) -> None:
        """Wait before the next look for new particles."""
        time.sleep(max(self._stepsCheckSecs, 1))

    @retry_on_sqlite_lock(log=logger, predicate=is_locked)
    def _read(self, table: GrowingTable) -> bool:
        """Read new particles; returns whether the input is closed."""
        particles = self._input_set()
        is_closed = not particles.isStreamOpen()  # asked before: what arrives in between is read at the next look
        table.read(particles)
        particles.close()
        return is_closed

    def _input_set(self) -> emobj.SetOfParticles:
        """The input as it is on the disk now."""
        known = self.inputParticles.get()
        particles = emobj.SetOfParticles(filename=known.getFileName(), prefix=known.getPrefix() or "")
        particles.loadAllProperties()
        return particles

    @retry_on_sqlite_lock(log=logger, predicate=is_locked)
    def _ids_of_input(self) -> Any:
        particles = self._input_set()
        ids = set(particles.getIdSet())
        particles.close()
        return ids

    def _volumes(self) -> List[Volume]:
        """The input volumes, multiplied by the mask."""
        volumes = [
            read_volume(os.path.abspath(volume.getFileName().split(":")[0]), float(volume.getSamplingRate()))
            for volume in self._input_volumes()
        ]
        mask = self.inputMask.get()
        if mask is None:
            return volumes
        read = read_volume(os.path.abspath(mask.getFileName().split(":")[0]), float(mask.getSamplingRate()))
        masked = []
        for volume in volumes:
            weights, notes = fitted(read, len(volume.values), volume.pixel_A)
            for note in notes:
                self.info(note)
            masked.append(dataclasses.replace(volume, values=volume.values * np.clip(weights, 0, 1)))
        return masked

    def _input_volumes(self) -> List[emobj.Volume]:
        given = self.inputVolumes.get()
        if given is None:
            return []
        return [given] if isinstance(given, emobj.Volume) else [volume.clone() for volume in given.iterItems()]

    # --------------------------- Outputs ---------------------------
    def _add_to_output(self, result: ParticleResult) -> None:
        """Append what is not in the output set yet."""
        path = self._getPath(PARTICLES_TABLE)
        known = numbers_in_set(path) or set()
        new = result.found[result.found["aligned"] & ~np.isin(result.found["row"], list(known))]
        self._describe(result)
        if not len(new) and self.hasAttribute(OUT_PARTICLES):
            return
        # Threads of Scipion also write to the run's database, whose connection is not thread-safe.
        with self._lock:
            source = self._input_set()
            output = emobj.SetOfParticles(filename=path)
            if known:
                output.loadAllProperties()
                output.enableAppend()
            else:
                output.copyInfo(source)
                output.setAlignmentProj()
            if len(new):  # none if an earlier run was killed before it registered its output
                among = range(int(new["row"].min()), int(new["row"].max()) + 1)
                for particle in with_poses(source, new, among):
                    output.append(particle)
            source.close()
            self._updateOutputSet(OUT_PARTICLES, output, pwobj.Set.STREAM_OPEN)
            self._relate(OUT_PARTICLES)

    def _report(
        self, table: Table, result: ParticleResult, volumes: List[Volume], settings: ParticleSettings, running: bool
    ) -> None:
        """Write the report, unless it is fresh. No error of the report may stop the run."""
        now = time.monotonic()
        if running and now - self._reported < REPORT_S:
            return
        self._reported = now
        try:
            report_particles(self._getExtraPath(), self.getRunName(), table, result, volumes, settings, running)
        except Exception as error:
            self.warning(f"The report could not be written: {error}")

    def _relate(self, name: str) -> None:
        """Define the relations of an output, unless they exist. A run may be killed before this."""
        output = getattr(self, name)
        if all(relation["object_child_id"] != output.getObjId() for relation in self.getRelations()):
            self._defineTransformRelation(self.inputParticles, output)
            self._defineSourceRelation(self.inputVolumes, output)

    def createOutputStep(self) -> None:
        """Close the output set, and sort the particles into classes if there are several volumes."""
        output = getattr(self, OUT_PARTICLES)
        with self._lock:
            if isinstance(self.inputVolumes.get(), emobj.SetOfVolumes):
                self._make_classes()
            self._closeOutputSet()
        self.info(f"{output.getSize()} particles are aligned.")

    def _make_classes(self) -> None:
        volumes = dict(enumerate(self._input_volumes(), 1))

        def describe(new: emobj.Class3D) -> None:
            new.setAlignmentProj()
            new.setRepresentative(volumes[new.getObjId()])

        classes = self._createSetOfClasses3D(pwobj.Pointer(self, extended=OUT_PARTICLES))
        classes.classifyItems(updateClassCallback=describe)
        if self.hasAttribute(OUT_CLASSES):
            self.deleteOutput(getattr(self, OUT_CLASSES))
        self._defineOutputs(**{OUT_CLASSES: classes})
        self._defineSourceRelation(self.inputParticles, classes)
        self._defineSourceRelation(self.inputVolumes, classes)

    # --------------------------- Log and summary ---------------------------
    def _say(self, kind: str, sentence: str) -> None:
        (self.warning if kind == "warning" else self.info)(sentence)

    def _progress(self) -> Any:
        """A function for `ParticleAligner.align` that logs the progress now and then."""
        begun = last = time.monotonic()
        first: Optional[int] = None

        def progress(done: int, total: int) -> None:
            nonlocal last, first
            now = time.monotonic()
            if first is None:
                first = done
            if now - last < PROGRESS_S and done < total:
                return
            last = now
            rate = (done - first) / max(now - begun, 1e-3)
            left = f", {_duration((total - done) / rate)} left" if rate > 0 and done < total else ""
            self.info(f"{done} of {total} particles, {rate:.0f} per second{left}")

        return progress

    def _describe(self, result: ParticleResult) -> None:
        good = result.found[result.found["aligned"]]
        lines = [
            f"{len(good)} particles are aligned. Predicted errors (median): {np.median(good['angle_sd']):.1f} degrees, "
            f"{np.median(good['shift_sd']):.2f} px.",
            f"{100 * (good['posterior'] >= SURE).mean():.0f} % have an orientation of probability {SURE} or more.",
        ]
        n_volumes = len(self._input_volumes())
        if n_volumes > 1:
            shares = np.bincount(good["volume"], minlength=n_volumes + 1)[1:] / len(good)
            lines.append("Shares of the volumes: " + ", ".join(f"{100 * share:.0f} %" for share in shares) + ".")
        if result.failures:
            lines.append(f"*{len(result.failures)} could not be aligned*, see extra/{FAILED_PARTICLES}.")
        self.summaryVar.set("\n".join(lines))
        self._store(self.summaryVar)

    # --------------------------- Information ---------------------------
    def _validate(self) -> List[str]:
        if form_values.empty_numbers(self):
            return []  # Scipion reports these itself; the other checks need all values
        errors = []
        if self.getBinThreads() < 1:
            errors.append(f"Threads is {self.getBinThreads()}: at least 1 CPU core is needed.")
        try:
            settings = ParticleSettings(**particle_form.settings_values(self))
        except SettingsError as error:
            return [*errors, str(error)]
        particles = self.inputParticles.get()
        if particles is not None and not particles.isEmpty():
            errors += self._problems_with_particles(particles, settings)
        return errors + self._problems_with_volumes(settings)

    def _problems_with_particles(self, particles: emobj.SetOfParticles, settings: ParticleSettings) -> List[str]:
        name = particles.getNameId() or "The particles"
        first = particles.getFirstItem()
        errors = []
        if not particles.hasCTF() or first.getCTF() is None:
            errors.append(f"{name}: its particles have no CTF: estimate it, and extract the particles with it.")
        if particles.getAcquisition().getVoltage() is None:
            errors.append(f"{name}: its voltage is not known: give it when the particles are imported.")
        if particles.isAmplitudeCorrected():
            errors.append(
                f"{name}: its amplitudes were corrected for the CTF, which weighting by the CTF needs unchanged: give "
                "the particles before that correction."
            )
        ending = os.path.splitext(first.getFileName().split(":")[0])[1].lower()
        if ending not in STACK_ENDINGS:
            errors.append(f"{name}: its images are in {ending} files: convert them to MRC stacks (.mrcs).")
        if self.considerInputAlignment and not particles.hasAlignmentProj():
            errors.append(f"{name}: has no previous alignment to improve: choose No, or give aligned particles.")
        size = particles.getDim()
        if size and particles.getSamplingRate():
            if size[0] != size[1]:
                errors.append(f"{name}: its images of {size[0]} x {size[1]} pixels are not square: extract them again.")
            errors += settings.problems_with_images(size[0], float(particles.getSamplingRate()), name)
        return errors

    def _problems_with_volumes(self, settings: ParticleSettings) -> List[str]:
        volumes = self._input_volumes()
        if not volumes:
            return []  # Scipion reports it itself
        try:
            read = self._volumes()
        except FlexAlignError as error:
            return [str(error)]
        return [
            f"{volume.name}: the maximum resolution is {settings.max_resolution:g} A, finer than its voxels of "
            f"{volume.pixel_A:.4g} A can show: give at least {2 * volume.pixel_A:.4g} A."
            for volume in read
            if settings.max_resolution * (1 + 1e-4) < 2 * volume.pixel_A
        ]

    def _summary(self) -> List[str]:
        return (self.summaryVar.get("") or "No particle is aligned yet.").splitlines()

    def _methods(self) -> List[str]:
        output = getattr(self, OUT_PARTICLES, None)
        if output is None:
            return []
        values: Dict[str, Any] = particle_form.settings_values(self)
        n = len(self._input_volumes())
        against = "a reference volume" if n == 1 else f"{n} reference volumes"
        return [
            f"{output.getSize()} particles were aligned with projections of {against} by a search over all "
            f"orientations ({values['symmetry']} symmetry) followed by a refinement of orientation and shift, up to a "
            f"resolution of {values['max_resolution']:g} A."
        ]


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
