"""Movies whose queue jobs are lost, killed, cancelled or refused, in a simulated queue (test_slurm.py: a real one)."""

from __future__ import annotations

import os
import threading
import time

import pytest

from flexalign_plugin.errors import OutputError
from flexalign_plugin.execution import queue_engine, queue_job
from flexalign_plugin.execution.devices import Compute
from flexalign_plugin.execution.job import DEVICE_FAILED, Job, JobResult
from flexalign_plugin.execution.queue_engine import QueueEngine
from flexalign_plugin.settings import Settings

QUICK = {"poll_s": 0.02, "gather_s": 0.1, "settle_s": 0.2, "pause_s": 0.3}


class FakeQueue:
    """Writes answers as queue jobs do, without aligning. A movie's name sets what happens to its first queue job."""

    def __init__(self, folder):
        self.folder, self.sent, self.cancelled, self.log = folder, [], [], []
        self.times, self.at_once, self.most_at_once = [], 0, 0
        self.lock, self.hold = threading.Lock(), threading.Event()

    def run(self, number, request):
        jobs, device, compute = queue_job._read_request(request)
        names = [job.root for job in jobs]
        with self.lock:
            tried = {name for sent in self.sent for name in sent}
            self.sent.append(names)
            self.times.append(time.monotonic())
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            self._work(request, jobs, tried)
        finally:
            with self.lock:
                self.at_once -= 1

    def _work(self, request, jobs, tried):
        what = {job.root.split("-")[0] for job in jobs}
        open(os.path.join(self.folder, f"log-{len(self.sent)}.out"), "w").close()
        if "refused" in what and (jobs[0].root not in tried or "always" in jobs[0].root):
            raise RuntimeError("Failed to submit to queue.\n Socket timed out")
        if "lost" in what:
            return
        queue_job.append_event(request, {"begun": {"machine": "n7", "gpus": "3"}})
        if "held" in what:
            self.hold.wait(10)
        for i, job in enumerate(jobs):
            queue_job.append_event(request, {"taken": i})
            kind = job.root.split("-")[0]
            if kind == "ended":
                queue_job.append_event(request, {"ended": "a user"})
                return
            if kind == "unfit" and job.root not in tried:
                queue_job.append_event(request, {"unfit": "the driver is broken"})
                return
            if kind == "killed" and (job.root not in tried or "always" in job.root):
                return
            path = os.path.join(self.folder, f"{job.root}.mrc")
            if kind == "late":  # the answer is seen before the file, as on a shared disk
                threading.Timer(0.1, lambda path=path: open(path, "w").close()).start()
            else:
                open(path, "w").close()
            if kind == "stranger":
                job = jobs[i - 1]
            fault = DEVICE_FAILED if kind == "gpu" and job.root not in tried else ""
            ok = kind != "bad" and not fault
            result = JobResult(movie=job.movie, ok=ok, files={"micrograph": path}, device_fault=fault, error="no GPU")
            queue_job.append_result(request, i, result)
            if kind == "unwatched":
                raise RuntimeError("squeue: can't be started")
        time.sleep(0.05)


@pytest.fixture
def queue(tmp_path, monkeypatch):
    monkeypatch.setattr(queue_engine, "RESUBMIT_S", 0.05)
    return FakeQueue(str(tmp_path))


@pytest.fixture
def engine_of(queue, tmp_path):
    engines = []

    def make(jobs_at_once=2, movies_per_job=3):
        log_of = str(tmp_path / "log-{}").format
        cancel = lambda: (queue.cancelled.append(time.monotonic()), queue.hold.set())  # noqa: E731
        folder = str(tmp_path / "queue")
        options = ("all", Compute(threads=2), jobs_at_once, movies_per_job, queue.log.append)
        engines.append(QueueEngine(queue.run, cancel, log_of, folder, *options, **QUICK))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


def submit(engine, *roots):
    return [engine.submit(Job(f"/movies/{root}.mrc", "out", root, Settings())) for root in roots]


def wait_for_jobs(queue, n):
    deadline = time.monotonic() + 5
    while len(queue.sent) < n and time.monotonic() < deadline:
        time.sleep(0.02)


def results(futures):
    return [future.result(10) for future in futures]


