"""A CUDA driver for tests: with it the real pycuda runs where there is no GPU.

`build` makes a libcuda.so.1 whose device memory is host memory and whose kernels are libraries that a replacement
of nvcc compiles for the CPU. Unimplemented calls return CUDA_ERROR_NOT_SUPPORTED. It must be loaded before
pycuda.driver: tests run on it in a process of their own (test_on_driver.py).
"""

from __future__ import annotations

import ctypes
import glob
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Optional

HERE = Path(__file__).resolve().parent
HEADERS = "#include <cuda.h>\n#include <cudaProfiler.h>\n"


def pycuda_folder() -> Optional[str]:
    """Folder with a pycuda for these tests alone and the CUDA headers that it was built with (.ci/pycuda makes it)."""
    return os.environ.get("FLEXALIGN_TEST_PYCUDA") or None


def cuda_include() -> Optional[Path]:
    """Folder of the CUDA headers."""
    installations = filter(None, (os.environ.get(v) for v in ("CUDA_HOME", "CUDA_PATH", "CUDA_ROOT")))
    folders = [os.path.join(installation, "include") for installation in installations]
    nvcc = shutil.which("nvcc")
    if nvcc:
        folders.append(str(Path(nvcc).resolve().parents[1] / "include"))
    own = glob.glob(os.path.join(glob.escape(pycuda_folder() or ""), "nvidia", "cu*", "include"))
    for folder in (*own, *folders, "/usr/local/cuda/include", "/usr/include"):
        if os.path.isfile(os.path.join(folder, "cuda.h")) and os.path.isfile(os.path.join(folder, "cudaProfiler.h")):
            return Path(folder)
    return None


def what_is_missing() -> str:
    """Why the test driver can't be used here; empty if it can."""
    if pycuda_folder() is None and importlib.util.find_spec("pycuda") is None:
        return "pycuda is not installed"
    if shutil.which("g++") is None or shutil.which("gcc") is None:
        return "there is no g++"
    if cuda_include() is None:
        return "the CUDA headers (cuda.h, cudaProfiler.h) are not there"
    return ""


def build(folder: Path) -> None:
    """Make folder/libcuda.so.1 and folder/bin/nvcc."""
    include = f"-I{cuda_include()}"
    driver, rest, library = folder / "fakecuda.o", folder / "rest.c", folder / "libcuda.so.1"
    compile_driver = ["g++", "-std=c++17", "-O2", "-fPIC", "-w", include, "-c", str(HERE / "fakecuda.cpp")]
    subprocess.run([*compile_driver, "-o", str(driver)], check=True)
    symbols = _output(["nm", str(driver)])
    known = set(re.findall(r" T (cu\w+)", symbols))
    declared = _output(["gcc", "-E", "-P", include, "-x", "c", "-"], HEADERS)
    unknown = sorted(set(re.findall(r"\b(cu[A-Z]\w*)\s*\(", declared)) - known)
    rest.write_text("".join(f"int {name}(void) {{ return 801; }}\n" for name in unknown))
    link = ["-shared", "-Wl,-soname,libcuda.so.1", "-o", str(library)]
    subprocess.run(["gcc", "-fPIC", "-c", str(rest), "-o", str(rest.with_suffix(".o"))], check=True)
    subprocess.run(["g++", *link, str(driver), str(rest.with_suffix(".o")), "-ldl"], check=True)
    nvcc = folder / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{HERE / "nvcc.py"}" "$@"\n')
    nvcc.chmod(0o755)


def load(folder: str) -> None:
    """Make this process use the driver that `build` left in a folder, and NumPy instead of cuFFT."""
    # By its SONAME this is the libcuda.so.1 that everything loaded later links to.
    ctypes.CDLL(os.path.join(folder, "libcuda.so.1"), mode=ctypes.RTLD_GLOBAL)
    from flexalign_plugin.kernels import cufft

    from .cufft import NumpyCufft

    if not isinstance(cufft.call, NumpyCufft):
        cufft.call = NumpyCufft()
        cufft.load = lambda: None


def _output(command: list, text: str = "") -> str:
    return subprocess.run(command, input=text, check=True, stdout=subprocess.PIPE, text=True).stdout
