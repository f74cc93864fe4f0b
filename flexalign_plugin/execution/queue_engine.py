"""Aligns movies in the jobs of a cluster's queue; each queue job is a `flexalign batch` command on some machine.

One thread, the watcher, reads the answers of the queue jobs, sets the results of their movies, and sends the next jobs.
For each queue job another thread waits in Scipion's `runJob`, which returns when the job has left the queue but does
not state how it ended. That follows from the job's answer:

- The job began and did not report an end: it was killed (the machine failed, or memory ran out). The movies that it
  was processing are tried once more, each in a queue job of its own, so that a movie that causes the kill affects no
  other movie.
- The job reported that the machine can't be used (e.g. a broken driver): all its movies are tried once more in the
  same way.
- The job reported that it was cancelled by a user or the queue, or it never began: its movies fail, and no job is sent
  for a while, because Scipion cancels the queue jobs of a run before it stops the run itself.
"""

from __future__ import annotations

import contextlib
import glob
import os
import secrets
import shutil
import threading
import time
import traceback
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Callable, Deque, List, Optional

from ..errors import FlexAlignError
from .devices import Compute
from .engine import PendingMovie
from .job import DEVICE_FAILED, Job, JobResult, Progress
from .queue_job import REQUEST_ENDING, Answer, answer_path, read_answer, write_request

ATTEMPTS = 2  # queue jobs that a movie gets if its job is killed
SUBMISSIONS = 4  # how often a movie's job is submitted if the queue refuses it
RESUBMIT_S = 15.0  # pause after the first refusal; doubled after each further one
# In units of `settle_s`, the time after which files written on other machines are visible:
UNREADABLE = 10.0  # how long an answer may be unreadable after its job has left the queue
SILENCE = 10.0  # how long a job may report nothing if its state in the queue is unknown


@dataclass(eq=False)
class _Movie(PendingMovie):
    attempts: int = 0
    refusals: int = 0


@dataclass(eq=False)
class _QueueJob:
    number: int
    request: str
    movies: List[_Movie]
    thread: Optional[threading.Thread] = None
    error: str = ""  # why it could not be submitted or watched
    announced: bool = False  # its start was logged
    left_at: Optional[float] = None  # when it left the queue
    n_events: int = 0  # events in its answer
    last_event_at: float = field(default_factory=time.monotonic)  # when the latest event was read

    def open_movies(self) -> List[_Movie]:
        return [movie for movie in self.movies if not movie.future.done()]


