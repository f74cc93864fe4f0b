"""The form's GPUs: each chosen GPU gets a worker, and a GPU that can't be used is refused with the reason."""

from __future__ import annotations

import os
import textwrap

import pytest

from flexalign_plugin.errors import SettingsError
from flexalign_plugin.execution.devices import Compute
from flexalign_plugin.kernels import cuda_installation as toolkit
from flexalign_plugin.kernels import usable_cores

from ..scipion_project import import_movies, new_alignment
from .conftest import PIXEL_A

RUNNER = """
    import os, sys, time
    from flexalign_plugin.execution.job import JobResult, failure
    from flexalign_plugin.kernels.device import DeviceError

    def run(job, progress):
        device = sys.argv[sys.argv.index("--device") + 1]
        with open(os.environ["CALLS"], "a") as f:
            f.write(f"{job.root} {device}\\n")
        # The first movie is slow. The other GPU must not be idle while the step of the slow movie waits.
        time.sleep(3.0 if job.root == "movie_1" else 0.1)
        if job.root == "movie_4" and device != "cpu":
            return failure(job, DeviceError("an illegal address"))
        return JobResult(job.movie, True, shifts_px=[[0.0, 0.0]])
"""


def protocol_of(**params):
    from flexalign_plugin.protocols import ProtFlexAlign

    return ProtFlexAlign(**params)


def compute_of(**params):
    from flexalign_plugin.protocols import devices

    return devices.compute(protocol_of(**params))


@pytest.mark.parametrize("text", ["0 1", "0,1", " 0, 1 ", "0-1", "0 1 1"])
def test_each_listed_gpu_gets_a_worker(text):
    protocol = protocol_of(useGpu=True, gpuList=text)
    assert protocol.getGpuList() == [0, 1]
    assert compute_of(useGpu=True, gpuList=text).devices == ("cuda:0", "cuda:1")


def test_the_cpu_is_the_default_and_the_gpu_list_is_ignored():
    assert compute_of() == Compute(("cpu",), min(4, usable_cores()))
    assert compute_of(gpuList="none").devices == ("cpu",)
    assert protocol_of(gpuList="none").getGpuList() == []


def test_details_reach_the_workers():
    compute = compute_of(useGpu=True, gpuList="2", gpuMemory=6.0, tuneFftSizes=False, onGpuFailure=1, binThreads=1)
    assert compute == Compute(("cuda:2",), 1, 6.0, tune_fft=False, cpu_instead=True)
    assert compute_of(timeout=90.0).timeout_s == 90 and compute_of().timeout_s is None


def test_movies_at_once_are_for_the_cpu():
    assert compute_of().workers is None and compute_of(moviesAtOnce=3).workers == 3
    assert compute_of(useGpu=True, gpuList="0", moviesAtOnce=3).workers is None
    errors = protocol_of(moviesAtOnce=-1).validate()
    assert any("Movies at once is -1: give at least 1, or 0" in error for error in errors), errors


def test_a_job_requests_the_cores_of_all_gpus_and_numbers_its_gpus_from_0():
    protocol = protocol_of(useGpu=True, gpuList="2 5", binThreads=3)
    assert protocol.getTotalThreads() == 6
    protocol._useQueue.set(True)
    assert protocol.getGpuList() == [0, 1]


@pytest.mark.parametrize(
    "params, words",
    [
        ({"gpuList": "0 one"}, "'one' is no GPU number"),
        ({"gpuList": ""}, "No GPU is chosen"),
        ({"gpuMemory": -1.0}, "GPU memory limit is -1"),
        ({"timeout": -1.0}, "Time limit per movie is -1"),
        ({"timeout": float("nan")}, "Time limit per movie is nan"),
    ],
)
def test_a_list_that_makes_no_sense_is_refused(params, words):
    errors = protocol_of(useGpu=True, **params).validate()
    assert any(words in error for error in errors), errors


def test_a_gpu_that_can_not_be_used_is_refused_with_what_is_missing(monkeypatch):
    def no_driver():
        raise toolkit.DriverError("the NVIDIA driver is missing: install it")

    monkeypatch.setattr(toolkit, "gpus", no_driver)
    protocol = protocol_of(useGpu=True, gpuList="1")
    errors = [error for error in protocol.validate() if "GPU" in error]
    assert len(errors) == 1 and "cuda:1 can't be used: the NVIDIA driver is missing: install it" in errors[0]
    protocol._useQueue.set(True)  # the GPU is on another machine
    assert not [error for error in protocol.validate() if "GPU" in error]


def test_serial_steps_keep_all_gpus_busy_and_the_cpu_steps_in(project, movies, tmp_path, monkeypatch):
    from flexalign_plugin.protocols import computing, outputs

    (tmp_path / "fake_gpu.py").write_text(textwrap.dedent(RUNNER))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]]))
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    pools = []

    def fake_pool(*args, **options):
        pools.append(WorkerPool(*args, runner="fake_gpu:run", **options))
        return pools[-1]

    from flexalign_plugin.execution.worker_pool import WorkerPool

    monkeypatch.setattr(computing, "WorkerPool", fake_pool)
    monkeypatch.setattr(Compute, "check", lambda self: None)
    folder = tmp_path / "movies"
    folder.mkdir()
    for i in range(1, 9):
        os.link(f"{movies.folder}/movie_1.mrcs", folder / f"movie_{i}.mrcs")
    imported = import_movies(project, str(folder), "*.mrcs", PIXEL_A)
    protocol = new_alignment(project, imported, useGpu=True, gpuList="0 1", onGpuFailure=1)
    project._setupProtocol(protocol)
    protocol.makePathsAndClean()
    os.makedirs(protocol._getExtraPath("DONE"))
    protocol._insertAllSteps()
    try:
        for movie in [movie.clone() for movie in imported.outputMovies]:  # as the steps do, one after the other
            protocol._processMovie(movie)
    finally:
        protocol._hand_over.close()
    assert len(pools) == 1
    calls = [tuple(line.split()) for line in (tmp_path / "calls").read_text().splitlines()]
    of_slow = dict(calls)["movie_1"]
    # Only the movie that was read ahead waits for the slow movie. The others were aligned on the other GPU or the CPU.
    assert sum(device == of_slow for _, device in calls) <= 3
    assert [device for name, device in calls if name == "movie_4"][-1] == "cpu"
    assert len({name for name, _ in calls}) == 8
    record = outputs._loaded(protocol._getExtraPath("DONE", "movie_000004.json"))
    assert record.ok and "because the GPU could not: an illegal address" in record.warnings[0]


def test_the_plugin_counts_as_installed_without_any_cuda(monkeypatch):
    from flexalign_plugin import Plugin

    for name in ("FLEXALIGN_CUDA_BIN", "FLEXALIGN_CUDA_LIB"):
        monkeypatch.setenv(name, "/no/such/folder")
    Plugin._defineVariables()
    try:
        assert Plugin.getVar("FLEXALIGN_CUDA_BIN") == "/no/such/folder"
        assert Plugin.validateInstallation() == []
    finally:
        monkeypatch.undo()
        Plugin._defineVariables()


def test_an_unknown_device_is_refused():
    with pytest.raises(SettingsError, match="There is no device"):
        Compute(("gpu",)).check()
