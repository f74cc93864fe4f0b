"""The viewer of the protocols of particles: distribution of views, scores and errors, examples, agreement of runs."""

from __future__ import annotations

import os
from typing import Any, Callable, Dict, List, Optional

import numpy as np
import pwem.objects as emobj
import pyworkflow.protocol.params as params
from pwem.viewers import Chimera, ChimeraView
from pwem.viewers.mdviewer.viewer import MDView
from pyworkflow.gui.plotter import Plotter
from pyworkflow.viewer import DESKTOP_TKINTER, ProtocolViewer, View

from flexalign_plugin.output import particle_plots as plots
from flexalign_plugin.output.pictures import read_png
from flexalign_plugin.particles import symmetry
from flexalign_plugin.particles.results import matrices_of
from flexalign_plugin.protocols.particle_sets import found_in
from flexalign_plugin.protocols.protocol_swift_align import OUT_CLASSES, OUT_PARTICLES, ProtSwiftAlign
from flexalign_plugin.protocols.protocol_swift_consensus import (
    OUT_REJECTED,
    ProtSwiftConsensus,
)
from flexalign_plugin.result_files import FAILED_PARTICLES, REPORT
from flexalign_plugin.runs.particle_consensus import AGREEMENT, SPREADS
from flexalign_plugin.runs.particle_report import DIRECTIONS, EXAMPLES_PICTURE

from .tables import ConsensusTable, ParticleTable
from .viewer_flexalign import BrowserView

TITLE = "SwiftAlign"
NOTHING_YET = "There is nothing yet: no particle is aligned."
MOST_DRAWN = 200_000  # of more particles every second, third, ... is drawn


class SwiftAlignViewer(ProtocolViewer):
    """Shows the results of SwiftAlign."""

    _label = "SwiftAlign results"
    _targets = [ProtSwiftAlign]
    _environments = [DESKTOP_TKINTER]

    @classmethod
    def getClassLabel(cls, prependPackageName: bool = True) -> str:
        return cls._label  # as the protocol's

    def _defineParams(self, form: Any) -> None:
        form.addSection(label="Results")
        group = form.addGroup("Pictures")
        for name, label, help_text in (
            (
                "showOverview",
                "Overview",
                "One window with the directions of view on an equal-area map, the scores and the predicted errors, and "
                "how sure the orientations are.",
            ),
            (
                "showExamples",
                "Particles above their projections",
                "Those with the highest and with the lowest scores. The best should look like their projections.",
            ),
            (
                "showChimera",
                "Directions of view in ChimeraX",
                f"The volume with a cone for each direction; the longer, the more particles. The file is "
                f"*extra/{DIRECTIONS}*.",
            ),
            (
                "showReport",
                "Report in the browser",
                f"All pictures and figures in one HTML file, *extra/{REPORT}*, which can be sent to others.",
            ),
        ):
            group.addParam(name, params.LabelParam, label=label, help=help_text)
        group = form.addGroup("Tables")
        for name, label, help_text in (
            (
                "showParticles",
                "Particles",
                "Table of the aligned particles with scores, predicted errors of angle (degrees) and shift (px), and "
                "probabilities of orientation and volume.",
            ),
            ("showClasses", "Classes", "The particles sorted by volume, if there are several volumes."),
            ("showFailed", "Particles that failed", "Those that could not be aligned, with the reasons."),
        ):
            group.addParam(name, params.LabelParam, label=label, help=help_text)

    def _getVisualizeDict(self) -> Dict[str, Callable[..., List[View]]]:
        return {
            "showOverview": lambda _: self._overview(),
            "showExamples": lambda _: self._examples(),
            "showChimera": lambda _: self._chimera(),
            "showReport": lambda _: self._report(),
            "showParticles": lambda _: self._table(OUT_PARTICLES),
            "showClasses": lambda _: self._table(OUT_CLASSES),
            "showFailed": lambda _: self._failures(),
        }

    def _overview(self) -> List[View]:
        output = getattr(self.protocol, OUT_PARTICLES, None)
        if output is None:
            return [self.infoMessage(NOTHING_YET, TITLE)]
        group = symmetry.rotations(self.protocol.symmetryGroup.get())
        return [overview_window(output, group if len(group) > 1 else None)]

    def _examples(self) -> List[View]:
        path = self.protocol._getExtraPath(EXAMPLES_PICTURE)
        if not os.path.exists(path):
            return [self.infoMessage("The pictures are drawn at the end of the run.", TITLE)]
        return [picture_window(path, "SwiftAlign: particles above their projections")]

    def _chimera(self) -> List[View]:
        path = self.protocol._getExtraPath(DIRECTIONS)
        if not os.path.exists(path):
            return [self.infoMessage(NOTHING_YET, TITLE)]
        if not os.path.exists(Chimera.getProgram() or ""):
            text = (
                f"ChimeraX is not installed in Scipion: install its plugin, or open {os.path.abspath(path)} in yours."
            )
            return [self.infoMessage(text, TITLE)]
        script = write_chimera_script(
            self.protocol._getTmpPath("directions.cxc"), path, self.protocol._input_volumes()[0]
        )
        return [ChimeraView([script])]

    def _report(self) -> List[View]:
        path = self.protocol._getExtraPath(REPORT)
        return [BrowserView(path)] if os.path.exists(path) else [self.infoMessage(NOTHING_YET, TITLE)]

    def _table(self, name: str) -> List[View]:
        output = getattr(self.protocol, name, None)
        if output is None:
            return [self.infoMessage("There is nothing yet, or this run does not produce this output.", TITLE)]
        table = ParticleTable if isinstance(output, emobj.SetOfParticles) else MDView
        return [table(output, self.protocol, self._project.port)]

    def _failures(self) -> List[View]:
        path = self.protocol._getExtraPath(FAILED_PARTICLES)
        if not os.path.exists(path):
            return [self.infoMessage("No particle failed.", TITLE)]
        return [self.textView([path], "Particles that failed")]


