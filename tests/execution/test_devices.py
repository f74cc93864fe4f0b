"""Names of devices, and the error messages if a device can't be used."""

from __future__ import annotations

import json
import os
from concurrent.futures import Future

import pytest

from flexalign_plugin import cli
from flexalign_plugin.errors import SettingsError
from flexalign_plugin.execution.devices import Compute, device_names
from flexalign_plugin.execution.job import JobResult
from flexalign_plugin.kernels import cuda_installation as toolkit
from flexalign_plugin.kernels import cufft as fft
from flexalign_plugin.runs import results
from flexalign_plugin.runs.console import Report


@pytest.fixture
def gpus(monkeypatch):
    """Names of the GPUs that the driver sees; None: there is no driver."""
    names = ["A", "B"]

    def seen():
        if not names:
            raise toolkit.DriverError("the NVIDIA driver (libcuda.so.1) is missing: install it")
        return [toolkit.GpuInfo(i, name, 1 << 34, "9.0") for i, name in enumerate(names)]

    monkeypatch.setattr(toolkit, "gpus", seen)
    return names


@pytest.mark.parametrize(
    "text, names",
    [
        ("auto", ["auto"]),
        ("cpu", ["cpu"]),
        ("cuda", ["cuda:0"]),
        ("cuda:3", ["cuda:3"]),
        ("cuda:0,cuda:1", ["cuda:0", "cuda:1"]),
        ("cuda:1, cuda, cuda:0", ["cuda:1", "cuda:0"]),
        ("all", ["cuda:0", "cuda:1"]),
    ],
)
def test_names(gpus, text, names):
    assert device_names(text) == tuple(names)


@pytest.mark.parametrize("text, words", [("gpu", "no device 'gpu'"), ("", "no device"), ("cpu,cuda", "all be GPUs")])
def test_what_names_no_devices(text, words):
    with pytest.raises(SettingsError, match=words):
        device_names(text)


def test_all_gpus_of_a_machine_without_any_say_what_is_missing(gpus):
    gpus.clear()
    with pytest.raises(SettingsError, match="driver .* is missing: install it"):
        Compute(device_names("all")).check()
    Compute(device_names("auto")).check()


MISSING = {
    "driver": "the NVIDIA driver (libcuda.so.1) is missing: install it",
    "pycuda": "pycuda is missing: pip install pycuda",
    "toolkit": "the compiler nvcc of the CUDA toolkit is missing: install the toolkit",
    "cufft": "cuFFT is missing (not here): pip install nvidia-cufft",
}


@pytest.mark.parametrize("part", MISSING)
@pytest.mark.parametrize(
    "words",
    ["align a.mrc --output o --pixel-size 1 --device cuda:0,cuda:1", "tune --device cuda:0 --size 64 64 --frames 3"],
    ids=["align", "tune"],
)
def test_a_gpu_asked_for_and_not_usable_is_one_sentence_and_status_2(gpus, part, words, monkeypatch, capsys, tmp_path):
    def no_cufft():
        raise fft.CufftMissing("not here")

    if part == "driver":
        gpus.clear()
    monkeypatch.setenv("FLEXALIGN_CACHE", str(tmp_path))  # no compiled kernels
    monkeypatch.setattr(toolkit, "find_nvcc", lambda: None if part == "toolkit" else "/some/nvcc")
    monkeypatch.setattr(toolkit.importlib.util, "find_spec", lambda name: None if part == "pycuda" else object())
    monkeypatch.setattr(fft, "load", no_cufft if part == "cufft" else lambda: None)
    os.chdir(tmp_path)
    assert cli.main(words.split()) == 2
    printed_errors = capsys.readouterr().err
    assert printed_errors.startswith("flexalign: GPU cuda:0 can't be used: ") and printed_errors.count("\n") == 1
    assert MISSING[part] in printed_errors and printed_errors.count(" is missing") == 1
    assert os.listdir(tmp_path) == []


def test_tune_is_for_one_gpu(capsys):
    for device in ("cpu", "cuda:0,cuda:1"):
        assert cli.main(["tune", "--device", device, "--size", "64", "64", "--frames", "3"]) == 2
        assert "give its name, e.g. cuda:0" in capsys.readouterr().err


def test_the_options_reach_the_pool(monkeypatch, tmp_path, capsys):
    asked = []

    class Pool:
        capacity = 1

        def __init__(self, compute, log):
            asked.append(compute)

        def submit(self, job, progress):
            done = Future()
            done.set_result(JobResult(job.movie, True, shifts_px=[[0.0, 0.0]]))
            return done

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(results, "WorkerPool", Pool)
    monkeypatch.setattr(Compute, "check", lambda self: None)
    words = f"align a.mrc --output {tmp_path} --pixel-size 1 --json --device cuda:1,cuda:2 --threads 6 --gpu-memory 7.5"
    more = "--no-fft-tuning --on-device-failure cpu --timeout 90"
    assert cli.main([*words.split(), *more.split()]) == cli.main(words.split()) == 0
    assert asked[0] == Compute(("cuda:1", "cuda:2"), 6, 7.5, tune_fft=False, cpu_instead=True, timeout_s=90)
    assert asked[1] == Compute(("cuda:1", "cuda:2"), 6, 7.5)
    assert json.loads(capsys.readouterr().out.splitlines()[0])["device_fault"] == ""


def test_the_bar_adds_up_movies_that_several_gpus_align():
    class Bar:
        n = 0.0

        def refresh(self):
            pass

        set_description_str = write = close = lambda self, *_, **__: None

    report = Report(quiet=True)
    report.start(3)
    report._bar = Bar()
    report.stage("a", "correct", 0.2)
    report.stage("b", "correct", 0.5)
    report.stage("a", "write", 0.9)
    assert report._bar.n == pytest.approx(1.4)
    report.result(JobResult("a", True))
    assert report._bar.n == pytest.approx(1.5)
    report.close()
