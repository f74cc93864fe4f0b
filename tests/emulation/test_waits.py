"""Every wait of the CUDA backend is needed, and the tests of the order (test_ordering.py) notice when one is missing.

The waits are found in the sources of the backend. Each is removed in a copy, with which these tests must fail.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import List, NamedTuple

import pytest

from flexalign_plugin.kernels.cubins import SOURCES

from . import driver
from .test_on_driver import ROOT, driver_environment

FILES = ("pycuda_device.py", "pycuda_memory.py", "pinned_memory.py", "cufft.py")
WAITING = ("wait_for_event", "synchronize", "_synchronize")
# A pytest run with the copy's modules instead of the backend's own.
WITH_COPY = """
import sys
import flexalign_plugin.kernels as kernels
kernels.__path__.insert(0, sys.argv[1])
import pytest
sys.exit(pytest.main(["-q", "-x", "-p", "no:cacheprovider", "emulation/test_ordering.py"]))
"""


class Wait(NamedTuple):
    """A piece of a source file and what stands for it where it is removed."""

    file: str
    line: int
    column: int
    end_line: int
    end_column: int
    without: str

    def removed(self) -> str:
        """The file's text without the wait."""
        lines = (SOURCES / self.file).read_text(encoding="utf-8").splitlines(keepends=True)
        before, after = lines[self.line][: self.column], lines[self.end_line][self.end_column :]
        return "".join([*lines[: self.line], before, self.without, after, *lines[self.end_line + 1 :]])


def waits() -> List[Wait]:
    """Waits of one stream for another and of the host, and the events of the last use of memory."""
    found = []
    for file in FILES:
        for node in ast.walk(ast.parse((SOURCES / file).read_text(encoding="utf-8"))):
            piece, without = None, "pass"
            called = node.value if isinstance(node, ast.Expr) else node
            if not isinstance(called, ast.Call) or not isinstance(called.func, ast.Attribute):
                continue
            name = called.func.attr
            if name in WAITING and isinstance(node, ast.Expr):
                piece = node
            elif name == "recycle" and isinstance(node, ast.Call):
                piece, without = node.args[1], "None"
            elif name == "query":
                piece, without = node, "True"
            if piece is not None:
                position = piece.lineno - 1, piece.col_offset, piece.end_lineno - 1, piece.end_col_offset
                found.append(Wait(file, *position, without))
    return found


def run(folder: Path, copy: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", WITH_COPY, str(copy)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.run(command, cwd=ROOT, env=driver_environment(folder), text=True, timeout=300, **streams)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    missing = driver.what_is_missing()
    if missing:
        pytest.skip(f"the real pycuda can't run on the test driver: {missing}")
    path = tmp_path_factory.mktemp("waits")
    driver.build(path)
    untouched = path / "untouched"
    untouched.mkdir()
    for file in FILES:
        (untouched / file).write_text((SOURCES / file).read_text(encoding="utf-8"), encoding="utf-8")
    done = run(path, untouched)
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout
    return path


def test_all_kinds_of_waits_are_found():
    assert {wait.file for wait in waits()} == set(FILES)
    assert {wait.without for wait in waits()} == {"pass", "None", "True"}
    others = [p.name for p in SOURCES.glob("*.py") if p.name not in FILES and "wait_for_event" in p.read_text()]
    assert not others, "a file with waits that are not tested"


@pytest.mark.slow
@pytest.mark.parametrize("wait", waits(), ids=lambda wait: f"{wait.file}:{wait.line + 1}:{wait.column}")
def test_a_missing_wait_is_noticed(folder, tmp_path, wait):
    (tmp_path / wait.file).write_text(wait.removed(), encoding="utf-8")
    done = run(folder, tmp_path)
    print(done.stdout)
    assert done.returncode == 1 and " failed" in done.stdout
