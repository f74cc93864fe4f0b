"""ProtFlexAlignTiltSeries: aligns the movies of tilt series. It needs scipion-em-tomo.

Each tilt is a step and is aligned like a movie of ProtFlexAlign. One more step for each series writes the aligned tilts
into stacks. A tilt that fails is left out of its series and listed, and the run continues. The results of tilts and
series are saved as records, from which the output sets are made (`tilt_outputs`).
"""

from __future__ import annotations

import dataclasses
import glob
import os
from typing import Any, Dict, List, Optional, Set, Tuple

import pyworkflow.object as pwobj
import pyworkflow.utils as pwutils
from pyworkflow.protocol.constants import STATUS_NEW

from flexalign_plugin.errors import FlexAlignError, MovieError
from flexalign_plugin.execution.job import Job, JobResult, files_complete
from flexalign_plugin.files import OutputFiles, atomic_path
from flexalign_plugin.output.failures import write_failures
from flexalign_plugin.result_files import FAILED_MOVIES, SCIPION_STACKS
from flexalign_plugin.runs.mdoc import MAX_ANGLE
from flexalign_plugin.runs.tilt_series import STACKS, of_one_size, settings_of_images, stacks_of, write_stack
from flexalign_plugin.settings import Settings

from . import checks, devices, form_values, summaries, tilt_form
from .computing import ComputesMovies
from .records import load_record, sort_out
from .tilt_outputs import SeriesRecord, TiltSeriesSets


