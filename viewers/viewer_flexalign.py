"""The results of a FlexAlign run: tables of micrographs, movies and failures, and the pictures of one movie."""

from __future__ import annotations

import os
from typing import Any, Callable, Dict, List, Optional, Tuple

import pyworkflow.protocol.params as params
from matplotlib.image import imread
from pwem.viewers.mdviewer.viewer import MDView
from pyworkflow.gui.plotter import Plotter
from pyworkflow.viewer import DESKTOP_TKINTER, ProtocolViewer, View

from flexalign_plugin.protocols.protocol_flexalign import OUT_FAILED, ProtFlexAlign

# File endings of a movie's pictures and what they show, in reading order.
PICTURES = (
    ("_plot_global.png", "Motion of the whole frame"),
    ("_plot_local.png", "Local motion"),
    ("_plot_psd.png", "Power spectrum before and after"),
    ("_thumbnail.png", "Micrograph"),
)


class MicrographsView(MDView):
    """Scipion's table of micrographs, with the picture of the local motion next to its usual ones."""

    def getVisibleAndOrderLabels(self) -> Tuple[str, str, str]:
        usual = "plotGlobal._filename"
        visible, order, render = (
            s.replace(usual, f"{usual} plotLocal._filename") for s in super().getVisibleAndOrderLabels()
        )
        return visible, order, render


class FlexAlignViewer(ProtocolViewer):
    """Analyse the results of FlexAlign."""

    _label = "FlexAlign results"
    _targets = [ProtFlexAlign]
    _environments = [DESKTOP_TKINTER]

    def _defineParams(self, form: Any) -> None:
        form.addSection(label="Results")
        form.addParam(
            "showMicrographs",
            params.LabelParam,
            label="Micrographs",
            help="Table of the corrected micrographs with thumbnail, motion and power spectrum.",
        )
        form.addParam(
            "showMovies",
            params.LabelParam,
            label="Movies",
            help="Table of the movies, with the shifts of their frames.",
        )
        form.addParam(
            "showFailed",
            params.LabelParam,
            label="Failed movies",
            help="Movies that could not be aligned, each with the reason.",
        )
        group = form.addGroup("One movie")
        ids = self._micrograph_ids()
        group.addParam(
            "movieId",
            params.IntParam,
            default=ids[0] if ids else 1,
            label="Id of the movie",
            help="The number in the column *id* of the tables.",
        )
        group.addParam(
            "showPictures",
            params.LabelParam,
            label="Motion and power spectrum",
            help="One window with all pictures of the movie.",
        )

    def _getVisualizeDict(self) -> Dict[str, Callable[..., List[View]]]:
        return {
            "showMicrographs": lambda _: self._table("outputMicrographs", MicrographsView),
            "showMovies": lambda _: self._table("outputMovies", MDView),
            "showFailed": lambda _: self._failures(),
            "showPictures": lambda _: self._pictures(),
        }

    def _micrograph_ids(self) -> List[int]:
        micrographs = getattr(self.protocol, "outputMicrographs", None)
        return [m.getObjId() for m in micrographs.iterItems(limit=1)] if micrographs is not None else []

    def _table(self, name: str, view: Any) -> List[View]:
        output = getattr(self.protocol, name, None)
        if output is None:
            return [self.infoMessage("There is nothing yet: no movie is finished.", "FlexAlign")]
        return [view(output, self.protocol, self._project.port)]

    def _failures(self) -> List[View]:
        path = self.protocol._getExtraPath("failed.tsv")
        if not hasattr(self.protocol, OUT_FAILED) or not os.path.exists(path):
            return [self.infoMessage("No movie failed.", "FlexAlign")]
        return [self.textView([path], "Movies that failed")]

    def _pictures(self) -> List[View]:
        root = self._root_of(self.movieId.get())
        if root is None:
            return [self.errorMessage(f"There is no micrograph with id {self.movieId.get()}.", "FlexAlign")]
        return [pictures_window(root)]

    def _root_of(self, number: int) -> Optional[str]:
        """Start of the movie's files, taken from its micrograph."""
        micrographs = getattr(self.protocol, "outputMicrographs", None)
        item = micrographs[number] if micrographs is not None else None
        return item.getFileName().replace("_aligned_mic.mrc", "") if item is not None else None


def pictures_window(root: str) -> Plotter:
    """Window with the pictures of one movie that exist; `root` is the start of their file names."""
    found = [(root + ending, title) for ending, title in PICTURES if os.path.exists(root + ending)]
    rows, columns = (len(found) + 1) // 2, min(len(found), 2)
    plotter = Plotter(rows, columns, figsize=(5.5 * columns, 4.4 * rows), windowTitle=os.path.basename(root))
    for path, title in found:
        axes = plotter.createSubPlot(title, "", "")
        axes.imshow(imread(path), cmap="gray")
        axes.axis("off")
    plotter.getFigure().subplots_adjust(left=0.01, right=0.99, bottom=0.01, top=0.94, wspace=0.02, hspace=0.12)
    return plotter
