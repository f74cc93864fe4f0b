"""The worker pool keeps every device busy, and retries the movies of a GPU that fails on another device."""

from __future__ import annotations

import os
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest

from flexalign_plugin.execution import worker_pool
from flexalign_plugin.execution.devices import Compute
from flexalign_plugin.execution.job import DEVICE_FAILED, DEVICE_TOO_SMALL, Job, failure
from flexalign_plugin.execution.worker_pool import WorkerPool
from flexalign_plugin.kernels.device import DeviceError, DeviceOutOfMemory, DeviceTooSmall
from flexalign_plugin.settings import Settings

# A movie's name says on which devices it fails and how: "broken@cuda:0,cuda:1-7" or "large@cuda:0-7".
RUNNER = """
    import os, sys, time
    from flexalign_plugin.execution.job import JobResult, failure
    from flexalign_plugin.kernels.device import DeviceError, DeviceTooSmall

    DEVICE = sys.argv[sys.argv.index("--device") + 1]

    def run(job, progress):
        progress("working", 0.5)
        with open(os.path.join(job.output_dir, "calls"), "a") as f:
            f.write(f"{job.root} {DEVICE} {os.getpid()}\\n")
        what, _, rest = job.root.partition("@")
        if what == "slow":
            time.sleep(0.4)
        if what == "kill":
            time.sleep(0.2)
            os.kill(os.getpid(), 9)
        if what == "crowded" and not os.path.exists(os.path.join(job.output_dir, "killed")):
            open(os.path.join(job.output_dir, "killed"), "w").close()
            os.kill(os.getpid(), 9)
        if DEVICE in rest.rpartition("-")[0].split(","):
            if what == "once" and not os.path.exists(os.path.join(job.output_dir, job.root)):
                open(os.path.join(job.output_dir, job.root), "w").close()
                return failure(job, DeviceError("the fault of a moment"))
            if what == "broken":
                return failure(job, DeviceError("an illegal address"))
            if what == "large":
                return failure(job, DeviceTooSmall("12 MiB more are needed"))
        files = {"device": DEVICE, "arguments": " ".join(sys.argv)}
        return JobResult(movie=job.movie, ok=True, files=files, warnings=["the movie's own"])
"""


@pytest.fixture
def aligned(tmp_path, monkeypatch):
    """Results of movies of these names, in their order, and the calls (root, device, process) that were made."""
    (tmp_path / "fake_runner.py").write_text(textwrap.dedent(RUNNER))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def align(compute, *roots, log=None):
        with WorkerPool(replace(compute, timeout_s=60), log, runner="fake_runner:run") as pool:
            futures = [pool.submit(Job(f"{root}.mrc", str(tmp_path), root, Settings())) for root in roots]
            results = [future.result(60) for future in futures]
        calls = [tuple(line.split()) for line in (tmp_path / "calls").read_text().splitlines()]
        return results, calls

    return align


def devices(results):
    return [r.files.get("device", "failed") for r in results]


def test_two_gpus_share_the_movies_and_results_come_in_order(aligned):
    roots = [f"slow@-{i}" for i in range(8)]
    results, calls = aligned(Compute(("cuda:0", "cuda:1"), threads=6, gpu_memory_gb=3.5, tune_fft=False), *roots)
    assert [r.movie for r in results] == [f"{root}.mrc" for root in roots]
    assert sorted(call[0] for call in calls) == roots
    # One process for each GPU. The slower one to start may leave most movies to the other.
    assert len({call[2] for call in calls}) == len({call[1:] for call in calls}) == 2
    assert min(devices(results).count(name) for name in ("cuda:0", "cuda:1")) >= 1
    for result in results:
        assert "--threads 3" in result.files["arguments"] and "--no-fft-tuning" in result.files["arguments"]
        assert "--gpu-memory 3.5" in result.files["arguments"]


def test_workers_of_a_cpu_share_its_threads_and_a_kill_of_one_fails_its_movie_only(aligned):
    roots = ["slow@-0", "kill@-1", *(f"slow@-{i}" for i in range(2, 8))]
    results, calls = aligned(Compute(("cpu",), threads=5, workers=2), *roots)
    assert [r.ok for r in results] == [root[:4] != "kill" for root in roots], results
    assert "SIGKILL" in results[1].message and "--workers" in results[1].message
    shares = {r.files["arguments"].partition("--threads ")[2][0] for r in results if r.ok}
    assert shares == {"2", "3"}
    assert len({call[2] for call in calls}) >= 3  # two processes, and at least one in place of that which was killed


def test_after_a_kill_fewer_movies_are_aligned_at_once_and_the_movie_is_tried_again(aligned):
    lines = []
    results, calls = aligned(Compute(("cpu",), threads=3, workers=3), "crowded@-0", log=lines.append)
    assert results[0].ok and results[0].device_fault == ""
    assert len(calls) == len({call[2] for call in calls}) == 2
    assert [line.partition("; ")[2] for line in lines] == ["movies at once from now on: 2"]
    results, _ = aligned(Compute(("cpu",), threads=1, workers=1), "kill@-0")
    assert not results[0].ok and results[0].device_fault == ""


def test_a_gpu_that_fails_gets_a_fresh_process_and_the_movie_another_try(aligned):
    lines = []
    results, calls = aligned(Compute(("cuda:0",)), "ok@-1", "once@cuda:0-2", "ok@-3", "ok@-4", log=lines.append)
    assert all(r.ok for r in results), results
    assert [call[0] for call in calls] == ["ok@-1", "once@cuda:0-2", "ok@-3", "once@cuda:0-2", "ok@-4"]
    pids = [call[2] for call in calls]
    assert pids[0] == pids[1] != pids[2] and len(set(pids[2:])) == 1
    assert lines == ["cuda:0 failed: the fault of a moment (it is restarted)"]


