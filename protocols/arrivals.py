"""Movie files that may still be on their way. Their own times are compared with each other, never with a clock."""

from __future__ import annotations

import os
import time
from typing import Optional, Tuple

STILL_S = 2.0  # a file that is the same for so long is taken as complete
LONGEST_WAIT_S = 300.0

State = Optional[Tuple[int, int]]


def file_state(path: str) -> State:
    """Size and time of change; None where there is no file."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def is_being_written(path: str, before: State) -> bool:
    """Whether the file has changed since, or changes within the next moments."""
    if file_state(path) == before:
        time.sleep(STILL_S)
    return file_state(path) != before


def wait_until_still(path: str) -> None:
    """Return when the file no longer changes, or when it has been waited for long enough."""
    deadline = time.monotonic() + LONGEST_WAIT_S
    state, since = file_state(path), time.monotonic()
    while time.monotonic() - since < STILL_S and time.monotonic() < deadline:
        time.sleep(STILL_S / 10)
        if file_state(path) != state:
            state, since = file_state(path), time.monotonic()
