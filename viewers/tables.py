"""The tables of the output sets: their columns, the order of the columns, and the columns that are pictures.

The tables show thumbnails instead of the micrographs and movies themselves, because Scipion's table program opens MRC
files for writing, which changes the modification time of the raw data, and reads a whole movie for one small picture.
"""

from __future__ import annotations

import os
from typing import Any, List, Sequence, Tuple

from pwem.objects import SetOfMicrographs, SetOfMovies
from pwem.viewers.mdviewer.viewer import MDView
from pyworkflow.viewer import DESKTOP_TKINTER, View, Viewer

from flexalign_plugin.protocols.outputs import FAILED_TABLE, REASON
from flexalign_plugin.protocols.particle_sets import COLUMNS
from flexalign_plugin.protocols.protocol_flexalign import ProtFlexAlign
from flexalign_plugin.protocols.protocol_swift_consensus import ANGLE_SPREAD, RUNS, SHIFT_SPREAD

PICTURES = [f"{name}._filename" for name in ("thumbnail", "psdCorr", "plotGlobal", "plotLocal")]
_MOTION = [f"_rlnAccumMotion{when}" for when in ("Total", "Early", "Late")]
_MICROGRAPHS = ["id", "enabled", *PICTURES, *_MOTION, "_micName"]
_MOVIES = ["id", "enabled", "_micName", "_alignment._first", "_alignment._last", "_samplingRate"]
_MOVIES += ["_acquisition._dosePerFrame", "_alignment._xshifts", "_alignment._yshifts"]
_FAILED = ["id", "_micName", REASON]
_PARTICLE = ["id", "enabled", "_index", "_filename", "_classId"]
_POSE = [*(f"_ctfModel._defocus{name}" for name in ("U", "V", "Angle")), "_transform._matrix"]


class OutputTable(MDView):
    """The table of an output set of FlexAlign."""

    def getVisibleAndOrderLabels(self) -> Tuple[str, str, str]:
        columns = _MICROGRAPHS
        if isinstance(self._emSet, SetOfMovies):
            columns = _FAILED if os.path.basename(self._emSet.getFileName()) == FAILED_TABLE else _MOVIES
        labels = " ".join(columns)
        return labels, labels, " ".join(PICTURES)


class ParticleTable(MDView):
    """The table of a set of aligned particles. The pictures are the particles."""

    columns: Sequence[str] = tuple(COLUMNS)

    def getVisibleAndOrderLabels(self) -> Tuple[str, str, str]:
        labels = " ".join([*_PARTICLE, *self.columns, *_POSE])
        return labels, labels, "_filename"


class ConsensusTable(ParticleTable):
    """The table of particles whose alignments were compared."""

    columns = (ANGLE_SPREAD, SHIFT_SPREAD, RUNS)


class AlignedSetViewer(Viewer):
    """Shows the same tables on a double click on an output."""

    _label = "FlexAlign table"
    _targets = [SetOfMicrographs, SetOfMovies]
    _environments = [DESKTOP_TKINTER]

    @classmethod
    def can_handle_this_instance(cls, instance: Any) -> bool:
        run = os.path.basename(os.path.dirname(instance.getFileName() or ""))
        return run.endswith(f"_{ProtFlexAlign.__name__}")

    def _visualize(self, obj: Any, **kwargs: Any) -> List[View]:
        return [OutputTable(obj, self.protocol, self._project.port)]
