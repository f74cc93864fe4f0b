"""What both protocols of movies share: devices or queue, counts, progress in the log, the end of a run."""

from __future__ import annotations

import threading
import time
from typing import Any, Dict, List

import pyworkflow.object as pwobj
from pyworkflow import PROD, VERSION_3_0

from flexalign_plugin.execution.engine import Engine
from flexalign_plugin.execution.job import Job, JobResult
from flexalign_plugin.execution.sharing import with_workers
from flexalign_plugin.execution.worker_pool import WorkerPool
from flexalign_plugin.kernels.cuda_installation import device_index
from flexalign_plugin.report_pages import LiveReport

from . import devices, form_values, summaries
from .handover import HandOver
from .label_and_help import LabelAndHelp
from .records import save_record
from .room import Room
from .scipion_queue import queue_of

TEN_YEARS_S = 3.2e8


class ComputesMovies(LabelAndHelp):
    """Base class of both protocols of movies. List it before the other base class. `_insertAllSteps` must call
    `_prepare_run`."""

    # Aligning on CPUs is for production. The GPU code has not been run on hardware: it is off by default, and the form
    # warns of it (`devices.hints`).
    _devStatus = PROD
    _lastUpdateVersion = VERSION_3_0

    _hand_over: HandOver
    _report: LiveReport
    _room: Room
    _stepsCheckSecs: float
    _check_every_s = 0.0
    _next_check = 0.0

    # --------------------------- Form ---------------------------
    @property
    def inputIsEer(self) -> pwobj.Boolean:
        """For conditions of the form, which evaluate it like a parameter."""
        first = self._first_movie()
        return pwobj.Boolean(first is not None and form_values.is_eer(first))

    @property
    def inputIsTiff(self) -> pwobj.Boolean:
        """See `inputIsEer`."""
        first = self._first_movie()
        return pwobj.Boolean(first is not None and form_values.is_tiff(first))

    def _first_movie(self) -> Any:
        """The first movie of the input, or None if there is none yet."""
        raise NotImplementedError

    def _getBinFactor(self) -> float:
        """Ratio of the micrographs' pixel size to that of the imported movies."""
        return self.binFactor.get() / self.fcropFactor.get() / form_values.upsampling(self, self._first_movie())

    # --------------------------- Devices ---------------------------
    def getGpuList(self) -> List[int]:
        # pyworkflow reserves a slot for each listed GPU even if none is used, and then runs one step at a time.
        return [] if devices.steps_go_to_queue(self) else [device_index(name) for name in devices.chosen(self)]

    def getTotalThreads(self) -> int:
        # pyworkflow counts one Scipion thread as idle, because it only waits for the others. With one thread, that
        # thread runs the steps itself.
        movies_at_once = len(devices.chosen(self)) or max(self.getScipionThreads() - 1, 1)
        return movies_at_once * self.getBinThreads()

    def getSubmitDict(self) -> Dict[str, Any]:
        """Resources that a job of a queue requests; values from the queue's own form take precedence. The base class
        would request one core for each Scipion thread."""
        values: Dict[str, Any] = super().getSubmitDict()
        cores = self.getTotalThreads()
        if devices.steps_go_to_queue(self):
            cores = self.getBinThreads() * max(len(devices.chosen(self)), 1)
        requested = {"JOB_THREADS": cores, "JOB_CORES": cores, "GPU_COUNT": len(devices.chosen(self))}
        return {**values, **requested, **self.getQueueParams()[1]}

    def _make_engine(self, first: Job) -> Engine:
        if devices.steps_go_to_queue(self):
            return queue_of(self)
        n_movies = None if self._more_may_come() else self._n_known()
        compute = with_workers(devices.compute(self), [first], n_movies)
        if compute.workers is not None:
            self.info(f"Movies at once: {compute.workers}, with {compute.threads} CPU threads together.")
        return WorkerPool(compute, log=self.info)

    # --------------------------- The run ---------------------------
    def _prepare_run(self) -> None:
        """Set up what the steps share."""
        self._counting = threading.RLock()  # guards the counts that steps change
        self._room = Room(self._getExtraPath(), self.warning)
        self._hand_over = HandOver(self._make_engine, self._job, self.info, self._room)
        self._n_done = 0
        self._pace = summaries.Pace()
        self._report = LiveReport(self._getExtraPath(), self.warning, self.getRunName())

    def _job(self, movie: Any) -> Job:
        raise NotImplementedError

    def _n_known(self) -> int:
        """Number of movies (or tilts) in the input so far."""
        raise NotImplementedError

    def _more_may_come(self) -> bool:
        """Whether the input is still open."""
        return False

    def _keep(self, path: str, result: JobResult, item: str, name: str, more_come: bool) -> None:
        """Save the record of a movie, log its outcome, count the movie, and log the progress of the run.

        Parameters
        ----------
        path : of the record.
        item : "Movie" or "Tilt". name : of the movie, as in the log.
        more_come : whether the input is still open.
        """
        self._room.written(sum(result.sizes.values()))
        self._room.wait()
        save_record(path, result)
        if result.ok:
            if result.input_line:
                self.info(f"{name}: {result.input_line}")
            for warning in result.input_doubts + result.warnings:
                self.warning(f"{name}: {warning}")
            for note in result.notes:
                self.info(f"{name}: {note}")
            outcome = f"aligned in {result.seconds:.1f} s, {summaries.motion_text(result)}"
        else:
            self.warning(f"FAILED: {result.message}")
            outcome = "failed, the run continues"
        with self._counting:
            self._n_done += 1
            self._pace.finished()
            done, total = self._n_done, self._n_known()
            pace = self._pace.text(total - done, more_come)
        self.info(f"{item} {done} of {total}: {name} {outcome}; {pace}")

    def _stepStarted(self, step: Any) -> None:
        self._room.wait()  # pyworkflow writes its databases here, and fails for good if it can't
        super()._stepStarted(step)

    def _stepFinished(self, step: Any) -> bool:
        self._room.wait()
        return bool(super()._stepFinished(step))

    def _stepsCheck(self) -> None:
        if self.isFailed():
            # The executor calls this a last time and then waits for every thread. The outputs are closed, so that
            # protocols that wait for them stop waiting.
            self._hand_over.close()
            self._closeOutputSet()
            return
        # The last check, when no step is left, is always made.
        if time.monotonic() < self._next_check and any(not step.isFinished() for step in self._steps):
            return
        self._room.wait()
        super()._stepsCheck()
        self._next_check = time.monotonic() + self._check_every_s

    def _runSteps(self, *args: Any) -> None:
        # The executor takes the time from a clock that may be set back. Then it would look neither for new movies nor
        # for results until that clock has caught up. With this value it always calls `_stepsCheck`.
        self._check_every_s, self._stepsCheckSecs = self._stepsCheckSecs, -TEN_YEARS_S
        try:
            super()._runSteps(*args)
        finally:
            self._hand_over.close()
            self._report.finish()
