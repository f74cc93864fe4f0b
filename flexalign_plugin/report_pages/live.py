"""Keeps the report of a run up to date while it goes on, without ever being in its way."""

from __future__ import annotations

import threading
import time
from typing import Callable, Optional

from .page import State, write_report

INTERVAL_S = 30.0


class LiveReport:
    """The report of a folder, written again at most every `interval_s` seconds, in a thread of its own.

    A report that can't be written is told to `log` and costs nothing else.
    """

    def __init__(
        self, folder: str, log: Callable[[str], object], title: str = "", interval_s: float = INTERVAL_S
    ) -> None:
        self._folder, self._log, self._title, self._interval_s = folder, log, title, interval_s
        self._state = State()
        self._thread: Optional[threading.Thread] = None
        self._last = -float("inf")

    def update(self, expected: Optional[int] = None) -> None:
        """Write it, if that is due; returns at once."""
        if time.monotonic() - self._last < self._interval_s or (self._thread is not None and self._thread.is_alive()):
            return
        self._last = time.monotonic()
        # A daemon: it must not keep a process alive that is done.
        self._thread = threading.Thread(target=self._write, args=(True, expected), daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Write it for the last time; returns when that is done."""
        if self._thread is not None:
            self._thread.join()
        self._write(False, None)

    def _write(self, running: bool, expected: Optional[int]) -> None:
        try:
            write_report(self._folder, state=self._state, title=self._title, running=running, expected=expected)
        except Exception as error:  # whatever it is, the run is worth more than its report
            self._log(f"The report could not be written: {error}")
