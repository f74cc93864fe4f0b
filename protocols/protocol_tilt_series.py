"""ProtFlexAlignTiltSeries: the movies of tilt series, for the users of scipion-em-tomo.

Each tilt is a step and goes to the workers as a movie of ProtFlexAlign does; a further step for each series puts the
tilts that succeeded into stacks. A tilt that fails is left out of its series and listed, and the others go on. What
became of tilts and series is kept in records; the output sets are made from them (`tilt_outputs`).
"""

from __future__ import annotations

import dataclasses
import glob
import os
import threading
from typing import Any, Dict, List, Optional, Set, Tuple

import pyworkflow.object as pwobj
import pyworkflow.utils as pwutils
from pyworkflow.protocol.constants import STATUS_NEW

from flexalign_plugin.errors import FlexAlignError, MovieError
from flexalign_plugin.execution.job import Job, JobResult
from flexalign_plugin.files import OutputFiles, atomic_path
from flexalign_plugin.movies import open_movie
from flexalign_plugin.output.failures import write_failures
from flexalign_plugin.report_pages import LiveReport
from flexalign_plugin.result_files import FAILED_MOVIES
from flexalign_plugin.runs.tilt_series import STACKS, of_one_size, stacks_of, write_stack
from flexalign_plugin.settings import Settings

from . import checks, devices, form_values, summaries, tilt_form
from .computing import ComputesMovies
from .handover import HandOver
from .records import load_record, save_record, sort_out
from .tilt_outputs import SeriesRecord, TiltSeriesSets

# Endings of the stacks as tomo's base class names them.
STACK_ENDINGS = {"micrograph": "", "micrograph_dw": "_DW", "micrograph_even": "_even", "micrograph_odd": "_odd"}


