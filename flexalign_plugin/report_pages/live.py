"""Updates the report during a run, without delaying the run."""

from __future__ import annotations

import threading
import time
from typing import Callable, Optional

from .page import State, write_report

INTERVAL_S = 30.0


class LiveReport:
    """The report of a folder, written at most every `interval_s` seconds in a thread of its own.

    If the report can't be written, the error is passed to `log`, and the run goes on.
    """

    def __init__(
        self, folder: str, log: Callable[[str], object], title: str = "", interval_s: float = INTERVAL_S
    ) -> None:
        self._folder, self._log, self._title, self._interval_s = folder, log, title, interval_s
        self._state = State()
        self._thread: Optional[threading.Thread] = None
        self._last = -float("inf")

    def update(self, expected: Optional[int] = None) -> None:
        """Start writing the report if the interval has passed; returns at once. expected : movies of the whole run."""
        if time.monotonic() - self._last < self._interval_s or (self._thread is not None and self._thread.is_alive()):
            return
        self._last = time.monotonic()
        # A daemon thread does not keep the process alive after the run.
        self._thread = threading.Thread(target=self._write, args=(True, expected), daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Write the final report; returns when it is written."""
        if self._thread is not None:
            self._thread.join()
        self._write(False, None)

    def _write(self, running: bool, expected: Optional[int]) -> None:
        try:
            write_report(self._folder, state=self._state, title=self._title, running=running, expected=expected)
        except Exception as error:  # no error of the report may stop the run
            self._log(f"The report could not be written: {error}")
