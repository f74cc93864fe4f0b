"""Default signal handlers for processes that tests start and then interrupt."""

from __future__ import annotations

import signal


def default_signals() -> None:
    """For `preexec_fn`: under `nohup make test &` the tests ignore signals, and their child processes inherit that."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
