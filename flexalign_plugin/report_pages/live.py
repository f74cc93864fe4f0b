"""Updates the report during a run, without delaying the run."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from typing import Callable, Optional

from .. import launch
from .page import write_report

FIRST_S, INTERVAL_S = 10.0, 30.0
LONGEST_S = 600.0  # for one update


class LiveReport:
    """The report of a folder, written at most every `interval_s` seconds in a process of its own.

    A process, because the data of thousands of movies would stay in the memory of the run. If the report can't be
    written, the error is passed to `log`, and the run goes on.
    """

    def __init__(
        self,
        folder: str,
        log: Callable[[str], object],
        title: str = "",
        interval_s: float = INTERVAL_S,
        first_s: float = FIRST_S,
    ) -> None:
        """first_s : time before the first update. Runs that end earlier have the final report only."""
        self._folder, self._log, self._title, self._interval_s = os.path.abspath(folder), log, title, interval_s
        self._thread: Optional[threading.Thread] = None
        self._next = time.monotonic() + first_s

    def update(self, expected: Optional[int] = None) -> None:
        """Start writing the report if the interval has passed; returns at once. expected : movies of the whole run."""
        if time.monotonic() < self._next or (self._thread is not None and self._thread.is_alive()):
            return
        self._next = time.monotonic() + self._interval_s
        # A daemon thread does not keep the process alive after the run.
        self._thread = threading.Thread(target=self._write_in_process, args=(True, expected), daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            self._thread = None
            self._failed(error)

    def finish(self) -> None:
        """Write the final report; returns when it is written. After a short run this process writes it."""
        if self._thread is not None:
            self._thread.join()
            if self._write_in_process(False, None):
                return
        try:
            write_report(self._folder, title=self._title)
        except Exception as error:  # no error of the report may stop the run
            self._failed(error)

    def _write_in_process(self, running: bool, expected: Optional[int]) -> bool:
        """Whether the report was written."""
        command = launch.command("flexalign_plugin.report_pages.live_process")
        command += [self._folder, self._title, "running" if running else "finished", str(expected or 0)]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=launch.environment(),
                timeout=LONGEST_S,
            )
        except (OSError, RuntimeError, subprocess.SubprocessError) as error:
            self._failed(error)
            return False
        if done.returncode:
            lines = done.stderr.decode("utf-8", "replace").splitlines() or [f"status {done.returncode}"]
            self._failed(lines[-1])
        return done.returncode == 0

    def _failed(self, reason: object) -> None:
        self._log(f"The report could not be written: {reason}")
