"""The interface of everything that aligns movies, implemented by the worker pool and by the queue."""

from __future__ import annotations

import logging
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Callable, Optional, Protocol

from .job import Job, JobResult, Progress, given_up

logger = logging.getLogger(__name__)


class Engine(Protocol):
    """Aligns movies, several at the same time if possible. Thread-safe."""

    @property
    def capacity(self) -> int:
        """Number of movies processed at the same time; with fewer submitted, some devices are idle."""

    def submit(self, job: Job, progress: Optional[Progress] = None) -> Future[JobResult]:
        """Accept a movie. Any failure becomes a `JobResult` with ok=False, never an exception.

        progress : called from a thread of the engine with the name of each stage and the fraction done, if the engine
            knows them.
        """

    def close(self) -> None:
        """Stop; movies that are not finished fail. May be called more than once."""


@dataclass(eq=False)
class PendingMovie:
    """A movie that was submitted to an engine; engines derive from this class to store more about it."""

    job: Job
    progress: Optional[Progress] = None
    future: Future[JobResult] = field(default_factory=Future)

    def begin(self) -> bool:
        """Mark the movie as running, so that it can't be cancelled any more; False if it was cancelled before."""
        return self.future.running() or self.future.set_running_or_notify_cancel()

    def fail(self, error: str, seconds: float = 0.0, device_fault: str = "") -> None:
        """Set the result of a movie that could not be aligned; `error` states the reason, without the movie's name.

        Does nothing if the movie has a result or was cancelled.
        """
        if not self.future.done() and self.begin():
            self.future.set_result(
                JobResult(self.job.movie, ok=False, error=error, seconds=seconds, device_fault=device_fault)
            )

    def give_up(self) -> None:
        """Set the result of a movie that is not aligned because the run was stopped."""
        self.fail(given_up(self.job).error)


def guarded(callback: Optional[Callable[..., None]], what: str) -> Callable[..., None]:  # type: ignore
    """The callback, for threads that must not end by its exceptions. After the first one, which is logged, it is not
    called any more; `what` names in this message what can't be shown."""

    def call(*arguments: object) -> None:
        nonlocal callback
        if callback is not None:
            try:
                callback(*arguments)
            except Exception:
                callback = None
                logger.exception("%s can't be shown any more.", what)

    return call
