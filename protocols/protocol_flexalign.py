"""ProtFlexAlign: the FlexAlign protocol. What it asks is in `form`, what it checks in `checks`.

Each movie is a step; the step hands the movie to a warm worker process and waits for it, so that a crash, a kill or a
damaged file costs that movie and nothing else. What became of a movie is kept in a record; the output sets are made
from the records, in the executor's main thread.
"""

from __future__ import annotations

import dataclasses
import os
import threading
from typing import Any, Dict, Iterable, Iterator, List, Optional, Set

import pwem.objects as emobj
import pyworkflow.object as pwobj
import pyworkflow.utils as pwutils
from pyworkflow.protocol.constants import STATUS_NEW

from flexalign_plugin.execution.job import Job, JobResult
from flexalign_plugin.files import atomic_path
from flexalign_plugin.output.corrected_star import write_corrected_micrographs
from flexalign_plugin.report_pages import LiveReport
from flexalign_plugin.result_files import FAILED_MOVIES, unique_root
from flexalign_plugin.settings import Settings

from . import checks, devices, form, form_values, summaries
from .computing import ComputesMovies
from .handover import HandOver
from .outputs import FAILED_TABLE, MICROGRAPH_TABLES, MOVIES_TABLE, OUT_FAILED, AlignedMovieSets
from .records import remove_unfit_set, save_record, sort_out


class ProtFlexAlign(ComputesMovies, AlignedMovieSets):
    """Corrects the motion of the sample during the exposure: frames are brought onto each other as a whole, then local
    motion is measured in patches and described by a smooth spline in space and time, and each frame is resampled once
    through the whole motion. Reads MRC, TIFF and EER movies and their gain and dark references.

    For every movie: the micrograph, plots of the motion, power spectra before and after, the shifts for RELION
    (_shifts.star) and the complete result (_motion.json).
    """

    _label = "FlexAlign"

    # --------------------------- Form ---------------------------
    def _defineAlignmentParams(self, formDefinition: Any) -> None:
        form.define_form(formDefinition)

    @property
    def inputIsEer(self) -> pwobj.Boolean:
        """For conditions of the form, which read it like a parameter."""
        first = self._first_movie()
        return pwobj.Boolean(first is not None and form_values.is_eer(first))

    @property
    def inputIsTiff(self) -> pwobj.Boolean:
        first = self._first_movie()
        return pwobj.Boolean(first is not None and form_values.is_tiff(first))

    def _first_movie(self) -> Optional[emobj.Movie]:
        pointer = getattr(self, "inputMovies", None)
        movies = pointer.get() if pointer is not None else None
        if movies is None or movies.isEmpty():
            return None
        # To the query's end: one that is left open can keep a streaming import from writing.
        return [movie.clone() for movie in movies.iterItems(limit=1)][0]

    # --------------------------- Steps ---------------------------
    def _insertAllSteps(self) -> None:
        self._lock = threading.RLock()  # of the counts, which steps change
        self._hand_over = HandOver(self._make_engine, self._job, self.info)
        self._roots: Dict[int, str] = {}
        self._taken_roots: Set[str] = set()
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
        with self._lock:
            self._roots[number] = root
            self._taken_roots.add(root)
            if self._isMovieDone(movie):
                self._n_done += 1
            else:
                self._hand_over.expect(movie)
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
        pwutils.cleanPath(self._getAllDone(), self._getExtraPath(FAILED_MOVIES), self._getPath(FAILED_TABLE))
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
        result = self._hand_over.result(movie)
        save_record(self._getMovieDone(movie), result)
        name = os.path.basename(movie.getFileName())
        if result.ok:
            for warning in result.warnings:
                self.warning(f"{name}: {warning}")
            for note in result.notes:
                self.info(f"{name}: {note}")
            what = f"aligned in {result.seconds:.1f} s, {summaries.motion_text(result, movie.getSamplingRate())}"
        else:
            self.warning(f"FAILED: {result.message}")
            what = "failed, the others go on"
        with self._lock:
            self._n_done += 1
            done, total = self._n_done, len(self._roots)
            self._pace.finished()
            pace = self._pace.text(total - done, not self.streamClosed)
        self.info(f"Movie {done} of {total}: {name} {what}; {pace}")

    def _n_waiting(self) -> int:
        with self._lock:
            return len(self._roots) - self._n_done

    def _job(self, movie: emobj.Movie) -> Job:
        settings = Settings(**form_values.settings_values(self, movie))
        if self._is_denoiser_pair(movie):
            settings = dataclasses.replace(settings, split_even_odd=True)
        path, folder = os.path.abspath(movie.getFileName()), os.path.abspath(self._getExtraPath())
        return Job(path, folder, self._getMovieRoot(movie), settings)

    def createOutputStep(self) -> List[str]:
        self._hand_over.close()
        self._check_outputs()
        acquisition = self.inputMovies.get().getAcquisition()
        optics = acquisition.getSphericalAberration(), acquisition.getAmplitudeContrast()
        for problem in write_corrected_micrographs(self._getExtraPath(), *optics):
            self.warning(problem)
        # As this step's result, which a start removes: Continue must check again.
        with atomic_path(self._getAllDone()) as temporary, open(temporary, "w") as f:
            f.writelines(f"{number}\n" for number in sorted(self._registered))
        return [self._getAllDone()]

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
        self.summaryVar.set(summaries.summary(self))
        self._store(self.summaryVar)
        self._report.update(len(self._roots))
        self._registered.update(m.getObjId() for m in done)
        self.listOfMovies = [m for m in self.listOfMovies if m.getObjId() not in self._registered]
        output_step = self._getFirstJoinStep()
        if finished and output_step is not None and output_step.isWaiting():
            output_step.setStatus(STATUS_NEW)

    # --------------------------- Information ---------------------------
    def _validate(self) -> List[str]:
        if form_values.empty_numbers(self):
            return []  # Scipion has named each; nothing can be said of the rest
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
        return errors + checks.problems(form_values.settings_values(self, first), paths)

    def _warnings(self) -> List[str]:
        first = self._first_movie()
        size = self.inputMovies.get().getDim() if first is not None else None
        return checks.hints(form_values.settings_values(self, first), (size[1], size[0])) if size else []

    def _summary(self) -> List[str]:
        return (self.summaryVar.get("") or "No movie is finished yet.").splitlines()

    def _methods(self) -> List[str]:
        return summaries.methods(self)

    def _citations(self) -> List[str]:
        return ["strelak2020flexalign"] + (["grant2015"] if self._createOutputWeightedMicrographs() else [])
