"""The worker process: whatever happens to one movie, every future gets a result and the other movies are aligned."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from flexalign_plugin.execution.job import Job
from flexalign_plugin.execution.worker import Worker, _child_environment
from flexalign_plugin.settings import Settings

RUNNER = """
    import ctypes, os, signal, sys, time
    from flexalign_plugin.execution.job import JobResult

    def run(job, progress):
        print("library chatter on standard output")
        progress("working", 0.5)
        what = job.root.split("-")[0]
        if what == "segfault":
            ctypes.string_at(0)
        elif what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif what == "exit":
            print("the reason, last", file=sys.stderr)
            os._exit(3)
        elif what == "hang":
            time.sleep(1000)
        elif what == "raise":
            raise RuntimeError("beyond run_job")
        elif what == "slow":
            time.sleep(0.3)
        elif what == "flaky":  # dies at its first attempt, as when two movies do not fit into memory
            marker = os.path.join(job.output_dir, job.root)
            if not os.path.exists(marker):
                open(marker, "w").close()
                time.sleep(0.5)
                os.kill(os.getpid(), signal.SIGKILL)
        return JobResult(movie=job.movie, ok=True, files={"pid": str(os.getpid())}, quality={"nan": float("nan")})
"""


@pytest.fixture
def make_worker(tmp_path, monkeypatch):
    (tmp_path / "fake_runner.py").write_text(textwrap.dedent(RUNNER))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    made = []

    def make(**options) -> Worker:
        worker = Worker(runner="fake_runner:run", **options)
        made.append(worker)
        return worker

    yield make
    for worker in made:
        worker.close()


@pytest.fixture
def job(tmp_path):
    return lambda what: Job(f"{what}.mrc", str(tmp_path), what, Settings())


def pid_of(result) -> int:
    assert result.ok, result.message
    return int(result.files["pid"])


def wait_until(condition, seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return bool(condition())


def gone(pid: int) -> bool:
    """Whether the process has ended; zombies count as ended."""
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):  # gone before or while it is read
        return True


def test_jobs_share_one_process_which_ends_with_close(make_worker, job):
    lines, stages = [], []
    worker = make_worker(log=lines.append)
    futures = [worker.submit(job(f"ok-{i}"), lambda *stage: stages.append(stage)) for i in range(4)]
    results = [future.result(30) for future in futures]
    assert [r.movie for r in results] == [f"ok-{i}.mrc" for i in range(4)]
    pids = {pid_of(r) for r in results}
    assert len(pids) == 1
    assert stages == [("working", 0.5)] * 4
    assert "library chatter on standard output" in lines
    worker.close()
    worker.close()
    assert gone(pids.pop())
    late = worker.submit(job("ok-late")).result(1)
    assert not late.ok and "ok-late.mrc" in late.message


@pytest.mark.parametrize(
    "what, words",
    [
        ("segfault", ["SIGSEGV", "copy it again"]),
        ("kill", ["SIGKILL", "memory"]),
        ("exit", ["status 3", "the reason, last"]),
        ("raise", ["status 1", "beyond run_job"]),
    ],
)
def test_only_the_movie_that_ends_the_process_fails(make_worker, job, what, words):
    worker = make_worker()
    names = ["ok-1", f"{what}-2", "slow-3", f"{what}-4", f"{what}-5", "ok-6"]
    results = [f.result(60) for f in [worker.submit(job(name)) for name in names]]
    assert [r.ok for r in results] == [True, False, True, False, False, True]
    for result in results:
        assert result.ok or all(word in result.message for word in [result.movie, *words]), result.message


def test_two_movies_whose_process_is_killed_are_retried_one_by_one(make_worker, job):
    worker = make_worker()
    results = [f.result(60) for f in [worker.submit(job(name)) for name in ("flaky-1", "ok-2", "ok-3")]]
    assert all(r.ok for r in results), results
    assert pid_of(results[0]) == pid_of(results[2])


def test_a_movie_that_takes_too_long_is_given_up_and_the_next_goes_on(make_worker, job):
    worker = make_worker(timeout_s=2.0)
    started = time.monotonic()
    hang, after = worker.submit(job("hang-1")), worker.submit(job("ok-2"))
    assert not hang.result(30).ok
    assert "hang-1.mrc" in hang.result().message and "2 s" in hang.result().message
    assert after.result(30).ok
    assert time.monotonic() - started < 15
    # The clock runs for each movie on its own, not for the queue.
    assert all(f.result(30).ok for f in [worker.submit(job(f"slow-{i}")) for i in range(8)])


def test_closing_while_a_movie_runs_fails_what_is_left_and_is_prompt(make_worker, job):
    worker = make_worker()
    pid = pid_of(worker.submit(job("ok-0")).result(30))
    futures = [worker.submit(job(name)) for name in ("hang-1", "ok-2", "ok-3", "ok-4")]
    time.sleep(0.3)
    started = time.monotonic()
    worker.close()
    assert time.monotonic() - started < 4
    assert gone(pid)
    assert all(not f.result(0).ok and "stopped" in f.result(0).message for f in futures)


def test_temporary_files_of_a_killed_process_are_removed(make_worker, job, tmp_path):
    mine, other = tmp_path / ".kill-1_psd.mrc.12ab34cd.part", tmp_path / ".ok-2_psd.mrc.12ab34cd.part"
    mine.touch()
    other.touch()
    assert not make_worker().submit(job("kill-1")).result(30).ok
    assert not mine.exists() and other.exists()


def test_a_child_killed_while_idle_is_replaced(make_worker, job):
    worker = make_worker()
    first = pid_of(worker.submit(job("ok-1")).result(30))
    os.kill(first, signal.SIGKILL)
    assert wait_until(lambda: gone(first))
    assert pid_of(worker.submit(job("ok-2")).result(30)) != first


def test_a_child_that_never_starts_is_reported_with_its_last_line(make_worker, job, tmp_path):
    (tmp_path / "fake_runner.py").write_text("raise ImportError('no such library')")
    results = [f.result(60) for f in [make_worker().submit(job(name)) for name in ("ok-1", "ok-2")]]
    assert all(not r.ok and r.movie in r.message and "no such library" in r.message for r in results)


def test_submitting_from_many_threads(make_worker, job):
    worker, results = make_worker(), []

    def use(i: int) -> None:
        results.append(worker.submit(job(f"ok-{i}")).result(60))

    threads = [threading.Thread(target=use, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(r.movie for r in results) == [f"ok-{i}.mrc" for i in range(8)]


PARENT = """
    import sys, time
    from flexalign_plugin.settings import Settings
    from flexalign_plugin.execution.worker import Job, Worker
    worker = Worker(runner="fake_runner:run")
    make = lambda what: Job(what + ".mrc", ".", what, Settings())
    print(worker.submit(make("ok")).result(30).files["pid"], flush=True)
    worker.submit(make("hang"))
    {then}
