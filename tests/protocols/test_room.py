"""A run whose disk is full waits, and goes on by itself when there is room."""

from __future__ import annotations

import errno
import os
import threading
import time
from concurrent.futures import Future
from types import SimpleNamespace

import pytest

from flexalign_plugin.execution.job import Job, JobResult
from flexalign_plugin.protocols import room
from flexalign_plugin.protocols.handover import HandOver
from flexalign_plugin.protocols.room import TRIAL_BYTES, Room
from flexalign_plugin.settings import Settings


@pytest.fixture
def disk(monkeypatch):
    """A disk whose free space the test sets; `looks` counts how often it was asked for."""
    state = SimpleNamespace(free=10**9, looks=0)

    def statvfs(folder):
        state.looks += 1
        free = state.free(state.looks) if callable(state.free) else state.free
        return SimpleNamespace(f_frsize=1, f_bfree=free, f_bavail=free, f_blocks=10**9)

    monkeypatch.setattr(room, "os", SimpleNamespace(**{**vars(os), "statvfs": statvfs}))
    monkeypatch.setattr(room, "LOOK_S", 0.01)
    monkeypatch.setattr(room, "CHECKED_S", 0.0)
    return state


def test_a_run_waits_until_the_next_movie_has_room(disk, tmp_path):
    lines = []
    it = Room(str(tmp_path), lines.append)
    it.written(64_000_000)
    disk.free = 64_000_000 + TRIAL_BYTES
    assert not it.wait() and lines == []
    disk.free = lambda looks: 64_000_000 + TRIAL_BYTES - (1 if looks < 7 else 0)
    assert it.wait() and disk.looks == 7
    assert lines == [
        f"The disk of {tmp_path} is full: free at least 65 MB. The run waits and goes on by itself.",
        "The run goes on.",
    ]
    assert os.listdir(tmp_path) == []


def test_threads_that_wait_say_it_once(disk, tmp_path):
    lines = []
    it = Room(str(tmp_path), lines.append)
    disk.free = 0
    threads = [threading.Thread(target=it.wait) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    assert all(thread.is_alive() for thread in threads) and len(lines) == 1
    disk.free = 10**9
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads) and len(lines) == 2


@pytest.mark.parametrize("number, waits", [(errno.EDQUOT, True), (errno.ENOSPC, True), (errno.EIO, False)])
def test_a_quota_is_found_by_writing(tmp_path, monkeypatch, number, waits):
    """Other errors are not waited for: whoever writes a result reports them."""
    tries, lines = [], []

    def full(path, mode):
        tries.append(path)
        if len(tries) < 4:
            raise OSError(number, os.strerror(number), path)
        return open(path, mode)

    monkeypatch.setattr(room, "open", full, raising=False)
    monkeypatch.setattr(room, "LOOK_S", 0.01)
    assert Room(str(tmp_path), lines.append).wait() == waits
    assert len(tries) == (4 if waits else 1) and os.listdir(tmp_path) == []


def test_the_wait_has_an_end(disk, tmp_path, monkeypatch):
    monkeypatch.setattr(room, "LONGEST_S", 0.05)
    disk.free = 0
    assert Room(str(tmp_path), print).wait()


class Engine:
    """Fails every movie while the disk is full."""

    capacity = 1

    def __init__(self, disk):
        self.disk, self.tried = disk, []

    def submit(self, job):
        self.tried.append(job.root)
        future = Future()
        future.set_result(JobResult(job.movie, ok=self.disk.free > 0, error="" if self.disk.free else "no room"))
        return future

    def close(self):
        pass


def test_movies_that_failed_while_the_disk_was_full_are_aligned_again(disk, tmp_path, monkeypatch):
    """Also those whose steps ask for the result later. No further movie is tried while the disk is full."""
    engine, lines = Engine(disk), []
    (tmp_path / "a.mrc").write_bytes(b"whole")
    job_of = lambda movie: Job(movie.getFileName(), str(tmp_path), str(movie.getObjId()), Settings())  # noqa: E731
    it = HandOver(lambda job: engine, job_of, print, Room(str(tmp_path), lines.append))
    movies = [SimpleNamespace(getObjId=lambda i=i: i, getFileName=lambda: str(tmp_path / "a.mrc")) for i in range(1, 6)]
    for movie in movies:
        it.expect(movie)
    disk.free = 0
    early = it._future(movies[0])
    assert not early.result().ok and engine.tried == ["1"]
    it._futures[1] = early  # its step has not asked for it yet
    disk.free = 10**9
    assert all(it.result(movie).ok for movie in movies)
    assert sorted(engine.tried) == ["1", "1", "2", "3", "4", "5"] and lines == []


def test_a_failure_on_a_disk_with_room_is_final(disk, tmp_path):
    (tmp_path / "a.mrc").write_bytes(b"whole")
    engine = Engine(SimpleNamespace(free=0))
    job = Job(str(tmp_path / "a.mrc"), str(tmp_path), "a", Settings())
    it = HandOver(lambda job: engine, lambda _: job, print, Room(str(tmp_path), print))
    movie = SimpleNamespace(getObjId=lambda: 1, getFileName=lambda: str(tmp_path / "a.mrc"))
    assert not it.result(movie).ok and engine.tried == ["a"]
