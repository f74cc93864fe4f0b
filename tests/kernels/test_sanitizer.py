"""Every kernel under sanitizers: none reads or writes beyond its arrays, or at addresses that a type can't have."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ..emulation.compiler import CXX, HERE, KERNELS, build, compiler_present

FLAGS = "-fsanitize=address,alignment -fno-sanitize-recover=alignment -fno-omit-frame-pointer -O1"
ALL = """
from flexalign_plugin.tests.emulation import emulated_backend
from flexalign_plugin.tests.kernels.test_cuda import corrected_source, every_operation
every_operation(emulated_backend(), corrected_source())
print("all well")
"""
# The crop of an image of 60 rows, of which there are 40.
BEYOND = """
import numpy as np
from flexalign_plugin.kernels.block_sizes import THREADS
from flexalign_plugin.tests.emulation import emulated_backend
device = emulated_backend().device
full, out = device.zeros((1, 40, 21), np.complex64), device.zeros((1, 44, 21), np.complex64)
sizes = [np.int32(n) for n in (60, 21, 44, 21)]
device.launch("crop", "crop", (1, 44, 1), (THREADS,), full, *sizes, out)
"""


def run(script: str, libraries: str, cache: Path) -> subprocess.CompletedProcess:
    environment = {
        **os.environ,
        "LD_PRELOAD": libraries,
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0",
        "PYTHONMALLOC": "malloc",
        "CUEMU_CACHE": str(cache),
        "PYTHONPATH": str(HERE.parents[1]),
    }
    command = [sys.executable, "-c", script]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_no_kernel_leaves_its_arrays(tmp_path, monkeypatch):
    if not compiler_present():
        pytest.skip(f"the compiler {CXX}, which builds CUDA kernels for the CPU, is not there")
    found = subprocess.run([CXX, "-print-file-name=libasan.so"], stdout=subprocess.PIPE, text=True).stdout.strip()
    if not os.path.isabs(found):
        pytest.skip(f"the compiler {CXX} comes without its address sanitizer (libasan)")
    monkeypatch.setenv("CUEMU_FLAGS", FLAGS)
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # side by side, which the run below would not do
        list(pool.map(lambda source: build(source, tmp_path), sorted(KERNELS.glob("*.cu"))))
    done = run(ALL, found, tmp_path)
    assert done.returncode == 0 and "all well" in done.stdout, done.stderr[-3000:]
    caught = run(BEYOND, found, tmp_path)
    assert caught.returncode != 0 and "heap-buffer-overflow" in caught.stderr
