"""A virtual screen (Xvfb), and scenes that are played on it, each in a process of its own.

A window that waits for a click nobody makes must not hold up the tests, and matplotlib's and pyworkflow's choice of a
window system is one for the whole process: hence the processes, each with a time limit.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import uuid
from typing import List

LIFETIME_S = 900  # even where the tests are killed and can't end it, the screen goes; and with it all windows
START_S = 20
MARK = "FLEXALIGN_TEST_SCREEN"


def missing() -> str:
    """What is missing for windows on a virtual screen; empty if nothing is."""
    if shutil.which("Xvfb") is None:
        return "there is no Xvfb (Debian: apt install xvfb)"
    try:
        import tkinter
    except ImportError:
        return "there is no tkinter (Debian: apt install python3-tk)"
    return "" if tkinter.TkVersion >= 8.6 else f"Tk is {tkinter.TkVersion}, older than 8.6"


class Screen:
    """A screen that lasts as long as the `with` block. All processes that scenes start carry a mark in their
    environment and end with it at the latest."""

    def __init__(self, size: str = "1500x1250x24") -> None:
        self.size, self.name, self.mark = size, "", uuid.uuid4().hex

    def __enter__(self) -> Screen:
        reader, writer = os.pipe()
        command = ["timeout", "--kill-after=5", str(LIFETIME_S), "Xvfb", "-displayfd", str(writer)]
        command += ["-screen", "0", self.size, "-nolisten", "tcp", "-noreset"]
        self._server = subprocess.Popen(
            command, pass_fds=[writer], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        os.close(writer)
        with os.fdopen(reader) as pipe:
            ready, _, _ = select.select([pipe], [], [], START_S)
            number = pipe.readline().strip() if ready else ""  # the whole line, or Xvfb dies of a broken pipe
        if not number:
            self._end_server()
            raise RuntimeError(f"Xvfb did not start within {START_S} s.")
        self.name = f":{number}"
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes():
            _kill(process)
        self._end_server()

    def _end_server(self) -> None:
        self._server.terminate()
        try:
            self._server.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self._server.pid, signal.SIGKILL)
            self._server.wait()

    def play(self, scene: str, folder: str, limit_s: float) -> str:
        """Run a function of `scenes`; returns what it wrote. AssertionError where it fails or takes too long."""
        environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
        environment.update({"DISPLAY": self.name, MARK: self.mark})
        process = subprocess.Popen(
            [sys.executable, "-m", "flexalign_plugin.tests.gui.scenes", scene, folder],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            said, _ = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            for number in self.processes():
                _kill(number)
            said, _ = process.communicate()
            raise AssertionError(f"The scene was not over after {limit_s:g} s. It said:\n{said}") from None
        assert process.returncode == 0, said
        return said

    def processes(self) -> List[int]:
        """Those that scenes have started and that still run."""
        wanted = f"{MARK}={self.mark}".encode()
        found = []
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{name}/environ", "rb") as f:
                    if wanted in f.read().split(b"\0"):
                        found.append(int(name))
            except OSError:  # has ended, or is another user's
                continue
        return found


def _kill(process: int) -> None:
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        return
