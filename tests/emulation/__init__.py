"""The CUDA backend with no GPU: its kernels, compiled by the host's compiler, on the host's memory."""

from __future__ import annotations

from typing import Any

import pytest


def emulated_backend(**device: Any) -> Any:
    """CUDA backend on an `EmulatedDevice` with these parameters; skips the test where there is no compiler."""
    from flexalign_plugin.kernels.cuda import CudaBackend

    from .compiler import CXX, compiler_present
    from .device import EmulatedDevice

    if not compiler_present():
        pytest.skip(f"the compiler {CXX}, which builds CUDA kernels for the CPU, is not there")
    return CudaBackend(EmulatedDevice(**device), threads=2)
