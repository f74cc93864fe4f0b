"""A short run of the fuzzer with a fixed seed. `make fuzz` runs it for long."""

from __future__ import annotations

import subprocess
import sys

import pytest

from flexalign_plugin.execution.worker import _child_environment

EXAMPLES, SEED = 25, 1


def test_no_damaged_file_ends_in_a_traceback():
    pytest.importorskip("hypothesis", reason="it comes with pip install -e .[dev]")
    # In a process of its own: a crash fails this test only, and the memory is limited.
    done = subprocess.run(
        [sys.executable, "-m", "flexalign_plugin.tests.fuzz", "--examples", str(EXAMPLES), "--seed", str(SEED)],
        capture_output=True,
        text=True,
        env=_child_environment(),
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.count(f"{EXAMPLES} files") == 14
