"""Movies as jobs of a cluster's queue: each job is a `flexalign batch` command on some machine.

One thread watches: it reads what the jobs answer, gives movies their results as they come, and sends the next jobs.
For each job a thread waits in Scipion's `runJob`, which tells only that the queue no longer has it, not how it ended.
That is concluded from what the job has said:

- begun, not finished, not a word of the end: it was killed (a node died, memory ran out). The movies that it worked on
  are tried once more, each in a job of its own, so that a movie that kills its job takes no other along.
- it said that the machine can't compute (a broken driver): likewise, all its movies.
- it said that it was ended (a user or the queue cancelled it), or it never began: its movies fail, and for a while
  nothing is sent. Who stops a run cancels the jobs first, and the run itself only then.
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
from typing import Callable, Deque, List, Optional

from ..errors import FlexAlignError
from .devices import Compute
from .engine import PendingMovie
from .job import DEVICE_FAILED, Job, JobResult, Progress
from .queue_job import REQUEST_ENDING, Answer, answer_path, read_answer, write_request

ATTEMPTS = 2  # of a movie whose job was killed
SUBMISSIONS = 4  # of a job that the queue does not take
RESUBMIT_S = 15.0  # pause after the first refusal, twice as long after the next
# In units of the time after which files written elsewhere can be seen:
UNREADABLE = 10.0  # so long an answer may be unreadable once its job has left the queue
SILENCE = 10.0  # so long a job may say nothing that the queue can't be asked about


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
    error: str = ""  # why it did not get into the queue
    announced: bool = False
    left_at: Optional[float] = None  # when the queue no longer had it
    said: int = 0  # how many things its answer tells
    heard_at: float = field(default_factory=time.monotonic)  # when that was more than before

    def open_movies(self) -> List[_Movie]:
        return [movie for movie in self.movies if not movie.future.done()]


class QueueEngine:
    """Thread-safe. What goes wrong with a movie is its result, never an exception."""

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
        say: Callable[[str], None],
        poll_s: float = 2.0,
        gather_s: float = 2.0,
        settle_s: float = 75.0,
        pause_s: float = 20.0,
    ) -> None:
        """
        Parameters
        ----------
        run_command : (number, request) sends the job, returns when the queue no longer has it; raises if it can't.
        cancel : ends all jobs that are in the queue.
        logs_of : where the queue keeps what a job printed, as the start of file names.
        folder : for requests and answers; the same path on all machines; emptied.
        device, compute : of a job, see `write_request`.
        poll_s : between two looks at the answers; gather_s : how long movies are waited for to fill a job.
        settle_s : names of files written elsewhere may take so long to be seen here; pause_s : see above.
        """
        self._run_command, self._cancel, self._logs_of, self._say = run_command, cancel, logs_of, say
        self._device, self._compute = device, compute
        self._jobs_at_once, self._movies_per_job = max(jobs_at_once, 1), max(movies_per_job, 1)
        self._poll_s, self._gather_s, self._settle_s, self._pause_s = poll_s, gather_s, settle_s, pause_s
        # An earlier run's jobs that are still somewhere find their requests gone, and end: names never come again.
        shutil.rmtree(folder, ignore_errors=True)
        self._folder = os.path.join(folder, secrets.token_hex(8))
        os.makedirs(self._folder)
        self._waiting: Deque[_Movie] = deque()
        self._again: Deque[_Movie] = deque()  # each gets a job of its own
        self._waiting_since = self._not_before = 0.0
        self._sent = 0
        self._jobs: List[_QueueJob] = []
        self._closed, self._fault = False, ""
        self._lock = threading.Lock()  # of everything above; futures get their results outside of it
        self._wake = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="flexalign-queue", daemon=True)
        self._watcher.start()

    @property
    def capacity(self) -> int:
        return self._jobs_at_once * self._movies_per_job

    def submit(self, job: Job, progress: Optional[Progress] = None) -> Future[JobResult]:
        """Queue a movie. The progress inside a job is not known here, and not reported."""
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
        """Cancel what is in the queue; movies that are not finished fail. May be called more than once."""
        with self._lock:
            self._closed = True
        self._wake.set()
        self._watcher.join()

    def _watch(self) -> None:
        try:
            while not self._closed:
                for job in list(self._jobs):
                    self._look_at_safely(job)
                self._send_jobs()
                self._wake.wait(self._poll_s)
                self._wake.clear()
        except Exception as error:  # else nobody would ever give the movies their results
            traceback.print_exc()
            self._fault = f"the jobs could not be watched any longer ({type(error).__name__}: {error})."
        with self._lock:
            self._closed = True
        # Also ends a job that gets into the queue at this very moment.
        shutil.rmtree(self._folder, ignore_errors=True)
        in_queue = [movie for job in self._jobs for movie in job.open_movies()]
        for movie in [*in_queue, *self._waiting, *self._again]:
            self._give_up(movie)
        if in_queue:
            try:
                self._cancel()
            except Exception as error:
                self._say(f"The jobs that are left could not be cancelled: {error}")

    def _give_up(self, movie: _Movie) -> None:
        if self._fault:
            _fail([movie], f"{self._fault} Continue aligns it.")
        else:
            movie.give_up()

    def _look_at_safely(self, job: _QueueJob) -> None:
        """Whatever is odd about one job concerns its movies alone."""
        try:
            self._look_at(job)
        except Exception as error:
            traceback.print_exc()
            self._forget(job)
            _fail(
                job.open_movies(),
                f"its job could not be followed ({type(error).__name__}: {error}). Continue aligns it.",
            )

    def _look_at(self, job: _QueueJob) -> None:
        now = time.monotonic()
        if job.left_at is None and (job.thread is None or not job.thread.is_alive()):
            job.left_at = now
        gone_for = now - job.left_at if job.left_at is not None else 0.0
        try:
            answer = read_answer(job.request)
        except OSError:  # of a shared disk that is away for a moment: next time
            if gone_for > UNREADABLE * self._settle_s:
                raise
            return
        if answer.said > job.said:
            job.said, job.heard_at = answer.said, now
        if answer.begun and not job.announced:
            job.announced = True
            gpus = f", GPU {answer.gpus}" if answer.gpus else ""
            self._say(f"Job {job.number} ({_names(job.movies)}) runs on {answer.machine}{gpus}.")
        hidden = [i for i, result in sorted(answer.results.items()) if not self._take(job, i, result)]
        if job.left_at is None:
            return
        # What is appended to a file is seen when it is opened, on shared disks too; new names may take long.
        patience = self._settle_s if hidden or not answer.begun else self._settle_s / 10
        settled = gone_for >= patience
        if job.error and answer.begun:
            # It got into the queue, and only the watching failed: while there is news, it is alive.
            settled = now - job.heard_at > SILENCE * self._settle_s
        told = (answer.ended or answer.unfit) and not hidden
        if not job.open_movies() or settled or told or (job.error and not answer.begun):
            self._gone(job, answer)

    def _take(self, job: _QueueJob, i: int, result: JobResult) -> bool:
        """Give a movie its result; False if its files can't be seen yet, as when another machine wrote them."""
        movie = job.movies[i]
        if movie.future.done():
            return True
        if result.movie != movie.job.movie:
            raise ValueError(f"the answer speaks of {result.movie} instead of {movie.job.movie}")
        if not all(map(os.path.exists, result.files.values())):
            return False
        if result.device_fault == DEVICE_FAILED and movie.attempts + 1 < ATTEMPTS:
            # Perhaps it is the machine's fault.
            movie.attempts += 1
            job.movies[i] = _Movie(movie.job)
            job.movies[i].future.set_result(result)
            self._say(f"{movie.job.movie} is tried again in another job: {result.error}")
            with self._lock:
                self._again.append(movie)
        else:
            movie.future.set_result(result)
        return True

    def _gone(self, job: _QueueJob, answer: Answer) -> None:
        """The queue no longer has the job; what becomes of the movies that have no result?"""
        left = job.open_movies()
        if not left:
            pass
        elif not answer.begun and job.error:
            self._refused(job, left)
        elif answer.unfit:
            self._hold_back(self._pause_s)
            self._again_or_fail(job, left, f"{answer.machine} can't compute: {answer.unfit}")
        elif answer.begun and not answer.ended:
            worked_on = [movie for i, movie in enumerate(job.movies) if i in answer.taken and movie in left] or left
            self._again_or_fail(
                job, worked_on, f"it was killed on {answer.machine} (was there too little memory or disk?)"
            )
            with self._lock:
                self._waiting.extendleft(movie for movie in reversed(left) if movie not in worked_on)
        else:
            self._hold_back(self._pause_s)
            why = (
                "was ended by the queue (cancelled, or over its limit of time)"
                if answer.begun
                else "left the queue without having begun (cancelled, or its script failed on the machine)"
            )
            _fail(left, f"its job {why}, see {self._logs_of(job.number)}*; Continue aligns it.")
        self._forget(job)

    def _again_or_fail(self, job: _QueueJob, movies: List[_Movie], why: str) -> None:
        """One more job for each of these, if it has not had it."""
        for movie in movies:
            movie.attempts += 1
        _fail(
            [movie for movie in movies if movie.attempts >= ATTEMPTS],
            f"{ATTEMPTS} jobs could not align it, the last one because {why}, see {self._logs_of(job.number)}*.",
        )
        again = [movie for movie in movies if movie.attempts < ATTEMPTS]
        if again:
            self._say(f"Job {job.number}: {why}: {_names(again)} tried again, each on its own.")
            with self._lock:
                self._again.extend(again)

    def _forget(self, job: _QueueJob) -> None:
        for path in (job.request, answer_path(job.request)):
            # Without its request, a job that is somewhere all the same comes to its end.
            with contextlib.suppress(OSError):
                os.remove(path)
        self._remove_logs(job)
        with self._lock:
            self._jobs.remove(job)

    def _refused(self, job: _QueueJob, left: List[_Movie]) -> None:
        for movie in left:
            movie.refusals += 1
        _fail(
            [movie for movie in left if movie.refusals >= SUBMISSIONS],
            f"{SUBMISSIONS} times no job could be sent to the queue: {job.error}",
        )
        again = [movie for movie in left if movie.refusals < SUBMISSIONS]
        if again:
            self._hold_back(RESUBMIT_S * 2 ** (again[0].refusals - 1))
            self._say(f"Job {job.number} ({_names(again)}) could not be sent and is tried again: {job.error}")
            with self._lock:
                self._again.extend(movie for movie in again if movie.attempts)
                self._waiting.extendleft(movie for movie in reversed(again) if not movie.attempts)

    def _hold_back(self, seconds: float) -> None:
        self._not_before = max(self._not_before, time.monotonic() + seconds)

    def _send_jobs(self) -> None:
        while True:
            with self._lock:
                movies = self._next()
                if not movies:
                    return
                self._sent += 1
                request = os.path.join(self._folder, f"job_{self._sent:06d}{REQUEST_ENDING}")
                job = _QueueJob(self._sent, request, movies)
                self._jobs.append(job)
            try:
                write_request(request, [movie.job for movie in movies], self._device, self._compute)
            except (OSError, FlexAlignError) as error:
                job.error = str(error)
                continue
            job.thread = _Waiting(lambda job=job: self._run(job), job.number)  # type: ignore[misc]
            job.thread.start()

    def _next(self) -> List[_Movie]:
        """Movies of the next job, none when it is not yet time for one."""
        now = time.monotonic()
        active = sum(bool(job.open_movies()) for job in self._jobs)
        if self._closed or now < self._not_before or active >= self._jobs_at_once:
            return []
        if self._again:
            return [self._again.popleft()]
        full = len(self._waiting) >= self._movies_per_job
        if not full and now - self._waiting_since < self._gather_s:
            return []
        return [self._waiting.popleft() for _ in range(min(len(self._waiting), self._movies_per_job))]

    def _run(self, job: _QueueJob) -> None:
        try:
            self._run_command(job.number, job.request)
        except Exception as error:  # whatever Scipion and the queue's programs say
            job.error = " ".join(str(error).split()) or type(error).__name__
        self._remove_logs(job)  # here, too: this may take longer than anybody looks at answers
        self._wake.set()

    def _remove_logs(self, job: _QueueJob) -> None:
        """Of a job in which all went well: thousands of jobs would leave thousands of files."""
        if all(movie.future.done() and movie.future.result().ok for movie in job.movies):
            folder, name = os.path.split(self._logs_of(job.number))
            # The script's name begins with SUBMIT_PREFIX, where hosts.conf has one.
            for path in glob.glob(os.path.join(glob.escape(folder), f"*{glob.escape(name)}.*")):
                with contextlib.suppress(OSError):
                    os.remove(path)


class _Waiting(threading.Thread):
    """Looks to Scipion's executor like the thread of a step, of which it takes the number into the job's name."""

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
