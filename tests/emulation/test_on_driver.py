"""The tests of the pycuda device and of the backend on it, run on the test driver in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flexalign_plugin.tests.emulation import driver

HERE = Path(__file__).resolve().parent


@pytest.mark.parametrize("order", ["0", "3"], ids=["threads in order", "threads shuffled"])
def test_pycuda_on_the_test_driver(tmp_path, order):
    missing = driver.what_is_missing()
    if missing:
        pytest.skip(f"the real pycuda can't run on the test driver: {missing}")
    driver.build(tmp_path)
    environment = {
        **os.environ,
        "FLEXALIGN_TEST_DRIVER": str(tmp_path),
        "FLEXALIGN_CUDA_BIN": str(tmp_path / "bin"),
        "FLEXALIGN_CACHE": str(tmp_path / "cache"),
        "CUEMU_MODE": order,
        "CUEMU_MEM": str(512 << 20),
    }
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / "test_pycuda_device.py")]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(done.stdout)
    assert done.returncode == 0, f"{' '.join(command)} failed; its output is above"
    assert " skipped" not in done.stdout.splitlines()[-1]