class ProtFlexAlignTiltSeries(ComputesMovies, TiltSeriesSets):
    """Aligns the frames of every tilt of tilt series, each with its own dose, and makes tilt series of the images.
    Reads MRC, TIFF and EER movies and their gain and dark references.

    A tilt that can't be read or aligned is left out of its tilt series and listed in extra/failed.tsv.
    """

    _label = "FlexAlign tilt series"
    evenOddCapable = True

    # --------------------------- Form ---------------------------
    def _defineParams(self, formDefinition: Any, addEvenOddParam: bool = True) -> None:
        tilt_form.define_form(formDefinition)

    @property
    def inputIsEer(self) -> pwobj.Boolean:
        """For conditions of the form, which read it like a parameter."""
        first = self._first_tilt()
        return pwobj.Boolean(first is not None and form_values.is_eer(first))

    @property
    def inputIsTiff(self) -> pwobj.Boolean:
        first = self._first_tilt()
        return pwobj.Boolean(first is not None and form_values.is_tiff(first))

    def _first_tilt(self) -> Any:
        tilts = self._first_tilts(1)
        return tilts[0] if tilts else None

    def _first_tilts(self, limit: int) -> List[Any]:
        pointer = getattr(self, tilt_form.INPUT, None)
        series = pointer.get() if pointer is not None else None
        if series is None or series.isEmpty():
            return []
        # To the end of each query: one that is left open can keep the producer of a stream from writing.
        return [tilt.clone() for one in series.iterItems(limit=1) for tilt in one.iterItems(limit=limit)]

    # --------------------------- Steps ---------------------------
    def _insertAllSteps(self) -> None:
        self._counting = threading.Lock()  # of what steps change
        self._hand_over = HandOver(self._make_engine, self._job, self.info)
        self._tilts: List[Tuple[str, int]] = []  # series and number in it; a tilt's place is its number in the run
        self._n_done = 0
        self._failures: Dict[Tuple[str, int], Tuple[str, str]] = {}  # of tilts: movie, reason
        self._pace = summaries.Pace()
        self._report = LiveReport(self._getExtraPath(), self.warning, self.getRunName())
        self._begun: Set[str] = set()
        self._take_up()
        super()._insertAllSteps()

    def _initialize(self) -> None:
        """Nothing of the base class: it prepares copies of gain and dark."""

    def _getArgs(self) -> List[Any]:
        return []

    def convertInputStep(self, inputId: int) -> None:
        """Nothing: gain and dark are read as they are."""

    def _take_up(self) -> None:
        """What an earlier run left: its records are the truth, whatever moment it was ended in. Series of which all
        tilts succeeded stay; of the others the failed tilts are tried again, and the stacks made again."""
        pwutils.makePath(self._getExtraPath("DONE"))
        self._remove_tables()
        pwutils.cleanPath(self._all_done(), self._getExtraPath(FAILED_MOVIES))
        removed = 0
        for folder in glob.glob(os.path.join(glob.escape(self._getExtraPath("DONE")), "*", "")):
            ts_id = os.path.basename(os.path.normpath(folder))
            record = SeriesRecord.load(self._series_path(ts_id))
            if record is not None and not record.failures and all(map(self._in_extra, record.files.values())):
                continue
            pwutils.cleanPath(self._series_path(ts_id))
            removed += sort_out(folder, self._getExtraPath())[1]
        if removed:
            self.info(f"What failed before is tried again: {summaries.counted(removed, 'tilt')}.")

    def _in_extra(self, name: str) -> bool:
        return os.path.exists(self._getExtraPath(name))

    def _insertNewSteps(self, tsIdList: List[str]) -> None:
        new = []
        for ts_id in tsIdList:
            if SeriesRecord.load(self._series_path(ts_id)) is not None:
                self._tsDict.setFinished(ts_id)
                continue
            new.append(ts_id)
            pwutils.makePath(self._getExtraPath("DONE", ts_id))
            for tilt in self._tsDict.getTiList(ts_id):
                with self._counting:
                    self._tilts.append((ts_id, tilt.getObjId()))
                    done = load_record(self._tilt_path(ts_id, tilt.getObjId())) is not None
                    self._n_done += done
                if not done:
                    self._hand_over.expect(self._numbered(ts_id, tilt.getObjId()))
        super()._insertNewSteps(new)

    def _numbered(self, ts_id: str, number: int) -> Any:
        """The tilt with a number of its own: two series have tilts of the same number."""
        tilt = self._tsDict.getTi(ts_id, number).clone()
        tilt.setObjId(self._tilts.index((ts_id, number)))
        return tilt

    def _job(self, tilt: Any) -> Job:
        ts_id, number = self._tilts[tilt.getObjId()]
        path = os.path.abspath(tilt.getFileName())
        settings = Settings(**tilt_form.settings_values(self, tilt, n_frames=1))
        try:
            with open_movie(path, settings) as movie:
                n_frames = movie.n_frames
        except MovieError:
            n_frames = 1  # whoever aligns it meets the same error, and says it
        settings = Settings(**tilt_form.settings_values(self, tilt, n_frames))
        return Job(path, os.path.abspath(self._getExtraPath()), self._root(ts_id, number), settings)

    def processTiltImageStep(self, tsId: str, tiltImageId: int, *args: Any) -> List[str]:
        """Align one tilt. The base class would stop the run where a tilt fails, and make halves with Xmipp."""
        done = self._tilt_path(tsId, tiltImageId)
        if load_record(done) is None:
            self._pace.start()
            result = self._hand_over.result(self._numbered(tsId, tiltImageId))
            save_record(done, result)
            self._tell(tsId, tiltImageId, result)
        return [done]

    def _tell(self, ts_id: str, number: int, result: JobResult) -> None:
        tilt = self._tsDict.getTi(ts_id, number)
        name = _name(ts_id, tilt)
        if result.ok:
            for warning in result.warnings:
                self.warning(f"{name}: {warning}")
            for note in result.notes:
                self.info(f"{name}: {note}")
            pixel_size = self._getInputTs().getSamplingRate()
            what = f"aligned in {result.seconds:.1f} s, {summaries.motion_text(result, pixel_size)}"
        else:
            self.warning(f"FAILED: {name}: {result.message}")
            what = "failed, the others go on"
        with self._counting:
            self._n_done += 1
            self._pace.finished()
            done, total = self._n_done, len(self._tilts)
            pace = self._pace.text(total - done, False)
        self.info(f"Tilt {done} of {total}: {name} {what}; {pace}")

    def processTiltSeriesStep(self, tsId: str) -> List[str]:
        """The tilts that succeeded become stacks; series whose tilts all succeeded keep no images apart."""
        results = of_one_size([(tilt, self._result(tsId, tilt.getObjId())) for tilt in self._tsDict.getTiList(tsId)])
        good = sorted([r for r in results if r[1].ok], key=lambda pair: pair[0].getTiltAngle())
        failures = [(tilt.getObjId(), r.movie, f"{_name(tsId, tilt)}: {r.message}") for tilt, r in results if not r.ok]
        files: Dict[str, str] = {}
        try:
            files = self._write_stacks(tsId, good) if good else {}
        except FlexAlignError as error:
            failures += [(tilt.getObjId(), r.movie, f"{_name(tsId, tilt)}: {error}") for tilt, r in good]
            good = []
            self.warning(f"FAILED: {tsId}: {error}")
        if not failures:
            for _, result in good:
                pwutils.cleanPath(*[result.files[key] for key in STACKS if key in result.files])
        SeriesRecord([tilt.getObjId() for tilt, _ in good], files, failures).save(self._series_path(tsId))
        self._tsDict.setFinished(tsId)
        return [self._series_path(tsId)]

    def _result(self, ts_id: str, number: int) -> JobResult:
        result = load_record(self._tilt_path(ts_id, number))
        if result is None:
            raise FileNotFoundError(f"{self._tilt_path(ts_id, number)} is missing: restart the protocol.")
        # By name: the project may have been moved.
        here = {key: self._getExtraPath(os.path.basename(path)) for key, path in result.files.items()}
        return dataclasses.replace(result, files=here)

    def _write_stacks(self, ts_id: str, good: List[Tuple[Any, JobResult]]) -> Dict[str, str]:
        """All stacks of the series or none; {key: name}."""
        files = {}
        settings = Settings(**tilt_form.settings_values(self, good[0][0], n_frames=1))
        results = [result for _, result in good]
        label = f"{len(good)} of {len(self._tsDict.getTiList(ts_id))} tilts of {ts_id}"
        with OutputFiles(self._getExtraPath()) as out:
            for key in stacks_of(results):
                files[key] = f"{ts_id}{STACK_ENDINGS[key]}.mrcs"
                with out.file(files[key]) as path:
                    write_stack(path, [result.files[key] for result in results], settings, label)
        if "micrograph_dw" not in files and any("micrograph_dw" in result.files for result in results):
            self.warning(f"{ts_id}: the dose of some tilts is not known, so it is not among the dose-weighted series.")
        return files

    def _updateOutput(self, tsIdList: List[str]) -> None:
        """Series that are finished go to the output sets, in the order of the input."""
        order = [ts.getTsId() for ts in self._tsDict]
        ts_ids = sorted(tsIdList, key=order.index)
        records: Dict[str, SeriesRecord] = {}
        for ts_id in ts_ids:
            record = SeriesRecord.load(self._series_path(ts_id))
            assert record is not None, ts_id
            records[ts_id] = record
            self._failures.update({(ts_id, number): (movie, why) for number, movie, why in record.failures})
        if self._failures:
            lines = [(number, movie, why) for (_, number), (movie, why) in sorted(self._failures.items())]
            write_failures(self._getExtraPath(FAILED_MOVIES), lines)
        finished = self._tsDict.allDone()
        self._append_series(ts_ids, records, pwobj.Set.STREAM_CLOSED if finished else pwobj.Set.STREAM_OPEN)
        self.summaryVar.set(self._summary_text())
        self._store(self.summaryVar)
        self._report.update(sum(len(self._tsDict.getTiList(ts_id)) for ts_id in order))
        if finished and self._coStep.isWaiting():
            self._coStep.setStatus(STATUS_NEW)

    def createOutputStep(self) -> List[str]:
        self._hand_over.close()
        self._remove_stale_outputs()
        output = getattr(self, self._getOutputName(), None)
        if output is None or output.isEmpty():
            reason = next(iter(self._failures.values()))[1] if self._failures else "the input has no tilt series."
            raise RuntimeError(f"No tilt could be aligned. The first one: {reason}")
        if self._failures:
            failed = summaries.counted(len(self._failures), "tilt")
            self.warning(f"{failed} failed and are not in the tilt series, see failed.tsv.")
        self._closeOutputSet()
        # As this step's result, which a start removes: Continue must check again.
        with atomic_path(self._all_done()) as temporary, open(temporary, "w") as f:
            f.writelines(f"{ts.getTsId()}\n" for ts in self._tsDict)
        return [self._all_done()]

    # --------------------------- Names ---------------------------
    def _root(self, ts_id: str, number: int) -> str:
        return f"{ts_id}_{number:03d}"

    def _tilt_path(self, ts_id: str, number: int) -> str:
        return self._getExtraPath("DONE", ts_id, f"movie_{number:06d}.json")

    def _series_path(self, ts_id: str) -> str:
        return self._getExtraPath("DONE", f"{ts_id}.json")

    def _all_done(self) -> str:
        return self._getExtraPath("DONE", "all.TXT")

    # --------------------------- Information ---------------------------
    def _validate(self) -> List[str]:
        if form_values.empty_numbers(self):
            return []  # Scipion has named each; nothing can be said of the rest
        errors = devices.problems(self)
        if self.getBinThreads() < 1:
            errors.append(f"Threads is {self.getBinThreads()}: at least 1 CPU core is needed.")
        tilts = self._first_tilts(checks.MOVIES_TRIED)
        if not tilts:  # nothing chosen, which the form says itself
            return errors
        values = tilt_form.settings_values(self, tilts[0], n_frames=1)
        return errors + checks.problems(values, [tilt.getFileName() for tilt in tilts])

    def _warnings(self) -> List[str]:
        tilt = self._first_tilt()
        if tilt is None:
            return []
        settings = Settings(**tilt_form.settings_values(self, tilt, n_frames=1))
        found = []
        if settings.do_apply_dose_filter and not settings.is_dose_weighted:
            found.append(
                "The dose of the tilts is not known, so no dose-weighted tilt series will be made: give it at the "
                "import, or turn the dose filter off."
            )
        size = self._getInputTs().getDim()
        return found + (checks.room_hints(settings, (size[1], size[0])) if size else [])

    def _summary_text(self) -> str:
        output = getattr(self, self._getOutputName(), None)
        lines = ["No tilt series is finished yet."]
        if output is not None:
            lines = [f"{output.getSize()} tilt series of {output.getSamplingRate():.4g} A/px."]
        if "TiltSeriesDW" in self._begun:
            lines.append("Dose-weighted tilt series are in TiltSeriesDW.")
        if self._failures:
            failed = summaries.counted(len(self._failures), "tilt")
            lines.append(f"*{failed} failed*, left out of the series and listed in extra/failed.tsv:")
            lines += [f"  {reason}" for _, reason in list(self._failures.values())[: summaries.SHOWN_FAILURES]]
            lines.append("Continue tries them again.")
        return "\n".join(lines)

    def _summary(self) -> List[str]:
        return [self.summaryVar.get("") or "No tilt series is finished yet."]

    def _methods(self) -> List[str]:
        output: Optional[Any] = getattr(self, self._getOutputName(), None)
        if output is None:
            return []
        weighted = getattr(self, "TiltSeriesDW", None) is not None
        dose = " Frames were weighted by the dose that the sample had received [grant2015]." if weighted else ""
        return [
            f"The movies of {output.getSize()} tilt series were corrected for sample motion with FlexAlign "
            f"[strelak2020flexalign]{summaries.compared_to(self)}.{dose}"
        ]

    def _citations(self) -> List[str]:
        return ["strelak2020flexalign"] + (["grant2015"] if getattr(self, "TiltSeriesDW", None) is not None else [])


def _name(ts_id: str, tilt: Any) -> str:
    return f"{ts_id} at {tilt.getTiltAngle():.1f} degrees"
