"""Requests and answers of queue jobs: results are written movie by movie, and a restarted job continues."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from flexalign_plugin.errors import SettingsError
from flexalign_plugin.execution.devices import Compute
from flexalign_plugin.execution.job import Job
from flexalign_plugin.execution.queue_job import answer_path, read_answer, run_request, write_request
from flexalign_plugin.phantoms.movie_writers import write_mrc_movie
from flexalign_plugin.phantoms.phantom import particle_phantom
from flexalign_plugin.settings import Settings

from ..signals import default_signals

RUNNER = """
    import os, time
    from flexalign_plugin.execution.job import JobResult

    def run(job, progress):
        with open(os.path.join(job.output_dir, "calls"), "a") as f:
            f.write(job.root + "\\n")
        if job.root.startswith("takes_request"):
            os.remove(os.path.join(job.output_dir, "job.json"))
        return JobResult(movie=job.movie, ok=not job.root.startswith("bad"), error=f"{job.movie}: is bad.")
"""


@pytest.fixture
def answered(tmp_path, monkeypatch):
    """Answer to a request for movies of these names."""
    (tmp_path / "fake_runner.py").write_text(textwrap.dedent(RUNNER))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def answer(*roots):
        path = str(tmp_path / "job.json")
        write_request(path, [Job(f"{r}.mrc", str(tmp_path), r, Settings()) for r in roots], "cpu", Compute(threads=1))
        results = run_request(path, print, "fake_runner:run")
        return path, results

    return answer


def calls(path):
    return open(os.path.join(os.path.dirname(path), "calls")).read().split()


def test_each_movie_has_its_result(answered):
    path, results = answered("a", "bad", "c")
    assert [r.ok for r in results] == [True, False, True] and results[1].error == "bad.mrc: is bad."
    answer = read_answer(path)
    assert answer.begun and answer.machine and not answer.ended
    assert {i: r.movie for i, r in answer.results.items()} == {0: "a.mrc", 1: "bad.mrc", 2: "c.mrc"}


def test_a_restarted_job_aligns_only_the_remaining_movies(answered):
    path, _ = answered("a", "b", "c")
    # As a kill leaves it: the second movie's line cut off, the third's missing.
    lines = [line for line in open(answer_path(path)).read().split("\n") if line]
    of = {json.loads(line).get("movie"): line for line in lines}
    with open(answer_path(path), "w") as file:
        file.write("\n".join([of[None], of[0], of[1][: len(of[1]) // 2]]))
    assert sorted(read_answer(path).results) == [0]
    results = run_request(path, print, "fake_runner:run")
    assert [r.movie for r in results] == ["a.mrc", "b.mrc", "c.mrc"] and all(r.ok for r in results)
    assert sorted(calls(path)) == ["a", "b", "b", "c", "c"]


def test_a_job_whose_request_is_deleted_begins_no_more_movies(answered):
    path, results = answered("takes_request", *"bcdefgh")
    assert 1 <= len(results) <= 3 and len(calls(path)) <= 3  # those that were handed over already are finished


@pytest.mark.parametrize(
    "text",
    ["", "{}", "null", "[1]", "[" * 200_000, '{"format": "flexalign-request-99", "jobs": []}']
    + [f'{{"jobs": {jobs}, "device": "cpu", "compute": {{}}}}' for jobs in ('[{"movie": 1}]', "[null]", "7")]
    + ['{"jobs": [{"movie": "a", "output_dir": "o", "root": 5, "settings": {}}], "device": "cpu", "compute": {}}']
    + ['{"jobs": [], "device": "cpu", "compute": {"threads": "many"}}']
    + ['{"jobs": [{"movie": "a", "output_dir": "o", "root": "a", "settings": {"new": 1}}]}'],
)
def test_a_request_that_can_not_be_read_is_refused(tmp_path, text):
    path = str(tmp_path / "job.json")
    with pytest.raises(SettingsError, match=r"job\.json: can't be read"):
        run_request(path, print)
    open(path, "w").write(text)
    with pytest.raises(SettingsError, match=r"job\.json: is not a request of this version"):
        run_request(path, print)


def test_the_time_limit_of_the_run_reaches_the_job(tmp_path, monkeypatch):
    (tmp_path / "fake_runner.py").write_text("import time\n\ndef run(job, progress):\n    time.sleep(1000)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    path = str(tmp_path / "job.json")
    write_request(path, [Job("a.mrc", str(tmp_path), "a", Settings())], "cpu", Compute(threads=1, timeout_s=1.5))
    (result,) = run_request(path, print, "fake_runner:run")
    assert not result.ok and "gave no result within 1.5 s" in result.error


def test_a_machine_without_the_gpu_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    path = str(tmp_path / "job.json")
    write_request(path, [Job(f"{r}.mrc", str(tmp_path), r, Settings()) for r in "ab"], "all", Compute(threads=1))
    assert read_answer(path).n_events == 0 and os.path.exists(answer_path(path))
    with pytest.raises(SettingsError, match="cuda:0 can't be used"):
        run_request(path, print)
    answer = read_answer(path)
    assert answer.begun and not answer.results and "cuda:0 can't be used" in answer.unfit


def test_the_command_aligns_and_says_when_the_queue_ends_it(tmp_path):
    phantom = particle_phantom((6, 256, 256), pixel_size_A=4.0, dose=4, contrast=0.4, band_limit_A=20, seed=1)
    jobs = []
    for i in range(40):  # more than are aligned before the signal
        movie = str(tmp_path / f"m{i}.mrcs")
        if i:
            os.link(tmp_path / "m0.mrcs", movie)
        else:
            write_mrc_movie(movie, phantom.frames(), 4.0)
        jobs.append(Job(movie, str(tmp_path / "out"), f"m{i}", Settings(pixel_size=4.0)))
    os.mkdir(tmp_path / "out")
    path = str(tmp_path / "job.json")
    write_request(path, jobs, "cpu", Compute(threads=1))
    command = [sys.executable, "-m", "flexalign_plugin", "batch", path]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=default_signals
    )
    deadline = time.monotonic() + 60
    while not read_answer(path).results and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    answer = read_answer(path)
    assert answer.ended and 0 < len(answer.results) < 40
    for result in answer.results.values():
        assert result.ok and all(os.path.exists(file) for file in result.files.values())
    assert not [name for name in os.listdir(tmp_path / "out") if name.endswith(".part")]
