"""Scipion's queue as an engine: submits, cancels and logs its jobs."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
from typing import Any, Tuple

from flexalign_plugin import launch
from flexalign_plugin.execution.queue_engine import QueueEngine

from . import devices

CANCEL_S = 60.0  # longest time for the command that cancels a job


def batch_command(request: str) -> Tuple[str, str]:
    """Program and arguments of a queue job, for a shell. No module beside the movies is imported."""
    return " ".join(map(shlex.quote, launch.command("flexalign_plugin"))), f"batch {shlex.quote(request)}"


def queue_of(protocol: Any) -> QueueEngine:
    """Engine with the values of the protocol's form. The number of simultaneous jobs is *Scipion threads* minus 1,
    because one thread only waits for the others."""

    def run_command(_: int, request: str) -> None:
        program, arguments = batch_command(request)
        protocol.runJob(program, arguments, env=None, numberOfMpi=1, numberOfThreads=protocol.getBinThreads())

    def cancel() -> None:
        for number in list(protocol.getJobIds()):
            command = protocol.getHostConfig().getCancelCommand() % {"JOB_ID": number}
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run(command, shell=True, check=False, timeout=CANCEL_S)

    return QueueEngine(
        run_command,
        cancel,
        lambda number: protocol._getLogsPath(f"{protocol.strId()}-{number}-1"),
        os.path.abspath(protocol._getTmpPath("queue")),
        "all" if devices.chosen(protocol) else "cpu",
        devices.compute(protocol),
        protocol.getScipionThreads() - 1,
        protocol.moviesPerJob.get(),
        protocol.info,
    )