class ProtFlexAlignTiltSeries(ComputesMovies, TiltSeriesSets):
    """Aligns the frames of every tilt of tilt series and writes the images as tilt series, with the dose of each tilt.
    Reads MRC, TIFF and EER movies and their gain and dark references.

    A tilt that can't be read or aligned is left out of its tilt series and listed in extra/failed.tsv.

    Movies are aligned on CPUs. GPUs can be chosen, but the GPU code of this version has not been run on real hardware.
    """

    _label = "FlexAlign tilt series"
    evenOddCapable = True

    # --------------------------- Form ---------------------------
    def _defineParams(self, formDefinition: Any, addEvenOddParam: bool = True) -> None:
        tilt_form.define_form(formDefinition)

    def _first_movie(self) -> Any:
        tilts = self._first_tilts(1)
        return tilts[0] if tilts else None

    def _first_tilts(self, limit: int) -> List[Any]:
        pointer = getattr(self, tilt_form.INPUT, None)
        series = pointer.get() if pointer is not None else None
        if series is None or series.isEmpty():
            return []
        # Each query is read to its end, because an open query can prevent a streaming import from writing.
        return [tilt.clone() for one in series.iterItems(limit=1) for tilt in one.iterItems(limit=limit)]

    def _usable(self, tilts: List[Any]) -> Any:
        """The first tilt whose dose is possible, as a bad one must not stop the run; the first of all if none is."""
        for tilt in tilts:
            try:
                Settings(**tilt_form.settings_values(self, tilt))
                return tilt
            except FlexAlignError:
                continue
        return tilts[0]

    # --------------------------- Steps ---------------------------
    def _insertAllSteps(self) -> None:
        self._prepare_run()
        # Series of each tilt and its number in the series. The index in this list is the tilt's number in the run.
        self._tilts: List[Tuple[str, int]] = []
        self._failures: Dict[Tuple[str, int], Tuple[str, str]] = {}  # {(series, number of the tilt): (movie, reason)}
        self._begun: Set[str] = set()
        self._continue_earlier_run()
        super()._insertAllSteps()

    def _initialize(self) -> None:
        """Replaces the base class, which makes copies of gain and dark."""

    def _getArgs(self) -> List[Any]:
        return []

    def convertInputStep(self, inputId: int) -> None:
        """Does nothing: gain and dark are read without conversion."""

    def _continue_earlier_run(self) -> None:
        """Continue from the records of an earlier run, if there is one. Series without failed tilts are kept. In the
        others the failed tilts are aligned again and the stacks are written again."""
        pwutils.makePath(self._getExtraPath("DONE"))
        self._remove_tables()
        pwutils.cleanPath(self._all_done(), self._getExtraPath(FAILED_MOVIES))
        removed = 0
        for folder in glob.glob(os.path.join(glob.escape(self._getExtraPath("DONE")), "*", "")):
            ts_id = os.path.basename(os.path.normpath(folder))
            record = SeriesRecord.load(self._series_path(ts_id))
            whole = record is not None and files_complete(record.files, record.sizes, self._getExtraPath())
            if record is not None and not record.failures and whole:
                continue
            pwutils.cleanPath(self._series_path(ts_id))
            removed += sort_out(folder, self._getExtraPath())[1]
        if removed:
            self.info(f"Failed or incomplete in an earlier run, aligned again: {summaries.counted(removed, 'tilt')}.")

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
        """A copy of the tilt with its number in the run, because numbers repeat in every series."""
        tilt = self._tsDict.getTi(ts_id, number).clone()
        tilt.setObjId(self._tilts.index((ts_id, number)))
        return tilt

    def _job(self, tilt: Any) -> Job:
        ts_id, number = self._tilts[tilt.getObjId()]
        path, angle = os.path.abspath(tilt.getFileName()), tilt.getTiltAngle()
        if not _is_possible(angle):
            raise MovieError(
                f"{path}: its tilt angle is {angle}: correct it (TiltAngle in the .mdoc), and import again."
            )
        settings = Settings(**tilt_form.settings_values(self, tilt))
        return Job(path, os.path.abspath(self._getExtraPath()), self._root(ts_id, number), settings)

    def processTiltImageStep(self, tsId: str, tiltImageId: int, *args: Any) -> List[str]:
        """Align one tilt. The base class would stop the run if a tilt fails, and would sum even and odd frames with
        Xmipp."""
        done = self._tilt_path(tsId, tiltImageId)
        if load_record(done) is None:
            self._pace.start()
            result = self._hand_over.result(self._numbered(tsId, tiltImageId))
            name = _name(tsId, self._tsDict.getTi(tsId, tiltImageId))
            self._keep(done, result, "Tilt", name, more_come=False)
        return [done]

    def _n_known(self) -> int:
        return len(self._tilts)

    def processTiltSeriesStep(self, tsId: str) -> List[str]:
        """Write the aligned tilts into stacks. If all tilts were aligned, their single images are removed."""
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
        sizes = {key: os.path.getsize(self._getExtraPath(name)) for key, name in files.items()}
        SeriesRecord([tilt.getObjId() for tilt, _ in good], files, failures, sizes).save(self._series_path(tsId))
        self._tsDict.setFinished(tsId)
        return [self._series_path(tsId)]

    def _result(self, ts_id: str, number: int) -> JobResult:
        result = load_record(self._tilt_path(ts_id, number))
        if result is None:
            raise FileNotFoundError(
                f"{self._tilt_path(ts_id, number)} is missing, although the tilt was processed: restart the protocol."
            )
        # The folder in the record may be outdated, because the project may have been moved.
        here = {key: self._getExtraPath(os.path.basename(path)) for key, path in result.files.items()}
        return dataclasses.replace(result, files=here)

    def _write_stacks(self, ts_id: str, good: List[Tuple[Any, JobResult]]) -> Dict[str, str]:
        """Write all stacks of the series, or none if one fails.

        Returns
        -------
        {key of `STACKS`: name of the stack}.
        """
        files = {}
        results = [result for _, result in good]
        settings = settings_of_images(Settings(**tilt_form.settings_values(self, good[0][0])), results)
        label = f"{len(good)} of {len(self._tsDict.getTiList(ts_id))} tilts of {ts_id}"
        with OutputFiles(self._getExtraPath()) as out:
            for key in stacks_of(results):
                files[key] = f"{ts_id}{SCIPION_STACKS[key]}"
                with out.file(files[key]) as path:
                    write_stack(path, [result.files[key] for result in results], settings, label)
        if "micrograph_dw" not in files and any("micrograph_dw" in result.files for result in results):
            self.warning(
                f"{ts_id}: no dose-weighted tilt series is written, because the dose of some tilts is not known."
            )
        return files

    def _updateOutput(self, tsIdList: List[str]) -> None:
        """Add finished series to the output sets, in the order of the input."""
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
        # Threads that wait for queue jobs also write to the run's database, whose connection is not thread-safe.
        with self._lock:
            self._append_series(ts_ids, records, pwobj.Set.STREAM_CLOSED if finished else pwobj.Set.STREAM_OPEN)
        self.summaryVar.set(self._summary_text())
        self._store(self.summaryVar)
        self._report.update(sum(len(self._tsDict.getTiList(ts_id)) for ts_id in order))
        if finished and self._coStep.isWaiting():
            self._coStep.setStatus(STATUS_NEW)

    def createOutputStep(self) -> List[str]:
        self._hand_over.close()
        with self._lock:
            self._remove_stale_outputs()
        output = getattr(self, self._getOutputName(), None)
        if output is None or output.isEmpty():
            if not self._failures:
                raise RuntimeError("No tilt could be aligned: the input has no tilt series.")
            raise RuntimeError(f"No tilt could be aligned. The first error: {next(iter(self._failures.values()))[1]}")
        if self._failures:
            failed = summaries.counted(len(self._failures), "tilt")
            self.warning(f"{failed} failed and are missing in the tilt series, see {FAILED_MOVIES}.")
        self._closeOutputSet()
        # The file is this step's result. It is removed at the start of a run, so that Continue repeats this step.
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
            return []  # Scipion reports these itself; the other checks need all values
        errors = devices.problems(self)
        tilts = self._first_tilts(checks.MOVIES_TRIED)
        if not tilts:  # no input, which Scipion reports itself
            return errors
        values = tilt_form.settings_values(self, self._usable(tilts))
        return errors + checks.problems(values, [tilt.getFileName() for tilt in tilts])

    def _warnings(self) -> List[str]:
        hints = devices.hints(self)
        tilts = self._first_tilts(checks.MOVIES_TRIED)
        if not tilts:
            return hints
        tilt = self._usable(tilts)
        try:
            settings = Settings(**tilt_form.settings_values(self, tilt))
        except FlexAlignError:
            return hints  # `_validate` reports it
        hints += checks.input_doubts(settings, [tilt.getFileName()])
        if settings.do_apply_dose_filter and not settings.is_dose_weighted:
            hints.append(
                "The dose of the tilts is not known, so no dose-weighted tilt series will be written: give the dose at "
                "the import, or set *Apply dose filter?* to No."
            )
        size = self._getInputTs().getDim()
        return hints + (checks.room_hints(settings, (size[1], size[0])) if size else [])

    def _summary_text(self) -> str:
        output = getattr(self, self._getOutputName(), None)
        lines = ["No tilt series is finished yet."]
        if output is not None:
            lines = [f"{output.getSize()} tilt series of {output.getSamplingRate():.4g} A/px."]
        if "TiltSeriesDW" in self._begun:
            lines.append("Dose-weighted tilt series are in TiltSeriesDW.")
        if self._failures:
            failed = summaries.counted(len(self._failures), "tilt")
            lines.append(f"*{failed} failed*, missing in the series and listed in extra/{FAILED_MOVIES}:")
            lines += [f"  {reason}" for _, reason in list(self._failures.values())[: summaries.SHOWN_FAILURES]]
            lines.append("*Continue* aligns them again.")
        return "\n".join(lines)

    def _summary(self) -> List[str]:
        return [self.summaryVar.get("") or "No tilt series is finished yet."]

    def _methods(self) -> List[str]:
        output: Optional[Any] = getattr(self, self._getOutputName(), None)
        if output is None:
            return []
        weighted = getattr(self, "TiltSeriesDW", None) is not None
        dose = summaries.DOSE_WEIGHTING if weighted else ""
        return [
            f"The movies of {output.getSize()} tilt series were corrected for specimen motion with FlexAlign "
            f"[strelak2020flexalign]{summaries.compared_to(self)}.{dose}"
        ]

    def _citations(self) -> List[str]:
        return ["strelak2020flexalign"] + (["grant2015"] if getattr(self, "TiltSeriesDW", None) is not None else [])


def _name(ts_id: str, tilt: Any) -> str:
    angle = tilt.getTiltAngle()
    return f"{ts_id} at {angle:.1f} degrees" if _is_possible(angle) else f"{ts_id}, tilt {tilt.getObjId()}"


def _is_possible(angle: Optional[float]) -> bool:
    return angle is not None and -MAX_ANGLE <= angle <= MAX_ANGLE
