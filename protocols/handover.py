"""Movies on their way from the steps to whatever aligns them, and back.

Scipion's steps wait for one movie after the other, yet every device needs one movie to align and one to read, and every
job of a queue as many as it takes. So the movies that follow are handed over ahead of their steps.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from concurrent.futures import Future
from typing import Any, Callable, Dict, Optional

from flexalign_plugin.errors import FlexAlignError
from flexalign_plugin.execution.engine import Engine
from flexalign_plugin.execution.job import Job, JobResult, given_up

from .arrivals import State, file_state, is_being_written, wait_until_still

ATTEMPTS_WHILE_WRITTEN = 3


class HandOver:
    """Thread-safe; movies are pyworkflow's objects."""

    def __init__(
        self, make_engine: Callable[[], Engine], job_of: Callable[[Any], Job], say: Callable[[str], None]
    ) -> None:
        """make_engine : called when the first movie goes to it; job_of : may raise FlexAlignError, and the movie
        fails."""
        self._make_engine, self._job_of, self._say = make_engine, job_of, say
        self._lock = threading.RLock()
        self._engine: Optional[Engine] = None
        self._closed = False
        self._waiting: OrderedDict[int, Any] = OrderedDict()  # not yet handed over
        self._in_work = 0  # handed over, without a result yet
        self._futures: Dict[int, Future[JobResult]] = {}
        self._seen: Dict[int, State] = {}  # files as they were when they were handed over

    def expect(self, movie: Any) -> None:
        """The movie may be handed over when there is room, before its step asks for it."""
        with self._lock:
            self._waiting[movie.getObjId()] = movie.clone()

    def result(self, movie: Any) -> JobResult:
        """What comes of the movie; a file that was still being written is waited for and tried again."""
        path = os.path.abspath(movie.getFileName())
        for _ in range(ATTEMPTS_WHILE_WRITTEN):
            result = self._future(movie).result()
            before = self._seen.pop(movie.getObjId(), None)
            if result.ok and file_state(path) == before:
                break
            if not is_being_written(path, before):
                break
            self._say(f"{os.path.basename(path)} is still being written: it is tried again when it is complete.")
            wait_until_still(path)
        return result

    def close(self) -> None:
        """Movies without a result fail. May be called more than once."""
        with self._lock:
            engine, self._engine, self._closed = self._engine, None, True
        if engine is not None:
            engine.close()

    def _future(self, movie: Any) -> Future[JobResult]:
        """The movie goes to the engine, unless it is there already, and the next ones behind it."""
        with self._lock:
            if self._engine is None and not self._closed:
                self._engine = self._make_engine()
            self._submit(movie)
            self._keep_busy()
            return self._futures.pop(movie.getObjId())

    def _keep_busy(self) -> None:
        while self._engine is not None and self._waiting and self._in_work < self._engine.capacity:
            self._submit(next(iter(self._waiting.values())))

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
            self._futures[number] = _known(JobResult(path, ok=False, error=str(error)))
            return
        if self._engine is None:
            self._futures[number] = _known(given_up(job))
            return
        self._in_work += 1
        self._futures[number] = future = self._engine.submit(job)
        future.add_done_callback(self._movie_left)

    def _movie_left(self, _: Future[JobResult]) -> None:
        """Called in a thread of the engine, also while a step still waits for a slower movie."""
        with self._lock:
            self._in_work -= 1
            self._keep_busy()


def _known(result: JobResult) -> Future[JobResult]:
    future: Future[JobResult] = Future()
    future.set_result(result)
    return future
