"""NVIDIA's compiler compiles every kernel without a warning: no spills to memory, no accidental double precision."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flexalign_plugin.kernels.block_sizes import compiler_options

from ..emulation.compiler import KERNELS

SOURCES = sorted(KERNELS.glob("*.cu"))
ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")
USES_DOUBLE = {"objective.cu"}  # a line search needs it; see there


def nvcc() -> str:
    for folder in (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"):
        if folder and os.access(f"{folder}/bin/nvcc", os.X_OK):
            return f"{folder}/bin/nvcc"
    found = shutil.which("nvcc")
    if found is None:
        pytest.skip("nvcc, the compiler of the CUDA toolkit, is not there: kernels are compiled for the CPU only")
    return found


def compiled(compiler: str, source: Path, architecture: str, cubin: Path) -> str:
    """The compiler's messages; empty if it has none."""
    double = "" if source.name in USES_DOUBLE else ",-warn-double-usage"
    command = [compiler, f"-arch={architecture}", "-cubin", "-o", str(cubin), "-Werror", "all-warnings"]
    command += ["-Xptxas", f"-warn-spills,-warn-lmem-usage{double}", *compiler_options(), str(source)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.stdout if done.returncode or done.stdout else ""


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_kernel_compiles_without_a_warning(architecture, tmp_path):
    compiler = nvcc()
    known = subprocess.run([compiler, "--list-gpu-code"], stdout=subprocess.PIPE, text=True).stdout
    if architecture not in re.findall(r"sm_\d+", known):
        pytest.skip(f"this nvcc does not compile for {architecture}")
    assert SOURCES
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        messages = pool.map(lambda s: compiled(compiler, s, architecture, tmp_path / f"{s.stem}.cubin"), SOURCES)
        assert "".join(messages) == ""
