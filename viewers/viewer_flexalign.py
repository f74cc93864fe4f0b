"""The viewer of a FlexAlign run: tables of micrographs and movies, failed movies, windows of the run and of a movie."""

from __future__ import annotations

import glob
import os
import textwrap
import webbrowser
from pathlib import Path
from typing import Any, Callable, Dict, List

import pyworkflow.protocol.params as params
from pyworkflow.viewer import DESKTOP_TKINTER, ProtocolViewer, View

from flexalign_plugin.protocols.protocol_flexalign import ProtFlexAlign
from flexalign_plugin.protocols.records import load_record
from flexalign_plugin.report_pages import Run, collect_run, write_report
from flexalign_plugin.result_files import MOTION, REPORT

from .movie_window import MovieWindow
from .run_window import run_window
from .tables import OutputTable

NOTHING_YET = "There is nothing yet: no movie is finished, or this run does not produce this output."


class FlexAlignViewer(ProtocolViewer):
    """Shows the results of FlexAlign."""

    _label = "FlexAlign results"
    _targets = [ProtFlexAlign]
    _environments = [DESKTOP_TKINTER]

    @classmethod
    def getClassLabel(cls, prependPackageName: bool = True) -> str:
        return cls._label  # as the protocol's

    def _defineParams(self, form: Any) -> None:
        form.addSection(label="Results")
        form.addParam(
            "showMicrographs",
            params.LabelParam,
            label="Micrographs",
            help="Table of the corrected micrographs with thumbnail, power spectrum (left half corrected, right half "
            "uncorrected), plots of global and local motion, and the accumulated motion in Å.",
        )
        form.addParam(
            "showWeighted",
            params.LabelParam,
            label="Micrographs, dose-weighted",
            help="The same table for the dose-weighted micrographs, if the run writes them.",
        )
        form.addParam(
            "showEven",
            params.LabelParam,
            label="Micrographs, even frames",
            help="The sums of the even frames, if the run writes them.",
        )
        form.addParam(
            "showOdd",
            params.LabelParam,
            label="Micrographs, odd frames",
            help="The sums of the odd frames, if the run writes them.",
        )
        form.addParam(
            "showMovies",
            params.LabelParam,
            label="Movies",
            help="Table of the movies with the range of aligned frames and their shifts in x and y (px).",
        )
        form.addParam(
            "showFailed",
            params.LabelParam,
            label="Failed movies",
            help="Movies that could not be aligned, with the reasons.",
        )
        form.addParam(
            "showRun",
            params.LabelParam,
            label="Whole run",
            help="Motion of all movies in order of acquisition, with outliers marked, and throughput.",
        )
        form.addParam(
            "showReport",
            params.LabelParam,
            label="Report in the browser",
            help=f"All results in one HTML file, *extra/{REPORT}*, which can be sent to others and read on any device.",
        )
        group = form.addGroup("One movie")
        ids = list(self._roots())
        group.addParam(
            "movieId",
            params.IntParam,
            default=ids[0] if ids else 1,
            label="Id of the movie",
            help="The number in the column *id* of the tables.",
        )
        group.addParam(
            "showMovie",
            params.LabelParam,
            label="Motion, power spectrum, quality",
            help="One window with plots and quality figures of the movie, and buttons for the previous and next movie.",
        )

    def _getVisualizeDict(self) -> Dict[str, Callable[..., List[View]]]:
        return {
            "showMicrographs": lambda _: self._table("outputMicrographs"),
            "showWeighted": lambda _: self._table("outputMicrographsDoseWeighted"),
            "showEven": lambda _: self._table("outputMicrographsEven"),
            "showOdd": lambda _: self._table("outputMicrographsOdd"),
            "showMovies": lambda _: self._table("outputMovies"),
            "showFailed": lambda _: self._failures(),
            "showRun": lambda _: self._whole_run(),
            "showReport": lambda _: self._report(),
            "showMovie": lambda _: self._movie(),
        }

    def _table(self, name: str) -> List[View]:
        output = getattr(self.protocol, name, None)
        if output is None:
            return [self.infoMessage(NOTHING_YET, "FlexAlign")]
        return [OutputTable(output, self.protocol, self._project.port)]

    def _failures(self) -> List[View]:
        failed = self._run().failed
        if not failed:
            return [self.infoMessage("No movie failed.", "FlexAlign")]
        path = self.protocol._getTmpPath("failed_movies.txt")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8", errors="surrogateescape") as f:
            f.write(f"Movies that failed: {len(failed)}. Continue aligns them again.\n")
            for movie, reason in failed:
                f.write(f"\n{movie}\n" + textwrap.indent(textwrap.fill(reason, 100), "    ") + "\n")
        return [self.textView([path], "Movies that failed")]

    def _movie(self) -> List[View]:
        roots = self._roots()
        number = self.movieId.get()
        if number not in roots:
            known = f" Ids of aligned movies are between {min(roots)} and {max(roots)}." if roots else ""
            return [self.errorMessage(f"There is no aligned movie with id {number}.{known}", "FlexAlign")]
        return [MovieWindow(self._run(), list(roots.values()), roots[number])]

    def _whole_run(self) -> List[View]:
        run = self._run()
        return [run_window(run)] if run.rows else [self.infoMessage(NOTHING_YET, "FlexAlign")]

    def _report(self) -> List[View]:
        path = self.protocol._getExtraPath(REPORT)
        if not os.path.exists(path):  # the run was made by a version without reports
            write_report(self.protocol._getExtraPath(), title=self.protocol.getRunName())
        return [BrowserView(path)]

    def _run(self) -> Run:
        return collect_run(self.protocol._getExtraPath())

    def _roots(self) -> Dict[int, str]:
        """{id of an aligned movie: start of its files' names}, from the records of the run."""
        roots: Dict[int, str] = {}
        for path in sorted(glob.glob(glob.escape(self.protocol._getExtraPath("DONE")) + "/movie_*.json")):
            record = load_record(path)
            if record is not None and record.ok and "motion" in record.files:
                name = os.path.basename(record.files["motion"])
                roots[int(os.path.basename(path)[len("movie_") : -len(".json")])] = name[: -len(MOTION)]
        return roots


class BrowserView(View):
    """Opens a file in the user's browser."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)

    def show(self) -> None:
        webbrowser.open(Path(self.path).as_uri())
