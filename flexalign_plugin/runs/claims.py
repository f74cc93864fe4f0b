"""Claims of processes on movies: several watchers of one folder share its movies without a server.

A claim is a file in the output folder, made in one step that fails if the file exists, also on network disks. While its
process lives, the time of the file is renewed. The claim of a process that has died is replaced by one of the next
generation, again in one step, so that only one of several processes gets it.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import threading
import time
from contextlib import suppress
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from ..files import prepare_folder
from ..inputs import State, file_state, read_json

FOLDER = ".claims"
BEAT_S = 20.0  # between two renewals of the own claims
DEAD_S = 120.0  # a claim of another machine that was not renewed for this time is that of a dead process


class _Claim(NamedTuple):
    path: str
    generation: int
    content: Dict[str, Any]  # empty while the file is being written, or if it is damaged


class Claims:
    """The claims of this process. Thread-safe; `close` gives up those that are left."""

    def __init__(self, output_dir: str) -> None:
        self._folder = os.path.join(output_dir, FOLDER)
        prepare_folder(self._folder)
        self._process = {"host": _host(), "pid": os.getpid(), "started": _started(os.getpid())}
        self._own: Dict[str, str] = {}  # {root: path}
        self._seen: Dict[str, Tuple[State, float]] = {}  # {path: (state, since when)}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        threading.Thread(target=self._renew, name="claims", daemon=True).start()

    def holder(self, root: str) -> Optional[str]:
        """The movie that has the claim on the results `<root>_*`; None if there is no claim."""
        claim = self._latest(root)
        return None if claim is None else str(claim.content.get("movie", ""))

    def take(self, root: str, movie: str) -> bool:
        """Claim the results `<root>_*` for a movie; False if a living process has them, or if the movie failed and its
        file has not changed since."""
        latest = self._latest(root)
        if latest is not None and not self._is_free(latest, movie):
            return False
        path = os.path.join(self._folder, f"{root}.{latest.generation + 1 if latest else 1}")
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            return False
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
            json.dump({**self._process, "movie": os.path.abspath(movie)}, file)
        with self._lock:
            self._own[root] = path
        if latest is not None:
            _remove(latest.path)
        return True

    def release(self, root: str) -> None:
        """Give up a claim: the results are complete, or the movie is to be taken by another process."""
        with self._lock:
            path = self._own.pop(root, None)
        if path is not None:
            _remove(path)

    def failed(self, root: str, movie: str, state: State) -> None:
        """Keep others from trying a movie again whose file has the state that it had when it failed."""
        with self._lock:
            path = self._own.pop(root, None)
        if path is None:
            return
        temporary = os.path.join(self._folder, f".{secrets.token_hex(8)}")
        with open(temporary, "w", encoding="utf-8", errors="surrogateescape") as file:
            json.dump({"movie": os.path.abspath(movie), "failed": state}, file)
        os.replace(temporary, path)

    def tidy(self) -> None:
        """Remove what earlier runs have left: movies that failed may be tried again, and dead processes claim none."""
        for name in os.listdir(self._folder):
            claim = self._claim(name)
            if claim is not None and ("failed" in claim.content or self._is_dead(claim)):
                _remove(claim.path)

    def close(self) -> None:
        self._closed.set()
        for root in list(self._own):
            self.release(root)
        with suppress(OSError):  # others have claims in it
            os.rmdir(self._folder)

    def _renew(self) -> None:
        while not self._closed.wait(BEAT_S):
            with self._lock:
                paths = list(self._own.values())
            for path in paths:
                with suppress(OSError):  # released meanwhile; or the disk is away, and others may take the movie
                    os.utime(path)

    def _latest(self, root: str) -> Optional[_Claim]:
        try:
            names = os.listdir(self._folder)
        except FileNotFoundError:  # removed by another process that has ended
            prepare_folder(self._folder)
            names = []
        claims = [claim for name in names if name.rpartition(".")[0] == root for claim in [self._claim(name)] if claim]
        return max(claims, key=lambda claim: claim.generation, default=None)

    def _claim(self, name: str) -> Optional[_Claim]:
        if not re.fullmatch(r".+\.[0-9]{1,9}", name, re.DOTALL):
            return None
        path = os.path.join(self._folder, name)
        try:
            content = read_json(path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            content = {}
        return _Claim(path, int(name.rpartition(".")[2]), content if isinstance(content, dict) else {})

    def _is_free(self, claim: _Claim, movie: str) -> bool:
        """Whether the process of a claim has died, or its movie has failed and changed since."""
        if "failed" in claim.content:
            state = file_state(movie)
            return claim.content["failed"] != (None if state is None else list(state))
        return self._is_dead(claim)

    def _is_dead(self, claim: _Claim) -> bool:
        """Whether the process of a claim has died."""
        if claim.content.get("host") == self._process["host"]:
            pid, started = claim.content.get("pid"), claim.content.get("started")
            return not isinstance(pid, int) or _started(pid) != started
        state, now = file_state(claim.path), time.monotonic()
        if self._seen.get(claim.path, (None, 0.0))[0] != state:
            self._seen[claim.path] = (state, now)
        return now - self._seen[claim.path][1] >= DEAD_S


def _host() -> List[str]:
    """The machine, since when it runs, and the container: process numbers can be compared only within these."""
    with suppress(OSError):
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return [socket.gethostname(), file.read().strip(), os.readlink("/proc/self/ns/pid")]
    return [socket.gethostname(), secrets.token_hex(8)]


def _started(pid: int) -> Optional[str]:
    """When a process started, in ticks since the machine did; None if there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]  # a dead process may still have its number


def _remove(path: str) -> None:
    with suppress(FileNotFoundError):
        os.remove(path)
