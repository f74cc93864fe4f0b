"""Detects movie files that are still being written.

Modification times of a file are compared with earlier ones of the same file, never with the clock of this machine.
"""

from __future__ import annotations

import time

from flexalign_plugin.inputs import State, file_state

STILL_S = 2.0  # a file that has not changed for this time counts as complete
LONGEST_WAIT_S = 300.0


def is_being_written(path: str, before: State) -> bool:
    """Whether the file has changed since the state `before`, or changes within `STILL_S`."""
    if file_state(path) == before:
        time.sleep(STILL_S)
    return file_state(path) != before


def wait_until_still(path: str) -> None:
    """Wait until the file has not changed for `STILL_S`, at most `LONGEST_WAIT_S`."""
    deadline = time.monotonic() + LONGEST_WAIT_S
    state, since = file_state(path), time.monotonic()
    while time.monotonic() - since < STILL_S and time.monotonic() < deadline:
        time.sleep(STILL_S / 10)
        if file_state(path) != state:
            state, since = file_state(path), time.monotonic()
