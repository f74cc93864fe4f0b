"""Room on the disk of a run: while the disk is full the run waits, instead of failing one movie after another."""

from __future__ import annotations

import errno
import os
import secrets
import threading
import time
from typing import Callable

TRIAL_BYTES = 1_000_000
CHECKED_S, LOOK_S, LONGEST_S = 1.0, 5.0, 24 * 3600.0
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Room:
    """Thread-safe."""

    def __init__(self, folder: str, log: Callable[[str], object]) -> None:
        """folder : of the run, which may not exist yet. log : writes a line to the log of the run."""
        self._folder, self._log = folder, log
        self._needed = TRIAL_BYTES
        self._checked = -float("inf")
        self._lock = threading.Lock()

    def written(self, n_bytes: int) -> None:
        """The files of a movie have so many bytes together; there must be room for the next one."""
        self._needed = max(self._needed, TRIAL_BYTES + n_bytes)

    def wait(self) -> bool:
        """Wait until there is room, a day at most; whoever writes then gets the error. Returns whether it waited."""
        if time.monotonic() - self._checked < CHECKED_S or self.is_there():
            return False
        with self._lock:
            if not self.is_there():
                self._log(
                    f"The disk of {os.path.abspath(self._folder)} is full: free at least "
                    f"{self._needed / 1e6:.0f} MB. The run waits and goes on by itself."
                )
                deadline = time.monotonic() + LONGEST_S
                while not self.is_there() and time.monotonic() < deadline:
                    time.sleep(LOOK_S)
                self._log("The run goes on.")
        return True

    def is_there(self) -> bool:
        """Whether the disk has room at this moment."""
        trial = os.path.join(self._folder, f".room.{secrets.token_hex(4)}.part")
        try:
            disk = os.statvfs(self._folder)
            free = disk.f_frsize * (disk.f_bfree if os.geteuid() == 0 else disk.f_bavail)
            if disk.f_blocks and free < self._needed:  # some network file systems do not know their size
                return False
            try:
                with open(trial, "wb") as file:  # statvfs knows no quotas
                    file.write(bytes(TRIAL_BYTES))
            finally:
                if os.path.exists(trial):
                    os.remove(trial)
        except OSError as error:  # any other error is reported by whoever writes a result
            if error.errno in _FULL:
                return False
        self._checked = time.monotonic()
        return True