def test_movies_are_split_into_queue_jobs_and_no_more_jobs_than_allowed(engine_of, queue, tmp_path):
    engine = engine_of(jobs_at_once=2, movies_per_job=3)
    assert engine.capacity == 6
    names = [f"ok-{i}" for i in range(8)]
    got = results(submit(engine, *names))
    assert [r.movie for r in got] == [f"/movies/{name}.mrc" for name in names] and all(r.ok for r in got)
    assert sorted(map(len, queue.sent)) == [2, 3, 3] and sorted(sum(queue.sent, [])) == names
    assert queue.most_at_once <= 2
    assert sum("runs on n7, GPU 3" in line for line in queue.log) == 3
    deadline = time.monotonic() + 5  # what went well leaves no files behind
    while list(tmp_path.glob("queue/*/*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not list(tmp_path.glob("queue/*/*")) and not [f for f in os.listdir(tmp_path) if f.startswith("log")]


def test_results_are_there_while_the_job_still_works_on_others(engine_of, queue):
    engine = engine_of(1, 2)
    held = submit(engine, "ok-1", "held-2")
    queue.hold.clear()
    time.sleep(0.3)
    assert not held[0].done()
    queue.hold.set()
    assert all(r.ok for r in results(held))


def test_movies_of_a_killed_job_are_retried_one_by_one(engine_of, queue):
    got = results(submit(engine_of(1, 5), "ok-1", "killed-2", "ok-3", "killed-always-4", "ok-5"))
    assert [r.ok for r in got] == [True, True, True, False, True]
    first, *others = queue.sent
    assert first == ["ok-1", "killed-2", "ok-3", "killed-always-4", "ok-5"]
    assert others == [["killed-2"], ["ok-3", "killed-always-4", "ok-5"], ["killed-always-4"], ["ok-5"]]
    assert (
        "/movies/killed-always-4.mrc: 2 queue jobs could not align it, the last one because it was killed on n7"
        in got[3].message
    )
    assert any(
        line.startswith("Queue job 1: it was killed on n7") and "tried again, each in its own job: killed-2.mrc" in line
        for line in queue.log
    )


@pytest.mark.parametrize("kind, words", [("ended", "was ended by the queue"), ("lost", "before it began")])
def test_movies_of_a_cancelled_job_fail(engine_of, queue, kind, words):
    engine = engine_of(1, 2)
    first = submit(engine, f"{kind}-1", f"{kind}-2")
    got = results(first)
    assert not got[0].ok and words in got[0].message and "Use Continue to align it" in got[0].message
    assert "log-1*" in got[0].message
    # Nothing follows for a while: whoever stops the run cancels its jobs first.
    then = time.monotonic()
    assert results(submit(engine, "ok-3"))[0].ok
    assert time.monotonic() - then >= QUICK["pause_s"] - 0.1
    assert queue.sent == [[f"{kind}-1", f"{kind}-2"], ["ok-3"]]


def test_a_queue_that_does_not_take_a_job_is_asked_again(engine_of, queue):
    got = results(submit(engine_of(1, 2), "refused-1", "ok-2"))
    assert all(r.ok for r in got) and queue.sent == [["refused-1", "ok-2"]] * 2
    assert "could not be submitted and is tried again: Failed to submit to queue. Socket timed out" in queue.log[0]


def test_a_job_without_a_thread_to_wait_for_it_is_submitted_again(engine_of, queue, monkeypatch):
    """At the limit of processes (`prlimit --nproc`)."""
    engine, start, refused = engine_of(1, 2), threading.Thread.start, []

    def refuse_once(thread):
        if not refused:
            refused.append(thread)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(queue_engine._JobThread, "start", refuse_once)
    got = results(submit(engine, "ok-1", "ok-2"))
    assert all(r.ok for r in got) and queue.sent == [["ok-1", "ok-2"]]
    assert "could not be submitted and is tried again: can't start new thread" in queue.log[0]


def test_a_queue_that_never_takes_a_job_fails_its_movies(engine_of, queue):
    got = results(submit(engine_of(1, 2), "refused-always-1"))
    assert (
        not got[0].ok and "could not be submitted, after 4 attempts" in got[0].message and "timed out" in got[0].message
    )


def test_a_result_counts_when_its_files_can_be_seen(engine_of, queue, tmp_path):
    got = results(submit(engine_of(1, 1), "late-1"))
    assert got[0].ok and (tmp_path / "late-1.mrc").exists() and len(queue.sent) == 1


def test_a_failed_movie_is_final_and_its_log_stays(engine_of, queue, tmp_path):
    engine = engine_of(1, 2)
    got = results(submit(engine, "bad-1", "ok-2"))
    assert [r.ok for r in got] == [False, True] and len(queue.sent) == 1
    time.sleep(0.3)
    assert (tmp_path / "log-1.out").exists()


def test_closing_cancels_what_is_in_the_queue_and_fails_the_rest(engine_of, queue, tmp_path):
    engine = engine_of(1, 1)
    futures = submit(engine, "held-1", "ok-2")
    wait_for_jobs(queue, 1)
    engine.close()
    assert len(queue.cancelled) == 1
    for result in results(futures):
        assert "the run was stopped" in result.message
    assert not list(tmp_path.glob("queue/*"))  # a job that begins now finds no request
    assert "the run was stopped" in results(submit(engine, "ok-3"))[0].error
    engine.close()
    assert len(queue.cancelled) == 1 and queue.sent == [["held-1"]]


def test_an_error_in_the_watcher_fails_the_movies(engine_of, queue, monkeypatch):
    engine = engine_of(1, 1)
    held = submit(engine, "held-1", "ok-2")
    wait_for_jobs(queue, 1)

    def broken():
        raise ValueError("out of order")

    monkeypatch.setattr(engine, "_next_movies", broken)
    for result in results(held):
        assert not result.ok and "could not be watched any longer (ValueError: out of order)" in result.message
    assert "could not be watched any longer" in results(submit(engine, "ok-3"))[0].error
    engine.close()
    assert len(queue.cancelled) == 1


def test_a_shared_disk_may_be_unavailable_for_a_moment(engine_of, queue, monkeypatch):
    engine, read, looks = engine_of(1, 2), queue_job.read_answer, []

    def stale(request):
        looks.append(request)
        if len(looks) < 5:
            raise OSError(116, "Stale file handle")
        return read(request)

    monkeypatch.setattr(queue_engine, "read_answer", stale)
    assert all(r.ok for r in results(submit(engine, "ok-1", "ok-2"))) and len(queue.sent) == 1


def test_a_request_that_can_not_be_written_is_tried_again(engine_of, queue, monkeypatch):
    engine, write, tries = engine_of(1, 2), queue_job.write_request, []

    def full(*args):
        tries.append(args)
        if len(tries) < 3:
            raise OutputError("the disk is full")
        write(*args)

    monkeypatch.setattr(queue_engine, "write_request", full)
    assert all(r.ok for r in results(submit(engine, "ok-1", "ok-2"))) and len(queue.sent) == 1
    assert "could not be submitted and is tried again: the disk is full" in queue.log[0]


def test_a_wrong_answer_of_one_job_affects_only_its_movies(engine_of, queue):
    got = results(submit(engine_of(2, 2), "ok-1", "stranger-2", "ok-3", "ok-4"))
    assert [r.ok for r in got] == [True, False, True, True]
    assert "the answer has a result of /movies/ok-1.mrc instead of /movies/stranger-2.mrc" in got[1].message


def test_jobs_of_an_earlier_run_are_not_used_by_the_next(engine_of, queue, tmp_path):
    """A run is killed, its job goes on, and the next run's first job would have the same name."""
    old = engine_of(1, 3)
    submit(old, "held-1", "ok-2", "ok-3")
    wait_for_jobs(queue, 1)
    (request,) = tmp_path.glob("queue/*/*.json")
    new = engine_of(1, 3)
    assert not request.exists()
    got = results(submit(new, "ok-2", "ok-3", "ok-4"))
    assert [r.movie for r in got] == [f"/movies/ok-{i}.mrc" for i in (2, 3, 4)]
    assert queue.sent == [["held-1", "ok-2", "ok-3"], ["ok-2", "ok-3", "ok-4"]]


def test_movies_are_retried_if_a_machine_can_not_compute(engine_of, queue):
    got = results(submit(engine_of(1, 2), "unfit-1", "ok-2", "gpu-3"))
    assert all(r.ok for r in got)
    assert queue.sent == [["unfit-1", "ok-2"], ["unfit-1"], ["ok-2"], ["gpu-3"], ["gpu-3"]]
    assert any("n7 can't be used: the driver is broken" in line for line in queue.log)
    assert any("gpu-3.mrc is tried again in another queue job: no GPU" in line for line in queue.log)


def test_a_job_that_got_into_the_queue_is_not_sent_twice(engine_of, queue):
    got = results(submit(engine_of(1, 2), "unwatched-1", "ok-2"))
    # Watching failed after the first movie's result; the second is silent, and tried again only when that is long.
    assert all(r.ok for r in got) and queue.sent == [["unwatched-1", "ok-2"], ["ok-2"]]
    assert queue.times[1] - queue.times[0] > queue_engine.SILENCE * QUICK["settle_s"]


def test_an_error_in_the_cancel_command_does_not_block_closing(engine_of, queue):
    engine = engine_of(1, 1)
    futures = submit(engine, "held-1", "ok-2")
    wait_for_jobs(queue, 1)
    cancel = engine._cancel
    engine._cancel = lambda: (cancel(), 1 / 0)
    engine.close()
    assert all("the run was stopped" in r.message for r in results(futures))
    assert "could not be cancelled: division by zero" in queue.log[-1]
