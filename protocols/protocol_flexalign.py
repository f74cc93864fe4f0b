"""ProtFlexAlign: the FlexAlign protocol. What it asks is in `form`, what it checks in `checks`.

Each movie is a step; the step hands the movie to a warm worker process and waits for it, so that a crash, a kill or a
damaged file costs that movie and nothing else. What became of a movie is kept in a record; the output sets are made
from the records, in the executor's main thread.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import threading
from collections import OrderedDict
from concurrent.futures import Future
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Set, Tuple

import pwem.objects as emobj
import pyworkflow.object as pwobj
import pyworkflow.utils as pwutils
from pwem.protocols import ProtAlignMovies
from pwem.protocols.protocol_align_movies import OUT_MICS, OUT_MICS_DW, OUT_MICS_EVEN, OUT_MICS_ODD, OUT_MOVIES
from pyworkflow.protocol.constants import STATUS_NEW

from flexalign_plugin.jobs import Job, JobResult, unique_root, write_failures
from flexalign_plugin.kernels.toolkit import device_index
from flexalign_plugin.micrographs.corrected_star import write_corrected_micrographs
from flexalign_plugin.micrographs.files import atomic_path
from flexalign_plugin.report_pages import LiveReport
from flexalign_plugin.settings import Settings
from flexalign_plugin.worker_pool import WorkerPool

from . import checks, devices, form, summaries
from .arrivals import State, file_state, is_being_written, wait_until_still
from .records import load_record, numbers_in_set, remove_unfit_set, save_record, sort_out

OUT_FAILED = "outputMoviesFailed"
MOVIES_TABLE, FAILED_TABLE = "movies.sqlite", "movies_failed.sqlite"
HALVES = (OUT_MICS_EVEN, OUT_MICS_ODD)
MICROGRAPH_TABLES = {
    OUT_MICS: "micrographs.sqlite",
    OUT_MICS_DW: "micrographs_dose-weighted.sqlite",
    OUT_MICS_EVEN: "micrographs_even.sqlite",
    OUT_MICS_ODD: "micrographs_odd.sqlite",
}
ATTEMPTS_WHILE_WRITTEN = 3


class ProtFlexAlign(ProtAlignMovies):
    """Corrects the motion of the sample during the exposure: frames are brought onto each other as a whole, then local
    motion is measured in patches and described by a smooth spline in space and time, and each frame is resampled once
    through the whole motion. Reads MRC, TIFF and EER movies and their gain and dark references.

    For every movie: the micrograph, plots of the motion, power spectra before and after, the shifts for RELION
    (_shifts.star) and the complete result (_motion.json).
    """

    _label = "FlexAlign"
    _possibleOutputs = {
        OUT_MICS: emobj.SetOfMicrographs,
        OUT_MICS_DW: emobj.SetOfMicrographs,
        OUT_MICS_EVEN: emobj.SetOfMicrographs,
        OUT_MICS_ODD: emobj.SetOfMicrographs,
        OUT_MOVIES: emobj.SetOfMovies,
        OUT_FAILED: emobj.SetOfMovies,
    }

    # --------------------------- Form ---------------------------
    def _defineAlignmentParams(self, formDefinition: Any) -> None:
        form.define_form(formDefinition)

    @property
    def inputIsEer(self) -> pwobj.Boolean:
        """For conditions of the form, which read it like a parameter."""
        first = self._first_movie()
        return pwobj.Boolean(first is not None and form.is_eer(first))

    @property
    def inputIsTiff(self) -> pwobj.Boolean:
        first = self._first_movie()
        return pwobj.Boolean(first is not None and form.is_tiff(first))

    def _first_movie(self) -> Optional[emobj.Movie]:
        pointer = getattr(self, "inputMovies", None)
        movies = pointer.get() if pointer is not None else None
        return movies.getFirstItem() if movies is not None and not movies.isEmpty() else None

    def getGpuList(self) -> List[int]:
        # pyworkflow makes a slot for each listed GPU even when none is used, and then runs one step at a time.
        return [device_index(name) for name in devices.chosen(self)]

    def getTotalThreads(self) -> int:
        # What a queue is asked for. pyworkflow takes one Scipion thread as the one that only waits; here it computes.
        at_once = len(devices.chosen(self)) or max(self.getScipionThreads() - 1, 1)
        return at_once * self.getBinThreads()

    # --------------------------- Steps ---------------------------
    def _insertAllSteps(self) -> None:
        self._pool: Optional[WorkerPool] = None
        self._lock_worker = threading.RLock()
        self._in_work = 0  # movies handed to the pool that have no result yet
        self._futures: Dict[int, Future[JobResult]] = {}
        self._waiting: OrderedDict[int, emobj.Movie] = OrderedDict()  # not yet handed to the worker
        self._roots: Dict[int, str] = {}
        self._taken_roots: Set[str] = set()
        self._seen: Dict[int, State] = {}  # files as they were when they were handed over
        self._n_done = 0
        self._failures: Dict[int, JobResult] = {}
        self._pace = summaries.Pace()
        self._report = LiveReport(self._getExtraPath(), self.warning, self.getRunName())
        self._registered: Set[int] = set()
        self.finished = self.streamClosed = False
        self._take_up()
        super()._insertAllSteps()

    def _insertMovieStep(self, movie: emobj.Movie) -> int:
        number = movie.getObjId()
        root = unique_root(movie.getFileName(), self._taken_roots, number)
        with self._lock_worker:
            self._roots[number] = root
            self._taken_roots.add(root)
            if self._isMovieDone(movie):
                self._n_done += 1
            else:
                self._waiting[number] = movie.clone()
        return super()._insertMovieStep(movie)

    def _take_up(self) -> None:
        """What an earlier run left: its records are the truth, whatever moment it was ended in. Movies that failed are
        tried again; sets that don't fit the records are made again from them."""
        self._recorded, removed = sort_out(self._getExtraPath("DONE"), self._getExtraPath())
        if removed:
            self.info(f"What failed before is tried again: {summaries.counted(removed)}.")
        for table in (MOVIES_TABLE, *MICROGRAPH_TABLES.values()):
            if remove_unfit_set(self._getPath(table), self._recorded):
                self.warning(f"{self._getPath(table)} does not fit the finished movies: it is made again.")
        pwutils.cleanPath(self._getAllDone(), self._getExtraPath("failed.tsv"), self._getPath(FAILED_TABLE))
        if self.hasAttribute(OUT_FAILED):
            self.deleteOutput(getattr(self, OUT_FAILED))

    def processMovieStep(self, movieDict: Dict[str, Any], hasAlignment: bool) -> List[str]:
        """Align one movie. The base class would link, unpack or convert it first, and stop the run if that fails."""
        movie = emobj.Movie()
        movie.setAcquisition(emobj.Acquisition())
        if hasAlignment:
            movie.setAlignment(emobj.MovieAlignment())
        movie.setAttributesFromDict(movieDict, setBasic=True, ignoreMissing=True)
        if self._isMovieDone(movie):
            self.info(f"{movie.getFileName()} is done already.")
        else:
            self._processMovie(movie)
        # Named as the step's result: where it is missing, Continue runs the step again.
        return [self._getMovieDone(movie)]

    def _processMovie(self, movie: emobj.Movie) -> None:
        self._pace.start()
        result = self._aligned(movie)
        save_record(self._getMovieDone(movie), result)
        name = os.path.basename(movie.getFileName())
        if result.ok:
            for warning in result.warnings:
                self.warning(f"{name}: {warning}")
            for note in result.notes:
                self.info(f"{name}: {note}")
            what = f"aligned in {result.seconds:.1f} s, {summaries.motion_text(result, movie.getSamplingRate())}"
        else:
            self.warning(f"FAILED: {result.error}")
            what = "failed, the others go on"
        with self._lock_worker:
            self._n_done += 1
            done, total = self._n_done, len(self._roots)
            self._pace.finished()
            pace = self._pace.text(total - done, not self.streamClosed)
        self.info(f"Movie {done} of {total}: {name} {what}; {pace}")

    def _aligned(self, movie: emobj.Movie) -> JobResult:
        """What comes of the movie; a file that was still being written is waited for and tried again."""
        path = os.path.abspath(movie.getFileName())
        for _ in range(ATTEMPTS_WHILE_WRITTEN):
            result = self._hand_over(movie).result()
            before = self._seen.pop(movie.getObjId(), None)
            if result.ok and file_state(path) == before:
                break
            if not is_being_written(path, before):
                break
            self.info(f"{os.path.basename(path)} is still being written: it is tried again when it is complete.")
            wait_until_still(path)
        return result

    def _n_waiting(self) -> int:
        with self._lock_worker:
            return len(self._roots) - self._n_done

    def _getMovieDone(self, movie: emobj.Movie) -> str:
        return self._getExtraPath("DONE", f"movie_{movie.getObjId():06d}.json")

    def _hand_over(self, movie: emobj.Movie) -> Future[JobResult]:
        """The movie goes to the workers, unless it is there already, and the next ones behind it."""
        with self._lock_worker:
            if self._pool is None:
                self._pool = WorkerPool(devices.compute(self), log=self.info)
            self._submit(movie)
            self._keep_busy()
            return self._futures.pop(movie.getObjId())

    def _keep_busy(self) -> None:
        """Steps wait for one movie after the other, yet every device needs one to align and one to read."""
        while self._pool is not None and self._waiting and self._in_work < self._pool.capacity:
            self._submit(next(iter(self._waiting.values())))

    def _submit(self, movie: emobj.Movie) -> None:
        number = movie.getObjId()
        self._waiting.pop(number, None)
        if self._pool is not None and number not in self._futures:
            path, folder = os.path.abspath(movie.getFileName()), os.path.abspath(self._getExtraPath())
            settings = Settings(**form.settings_values(self, movie))
            if self._is_denoiser_pair(movie):
                settings = dataclasses.replace(settings, split_even_odd=True)
            self._in_work += 1
            self._seen[number] = file_state(path)
            future = self._pool.submit(Job(path, folder, self._getMovieRoot(movie), settings))
            self._futures[number] = future
            future.add_done_callback(self._movie_left)

    def _movie_left(self, _: Future[JobResult]) -> None:
        """Called in a thread of the pool, also while a step still waits for a slower movie."""
        with self._lock_worker:
            self._in_work -= 1
            self._keep_busy()

    def createOutputStep(self) -> List[str]:
        self._close_worker()
        if not self._roots:
            raise RuntimeError("The input was closed and has no movies: look at the run that they should come from.")
        done = len(self._roots) - len(self._failures)
        if self._failures:
            reason = next(iter(self._failures.values())).error
            if not done:
                raise RuntimeError(
                    f"None of {summaries.counted(len(self._failures))} could be aligned. The first one: {reason}"
                )
            self.warning(f"{len(self._failures)} of {len(self._roots)} movies failed, see {OUT_FAILED} and failed.tsv.")
        # Of pairs for a denoiser there are fewer, as asked.
        complete = [name for name, _ in self._micrograph_sets() if name not in HALVES or self.splitEvenOdd]
        for name in [OUT_MOVIES, *complete]:
            output = getattr(self, name, None)
            size = output.getSize() if output is not None else 0
            if size != done:
                raise RuntimeError(
                    f"{summaries.counted(done)} aligned, but {name} has {size} items: the log says what is missing."
                )
        acquisition = self.inputMovies.get().getAcquisition()
        optics = acquisition.getSphericalAberration(), acquisition.getAmplitudeContrast()
        for problem in write_corrected_micrographs(self._getExtraPath(), *optics):
            self.warning(problem)
        # As this step's result, which a start removes: Continue must check again.
        with atomic_path(self._getAllDone()) as temporary, open(temporary, "w") as f:
            f.writelines(f"{number}\n" for number in sorted(self._registered))
        return [self._getAllDone()]

    def _close_worker(self) -> None:
        with self._lock_worker:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    def _runSteps(self, *args: Any) -> None:
        try:
            super()._runSteps(*args)
        finally:
            self._close_worker()
            self._report.finish()

    # --------------------------- Streaming ---------------------------
    def _loadInputList(self) -> None:
        """The movies that are to be aligned and not in the outputs yet; those that are would only fill the memory."""
        movies = emobj.SetOfMovies(filename=self.inputMovies.get().getFileName())
        movies.loadAllProperties()
        asked_for = self._asked_for(movies)
        self.listOfMovies = [m.clone() for m in asked_for if m.getObjId() not in self._registered]
        self.streamClosed = movies.isStreamClosed() or 0 < self.onlyProcess.get() <= movies.getSize()
        movies.close()

    def _insertNewMoviesSteps(self, insertedDict: Dict[int, int], inputMovies: Any) -> List[int]:
        listed = inputMovies is getattr(self, "listOfMovies", None)
        steps = super()._insertNewMoviesSteps(insertedDict, inputMovies if listed else self._asked_for(inputMovies))
        self._pace.arrived(len(steps))
        return steps

    def _asked_for(self, movies: Iterable[emobj.Movie]) -> Iterator[emobj.Movie]:
        most = self.onlyProcess.get()
        for i, movie in enumerate(movies):
            # Those done by an earlier run that was asked for more stay in the outputs.
            if most <= 0 or i < most or movie.getObjId() in self._recorded:
                yield movie

    def _stepsCheck(self) -> None:
        if self.isFailed():
            # The executor calls this a last time and then waits for every thread; and whoever waits for our outputs
            # must learn that no more will come.
            self._close_worker()
            self._closeOutputSet()
            return
        super()._stepsCheck()

    def _checkNewInput(self) -> None:
        """New movies of the input set become steps. Asks whether the file has changed, not whether it is newer than
        this machine's clock, as the base class does: clocks of file servers differ."""
        state = os.stat(self.inputMovies.get().getFileName())
        changed = (state.st_mtime_ns, state.st_size)
        if getattr(self, "_input_state", None) == changed:
            return
        self._input_state = changed
        self._loadInputList()
        if any(m.getObjId() not in self.insertedDict for m in self.listOfMovies):
            steps = self._insertNewMoviesSteps(self.insertedDict, self.listOfMovies)
            output_step = self._getFirstJoinStep()
            if output_step is not None:
                output_step.addPrerequisites(*steps)
            self.updateSteps()

    def _checkNewOutput(self) -> None:
        """Movies that are done go to the output sets. The base class keeps a list of those that are there and writes it
        before the sets: what happens in between is lost. Here the sets themselves are asked."""
        if self.finished:
            return
        done = [m for m in self.listOfMovies if self._isMovieDone(m)]
        finished = self.streamClosed and len(done) == len(self.listOfMovies)
        if not done and not finished:
            return
        self.finished = finished
        self._updateOutputSets(done, pwobj.Set.STREAM_CLOSED if finished else pwobj.Set.STREAM_OPEN)
        self._registered.update(m.getObjId() for m in done)
        self.listOfMovies = [m for m in self.listOfMovies if m.getObjId() not in self._registered]
        output_step = self._getFirstJoinStep()
        if finished and output_step is not None and output_step.isWaiting():
            output_step.setStatus(STATUS_NEW)

    # --------------------------- Outputs ---------------------------
    def _updateOutputSets(self, newDone: List[emobj.Movie], streamMode: int) -> None:
        records = {m.getObjId(): _loaded(self._getMovieDone(m)) for m in newDone}
        good = [m for m in newDone if records[m.getObjId()].ok]
        bad = [m for m in newDone if not records[m.getObjId()].ok]
        self._failures.update({m.getObjId(): records[m.getObjId()] for m in bad})
        if bad:
            write_failures(
                self._getExtraPath("failed.tsv"), [(i, r.movie, r.error) for i, r in sorted(self._failures.items())]
            )
        if bad or self.hasAttribute(OUT_FAILED):
            self._append_movies(OUT_FAILED, FAILED_TABLE, bad, streamMode)
        if good or self.hasAttribute(OUT_MOVIES):
            self._firstTimeOutput = False  # `_relate` does it
            self._append_movies(OUT_MOVIES, MOVIES_TABLE, good, streamMode)
            for name, file_of in self._micrograph_sets():
                some = good
                if name in HALVES:
                    some = [m for m in good if "micrograph_even" in records[m.getObjId()].files]
                if some or self.hasAttribute(name):
                    table = MICROGRAPH_TABLES[name]
                    self._updateOutputMicSet(self._missing_in(table, some), table, file_of, name, streamMode)
                    self._relate(name)
        self.summaryVar.set(summaries.summary(self))
        self._store(self.summaryVar)
        self._report.update(len(self._roots))

    def _micrograph_sets(self) -> List[Tuple[str, Callable[[emobj.Movie], str]]]:
        """Output sets of micrographs that this run makes, and how their files are named."""
        if not self.doSaveAveMic:
            return []
        sets = []
        if self._createOutputMicrographs():
            sets.append((OUT_MICS, self._getOutputMicName))
        if self._createOutputWeightedMicrographs():
            sets.append((OUT_MICS_DW, self._getOutputMicWtName))
        if self.splitEvenOdd or self.denoiserPairs:
            sets += [(OUT_MICS_EVEN, self._getOutputMicEvenName), (OUT_MICS_ODD, self._getOutputMicOddName)]
        return sets

    def _createOutputWeightedMicrographs(self) -> bool:
        movies = self.inputMovies.get()
        if movies is None or not (self.doSaveAveMic and self.doApplyDoseFilter):
            return False
        dose = movies.getAcquisition().getDosePerFrame() if self.useMovieDose else self.dosePerFrame.get()
        return dose is not None and (dose > 0 or not self.useMovieDose)

    def _createOutputMicrographs(self) -> bool:
        unweighted = self.doSaveUnweightedMic.get() or not self._createOutputWeightedMicrographs()
        return bool(self.doSaveAveMic and unweighted)

    def _is_denoiser_pair(self, movie: emobj.Movie) -> bool:
        first = itertools.islice(self._roots, self.nDenoiserPairs.get())
        return bool(self.denoiserPairs) and movie.getObjId() in first

    def _getBinFactor(self) -> float:
        return self.binFactor.get() / self.fcropFactor.get()

    def _append_movies(self, name: str, file_name: str, movies: List[emobj.Movie], streamMode: int) -> None:
        aligned_files = name == OUT_MOVIES and self.doSaveMovie.get()
        movies = self._missing_in(file_name, movies)
        movies = [self._createOutputMovie(m) if name == OUT_MOVIES else m.clone() for m in movies]
        movie_set = self._loadOutputSet(emobj.SetOfMovies, file_name, fixSampling=aligned_files)
        if movie_set.isEmpty() and movies:
            # Told here, because pwem would ask the first file, which it can't for every format, or keep the input's.
            movie_set.setFramesRange(movies[0].getFramesRange())
            movie_set.setDim(movies[0].getDim() if aligned_files else self.inputMovies.get().getDim())
        if aligned_files:
            movie_set.setGain(None)
            movie_set.setDark(None)
        for movie in movies:
            movie_set.append(movie)
        self._updateOutputSet(name, movie_set, streamMode)
        self._relate(name)

    def _missing_in(self, table: str, movies: List[emobj.Movie]) -> List[emobj.Movie]:
        known = numbers_in_set(self._getPath(table)) or set()
        return [m for m in movies if m.getObjId() not in known]

    def _relate(self, name: str) -> None:
        """Outputs come from the input movies; told once, also where an earlier run was killed before it could."""
        output = getattr(self, name)
        if all(relation["object_child_id"] != output.getObjId() for relation in self.getRelations()):
            self._defineTransformRelation(self.inputMovies, output)

    def _createOutputMovie(self, movie: emobj.Movie) -> emobj.Movie:
        """The movie with its shifts, or the aligned movie with none left. Ranges are the file's own (1-based)."""
        record = _loaded(self._getMovieDone(movie))
        first_in_file, n = record.first_frame + 1, len(record.shifts_px)
        output = movie.clone()
        first = first_in_file + form.dropped_frames(movie)
        shifts = {
            "xshifts": [float(s[1]) for s in record.shifts_px],
            "yshifts": [float(s[0]) for s in record.shifts_px],
        }
        if self.doSaveMovie:
            output.setFileName(self._getExtraPath(self._getOutputMovieName(movie)))
            output.setSamplingRate(movie.getSamplingRate() * self._getBinFactor())
            shifts, first_in_file = {"xshifts": [0.0] * n, "yshifts": [0.0] * n}, 1
        output.setFramesRange([first, first + n - 1, first_in_file])
        alignment = emobj.MovieAlignment(first=first, last=first + n - 1, **shifts)
        alignment.setRoi([getattr(self, f"crop{what}").get() for what in ("OffsetX", "OffsetY", "DimX", "DimY")])
        output.setAlignment(alignment)
        return output

    def _getMovieShifts(self, movie: emobj.Movie) -> Any:
        shifts = _loaded(self._getMovieDone(movie)).shifts_px
        return [float(s[1]) for s in shifts], [float(s[0]) for s in shifts]

    def _getMovieRoot(self, movie: emobj.Movie) -> str:
        # Outside a run (viewers) the names that are unique by themselves are known all the same.
        roots = getattr(self, "_roots", {})
        return roots.get(movie.getObjId()) or unique_root(movie.getFileName(), (), movie.getObjId())

    def _preprocessOutputMicrograph(self, mic: emobj.Micrograph, movie: emobj.Movie) -> None:
        """Pictures of the set's viewer. Every micrograph has all of them, if need be empty: they are table columns."""
        record = _loaded(self._getMovieDone(movie))
        files = record.files
        for when in ("Total", "Early", "Late"):  # names of other motion correction protocols
            moved = record.quality.get(f"accumulated_motion_{when.lower()}_A")
            setattr(mic, f"_rlnAccumMotion{when}", pwobj.Float(moved))
        pictures = {"thumbnail": "thumbnail", "plotGlobal": "plot_global"}
        if self.doLocalAlignment:
            pictures["plotLocal"] = "plot_local"
        if self.doComputePSD:
            pictures["psdCorr"] = "psd_image"
        for column, key in pictures.items():
            path = self._getExtraPath(os.path.basename(files[key])) if key in files else None
            setattr(mic, column, emobj.Image(location=path))

    # --------------------------- Information ---------------------------
    def _validate(self) -> List[str]:
        errors = devices.problems(self)
        if self.onlyProcess.get() < 0:
            errors.append(f"Only process {self.onlyProcess.get()} movies: give a number, or 0 for all.")
        if self.denoiserPairs and self.nDenoiserPairs.get() < 1:
            errors.append(f"Number of pairs is {self.nDenoiserPairs.get()}: at least 1, or say No to pairs.")
        if self.getBinThreads() < 1:
            errors.append(f"Threads is {self.getBinThreads()}: at least 1 CPU core is needed.")
        first = self._first_movie()
        if first is None:  # nothing chosen, which the form says itself, or a stream that has not begun
            return errors
        paths = [m.getFileName() for m in self.inputMovies.get().iterItems(limit=checks.MOVIES_TRIED)]
        return errors + checks.problems(form.settings_values(self, first), paths)

    def _warnings(self) -> List[str]:
        first = self._first_movie()
        size = self.inputMovies.get().getDim() if first is not None else None
        return checks.hints(form.settings_values(self, first), (size[1], size[0])) if size else []

    def _summary(self) -> List[str]:
        return [self.summaryVar.get("") or "No movie is finished yet."]

    def _methods(self) -> List[str]:
        return summaries.methods(self)

    def _citations(self) -> List[str]:
        return ["strelak2020flexalign"] + (["grant2015"] if self._createOutputWeightedMicrographs() else [])


def _loaded(path: str) -> JobResult:
    record = load_record(path)
    if record is None:
        raise FileNotFoundError(f"{path} is missing, although the movie is marked as done: restart the protocol.")
    return record
