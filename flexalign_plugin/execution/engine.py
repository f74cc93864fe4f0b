"""What aligns movies, whoever asks: the interface that the worker pool and the queue implement, and their movies."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Optional, Protocol

from .job import Job, JobResult, Progress, given_up


class Engine(Protocol):
    """Aligns movies, several at once where it can. Thread-safe."""

    @property
    def capacity(self) -> int:
        """Movies that it works on at once: with fewer submitted, something has nothing to do."""

    def submit(self, job: Job, progress: Optional[Progress] = None) -> Future[JobResult]:
        """Queue a movie. Its failure of whatever kind is a `JobResult` with ok=False, never an exception.

        progress : called from a thread of the engine with the name of each stage and the fraction done, where the
            engine knows it.
        """

    def close(self) -> None:
        """Stop; movies that are not finished fail. May be called more than once."""


@dataclass(eq=False)
class PendingMovie:
    """A movie on its way through an engine; engines add what they keep of it."""

    job: Job
    progress: Optional[Progress] = None
    future: Future[JobResult] = field(default_factory=Future)

    def begin(self) -> bool:
        """Whether the movie is still wanted; from now on it can't be cancelled."""
        return self.future.running() or self.future.set_running_or_notify_cancel()

    def fail(self, error: str, seconds: float = 0.0) -> None:
        """Give it a result that says why it could not be aligned; `error` does not name the movie."""
        self.future.set_result(JobResult(self.job.movie, ok=False, error=error, seconds=seconds))

    def give_up(self) -> None:
        """Give it the result of a movie that nobody will align."""
        if self.begin():
            self.future.set_result(given_up(self.job))
