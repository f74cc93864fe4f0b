"""The CUDA backend on the real pycuda: every operation against NumPy, and a whole alignment against the CPU."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from flexalign_plugin import kernels
from flexalign_plugin.aligner import align
from flexalign_plugin.errors import SettingsError
from flexalign_plugin.kernels import tuning
from flexalign_plugin.movies import Corrections
from flexalign_plugin.phantom import particle_phantom
from flexalign_plugin.settings import Settings
from flexalign_plugin.tests.kernels import test_backend as suite

for _name, _test in vars(suite).items():
    if _name.startswith("test_") and "backend" in inspect.signature(_test).parameters:
        globals()[_name] = _test


class Movie(suite.Stack):
    """Frames in memory with what the aligner asks of a movie."""

    path, notes = "memory.mrc", ()


@pytest.fixture(scope="module")
def backend(gpu_device):
    selected = kernels.select_backend("cuda:0", threads=2)
    yield selected
    selected.close()


def test_auto_takes_the_gpu(gpu_device):
    selected = kernels.select_backend("auto", threads=3)
    assert selected.name == gpu_device.name
    assert selected.threads == 3
    selected.close()


def test_auto_takes_the_cpu_when_a_part_is_missing_and_says_so_once(gpu_device, monkeypatch, caplog):
    monkeypatch.setattr(kernels.toolkit, "missing_parts", lambda compiled=False: ["the compiler is missing"])
    monkeypatch.setattr(kernels, "_why_no_gpu", None)
    with caplog.at_level("DEBUG"):
        assert kernels.select_backend("auto").name == "cpu"
        assert kernels.select_backend("auto").name == "cpu"
    assert [r.levelname for r in caplog.records if "the compiler is missing" in r.message] == ["DEBUG"]
    with pytest.raises(SettingsError, match="GPU cuda:0 can't be used: the compiler is missing"):
        kernels.select_backend("cuda:0")


def test_devices_are_described(gpu_device):
    lines = kernels.describe_devices()
    assert any(line.startswith("cuda:0: ") and "GB" in line for line in lines)
    assert {"cpu", "driver", "compiler", "cuFFT", "kernels"} <= {line.split(":")[0] for line in lines}


@pytest.mark.parametrize("limit_gb", [None, 0.06], ids=["all memory", "low memory"])
def test_whole_alignment_agrees_with_the_cpu(gpu_device, limit_gb):
    """Shifts to 0.02 px, the micrograph to 1e-3 of its contrast, also when batches must be small."""
    phantom = particle_phantom((6, 1024, 768), pixel_size_A=2.5, local_px=1.0, seed=8)
    frames = np.stack(list(phantom.frames()))
    gain = (1 + 0.1 * np.random.default_rng(0).random(frames.shape[1:])).astype(np.float32)
    results = []
    for selected in (kernels.select_backend("cpu", 2), kernels.select_backend("cuda:0", 2, limit_gb)):
        settings = Settings(pixel_size=2.5, do_plots=False)
        results.append(align(Movie(frames), settings, selected, Corrections(None, gain, None, [])))
        selected.close()
    cpu, gpu = results
    assert gpu.model.is_local
    y, x = np.linspace(0, 1023, 9), np.linspace(0, 767, 9)
    for t in range(6):
        np.testing.assert_allclose(gpu.model.frame_field(t, y, x), cpu.model.frame_field(t, y, x), atol=0.02)
    assert np.sqrt(np.mean((gpu.images.micrograph - cpu.images.micrograph) ** 2)) < 1e-3 * cpu.images.micrograph.std()


def test_sizes_are_tuned_on_the_device(gpu_device, tmp_path):
    tuner = tuning.Tuner(gpu_device, tmp_path / "sizes.json")
    ny, nx = tuner.frame_size(129, 131, 3)
    assert 116 <= ny <= 129 and 117 <= nx <= 131
    assert tuning.Tuner(gpu_device, tmp_path / "sizes.json").frame_size(129, 131, 3) == (ny, nx)
