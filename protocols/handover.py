"""Passes movies from Scipion's steps to the engine that aligns them, and returns the results to the steps.

Each step waits for one movie. To be busy all the time, however, a device needs a second movie that it can read in the
meantime, and a job of a queue needs several movies. Movies are therefore passed to the engine before their steps start.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from concurrent.futures import Future
from functools import partial
from typing import Any, Callable, Dict, Optional, Set

from flexalign_plugin.errors import FlexAlignError
from flexalign_plugin.execution.engine import Engine
from flexalign_plugin.execution.job import Job, JobResult, given_up
from flexalign_plugin.inputs import State, file_state

from .arrivals import is_being_written, wait_until_still
from .room import Room

ATTEMPTS = 3


class HandOver:
    """Thread-safe. Movies are pwem's Movie objects."""

    def __init__(
        self,
        make_engine: Callable[[Job], Engine],
        job_of: Callable[[Any], Job],
        log: Callable[[str], None],
        room: Optional[Room] = None,
    ) -> None:
        """
        Parameters
        ----------
        make_engine : called with the job of the first movie, when this is passed to it.
        job_of : makes the job of a movie. If it raises a FlexAlignError, the movie fails.
        log : writes a line to the log of the run.
        room : on the disk of the results; None: a full disk is an error like any other.
        """
        self._room = room
        self._make_engine, self._job_of, self._log = make_engine, job_of, log
        self._lock = threading.RLock()
        self._engine: Optional[Engine] = None
        self._closed = False
        self._waiting: OrderedDict[int, Any] = OrderedDict()  # not yet passed to the engine
        self._filling = False
        self._in_work = 0  # passed to the engine, without a result yet
        self._futures: Dict[int, Future[JobResult]] = {}
        self._without_room: Set[int] = set()  # movies that failed while the disk was full
        self._seen: Dict[int, State] = {}  # of each movie's file when it was passed to the engine

    def expect(self, movie: Any) -> None:
        """Add a movie that may be passed to the engine before its step requests the result."""
        with self._lock:
            self._waiting[movie.getObjId()] = movie

    def result(self, movie: Any) -> JobResult:
        """The result of the movie. If its file was still being written, or the disk was full, wait and try again."""
        path = os.path.abspath(movie.getFileName())
        for _ in range(ATTEMPTS):
            result = self._future(movie).result()
            before = self._seen.pop(movie.getObjId(), None)
            if not result.ok and not self._closed and self._waited_for_room(movie.getObjId()):
                continue
            if result.ok and file_state(path) == before:
                break
            if not is_being_written(path, before):
                break
            self._log(f"{os.path.basename(path)} is still being written: it is aligned again when it is complete.")
            wait_until_still(path)
        return result

    def close(self) -> None:
        """Close the engine. Movies without a result fail. May be called more than once."""
        with self._lock:
            engine, self._engine, self._closed = self._engine, None, True
        if engine is not None:
            engine.close()

    def _future(self, movie: Any) -> Future[JobResult]:
        """Pass the movie to the engine, unless it is there already, and then the next ones."""
        with self._lock:
            self._submit(movie)
            self._keep_busy()
            return self._futures.pop(movie.getObjId())

    def _keep_busy(self) -> None:
        if self._filling:
            return  # called from `_submit`, because the movie had a result at once
        self._filling = True
        try:
            # While the disk is full, all movies that are passed to the engine would fail.
            while not self._closed and self._waiting and not self._without_room:
                if self._engine is not None and self._in_work >= self._engine.capacity:
                    break
                self._submit(next(iter(self._waiting.values())))
        finally:
            self._filling = False

    def _submit(self, movie: Any) -> None:
        number = movie.getObjId()
        self._waiting.pop(number, None)
        if number in self._futures:
            return
        path = os.path.abspath(movie.getFileName())
        self._seen[number] = file_state(path)
        try:
            job = self._job_of(movie)
        except FlexAlignError as error:
            self._futures[number] = _finished_future(JobResult(path, ok=False, error=str(error)))
            return
        if self._engine is None and not self._closed:
            self._engine = self._make_engine(job)
        if self._engine is None:
            self._futures[number] = _finished_future(given_up(job))
            return
        self._in_work += 1
        self._futures[number] = future = self._engine.submit(job)
        future.add_done_callback(partial(self._movie_finished, number))

    def _movie_finished(self, number: int, future: Future[JobResult]) -> None:
        """Called in a thread of the engine, even while a step waits for a slower movie."""
        without_room = self._room is not None and not future.result().ok and not self._room.is_there()
        with self._lock:
            self._in_work -= 1
            if without_room:
                self._without_room.add(number)
            self._keep_busy()

    def _waited_for_room(self, number: int) -> bool:
        """For a movie that failed: wait while the disk is full. Whether this was, or may have been, the reason."""
        if self._room is None:
            return False
        waited = self._room.wait()
        with self._lock:
            failed_without = number in self._without_room
            self._without_room.discard(number)
        return waited or failed_without


def _finished_future(result: JobResult) -> Future[JobResult]:
    future: Future[JobResult] = Future()
    future.set_result(result)
    return future
