"""Whatever goes wrong with processes and threads, every movie gets a result: nothing waits for ever."""

from __future__ import annotations

import os
import shutil
import subprocess
import textwrap
import threading
import time

import pytest

from flexalign_plugin import launch
from flexalign_plugin.errors import FlexAlignError
from flexalign_plugin.execution import time_limit, worker
from flexalign_plugin.execution.devices import Compute
from flexalign_plugin.execution.job import Job
from flexalign_plugin.execution.time_limit import TimeLimit
from flexalign_plugin.execution.worker import Worker
from flexalign_plugin.execution.worker_pool import WorkerPool
from flexalign_plugin.phantoms.movie_writers import write_mrc_movie
from flexalign_plugin.phantoms.phantom import particle_phantom
from flexalign_plugin.settings import Settings

RUNNER = """
    import sys, time
    from flexalign_plugin.execution.job import JobResult

    def run(job, progress):
        progress("working", 0.5)
        if job.root.startswith("chatty"):
            for i in range(4000):  # more than a pipe holds
                print("a line of the log", i, file=sys.stderr)
        if job.root.startswith("hang"):
            time.sleep(1000)
        return JobResult(movie=job.movie, ok=True)
"""


@pytest.fixture
def runner(tmp_path, monkeypatch):
    """Writes the module with the function that the child calls instead of aligning."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def write(text=RUNNER, before=""):
        (tmp_path / "hanging_runner.py").write_text(before + textwrap.dedent(text))
        return "hanging_runner:run"

    return write


@pytest.fixture
def job(tmp_path):
    return lambda what: Job(f"{what}.mrc", str(tmp_path), what, Settings())


def results_in(engine, jobs, seconds=60, progress=None):
    """The results, all of them within this time."""
    end = time.monotonic() + seconds
    futures = [engine.submit(job, progress) for job in jobs]
    return [future.result(max(end - time.monotonic(), 0)) for future in futures]


# -------------------------------------------------------------------------------------------------- the child


def test_a_thread_of_the_child_that_dies_ends_it_with_the_reason(runner, job):
    """The thread that reads requests fails: without its end the main thread would wait for a movie for ever."""
    breaks = (
        "import __main__\n\nclass Settings:\n    def from_dict(values):\n        raise ImportError('no such library')\n"
    )
    with Worker(runner=runner(before=breaks + "\n__main__.Settings = Settings\n")) as made:
        results = results_in(made, [job("a"), job("b")])
    assert all(not r.ok and "ImportError: no such library" in r.message for r in results), results


def test_a_thread_that_has_no_memory_to_begin_ends_the_child(runner, job):
    """Such a thread dies before Python runs its function, and its starter waits for ever."""
    breaks = """
        import _thread, __main__, sys, threading
        def dies():
            raise MemoryError("none left")
        _thread.start_new_thread(dies, ())
        threading.Event().wait(1000)
    """
    with Worker(runner=runner(before=textwrap.dedent(breaks))) as made:
        (result,) = results_in(made, [job("a")])
    assert not result.ok and "MemoryError: none left" in result.message


def test_a_child_that_does_not_start_is_given_up(runner, job, monkeypatch):
    loading = threading.Event()
    hangs = runner(before="import time, sys\nprint('loading', file=sys.stderr)\ntime.sleep(1000)\n")
    with Worker(runner=hangs, log=lambda line: loading.set()) as made:
        futures = [made.submit(job(name)) for name in "abc"]
        assert loading.wait(60)
        monkeypatch.setattr(worker, "START_SECONDS", 0.5)
        futures.append(made.submit(job("d")))
        for future in futures:
            error = future.result(20).error
            assert "did not start within 0.5 s" in error and "ulimit -v" in error and "loading" in error
        monkeypatch.setattr(worker, "START_SECONDS", 60.0)
        runner()
        assert results_in(made, [job("e")])[0].ok


@pytest.mark.skipif(not shutil.which("prlimit"), reason="there is no prlimit")
@pytest.mark.parametrize("megabytes", [400, 500])
def test_too_little_address_space_is_an_error_and_not_a_hang(tmp_path, monkeypatch, megabytes):
    """Libraries fail in many ways then, and some of their own threads wait for ever."""
    phantom = particle_phantom((3, 128, 128), pixel_size_A=2.0, dose=4, contrast=0.4, band_limit_A=20, seed=1)
    write_mrc_movie(str(tmp_path / "a.mrc"), phantom.frames(), 2.0)
    os.link(tmp_path / "a.mrc", tmp_path / "b.mrc")
    limited = ["prlimit", f"--as={megabytes * 1_000_000}", *launch.command("flexalign_plugin.execution.worker_process")]
    monkeypatch.setattr(launch, "command", lambda module: limited)
    monkeypatch.setattr(worker, "START_SECONDS", 6.0)
    jobs = [Job(str(tmp_path / f"{name}.mrc"), str(tmp_path / "out"), name, Settings(pixel_size=2.0)) for name in "ab"]
    with Worker("cpu", 1, timeout_s=60) as made:
        results = results_in(made, jobs, 100)
    for result in results:
        assert result.ok or len(result.error) > 20, result


def test_a_process_that_can_not_be_killed_does_not_hold_up_the_run(runner, job, monkeypatch):
    """As one that waits for a disk: SIGKILL has no effect until the disk answers."""
    monkeypatch.setattr(worker, "CLOSE_SECONDS", 0.3)
    stubborn = []
    kill = subprocess.Popen.kill

    def no_kill(process):
        stubborn.append(process)

    ignores = "import signal, __main__\n__main__._leave = lambda: None\n"
    made = Worker(runner=runner(before=ignores), timeout_s=2.0)
    try:
        monkeypatch.setattr(subprocess.Popen, "kill", no_kill)
        hang, after = made.submit(job("hang")), made.submit(job("after"))
        assert "gave no result within 2 s" in hang.result(30).message
        assert after.result(30).ok and stubborn
    finally:
        made.close()
        for process in set(stubborn):
            kill(process)
            process.wait()


# -------------------------------------------------------------------------------------------------- this process


def raises(*_):
    raise OSError("the terminal is gone")


@pytest.mark.parametrize("engine", ["worker", "pool"])
def test_errors_of_callbacks_do_not_stop_the_alignment(runner, job, engine):
    """The callbacks write to a terminal, which may be gone. Who does not read the log on blocks the child."""
    name = runner()
    made = Worker(log=raises, runner=name) if engine == "worker" else WorkerPool(Compute(), raises, name)
    with made:
        assert all(r.ok for r in results_in(made, [job("chatty-1"), job("chatty-2"), job("c")], 60, raises))


def no_thread(*_):
    raise RuntimeError("can't start new thread")


def test_a_child_without_threads_to_follow_it_fails_movies_and_leaves_nothing(runner, job, monkeypatch):
    """At the limit of processes (`prlimit --nproc`). More movies than Python's depth of calls."""
    with WorkerPool(Compute(), runner=runner()) as pool:
        monkeypatch.setattr(worker.Worker, "_spawn", no_thread)
        results = results_in(pool, [job(str(i)) for i in range(2000)])
    assert all("can't start new thread" in r.message and "ulimit -u" in r.message for r in results)


