"""Movies as jobs of a cluster's queue: as `WorkerPool`, but each job is a `flexalign batch` command on some machine.

One thread watches: it reads what the jobs answer, gives movies their results as they come, and sends the next jobs.
For each job a thread waits in Scipion's `runJob`, which tells only that the queue no longer has it, not how it ended.
That is concluded from what the job has said:

- begun, not finished, not a word of the end: it was killed (a node died, memory ran out). The movies that it worked on
  are tried once more, each in a job of its own, so that a movie that kills its job takes no other along.
- it said that it was ended (a user or the queue cancelled it), or it never began: its movies fail, and for a while
  nothing is sent. Who stops a run cancels the jobs first, and the run itself only then.
"""

from __future__ import annotations

import contextlib
import glob
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
import traceback
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Callable, Deque, List, Optional

import flexalign_plugin
from flexalign_plugin.batch import REQUEST_ENDING, Answer, answer_path, read_answer, write_request
from flexalign_plugin.devices import Compute
from flexalign_plugin.errors import FlexAlignError
from flexalign_plugin.jobs import Job, JobResult
from flexalign_plugin.worker import given_up

from . import devices

ATTEMPTS = 2  # of a movie whose job was killed
SUBMISSIONS = 4  # of a job that the queue does not take
RESUBMIT_S = 15.0  # pause after the first refusal, twice as long after the next


@dataclass(eq=False)
class _Item:
    job: Job
    future: Future[JobResult] = field(default_factory=Future)
    attempts: int = 0
    refusals: int = 0


@dataclass(eq=False)
class _QueueJob:
    number: int
    request: str
    items: List[_Item]
    thread: Optional[threading.Thread] = None
    error: str = ""  # why it did not get into the queue
    announced: bool = False
    left_at: Optional[float] = None  # when the queue no longer had it

    def open_items(self) -> List[_Item]:
        return [item for item in self.items if not item.future.done()]


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
        settle_s: float = 30.0,
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
        self._folder, self._device, self._compute = folder, device, compute
        self._jobs_at_once, self._movies_per_job = max(jobs_at_once, 1), max(movies_per_job, 1)
        self._poll_s, self._gather_s, self._settle_s, self._pause_s = poll_s, gather_s, settle_s, pause_s
        # An earlier run's jobs that are still somewhere find their requests gone, and end.
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        self._waiting: Deque[_Item] = deque()
        self._again: Deque[_Item] = deque()  # each gets a job of its own
        self._waiting_since = self._not_before = 0.0
        self._sent = 0
        self._jobs: List[_QueueJob] = []
        self._closed = False
        self._lock = threading.Lock()  # of everything above; futures get their results outside of it
        self._wake = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="flexalign-queue", daemon=True)
        self._watcher.start()

    @property
    def capacity(self) -> int:
        return self._jobs_at_once * self._movies_per_job

    def submit(self, job: Job) -> Future[JobResult]:
        item = _Item(job)
        with self._lock:
            closed = self._closed
            if not closed:
                if not self._waiting:
                    self._waiting_since = time.monotonic()
                self._waiting.append(item)
        if closed:
            item.future.set_result(given_up(job))
        self._wake.set()
        return item.future

    def close(self) -> None:
        """Cancel what is in the queue; movies that are not finished fail. May be called more than once."""
        with self._lock:
            self._closed = True
        self._wake.set()
        self._watcher.join()

    def _watch(self) -> None:
        reason = ""
        try:
            while not self._closed:
                for job in list(self._jobs):
                    self._look_at(job)
                self._send_jobs()
                self._wake.wait(self._poll_s)
                self._wake.clear()
        except Exception as error:  # else nobody would ever give the movies their results
            traceback.print_exc()
            reason = f"the jobs could not be watched any longer ({type(error).__name__}: {error}). Continue aligns it."
        with self._lock:
            self._closed = True
        # Also ends a job that gets into the queue at this very moment.
        shutil.rmtree(self._folder, ignore_errors=True)
        left = [item for job in self._jobs for item in job.open_items()]
        if left:
            self._cancel()
        for item in [*left, *self._waiting, *self._again]:
            _fail([item], reason) if reason else item.future.set_result(given_up(item.job))

    def _look_at(self, job: _QueueJob) -> None:
        in_queue = job.thread is not None and job.thread.is_alive()
        if not in_queue and job.left_at is None:
            job.left_at = time.monotonic()
        try:
            answer = read_answer(job.request)
        except OSError:  # of a shared disk that is away for a moment: next time
            answer = Answer()
        if answer.begun and not job.announced:
            job.announced = True
            gpus = f", GPU {answer.gpus}" if answer.gpus else ""
            self._say(f"Job {job.number} ({_names(job.items)}) runs on {answer.machine}{gpus}.")
        hidden = False
        for i, result in sorted(answer.results.items()):
            if not job.items[i].future.done():
                # Its files may be seen later than the answer when another machine wrote them.
                if all(map(os.path.exists, result.files.values())):
                    job.items[i].future.set_result(result)
                else:
                    hidden = True
        if job.left_at is None:
            return
        # What is appended to a file is seen when it is opened, on shared disks too; new names may take long.
        patience = self._settle_s if hidden or not answer.begun else self._settle_s / 6
        settled = time.monotonic() - job.left_at >= patience
        if not job.open_items() or job.error or settled or (answer.ended and not hidden):
            self._gone(job, answer)

    def _gone(self, job: _QueueJob, answer: Answer) -> None:
        """The queue no longer has the job; what becomes of the movies that have no result?"""
        left = job.open_items()
        paths = [job.request, answer_path(job.request)]
        for path in paths:  # without its request, a job that is somewhere all the same comes to its end
            if os.path.exists(path):
                os.remove(path)
        self._remove_logs(job)
        with self._lock:
            self._jobs.remove(job)
        if job.error:
            self._refused(job, left)
        elif left and answer.begun and not answer.ended:
            self._killed(job, left, answer)
        elif left:
            self._hold_back(self._pause_s)
            why = (
                "was ended by the queue (cancelled, or over its limit of time)"
                if answer.begun
                else "left the queue without having begun (cancelled, or its script failed on the machine)"
            )
            _fail(left, f"its job {why}, see {self._logs_of(job.number)}*; Continue aligns it.")

    def _refused(self, job: _QueueJob, left: List[_Item]) -> None:
        for item in left:
            item.refusals += 1
        _fail(
            [item for item in left if item.refusals >= SUBMISSIONS],
            f"{SUBMISSIONS} times no job could be sent to the queue: {job.error}",
        )
        again = [item for item in left if item.refusals < SUBMISSIONS]
        if again:
            self._hold_back(RESUBMIT_S * 2 ** (again[0].refusals - 1))
            self._say(f"Job {job.number} ({_names(again)}) could not be sent and is tried again: {job.error}")
            with self._lock:
                self._waiting.extendleft(reversed(again))

    def _killed(self, job: _QueueJob, left: List[_Item], answer: Answer) -> None:
        suspects = [item for i, item in enumerate(job.items) if i in answer.taken and item in left] or left
        for item in suspects:
            item.attempts += 1
        _fail(
            [item for item in suspects if item.attempts >= ATTEMPTS],
            f"{ATTEMPTS} jobs that aligned it were killed, the last one on {answer.machine}: was there too little "
            f"memory or disk? See {self._logs_of(job.number)}*.",
        )
        again = [item for item in suspects if item.attempts < ATTEMPTS]
        if again:
            self._say(f"Job {job.number} was killed on {answer.machine}: {_names(again)} tried again, each on its own.")
        with self._lock:
            self._again.extend(again)
            self._waiting.extendleft(item for item in reversed(left) if item not in suspects)

    def _hold_back(self, seconds: float) -> None:
        self._not_before = max(self._not_before, time.monotonic() + seconds)

    def _send_jobs(self) -> None:
        while True:
            with self._lock:
                items = self._next()
                if not items:
                    return
                self._sent += 1
                request = os.path.join(self._folder, f"job_{self._sent:06d}{REQUEST_ENDING}")
                job = _QueueJob(self._sent, request, items)
                self._jobs.append(job)
            try:
                write_request(request, [item.job for item in items], self._device, self._compute)
            except (OSError, FlexAlignError) as error:
                job.error = str(error)
                continue
            job.thread = _Waiting(lambda job=job: self._run(job), job.number)  # type: ignore[misc]
            job.thread.start()

    def _next(self) -> List[_Item]:
        """Movies of the next job, none when it is not yet time for one."""
        now = time.monotonic()
        active = sum(bool(job.open_items()) for job in self._jobs)
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
        if all(item.future.done() and item.future.result().ok for item in job.items):
            for path in glob.glob(glob.escape(self._logs_of(job.number)) + ".*"):
                with contextlib.suppress(FileNotFoundError):
                    os.remove(path)


