"""Kills runs of the protocol and compares their state afterwards. For tests and for benchmarks/kills.py.

A run is a forked process, which starts at once and can be killed with kill -9 alone.
"""

from __future__ import annotations

import functools
import glob
import hashlib
import os
import signal
import sqlite3
import time
import traceback
from contextlib import closing
from typing import Any, Callable, Dict, List, Optional, Tuple

# (object that holds the function, function, call at which the process dies, before or after it)
Point = Tuple[Callable[[], Any], str, int, str]


def _protocol() -> Any:
    from flexalign_plugin.protocols import protocol_flexalign

    return protocol_flexalign


def computing() -> Any:
    from flexalign_plugin.protocols import computing as module

    return module


def _flat_mapper() -> Any:
    from pyworkflow.mapper.sqlite import SqliteFlatMapper

    return SqliteFlatMapper


def _flat_db() -> Any:
    from pyworkflow.mapper.sqlite import SqliteFlatDb

    return SqliteFlatDb


def _class() -> Any:
    return _protocol().ProtFlexAlign


POINTS: Dict[str, Point] = {
    "before a record is written": (computing, "save_record", 2, "before"),
    "after a record, before its step ends": (computing, "save_record", 2, "after"),
    "tables of a set made, no item in": (_flat_db, "createTables", 3, "after"),
    "movies registered, their origin not": (_class, "_relate", 1, "before"),
    "movies and their origin registered, micrographs not": (_class, "_relate", 1, "after"),
    "before the sets are touched": (_class, "_updateOutputSets", 1, "before"),
    "all sets written": (_class, "_updateOutputSets", 1, "after"),
    "between two sets that are closed": (_class, "_updateOutputMicSet", 2, "before"),
    "in the middle of the list of steps": (_flat_mapper, "clear", 1, "after"),
    "before the last check": (_class, "createOutputStep", 1, "before"),
    "after the last check": (_class, "createOutputStep", 1, "after"),
}


def start(project_path: str, protocol_id: int, restart: bool, point: Optional[Point] = None) -> int:
    """Start a run in a process of its own and return the process id."""
    process = os.fork()
    if process:
        return process
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        run(project_path, protocol_id, restart, point)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def wait(process: int, limit_s: float = 60.0) -> int:
    """Signal or status with which a run ended. A run that takes longer is killed, with a TimeoutError."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return status
        time.sleep(0.02)
    os.killpg(process, signal.SIGKILL)
    os.waitpid(process, 0)
    raise TimeoutError(f"The run took longer than {limit_s:g} s.")


def run(project_path: str, protocol_id: int, restart: bool, point: Optional[Point] = None) -> None:
    """Run the protocol in this process; RuntimeError if it fails."""
    from pyworkflow.protocol.constants import MODE_RESTART, MODE_RESUME
    from pyworkflow.protocol.executor import StepExecutor
    from pyworkflow.protocol.protocol import getProtocolFromDb

    os.chdir(project_path)
    # The database of the run, if it exists, contains its outputs.
    databases = glob.glob(f"Runs/{protocol_id:06d}_*/logs/run.db")
    protocol = getProtocolFromDb(project_path, databases[0] if databases else "project.sqlite", protocol_id, chdir=True)
    protocol.runMode.set(MODE_RESTART if restart else MODE_RESUME)
    protocol._stepsCheckSecs = 0
    protocol.makePathsAndClean()
    protocol.setStepsExecutor(StepExecutor(protocol.getHostConfig()))
    if point is not None:
        _die_at(point)
    protocol.run()
    if not protocol.isFinished():
        raise RuntimeError(f"The run ended as {protocol.getStatus()}: {protocol.getErrorMessage()}")


def _die_at(point: Point) -> None:
    owner, name, call, when = point
    holder, calls = owner(), 0
    function = getattr(holder, name)

    @functools.wraps(function)
    def deadly(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*args, **kwargs)
        if calls == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(holder, name, deadly)


def state(run_folder: str) -> Dict[str, Any]:
    """The state that must not depend on kills: the items of each set and the files of the results."""
    contents: Dict[str, Any] = {}
    for path in sorted(glob.glob(os.path.join(run_folder, "*.sqlite"))):
        contents[os.path.basename(path)] = _rows(path)
    extra = os.path.join(run_folder, "extra")
    for name in sorted(os.listdir(extra)):
        path = os.path.join(extra, name)
        content = open(path, "rb").read() if name.endswith((".mrc", ".star")) else b""
        contents[name] = hashlib.sha256(content).hexdigest() if os.path.isfile(path) else sorted(os.listdir(path))
    return contents


def _rows(path: str) -> List[Any]:
    with closing(sqlite3.connect(path)) as database:
        columns = [row[1] for row in database.execute("PRAGMA table_info(Objects)") if row[1] != "creation"]
        items = database.execute(f"SELECT {','.join(columns)} FROM Objects ORDER BY id").fetchall()
        return items + sorted(database.execute("SELECT * FROM Properties").fetchall(), key=str)