def test_no_thread_for_the_worker_is_one_sentence(monkeypatch):
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    with pytest.raises(FlexAlignError, match="can't start new thread.*ulimit -u"):
        WorkerPool(Compute())


def test_a_worker_that_has_ended_does_not_lock_the_pool(runner, job):
    """Its movies have a result as soon as they are submitted, so that the pool is called while it submits."""
    pool = WorkerPool(Compute(), runner=runner())
    pool._lanes[0].worker.close()
    results = results_in(pool, [job(str(i)) for i in range(2000)], 30)
    pool.close()
    assert not any(r.ok for r in results)


def test_an_unexpected_error_fails_the_movies_in_work_and_no_others(runner, job, monkeypatch):
    with WorkerPool(Compute(), runner=runner()) as pool:
        received, broken = Worker._received, []

        def once(self, child, message):
            if "stage" in message and not broken:
                broken.append(message)
                raise KeyError("a mistake")
            received(self, child, message)

        monkeypatch.setattr(Worker, "_received", once)
        assert "KeyError: 'a mistake'" in results_in(pool, [job("a")], 30)[0].message
        assert results_in(pool, [job("b")], 30)[0].ok


# -------------------------------------------------------------------------------------------------- time limits


def test_the_time_limit_follows_the_median():
    limit = TimeLimit()
    assert limit.seconds == time_limit.FIRST_S
    for seconds in (1, 2, 3):
        limit.finished(seconds)
    assert limit.seconds == time_limit.LEAST_S
    for seconds in (100, 200, 10_000, 200):
        limit.finished(seconds)
    assert limit.seconds == 20 * 100
    for _ in range(time_limit.MOVIES_KEPT):
        limit.finished(50)
    assert limit.seconds == 20 * 50
    assert TimeLimit(5.0).seconds == 5


def test_without_an_option_a_movie_that_hangs_is_given_up(runner, job, monkeypatch):
    monkeypatch.setattr(time_limit, "LEAST_S", 2.0)
    with Worker(runner=runner()) as made:
        results = results_in(made, [job("a"), job("hang"), job("c")], 60)
    assert [r.ok for r in results] == [True, False, True] and "gave no result within" in results[1].message


def test_a_limit_of_any_size_is_kept(runner, job):
    with Worker(runner=runner(), timeout_s=1e300) as made:
        assert results_in(made, [job("a")])[0].ok


def test_the_pool_passes_the_limit_on(runner, job):
    with WorkerPool(Compute(timeout_s=2.0), runner=runner()) as pool:
        assert "within 2 s" in results_in(pool, [job("hang")], 30)[0].message