def engine_of(protocol: Any) -> QueueEngine:
    """Jobs as the protocol's form asks for them: its threads say how many at once, one of them only watches."""

    def run_command(_: int, request: str) -> None:
        program = f"{shlex.quote(sys.executable)} -m {flexalign_plugin.__name__}"
        threads = protocol.getBinThreads()
        protocol.runJob(program, f"batch {shlex.quote(request)}", env=None, numberOfMpi=1, numberOfThreads=threads)

    def cancel() -> None:
        for number in list(protocol.getJobIds()):
            subprocess.run(protocol.getHostConfig().getCancelCommand() % {"JOB_ID": number}, shell=True, check=False)

    return QueueEngine(
        run_command,
        cancel,
        lambda number: protocol._getLogsPath(f"{protocol.strId()}-{number}-1"),
        os.path.abspath(protocol._getTmpPath("queue")),
        "all" if devices.chosen(protocol) else "cpu",
        devices.compute(protocol),
        protocol.getScipionThreads() - 1,
        protocol.moviesPerJob.get(),
        protocol.info,
    )


class _Waiting(threading.Thread):
    """Looks to Scipion's executor like the thread of a step, of which it takes the number into the job's name."""

    def __init__(self, target: Callable[[], None], number: int) -> None:
        super().__init__(target=target, daemon=True)
        self.thId = number

    def needsGPU(self) -> bool:
        return False


def _fail(items: List[_Item], reason: str) -> None:
    for item in items:
        item.future.set_result(JobResult(movie=item.job.movie, ok=False, error=f"{item.job.movie}: {reason}"))


def _names(items: List[_Item]) -> str:
    first = os.path.basename(items[0].job.movie)
    return first if len(items) == 1 else f"{first} and {len(items) - 1} more"