"""


@pytest.mark.parametrize("then, by_signal", [("time.sleep(1000)", True), ("time.sleep(0.3)", False)])
def test_the_child_ends_when_its_parent_dies_or_does_not_close_it(make_worker, tmp_path, then, by_signal):
    code = textwrap.dedent(PARENT).format(then=then)
    environment = _child_environment()
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment, cwd=tmp_path)
    child = int(parent.stdout.readline())
    if by_signal:
        time.sleep(0.3)
        parent.kill()
    parent.wait(20)
    parent.stdout.close()
    assert wait_until(lambda: gone(child))


@pytest.mark.parametrize("lives_s", [0, 5])
def test_the_child_ends_when_its_parent_dies_but_the_pipe_stays_open(make_worker, tmp_path, lives_s):
    """Another process inherited the writing end and keeps it open, so the child must check whether its parent lives."""
    reading, writing = os.pipe()
    own = "[*sys.argv[1:], '--parent', str(os.getpid())]"
    # Also if the parent ends before the child has started.
    run = f"p = subprocess.Popen({own}, stdin=0); print(p.pid, flush=True); time.sleep({lives_s})"
    script = f"import os, subprocess, sys, time; {run}"
    command = [sys.executable, "-m", "flexalign_plugin.execution.worker", "--runner", "fake_runner:run"]
    parent = subprocess.Popen(
        [sys.executable, "-c", script, *command],
        stdin=reading,
        stdout=subprocess.PIPE,
        env=_child_environment(),
        cwd=tmp_path,
    )
    try:
        child = int(parent.stdout.readline())
        parent.wait(20)
        assert wait_until(lambda: gone(child), 60)
    finally:
        parent.stdout.close()
        os.close(writing)
        os.close(reading)


def test_the_protocol_keeps_standard_output_to_itself(make_worker, job, tmp_path):
    from dataclasses import asdict

    request = json.dumps({"number": 7, **asdict(job("ok"))}) + "\n"
    child = subprocess.Popen(
        [sys.executable, "-m", "flexalign_plugin.execution.worker", "--runner", "fake_runner:run"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=_child_environment(),
        cwd=tmp_path,
        text=True,
    )
    child.stdin.write(request)
    child.stdin.flush()
    lines = [json.loads(child.stdout.readline()) for _ in range(4)]
    lines.remove({"ready": True})
    rest, errors = child.communicate(timeout=20)
    assert lines[:2] == [{"number": 7, "taken": True}, {"number": 7, "stage": "working", "fraction": 0.5}]
    assert lines[2]["number"] == 7 and lines[2]["result"]["ok"]
    assert rest == "" and "library chatter" in errors
    assert child.returncode == 0


WRITER = """
    import os, signal, sys, threading, time
    from flexalign_plugin.execution.job import JobResult

    def run(job, progress):
        folder, what = job.output_dir, job.root.split("-")[0]

        def note(event):
            with open(os.path.join(folder, "events"), "a") as f:
                f.write(f"{event} {job.root}\\n")

        def write():
            note("writes")
            hidden = os.path.join(folder, f".{job.root}_aligned_mic.mrc.0.part")
            open(hidden, "w").close()
            if what == "die" and not os.path.exists(os.path.join(folder, "died")):
                open(os.path.join(folder, "died"), "w").close()
                time.sleep(0.5)  # while the next movie is aligned
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(1000 if what == "hang" else 0.5)
            os.rename(hidden, os.path.join(folder, f"{job.root}_aligned_mic.mrc"))
            note("written")
            return JobResult(movie=job.movie, ok=True, files={"pid": str(os.getpid())})

        note("aligns")
        time.sleep(0.2)
        return write
