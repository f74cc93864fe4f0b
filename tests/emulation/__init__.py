"""The CUDA backend with no GPU: its kernels, compiled by the host's compiler, on the host's memory."""

from __future__ import annotations

import os
from typing import Any

import pytest


def cuda_backend() -> Any:
    """CUDA backend on the GPU that FLEXALIGN_TEST_DEVICE names (cuda:0), else on an emulated device."""
    name = os.environ.get("FLEXALIGN_TEST_DEVICE")
    if not name:
        return emulated_backend()
    if os.environ.get("FLEXALIGN_TEST_DRIVER"):
        from . import driver

        driver.load(os.environ["FLEXALIGN_TEST_DRIVER"])
    from flexalign_plugin.kernels import select_backend

    return select_backend(name, threads=2, tune=False)


def emulated_backend(**device: Any) -> Any:
    """CUDA backend on an `EmulatedDevice` with these parameters; skips the test where there is no compiler."""
    from flexalign_plugin.kernels.cuda import CudaBackend

    from .compiler import CXX, compiler_present
    from .device import EmulatedDevice

    if not compiler_present():
        pytest.skip(f"the compiler {CXX}, which builds CUDA kernels for the CPU, is not there")
    return CudaBackend(EmulatedDevice(**device), threads=2)