class SwiftConsensusViewer(ProtocolViewer):
    """Shows the results of the consensus of alignments."""

    _label = "SwiftAlign consensus results"
    _targets = [ProtSwiftConsensus]
    _environments = [DESKTOP_TKINTER]

    @classmethod
    def getClassLabel(cls, prependPackageName: bool = True) -> str:
        return cls._label

    def _defineParams(self, form: Any) -> None:
        form.addSection(label="Results")
        for name, label, help_text in (
            ("showAgreement", "Agreement of the alignments", "How far each alignment is from the consensus."),
            ("showParticles", "Particles that agree", "Table with the mean poses and the spread of the alignments."),
            ("showRejected", "Particles that do not agree", "Table with the poses of the first alignment."),
            (
                "showSpreads",
                "Distances of all particles",
                f"*extra/{SPREADS}*: for each particle whether it is kept, the spread of the alignments that agree, "
                "and the distance of each alignment from the consensus in degrees.",
            ),
        ):
            form.addParam(name, params.LabelParam, label=label, help=help_text)

    def _getVisualizeDict(self) -> Dict[str, Callable[..., List[View]]]:
        return {
            "showAgreement": lambda _: self._file(
                AGREEMENT, lambda path: picture_window(path, "Agreement of alignments")
            ),
            "showParticles": lambda _: self._table(OUT_PARTICLES),
            "showRejected": lambda _: self._table(OUT_REJECTED),
            "showSpreads": lambda _: self._file(SPREADS, lambda path: self.textView([path], "Distances in degrees")),
        }

    def _file(self, name: str, show: Callable[[str], View]) -> List[View]:
        path = self.protocol._getExtraPath(name)
        return [show(path)] if os.path.exists(path) else [self.infoMessage("There is nothing yet.", TITLE)]

    def _table(self, name: str) -> List[View]:
        output = getattr(self.protocol, name, None)
        if output is None:
            return [self.infoMessage("There is no such particle.", TITLE)]
        return [ConsensusTable(output, self.protocol, self._project.port)]


def overview_window(particles: emobj.SetOfParticles, group: Optional[np.ndarray]) -> Plotter:
    """The window about all particles of a set. group : symmetry of the volume."""
    found = found_in(particles, MOST_DRAWN)
    plotter = _plotter((15, 8.4), "SwiftAlign: all particles")
    upper, lower = plotter.getFigure().subfigures(2, 1, height_ratios=(1.25, 1))
    left, right = upper.subfigures(1, 2, width_ratios=(1.7, 1))
    plots.directions(matrices_of(found), group, figure=left)
    plots.posterior_against_score(found["score"], found["posterior"], figure=right)
    pixel_A = float(particles.getSamplingRate())
    plots.histograms(found["score"], found["angle_sd"], found["shift_sd"], pixel_A, figure=lower)
    return plotter


def picture_window(path: str, title: str) -> Plotter:
    """A window with a picture that a run has written."""
    picture = np.asarray(read_png(path))
    ny, nx = picture.shape[:2]
    plotter = _plotter((nx / 100, ny / 100), title)
    axes = plotter.getFigure().add_axes((0, 0, 1, 1))
    axes.imshow(picture, interpolation="antialiased")
    axes.set_axis_off()
    return plotter


def _plotter(inches: Any, title: str) -> Plotter:
    plotter = Plotter(1, 1, figsize=inches, windowTitle=title)
    plotter.tightLayoutOn = False
    return plotter


def write_chimera_script(path: str, directions: str, volume: emobj.Volume) -> str:
    """Write the commands that open the cones and the volume with its centre at the origin, as the cones have it."""
    pixel_A = float(volume.getSamplingRate())
    centre = ",".join(str(n // 2) for n in volume.getDim())
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(
            f'open "{os.path.abspath(directions)}"\n'
            f'open "{os.path.abspath(volume.getFileName().split(":")[0])}"\n'
            f"volume #2 voxelSize {pixel_A:g} originIndex {centre}\n"
            "cofr 0,0,0\nview\n"
        )
    return path
