"""`gpu_device`: the real `PycudaDevice`, on a GPU where there is one, or in a process that runs on the test driver."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flexalign_plugin.kernels import cubins

from . import driver

KERNELS = Path(__file__).resolve().parent / "kernels"


def _skip_reason() -> str:
    """Why this process has no device; empty when it has."""
    folder = os.environ.get("FLEXALIGN_TEST_DRIVER")
    if folder:
        driver.load(folder)
        return ""
    from flexalign_plugin.kernels import cuda_installation

    missing = cuda_installation.missing_parts()
    what = ", ".join(part.split(" is missing")[0] for part in missing)
    return f"no GPU: without {what}; test_on_driver.py runs this on the test driver" if missing else ""


@pytest.fixture(scope="session")
def gpu_device():
    reason = _skip_reason()
    if reason:
        pytest.skip(reason)
    from flexalign_plugin.kernels.pycuda_device import PycudaDevice

    device = PycudaDevice(0)
    yield device
    device.close()


@pytest.fixture
def own_kernels(gpu_device, monkeypatch):
    """The device with the kernels of tests/emulation/kernels."""
    code = cubins.Cubins("sm_" + gpu_device.compute_capability.replace(".", ""), KERNELS)
    monkeypatch.setattr(gpu_device, "_cubins", code)
    monkeypatch.setattr(gpu_device, "_modules", {})
    monkeypatch.setattr(gpu_device, "_functions", {})
    return gpu_device
