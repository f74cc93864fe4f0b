"""`failed.tsv` while a run goes on: each failure is listed at once, because the run may be killed at any moment."""

from __future__ import annotations

import os
import threading
from typing import Callable, List, Set, Tuple

from ..errors import OutputError
from ..execution.job import JobResult
from ..inputs import printable
from ..output.failures import read_failures, write_failures


class FailureList:
    """The failures of this run, and those of movies of other runs that are in the file. Thread-safe."""

    def __init__(self, path: str, log: Callable[[str], None]) -> None:
        """
        Parameters
        ----------
        path : of the table. log : called with a line if the table can't be written for the moment.
        """
        self._path, self._log = path, log
        self._failures: List[Tuple[int, str, str]] = []
        self._finished: Set[str] = set()
        self._lock = threading.Lock()

    def add(self, number: int, result: JobResult) -> None:
        """List a movie that failed; remove one that is aligned from the list."""
        with self._lock:
            self._finished.add(os.path.abspath(printable(result.movie)))
            # A watcher tries a movie again when its file changes.
            self._failures = [failure for failure in self._failures if failure[1] != result.movie]
            if not result.ok:
                self._failures.append((number, result.movie, result.message))
            try:
                self._write()
            except OutputError as error:  # tried again with the next movie, and at the end
                self._log(str(error))

    def write(self) -> None:
        """Write the table, or remove it if there is no failure. Raises OutputError."""
        with self._lock:
            self._write()

    def _write(self) -> None:
        listed = read_failures(self._path)
        others = [line for line in listed if os.path.abspath(line[1]) not in self._finished]
        own = [(str(i), printable(movie), " ".join(reason.split())) for i, movie, reason in sorted(self._failures)]
        if others + own == listed:
            return
        if others or own:
            write_failures(self._path, others + own)
        elif os.path.exists(self._path):
            os.remove(self._path)