"""


@pytest.fixture
def writer(tmp_path, monkeypatch):
    """Makes a worker whose results take 0.5 s to write; `events` lists what it has done."""
    (tmp_path / "fake_writer.py").write_text(textwrap.dedent(WRITER))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    made = []

    def make(**options) -> Worker:
        made.append(Worker(runner="fake_writer:run", **options))
        return made[-1]

    yield make
    for worker in made:
        worker.close()


def events(folder) -> list:
    return (folder / "events").read_text().splitlines() if (folder / "events").exists() else []


def test_results_are_written_while_the_next_movie_is_aligned(writer, job, tmp_path):
    freed = []
    worker = writer()
    futures = [worker.submit(job(f"ok-{i}"), when_aligned=lambda i=i: freed.append(i)) for i in range(4)]
    assert all(f.result(30).ok for f in futures)
    assert freed == [0, 1, 2, 3]
    order = events(tmp_path)
    for i in range(3):
        assert order.index(f"aligns ok-{i + 1}") < order.index(f"written ok-{i}")
        # Never two at a time, because the images stay in memory until they are written.
        assert order.index(f"written ok-{i}") < order.index(f"writes ok-{i + 1}")


def test_results_that_are_written_at_once(tmp_path, monkeypatch, job):
    """The result must not overtake the message that the movie is aligned."""
    lines = ["from flexalign_plugin.execution.job import JobResult", "def run(job, progress):"]
    lines += ["    return lambda: JobResult(movie=job.movie, ok=True)"]
    (tmp_path / "fast_writer.py").write_text("\n".join(lines))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with Worker(runner="fast_writer:run") as worker:
        assert all(f.result(60).ok for f in [worker.submit(job(str(i))) for i in range(500)])


def test_a_kill_during_the_writing_loses_no_movie_and_leaves_no_part(writer, job, tmp_path):
    worker = writer()
    futures = [worker.submit(job(name)) for name in ("die-1", "ok-2", "ok-3")]
    assert all(f.result(60).ok for f in futures)
    order = events(tmp_path)
    assert order.count("written die-1") == 1 and order.count("aligns ok-2") == 2
    assert not list(tmp_path.glob(".*.part"))


def test_closing_completes_or_removes_what_is_being_written(writer, job, tmp_path):
    for name, completed in (("ok-1", True), ("hang-2", False)):
        worker = writer()
        future = worker.submit(job(name))
        assert wait_until(lambda name=name: f"writes {name}" in events(tmp_path), 30)
        worker.close()
        assert not list(tmp_path.glob(".*.part"))
        assert (tmp_path / f"{name}_aligned_mic.mrc").exists() == completed
        assert future.result(0).ok == completed or "stopped" in future.result(0).message


def test_results_that_take_too_long_to_write_are_given_up(writer, job):
    worker = writer(timeout_s=3.0)
    futures = [worker.submit(job(name)) for name in ("hang-1", "ok-2")]
    assert "gave no result within 3 s" in futures[0].result(30).message
    assert futures[1].result(30).ok