@pytest.mark.parametrize("cpu_instead", [False, True])
def test_movies_that_fail_twice_fail_or_go_to_the_cpu_as_chosen(aligned, cpu_instead):
    lines = []
    compute = Compute(("cuda:0",), cpu_instead=cpu_instead)
    roots = ["ok@-1", "broken@cuda:0-2", "broken@cuda:0-3", "ok@-4", "ok@-5"]
    results, calls = aligned(compute, *roots, log=lines.append)
    assert [r.movie for r in results] == [f"{root}.mrc" for root in roots]
    assert results[0].ok and results[0].warnings == ["the movie's own"]
    # After two failures in a row the GPU is not used for a while.
    assert "2 times in a row" in lines[1]
    if cpu_instead:
        assert all(r.ok for r in results) and devices(results)[1:3] == ["cpu", "cpu"] and devices(results)[4] == "cpu"
        # It may be waiting for its second attempt when the next movie's failure disables the GPU: both state the fault.
        assert results[1].warnings[0].startswith("Aligned on the CPU, because the GPU could not: ")
        assert results[1].warnings[0].endswith("an illegal address")
        assert results[4].warnings[0].endswith("The last failure: an illegal address")
        assert results[4].warnings[1:] == ["the movie's own"]
    else:
        assert [r.ok for r in results][1:3] == [False, False] and not results[4].ok
        assert results[1].message.startswith("broken@cuda:0-2.mrc: ") and results[1].message.endswith(
            "an illegal address"
        )
        assert "ok@-5.mrc: cuda:0 failed 2 times in a row" in results[4].message
        assert all(call[1] == "cuda:0" for call in calls)


def test_movies_that_fail_on_one_gpu_are_aligned_on_another(aligned):
    roots = [f"broken@cuda:0-{i}" for i in range(6)]
    results, calls = aligned(Compute(("cuda:0", "cuda:1")), *roots)
    assert devices(results) == ["cuda:1"] * 6
    # It was given two movies, and then no more; the third it had taken already may have failed too.
    assert 1 <= sum(call[1] == "cuda:0" for call in calls) <= 3


def test_a_gpu_is_used_again_after_its_pause(aligned, monkeypatch):
    monkeypatch.setattr(worker_pool, "PAUSE_SECONDS", 0.0)
    results, _ = aligned(Compute(("cuda:0",)), "broken@cuda:0-1", "broken@cuda:0-2", "ok@-3", "ok@-4")
    assert [r.ok for r in results] == [False, False, True, True]


@pytest.mark.parametrize("cpu_instead", [False, True])
def test_a_movie_too_large_for_the_gpu_is_not_the_gpus_fault(aligned, cpu_instead):
    lines = []
    roots = [*(f"large@cuda:0-{i}" for i in range(3)), "ok@-3"]
    results, calls = aligned(Compute(("cuda:0",), cpu_instead=cpu_instead), *roots, log=lines.append)
    assert devices(results) == (["cpu"] * 3 if cpu_instead else ["failed"] * 3) + ["cuda:0"]
    assert all("12 MiB more" in (r.warnings[0] if cpu_instead else r.message) for r in results[:3])
    assert len({call[2] for call in calls if call[1] == "cuda:0"}) == 1 and lines == []


def test_closing_fails_what_is_left_and_later_movies(tmp_path, monkeypatch):
    (tmp_path / "fake_runner.py").write_text("import time\n\ndef run(job, progress):\n    time.sleep(1000)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    pool = WorkerPool(Compute(("cuda:0", "cuda:1")), runner="fake_runner:run")
    jobs = [Job(f"{i}.mrc", str(tmp_path), str(i), Settings()) for i in range(8)]
    futures = [pool.submit(job) for job in jobs]
    assert pool.capacity == 6
    time.sleep(0.3)
    pool.close()
    pool.close()
    futures.append(pool.submit(jobs[0]))
    assert all("stopped" in future.result(0).message for future in futures)


def test_errors_of_devices_are_distinguished_from_those_of_movies(tmp_path):
    job = Job("a.mrc", str(tmp_path), "a", Settings())
    assert failure(job, DeviceError("x")).device_fault == DEVICE_FAILED
    assert failure(job, DeviceError("x")).message == "a.mrc: x"
    assert failure(job, DeviceTooSmall("x")).device_fault == DEVICE_TOO_SMALL
    assert failure(job, DeviceOutOfMemory(2, 1)).device_fault == DEVICE_TOO_SMALL
    assert failure(job, ValueError("x")).device_fault == failure(job, MemoryError()).device_fault == ""


def test_a_device_that_can_not_be_used_after_all_is_its_own_failure(tmp_path):
    """The child's own check: the parent's may have been long ago."""
    phantom = Path(tmp_path, "a.mrc")
    phantom.write_bytes(b"")
    lines = []
    with WorkerPool(Compute(("cuda:0",)), log=lines.append) as pool:
        result = pool.submit(Job(str(phantom), str(tmp_path), "a", Settings())).result(60)
    if os.path.exists("/dev/nvidia0"):
        pytest.skip("this machine has a GPU")
    assert result.device_fault == DEVICE_FAILED and "GPU cuda:0 can't be used: " in result.message
    assert str(phantom) in result.message and len(lines) == 2