class QueueEngine:
    """An `Engine` that aligns movies in queue jobs. Thread-safe. Failures are results, never exceptions."""

    def __init__(
        self,
        run_command: Callable[[int, str], None],
        cancel: Callable[[], None],
        logs_of: Callable[[int], str],
        folder: str,
        device: str,
        compute: Compute,
        jobs_at_once: int,
        movies_per_job: int,
        log: Callable[[str], None],
        poll_s: float = 2.0,
        gather_s: float = 2.0,
        settle_s: float = 75.0,
        pause_s: float = 20.0,
    ) -> None:
        """
        Parameters
        ----------
        run_command : called with (number, request); submits the queue job and returns when it has left the queue;
            raises if it can't be submitted or watched.
        cancel : cancels all queue jobs of this run.
        logs_of : start of the names of the files with a queue job's output, from its number.
        folder : for requests and answers, at the same path on all machines; its content is removed.
        device, compute : see `write_request`.
        jobs_at_once : largest number of queue jobs at the same time. movies_per_job : largest number of their movies.
        log : called with lines for the log.
        poll_s : time between two looks at the answers, in seconds; gather_s : how long to wait for more movies before a
            queue job that is not full is sent.
        settle_s : time after which files written on other machines are visible here; pause_s : how long no job is sent
            after one was cancelled.
        """
        self._run_command, self._cancel, self._logs_of, self._log = run_command, cancel, logs_of, log
        self._device, self._compute = device, compute
        self._jobs_at_once, self._movies_per_job = max(jobs_at_once, 1), max(movies_per_job, 1)
        self._poll_s, self._gather_s, self._settle_s, self._pause_s = poll_s, gather_s, settle_s, pause_s
        # Queue jobs of an earlier run that are still there end, because their requests are gone: names are not reused.
        shutil.rmtree(folder, ignore_errors=True)
        self._folder = os.path.join(folder, secrets.token_hex(8))
        os.makedirs(self._folder)
        self._waiting: Deque[_Movie] = deque()
        self._retries: Deque[_Movie] = deque()  # each gets a queue job of its own
        self._waiting_since = self._not_before = 0.0
        self._sent = 0
        self._jobs: List[_QueueJob] = []
        self._closed, self._fault = False, ""
        self._lock = threading.Lock()  # guards the attributes above; results are set without holding it
        self._wake = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="flexalign-queue", daemon=True)
        self._watcher.start()

    @property
    def capacity(self) -> int:
        return self._jobs_at_once * self._movies_per_job

    def submit(self, job: Job, progress: Optional[Progress] = None) -> Future[JobResult]:
        """Queue a movie. The progress of a queue job is not known here and not reported."""
        movie = _Movie(job, progress)
        with self._lock:
            closed = self._closed
            if not closed:
                if not self._waiting:
                    self._waiting_since = time.monotonic()
                self._waiting.append(movie)
        if closed:
            self._give_up(movie)
        self._wake.set()
        return movie.future

    def close(self) -> None:
        """Cancel the queue jobs; movies that are not finished fail. May be called more than once."""
        with self._lock:
            self._closed = True
        self._wake.set()
        self._watcher.join()

    def _watch(self) -> None:
        try:
            while not self._closed:
                for job in list(self._jobs):
                    self._check_safely(job)
                self._send_jobs()
                self._wake.wait(self._poll_s)
                self._wake.clear()
        except Exception as error:  # without this, the movies would never get results
            traceback.print_exc()
            self._fault = f"the queue jobs could not be watched any longer ({type(error).__name__}: {error})."
        with self._lock:
            self._closed = True
        # Without its request, a job that is submitted at this moment ends too.
        shutil.rmtree(self._folder, ignore_errors=True)
        in_queue = [movie for job in self._jobs for movie in job.open_movies()]
        for movie in [*in_queue, *self._waiting, *self._retries]:
            self._give_up(movie)
        if in_queue:
            try:
                self._cancel()
            except Exception as error:
                self._log(f"The remaining queue jobs could not be cancelled: {error}")

    def _give_up(self, movie: _Movie) -> None:
        if self._fault:
            _fail([movie], f"{self._fault} Use Continue to align it.")
        else:
            movie.give_up()

    def _check_safely(self, job: _QueueJob) -> None:
        """As `_check`; an unexpected error makes the movies of this queue job fail, no others."""
        try:
            self._check(job)
        except Exception as error:
            traceback.print_exc()
            self._forget(job)
            _fail(
                job.open_movies(),
                f"its queue job could not be watched ({type(error).__name__}: {error}). Use Continue to align it.",
            )

    def _check(self, job: _QueueJob) -> None:
        """Read the answer of a queue job, set results, and decide whether the job has ended."""
        now = time.monotonic()
        if job.left_at is None and (job.thread is None or not job.thread.is_alive()):
            job.left_at = now
        gone_for = now - job.left_at if job.left_at is not None else 0.0
        try:
            answer = read_answer(job.request)
        except OSError:  # a shared disk may be unavailable for a moment: try again at the next poll
            if gone_for > UNREADABLE * self._settle_s:
                raise
            return
        if answer.n_events > job.n_events:
            job.n_events, job.last_event_at = answer.n_events, now
        if answer.begun and not job.announced:
            job.announced = True
            gpus = f", GPU {answer.gpus}" if answer.gpus else ""
            self._log(f"Queue job {job.number} ({_names(job.movies)}) runs on {answer.machine}{gpus}.")
        invisible = [i for i, result in sorted(answer.results.items()) if not self._set_result(job, i, result)]
        if job.left_at is None:
            return
        # On shared disks too, opening a file shows what was appended to it, but new files may become visible late.
        wait_s = self._settle_s if invisible or not answer.begun else self._settle_s / 10
        settled = gone_for >= wait_s
        if job.error and answer.begun:
            # It was submitted, and only watching it failed: it is running as long as there are new events.
            settled = now - job.last_event_at > SILENCE * self._settle_s
        reported_end = (answer.ended or answer.unfit) and not invisible
        if not job.open_movies() or settled or reported_end or (job.error and not answer.begun):
            self._handle_end(job, answer)

    def _set_result(self, job: _QueueJob, i: int, result: JobResult) -> bool:
        """Set a movie's result; False if its files, written on another machine, are not visible yet."""
        movie = job.movies[i]
        if movie.future.done():
            return True
        if result.movie != movie.job.movie:
            raise ValueError(f"the answer has a result of {result.movie} instead of {movie.job.movie}")
        if not result.has_its_files():
            return False
        if result.device_fault == DEVICE_FAILED and movie.attempts + 1 < ATTEMPTS:
            # The device of another machine may work.
            movie.attempts += 1
            job.movies[i] = _Movie(movie.job)
            job.movies[i].future.set_result(result)
            self._log(f"{movie.job.movie} is tried again in another queue job: {result.error}")
            with self._lock:
                self._retries.append(movie)
        else:
            movie.future.set_result(result)
        return True

    def _handle_end(self, job: _QueueJob, answer: Answer) -> None:
        """The job has left the queue: decide what happens to its movies that have no result."""
        remaining = job.open_movies()
        if not remaining:
            pass
        elif not answer.begun and job.error:
            self._submit_again_or_fail(job, remaining)
        elif answer.unfit:
            self._pause_sending(self._pause_s)
            self._retry_or_fail(job, remaining, f"{answer.machine} can't be used: {answer.unfit}")
        elif answer.begun and not answer.ended:
            in_work = [movie for i, movie in enumerate(job.movies) if i in answer.taken and movie in remaining]
            in_work = in_work or remaining
            self._retry_or_fail(
                job, in_work, f"it was killed on {answer.machine}, most often for lack of memory or disk space"
            )
            with self._lock:
                self._waiting.extendleft(movie for movie in reversed(remaining) if movie not in in_work)
        else:
            self._pause_sending(self._pause_s)
            reason = (
                "was ended by the queue (cancelled, or over its time limit)"
                if answer.begun
                else "left the queue before it began (cancelled, or its script failed on the machine)"
            )
            _fail(remaining, f"its job {reason}, see {self._logs_of(job.number)}*. Use Continue to align it.")
        self._forget(job)

    def _retry_or_fail(self, job: _QueueJob, movies: List[_Movie], reason: str) -> None:
        """Schedule each movie for a queue job of its own; those that had their last attempt fail."""
        for movie in movies:
            movie.attempts += 1
        _fail(
            [movie for movie in movies if movie.attempts >= ATTEMPTS],
            f"{ATTEMPTS} queue jobs could not align it, the last one because {reason}, see "
            f"{self._logs_of(job.number)}*.",
        )
        retried = [movie for movie in movies if movie.attempts < ATTEMPTS]
        if retried:
            self._log(f"Queue job {job.number}: {reason}; tried again, each in its own job: {_names(retried)}.")
            with self._lock:
                self._retries.extend(retried)

    def _forget(self, job: _QueueJob) -> None:
        for path in (job.request, answer_path(job.request)):
            # Without its request, a queue job that is still running ends.
            with contextlib.suppress(OSError):
                os.remove(path)
        self._remove_logs(job)
        with self._lock:
            self._jobs.remove(job)

    def _submit_again_or_fail(self, job: _QueueJob, movies: List[_Movie]) -> None:
        """The queue refused the job: its movies are submitted again later; those refused too often fail."""
        for movie in movies:
            movie.refusals += 1
        _fail(
            [movie for movie in movies if movie.refusals >= SUBMISSIONS],
            f"its queue job could not be submitted, after {SUBMISSIONS} attempts: {job.error}",
        )
        retried = [movie for movie in movies if movie.refusals < SUBMISSIONS]
        if retried:
            self._pause_sending(RESUBMIT_S * 2 ** (retried[0].refusals - 1))
            self._log(
                f"Queue job {job.number} ({_names(retried)}) could not be submitted and is tried again: {job.error}"
            )
            with self._lock:
                self._retries.extend(movie for movie in retried if movie.attempts)
                self._waiting.extendleft(movie for movie in reversed(retried) if not movie.attempts)

    def _pause_sending(self, seconds: float) -> None:
        self._not_before = max(self._not_before, time.monotonic() + seconds)

    def _send_jobs(self) -> None:
        while True:
            with self._lock:
                movies = self._next_movies()
                if not movies:
                    return
                self._sent += 1
                request = os.path.join(self._folder, f"job_{self._sent:06d}{REQUEST_ENDING}")
                job = _QueueJob(self._sent, request, movies)
                self._jobs.append(job)
            thread = _JobThread(partial(self._run, job), job.number)
            try:
                write_request(request, [movie.job for movie in movies], self._device, self._compute)
                thread.start()
            except (OSError, RuntimeError, FlexAlignError) as error:  # RuntimeError: at the limit of processes
                job.error = str(error)
                continue
            job.thread = thread

    def _next_movies(self) -> List[_Movie]:
        """Movies of the next queue job; empty if none is to be sent now."""
        now = time.monotonic()
        active = sum(bool(job.open_movies()) for job in self._jobs)
        if self._closed or now < self._not_before or active >= self._jobs_at_once:
            return []
        if self._retries:
            return [self._retries.popleft()]
        full = len(self._waiting) >= self._movies_per_job
        if not full and now - self._waiting_since < self._gather_s:
            return []
        return [self._waiting.popleft() for _ in range(min(len(self._waiting), self._movies_per_job))]

    def _run(self, job: _QueueJob) -> None:
        try:
            self._run_command(job.number, job.request)
        except Exception as error:  # any error of Scipion or of the queue's programs
            job.error = " ".join(str(error).split()) or type(error).__name__
        self._remove_logs(job)  # again: the job may have written to them after its last result was read
        self._wake.set()

    def _remove_logs(self, job: _QueueJob) -> None:
        """Remove the logs of a queue job whose movies all succeeded, so that logs don't accumulate."""
        if all(movie.future.done() and movie.future.result().ok for movie in job.movies):
            folder, name = os.path.split(self._logs_of(job.number))
            # The leading * matches SUBMIT_PREFIX, if hosts.conf defines one.
            for path in glob.glob(os.path.join(glob.escape(folder), f"*{glob.escape(name)}.*")):
                with contextlib.suppress(OSError):
                    os.remove(path)


class _JobThread(threading.Thread):
    """Waits for a queue job. Has the attributes of Scipion's step threads; `thId` becomes part of the job's name."""

    def __init__(self, target: Callable[[], None], number: int) -> None:
        super().__init__(target=target, daemon=True)
        self.thId = number

    def needsGPU(self) -> bool:
        return False


def _fail(movies: List[_Movie], reason: str) -> None:
    for movie in movies:
        movie.fail(reason)


def _names(movies: List[_Movie]) -> str:
    first = os.path.basename(movies[0].job.movie)
    return first if len(movies) == 1 else f"{first} and {len(movies) - 1} more"
