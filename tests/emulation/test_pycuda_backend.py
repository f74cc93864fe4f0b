"""The CUDA backend on the real pycuda: every operation against NumPy, and a whole alignment against the CPU."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from flexalign_plugin import kernels
from flexalign_plugin.aligner import align
from flexalign_plugin.errors import SettingsError
from flexalign_plugin.kernels import cuda_installation, cufft, tuning
from flexalign_plugin.kernels.device import DeviceError
from flexalign_plugin.movies import Corrections
from flexalign_plugin.phantoms.phantom import particle_phantom
from flexalign_plugin.settings import Settings

from ..kernels import test_backend as suite

for _name, _test in vars(suite).items():
    if _name.startswith("test_") and "backend" in inspect.signature(_test).parameters:
        globals()[_name] = _test


@pytest.fixture(scope="module")
def backend(gpu_device):
    selected = kernels.select_backend("cuda:0", threads=2, tune=False)
    yield selected
    selected.close()


def test_a_gpu_without_all_parts_is_refused(gpu_device, monkeypatch):
    monkeypatch.setattr(cuda_installation, "missing_parts", lambda compiled=False: ["the compiler is missing"])
    with pytest.raises(SettingsError, match="GPU cuda:0 can't be used: the compiler is missing"):
        kernels.select_backend("cuda:0")


def test_a_wrong_cufft_is_noticed(gpu_device, monkeypatch):
    monkeypatch.setattr(cufft.Plan, "execute", lambda *arguments: None)
    with pytest.raises(DeviceError, match="wrong transforms"):
        kernels.select_backend("cuda:0")


def test_devices_are_described(gpu_device):
    lines = kernels.describe_devices()
    assert any(line.startswith("cuda:0: ") and "GB" in line for line in lines)
    assert {"cpu", "driver", "compiler", "cuFFT", "kernels"} <= {line.split(":")[0] for line in lines}


@pytest.mark.parametrize("limit_bytes", [None, 60 * 10**6], ids=["all memory", "low memory"])
def test_whole_alignment_agrees_with_the_cpu(gpu_device, limit_bytes):
    """Shifts to 0.02 px, the micrograph to 1e-3 of its contrast, also when batches must be small."""
    phantom = particle_phantom((6, 1024, 768), pixel_size_A=2.5, local_px=0.7, seed=8)  # as steep as in test_cuda.py
    frames = np.stack(list(phantom.frames()))
    gain = (1 + 0.1 * np.random.default_rng(0).random(frames.shape[1:])).astype(np.float32)
    limit_gb = limit_bytes and (limit_bytes + gpu_device.context_bytes) / 1e9
    results = []
    for selected in (kernels.select_backend("cpu", 2), kernels.select_backend("cuda:0", 2, limit_gb, tune=False)):
        # The resolution sets how much memory is needed; the limit above is for this one. With a middle frame as the
        # reference the field is flatter: between the nodes of the CPU's mesh a steeper one differs by more than 1e-3.
        settings = Settings(pixel_size=2.5, max_res_for_correlation=30.0, do_plots=False, reference_frame="middle-most")
        results.append(align(suite.Stack(frames), settings, selected, Corrections(None, gain, None, [])))
        if limit_bytes and selected.name != "cpu":
            assert limit_bytes / 2 < selected.device.peak_bytes - gpu_device.context_bytes <= limit_bytes
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


def test_a_whole_alignment_takes_the_tuned_size(gpu_device, monkeypatch, tmp_path):
    monkeypatch.setenv("FLEXALIGN_TUNING_FILE", str(tmp_path / "sizes.json"))
    frames = np.stack(list(particle_phantom((4, 262, 262), pixel_size_A=5.0, seed=3).frames()))
    fast = {(256, 240): 1e-9, (240, 240): 1e-10}

    def measure(device, ny, nx):
        return fast.get((ny, nx), 1e-6 * ny * nx)

    monkeypatch.setattr(tuning.Tuner.__init__, "__defaults__", (None, measure))
    areas = []
    for tune in (True, False):
        selected = kernels.select_backend("cuda:0", 2, tune=tune)
        settings = Settings(pixel_size=5.0, do_plots=False, do_local_alignment=False)
        result = align(suite.Stack(frames), settings, selected, Corrections(None, None, None, []))
        assert result.images.micrograph.shape == (262, 262)
        areas.append(result.figures.correlated_area_px)
        selected.close()
    assert areas == [[240, 240], [256, 256]]
