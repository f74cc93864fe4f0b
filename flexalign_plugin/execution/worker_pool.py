"""Distributes movies over several workers, and keeps one queue from which they take movies.

Each GPU has a `Worker`. A machine without GPUs has several, which share its cores (`sharing`).

If a GPU fails, its movie is tried once more, on another GPU if there is one, else in a new process. A GPU that fails
twice in a row is not used for ten minutes. Movies that no GPU can align fail or are aligned on the CPU, as the user
chose; so do movies that are too large for a GPU's memory, without a second attempt.

If a process on the CPU is killed, most often for lack of memory, fewer movies are aligned at once from then on, and its
movie is tried once more.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from typing import Callable, Deque, List, Optional, Tuple

from ..errors import FlexAlignError
from .devices import Compute, is_gpu
from .engine import PendingMovie, guarded
from .job import DEVICE_FAILED, KILLED, Job, JobResult, Progress
from .sharing import run_memory, thread_shares
from .worker import IN_FLIGHT, Worker

FAILURES = 2  # attempts of a movie on GPUs; failures in a row after which a GPU is not used for a while
PAUSE_SECONDS = 600.0  # how long such a GPU is not used


@dataclass(eq=False)
class _Lane:
    """A worker, its device, and how many more movies it can take (`room`)."""

    device: str
    worker: Worker
    room: int = IN_FLIGHT
    failures: int = 0
    paused_until: float = 0.0
    reason: str = ""  # of the last failure


@dataclass(eq=False)
class _Movie(PendingMovie):
    failures: int = 0
    failed_on: Optional[_Lane] = None
    reason: str = ""  # why it is aligned on the CPU
    takes_room: bool = False  # of the lane to which it was sent
    killed: bool = False  # a process that aligned it was killed


class WorkerPool:
    """An `Engine` over all devices of `compute`. The results do not depend on the number of devices and workers.

    Thread-safe. Any failure of a movie is a `JobResult` with ok=False, never an exception.
    """

    def __init__(
        self,
        compute: Compute,
        log: Optional[Callable[[str], None]] = None,
        runner: Optional[str] = None,
    ) -> None:
        """
        Parameters
        ----------
        log, runner : as for `Worker`; failures of GPUs are logged too.

        Raises
        ------
        FlexAlignError : no thread can be started.
        """
        self._compute, self._log, self._runner = compute, guarded(log, "The log of the GPUs"), runner
        devices = compute.devices if compute.on_gpus else compute.devices * (compute.workers or 1)
        shares = thread_shares(compute.threads, len(devices))
        self._lanes = [self._lane(device, threads, len(devices)) for device, threads in zip(devices, shares)]
        self._cpu: Optional[_Lane] = None
        self._queue: Deque[_Movie] = deque()
        self._for_cpu: Deque[_Movie] = deque()
        self._closed = False
        self._dispatching = self._dispatch_again = False
        # Guards the attributes above. Movies are submitted, and results are set, without holding it: both may call
        # `_finished` in the same thread.
        self._lock = threading.Lock()

    @property
    def capacity(self) -> int:
        """Number of movies processed at the same time; with fewer submitted, a device or a disk is idle."""
        return (IN_FLIGHT + 1) * len(self._lanes)

    def submit(self, job: Job, progress: Optional[Progress] = None) -> Future[JobResult]:
        """Queue a movie. `progress(stage, fraction)` is called from a thread of the pool."""
        movie = _Movie(job, progress)
        with self._lock:
            closed = self._closed
            if not closed:
                self._queue.append(movie)
        if closed:
            movie.give_up()
        else:
            self._dispatch()
        return movie.future

    def close(self) -> None:
        """Stop all processes; movies that are not finished fail. May be called more than once."""
        with self._lock:
            self._closed = True
            unfinished = [*self._queue, *self._for_cpu]
            self._queue.clear()
            self._for_cpu.clear()
            lanes = self._lanes + ([self._cpu] if self._cpu is not None else [])
        for movie in unfinished:
            movie.give_up()
        for lane in lanes:
            lane.worker.close(wait=False)
        for lane in lanes:
            lane.worker.close()

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _lane(self, device: str, threads: Optional[int], n_lanes: int) -> _Lane:
        on_gpu, memory = is_gpu(device), run_memory()
        return _Lane(
            device,
            Worker(
                device,
                threads,
                self._compute.timeout_s,
                self._log,
                self._runner,
                self._compute.gpu_memory_gb if on_gpu else None,
                self._compute.tune_fft if on_gpu else True,
                None if memory is None else memory / n_lanes,
            ),
        )

    def _dispatch(self) -> None:
        """Send movies to the workers that have room; if no GPU may be used, they fail or go to the CPU.

        One thread does this at a time. The others, and calls from within, leave their work to it.
        """
        with self._lock:
            self._dispatch_again = True
            if self._dispatching:
                return
            self._dispatching = True
        while True:
            with self._lock:
                self._dispatching = self._dispatch_again
                if not self._dispatching:
                    return
                self._dispatch_again = False
                sent, refused = self._assign()
            for movie, lane in sent:
                self._send(movie, lane)
            for movie, result in refused:
                if movie.begin():
                    movie.future.set_result(result)

    def _assign(self) -> Tuple[List[Tuple[_Movie, _Lane]], List[Tuple[_Movie, JobResult]]]:
        """The movies to send now, each with its lane, and the movies that fail, each with its result."""
        sent: List[Tuple[_Movie, _Lane]] = []
        refused: List[Tuple[_Movie, JobResult]] = []
        now = time.monotonic()
        usable = [lane for lane in self._lanes if lane.paused_until <= now]
        while self._queue and not usable:
            movie = self._queue.popleft()
            result = self._without_gpu(movie, self._all_paused(movie.job))
            refused += [(movie, result)] if result is not None else []
        following = self._next(usable)
        while following is not None:
            self._queue.remove(following[0])
            following[1].room -= 1
            following[0].takes_room = True
            sent.append(following)
            following = self._next(usable)
        try:
            if self._for_cpu and self._cpu is None and not self._closed:
                self._cpu = self._lane("cpu", self._compute.threads, 1 + len(self._lanes))
        except FlexAlignError as error:
            refused += [(movie, JobResult(movie.job.movie, ok=False, error=str(error))) for movie in self._for_cpu]
            self._for_cpu.clear()
        while self._for_cpu and self._cpu is not None and self._cpu.room and not self._closed:
            movie = self._for_cpu.popleft()
            self._cpu.room -= 1
            movie.takes_room = True
            sent.append((movie, self._cpu))
        return sent, refused

    def _next(self, usable: List[_Lane]) -> Optional[Tuple[_Movie, _Lane]]:
        """The first movie that a device with room may take; a movie that it failed on only if no other device can."""
        for lane in sorted(usable, key=lambda lane: -lane.room):
            for movie in self._queue if lane.room else ():
                if movie.failed_on is not lane or len(usable) == 1:
                    return movie, lane
        return None

    def _send(self, movie: _Movie, lane: _Lane) -> None:
        if movie.begin():
            done = lane.worker.submit(movie.job, movie.progress, partial(self._aligned, movie, lane))
            done.add_done_callback(lambda done: self._finished(movie, lane, done.result()))
        else:  # it was cancelled
            with self._lock:
                self._make_room(movie, lane)
                self._dispatch_again = True

    def _make_room(self, movie: _Movie, lane: _Lane) -> None:
        if movie.takes_room:
            movie.takes_room = False
            lane.room += 1

    def _aligned(self, movie: _Movie, lane: _Lane) -> None:
        """Called in the worker's thread when only the results of a movie must still be written."""
        with self._lock:
            self._make_room(movie, lane)
        self._dispatch()

    def _finished(self, movie: _Movie, lane: _Lane, result: JobResult) -> None:
        """Called in the worker's thread when a movie has a result."""
        with self._lock:
            self._make_room(movie, lane)
            final = self._final_result(movie, lane, result)
        if final is not None:
            movie.future.set_result(final)
        self._dispatch()

    def _final_result(self, movie: _Movie, lane: _Lane, result: JobResult) -> Optional[JobResult]:
        """The movie's result, or None if it is tried again."""
        if result.device_fault == KILLED:
            if self._can_do_with_fewer(movie, lane):
                return None
            result = replace(result, device_fault="")
        if movie.reason:
            warning = f"Aligned on the CPU, because the GPU could not: {movie.reason}"
            return replace(result, warnings=[warning, *result.warnings])
        if result.ok:
            lane.failures = 0
        if not result.device_fault or not is_gpu(lane.device) or self._closed:
            return result
        if result.device_fault == DEVICE_FAILED:
            self._note_failure(lane, result.error)
            movie.failures, movie.failed_on = movie.failures + 1, lane
            if movie.failures < FAILURES:
                self._queue.appendleft(movie)
                return None
        return self._without_gpu(movie, result)

    def _can_do_with_fewer(self, movie: _Movie, lane: _Lane) -> bool:
        """After a process was killed: whether its movie is tried again, by one worker fewer."""
        others = [other for other in self._lanes if other is not lane and other.paused_until < math.inf]
        if movie.killed or self._closed or is_gpu(lane.device) or lane is self._cpu or not others:
            return False
        lane.paused_until = math.inf
        movie.killed, movie.failed_on = True, lane
        self._queue.appendleft(movie)
        self._log(
            f"{movie.job.movie}: the process that aligned it was killed, most often for lack of memory. The movie is "
            f"tried once more; movies at once from now on: {len(others)}"
        )
        return True

    def _note_failure(self, lane: _Lane, reason: str) -> None:
        lane.failures, lane.reason = lane.failures + 1, reason
        consequence = "it is restarted"
        if lane.failures >= FAILURES:
            lane.paused_until = time.monotonic() + PAUSE_SECONDS
            consequence = f"{lane.failures} times in a row; it is not used for {PAUSE_SECONDS / 60:.0f} minutes"
        self._log(f"{lane.device} failed: {reason} ({consequence})")

    def _without_gpu(self, movie: _Movie, result: JobResult) -> Optional[JobResult]:
        """For a movie that no GPU aligns: None if it goes to the CPU, as the user may choose, else this result."""
        if not self._compute.cpu_instead:
            return result
        movie.reason = result.error
        self._for_cpu.append(movie)
        return None

    def _all_paused(self, job: Job) -> JobResult:
        last = max(self._lanes, key=lambda lane: lane.paused_until)
        text = (
            f"{last.device} failed {FAILURES} times in a row and is not used for {PAUSE_SECONDS / 60:.0f} minutes: "
            f"check its state with nvidia-smi. The last failure: {last.reason}"
        )
        return JobResult(job.movie, ok=False, error=text, device_fault=DEVICE_FAILED)
