"""ProtFlexAlign: the FlexAlign protocol. Its parameters are in `form`, its checks in `checks`.

Each movie is a step. The step passes the movie to a worker process that stays alive for all movies, and waits for the
result, so that a crash, a kill or a damaged file affects one movie only. The result of each movie is saved as a record.
The output sets are made from the records, in the executor's main thread.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from typing import Any, Dict, Iterable, Iterator, List, Optional, Set

import pwem.objects as emobj
import pyworkflow.object as pwobj
import pyworkflow.utils as pwutils
from pyworkflow.mapper.sqlite import SqliteFlatMapperException
from pyworkflow.protocol.constants import STATUS_NEW
from pyworkflow.utils.retry_streaming import is_sqlite_lock_error, retry_on_sqlite_lock

from flexalign_plugin.execution.job import Job, JobResult
from flexalign_plugin.files import atomic_path, remove_all_leftovers
from flexalign_plugin.output.corrected_star import MIRRORED, write_corrected_micrographs
from flexalign_plugin.result_files import FAILED_MOVIES, REPORT, unique_root
from flexalign_plugin.settings import Settings

from . import checks, devices, form, form_values, relion_handover, summaries
from .computing import ComputesMovies
from .outputs import FAILED_TABLE, MICROGRAPH_TABLES, MOVIES_TABLE, OUT_FAILED, AlignedMovieSets
from .records import remove_unfit_set, sort_out

logger = logging.getLogger(__name__)


def is_locked(error: Exception) -> bool:
    """Whether a set could not be read because it is locked; pyworkflow's mapper hides SQLite's error in its own."""
    hidden = isinstance(error, SqliteFlatMapperException) and "locked" in str(error)
    return hidden or bool(is_sqlite_lock_error(error))


class ProtFlexAlign(ComputesMovies, AlignedMovieSets):
    """Corrects the motion of the specimen during the exposure. Whole frames are aligned first. Then local motion is
    measured in patches and described by a smooth B-spline in space and time. Each frame is resampled once with the
    total motion. Reads MRC, TIFF and EER movies and their gain and dark references.

    Writes for every movie: the micrograph, plots of the motion, power spectra before and after the correction, the
    shifts for RELION (_shifts.star) and the complete result (_motion.json).

    Movies are aligned on CPUs. GPUs can be chosen, but the GPU code of this version has not been run on real hardware.
    """

    _label = "FlexAlign"

    # --------------------------- Form ---------------------------
    def _defineAlignmentParams(self, formDefinition: Any) -> None:
        form.define_form(formDefinition)

    def _first_movie(self) -> Optional[emobj.Movie]:
        pointer = getattr(self, "inputMovies", None)
        movies = pointer.get() if pointer is not None else None
        if movies is None or movies.isEmpty():
            return None
        # The query is read to its end, because an open query can prevent a streaming import from writing.
        return [movie.clone() for movie in movies.iterItems(limit=1)][0]

    # --------------------------- Steps ---------------------------
    def _insertAllSteps(self) -> None:
        self._prepare_run()
        self._roots: Dict[int, str] = {}
        self._taken_roots: Set[str] = set()
        self._unfinished: Dict[int, emobj.Movie] = {}
        self._failures: Dict[int, JobResult] = {}
        self._registered: Set[int] = set()
        self.finished = self.streamClosed = False
        self._continue_earlier_run()
        super()._insertAllSteps()

    def _insertMovieStep(self, movie: emobj.Movie) -> int:
        number = movie.getObjId()
        root = unique_root(movie.getFileName(), self._taken_roots, number)
        with self._counting:
            self._roots[number] = root
            self._taken_roots.add(root)
            if self._isMovieDone(movie):
                self._n_done += 1
            else:
                self._unfinished[number] = movie.clone()
                self._hand_over.expect(self._unfinished[number])
        # The base class would give all values of the movie to the step, which is kept until the run ends.
        return int(self._insertFunctionStep("processMovieStep", number, prerequisites=self.convertCIStep))

    def _continue_earlier_run(self) -> None:
        """Continue from the records of an earlier run, if there is one. Failed movies are aligned again, and sets that
        do not match the records are made again from them."""
        self._recorded, removed = sort_out(self._getExtraPath("DONE"), self._getExtraPath())
        if removed:
            self.info(f"Failed or incomplete in an earlier run, aligned again: {summaries.counted(removed)}.")
        for table in (MOVIES_TABLE, *MICROGRAPH_TABLES.values()):
            # Sets of movies of earlier versions lack what RELION reads.
            columns = (relion_handover.MOTION, relion_handover.HOT_PIXELS) if table == MOVIES_TABLE else ()
            if remove_unfit_set(self._getPath(table), self._recorded, columns):
                self.warning(f"{self._getPath(table)} does not match the finished movies and is made again.")
        pwutils.cleanPath(self._getAllDone(), self._getExtraPath(FAILED_MOVIES), self._getPath(FAILED_TABLE))
        # Scipion's window reads the run while it writes. If it then starts it again, it may write back a list of
        # outputs that lacks some, or that there is no such list; pyworkflow finds only those in the list.
        for name in self._possibleOutputs:
            if self.hasAttribute(name):
                self._useOutputList.set(True)
                if name not in self._outputs:
                    self._outputs.append(name)
        if self.hasAttribute(OUT_FAILED):
            self.deleteOutput(getattr(self, OUT_FAILED))

    def processMovieStep(self, number: int) -> List[str]:
        """Align one movie. The base class would first link, unpack or convert it, and would stop the run on failure."""
        movie = self._unfinished.get(number)
        if movie is None:
            self.info(f"{self._roots[number]} is already aligned.")
        else:
            self._processMovie(movie)
            del self._unfinished[number]
        # The record is the step's result: if it is missing, Continue runs the step again.
        return [self._record_path(number)]

    def _processMovie(self, movie: emobj.Movie) -> None:
        self._pace.start()
        result = self._hand_over.result(movie)
        name = os.path.basename(movie.getFileName())
        self._keep(self._getMovieDone(movie), result, "Movie", name, more_come=self._more_may_come())

    def _n_known(self) -> int:
        return len(self._roots)

    def _more_may_come(self) -> bool:
        return not self.streamClosed

    def _n_waiting(self) -> int:
        with self._counting:
            return len(self._roots) - self._n_done

    def _job(self, movie: emobj.Movie) -> Job:
        settings = Settings(**form_values.settings_values(self, movie))
        if self._is_denoiser_pair(movie):
            settings = dataclasses.replace(settings, split_even_odd=True)
        path, folder = os.path.abspath(movie.getFileName()), os.path.abspath(self._getExtraPath())
        return Job(path, folder, self._getMovieRoot(movie), settings)

    def createOutputStep(self) -> List[str]:
        self._hand_over.close()
        # A process of a run that was killed may have written for a moment longer.
        remove_all_leftovers(self._getExtraPath(), but=REPORT)
        self._check_outputs()
        acquisition = self.inputMovies.get().getAcquisition()
        optics = acquisition.getSphericalAberration(), acquisition.getAmplitudeContrast()
        for problem in write_corrected_micrographs(self._getExtraPath(), *optics):
            self.warning(problem)
        # The file is this step's result. It is removed at the start of a run, so that Continue repeats this step.
        with atomic_path(self._getAllDone()) as temporary, open(temporary, "w") as f:
            f.writelines(f"{number}\n" for number in sorted(self._registered))
        return [self._getAllDone()]

    # --------------------------- Streaming ---------------------------
    @retry_on_sqlite_lock(log=logger, predicate=is_locked)
    def _loadInputList(self) -> None:
        """List the movies to align that are not in the outputs yet. The others are left out to save memory.

        SQLite itself waits for the import that writes the set, but not on every file server: some report at once that
        the set is locked. pyworkflow's `safeIsStreamOpen` is not used, because it takes a locked set as closed: the run
        would end without the movies that are still to come.
        """
        movies = emobj.SetOfMovies(filename=self.inputMovies.get().getFileName())
        movies.loadAllProperties()
        requested = self._requested(movies)
        self.listOfMovies = [m.clone() for m in requested if m.getObjId() not in self._registered]
        self.streamClosed = movies.isStreamClosed() or 0 < self.onlyProcess.get() <= movies.getSize()
        movies.close()

    def _insertNewMoviesSteps(self, insertedDict: Dict[int, int], inputMovies: Any) -> List[int]:
        listed = inputMovies is getattr(self, "listOfMovies", None)
        steps = super()._insertNewMoviesSteps(insertedDict, inputMovies if listed else self._requested(inputMovies))
        self._pace.arrived(len(steps))
        return steps

    def _requested(self, movies: Iterable[emobj.Movie]) -> Iterator[emobj.Movie]:
        """The movies that are to be aligned with the current value of *Only process N movies*."""
        limit = self.onlyProcess.get()
        for i, movie in enumerate(movies):
            # Movies that an earlier run with a higher limit has aligned stay in the outputs.
            if limit <= 0 or i < limit or movie.getObjId() in self._recorded:
                yield movie

    def _checkNewInput(self) -> None:
        """Add steps for new movies of the input set. The base class compares the time of the set's file with the clock
        of this machine, which fails if the clock of the file server differs. Here any change of the file counts."""
        state = os.stat(self.inputMovies.get().getFileName())
        changed = (state.st_mtime_ns, state.st_size)
        if getattr(self, "_input_state", None) == changed:
            return
        self._loadInputList()
        self._input_state = changed
        if any(m.getObjId() not in self.insertedDict for m in self.listOfMovies):
            steps = self._insertNewMoviesSteps(self.insertedDict, self.listOfMovies)
            output_step = self._getFirstJoinStep()
            if output_step is not None:
                output_step.addPrerequisites(*steps)
            self.updateSteps()

    def _checkNewOutput(self) -> None:
        """Add finished movies to the output sets. The base class lists these movies in a file that it writes before the
        sets, so that movies are lost if the run is killed in between. Here the sets themselves are read."""
        if self.finished:
            return
        done = [m for m in self.listOfMovies if self._isMovieDone(m)]
        finished = self.streamClosed and len(done) == len(self.listOfMovies)
        if not done and not finished:
            return
        self.finished = finished
        # Threads that wait for queue jobs also write to the run's database, whose connection is not thread-safe.
        with self._lock:
            self._updateOutputSets(done, pwobj.Set.STREAM_CLOSED if finished else pwobj.Set.STREAM_OPEN)
        hints = [hint for movie in self._examples for hint in self._polishing_hints(movie)]
        self.summaryVar.set("\n".join([summaries.summary(self), *hints]))
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
            return []  # Scipion reports these itself; the other checks need all values
        errors = devices.problems(self)
        if self.onlyProcess.get() < 0:
            errors.append(f"Only process N movies is {self.onlyProcess.get()}: it must be above 0, or 0 for all.")
        if self.denoiserPairs and self.nDenoiserPairs.get() < 1:
            errors.append(
                f"Number of pairs is {self.nDenoiserPairs.get()}: give at least 1, or choose No for the pairs."
            )
        first = self._first_movie()
        if first is None:  # no input, which Scipion reports itself, or a stream without movies yet
            return errors
        return errors + checks.problems(form_values.settings_values(self, first), self._first_paths())

    def _warnings(self) -> List[str]:
        hints = devices.hints(self)
        first = self._first_movie()
        size = self.inputMovies.get().getDim() if first is not None else None
        if size:
            settings = form_values.settings_values(self, first)
            hints += checks.hints(settings, (size[1], size[0]), self._first_paths())
        # Most TIFF movies are never polished: asking in each run would be a nuisance. The summary says it.
        return hints + [hint for hint in self._polishing_hints(first) if MIRRORED not in hint]

    def _first_paths(self) -> List[str]:
        """Files of the first movies; one of them is checked."""
        return [m.getFileName() for m in self.inputMovies.get().iterItems(limit=checks.MOVIES_TRIED)]

    def _summary(self) -> List[str]:
        return (self.summaryVar.get("") or "No movie is finished yet.").splitlines()

    def _methods(self) -> List[str]:
        return summaries.methods(self)

    def _citations(self) -> List[str]:
        return ["strelak2020flexalign"] + (["grant2015"] if self._createOutputWeightedMicrographs() else [])
