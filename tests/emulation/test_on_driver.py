"""The tests of the pycuda device and of the backend on it, run on the test driver in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Dict

import pytest

from . import driver

ROOT = Path(__file__).resolve().parents[1]
TESTS = (
    "emulation/test_pycuda_device.py",
    "emulation/test_ordering.py",
    "emulation/test_pycuda_backend.py",
    "kernels/test_cuda.py::test_every_operation_agrees_with_the_cpu",
    "kernels/test_gpu_benchmark.py::test_figures_of_a_small_movie",
)
KERNELS_ALONE = ("emulation/test_pycuda_backend.py", "-k", "not alignment")


def driver_environment(folder: Path) -> Dict[str, str]:
    """Environment of a process that uses the test driver in a folder, and compiles into it."""
    environment = {
        **os.environ,
        "FLEXALIGN_TEST_DRIVER": str(folder),
        "FLEXALIGN_TEST_DEVICE": "cuda:0",
        "FLEXALIGN_CUDA_BIN": str(folder / "bin"),
        "FLEXALIGN_CACHE": str(folder / "cache"),
        "CUEMU_MEM": str(512 << 20),
    }
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    if driver.pycuda_folder():
        paths = (driver.pycuda_folder(), os.environ.get("PYTHONPATH", ""))
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    return environment


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder with the test driver, and for what is compiled."""
    missing = driver.what_is_missing()
    if missing:
        pytest.skip(f"the real pycuda can't run on the test driver: {missing}")
    path = tmp_path_factory.mktemp("driver")
    driver.build(path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    "order, schedule, tests",
    [("0", "late", TESTS), ("3", "random 5", KERNELS_ALONE), ("0", "copies", KERNELS_ALONE)],
    ids=["threads in order, all work late", "threads shuffled, work at any time", "copies early, kernels late"],
)
def test_pycuda_on_the_test_driver(folder, order, schedule, tests):
    environment = {**driver_environment(folder), "CUEMU_MODE": order, "CUEMU_SCHEDULE": schedule}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    print(done.stdout)
    assert done.returncode == 0, f"{' '.join(command)} failed; its output is above"
    assert " skipped" not in done.stdout.splitlines()[-1]
