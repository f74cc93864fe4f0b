"""Compile CUDA C with the host's compiler (g++, or $CXX) and call its kernels on host memory: see cuda_emu.h.

driver/nvcc.py loads this file alone, outside its package.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any, List, Optional, Sequence, Tuple

import numpy as np

HERE = Path(__file__).resolve().parent
KERNELS = HERE.parents[1] / "kernels"
CXX = os.environ.get("CXX", "g++")
FLAGS = ("-std=c++17", "-O2", "-fPIC", "-shared", "-w", "-ffp-contract=off", "-U_FORTIFY_SOURCE")
_one_at_a_time = threading.Lock()  # threads of a block are fibers over global variables


def cache() -> Path:
    """Folder of compiled kernels, which are loaded as code: CUEMU_CACHE, or one in the user's own cache folder.

    Raises
    ------
    RuntimeError : somebody else owns the folder or can write to it.
    """
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(os.environ.get("CUEMU_CACHE") or f"{home}/flexalign/emulation")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise RuntimeError(f"{folder} can be written by others: its files are not loaded. Give CUEMU_CACHE.")
    return folder


def compiler_present() -> bool:
    return shutil.which(CXX) is not None


def translate(path: Path, macros: Optional[Sequence[str]] = None) -> Tuple[str, List[str]]:
    """C++ text of a .cu file, macros and includes expanded, and the names of its kernels.

    macros : options -DNAME=value; those of `kernels.block_sizes` when None.
    """
    if macros is None:
        from flexalign_plugin.kernels.block_sizes import compiler_options

        macros = compiler_options()
    command = [CXX, "-E", "-x", "c++", "-std=c++17", *macros, f"-I{KERNELS}", str(path)]
    source = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    # What the header can't do: dynamic shared memory, and the list of kernels.
    source = re.sub(
        r"extern\s+__shared__\s+(?:__align__\(\d+\)\s*)?([\w ]+?)\s+(\w+)\s*\[\s*\]\s*;",
        r"\1 *\2 = (\1 *)cuemu::dyn;",
        source,
    )
    names = re.findall(r"__global__\s+(?:static\s+)?void\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?(\w+)\s*\(", source)
    exports = "\n".join(f"CUEMU_EXPORT({name})" for name in names)
    return f'#include "cuda_emu.h"\n{source}\n{exports}\n', names


def build(path: Path, cache_dir: Optional[Path] = None, macros: Optional[Sequence[str]] = None) -> Path:
    """Shared library of a .cu file, which has a function cuemu_<kernel> for each kernel; kept by content.

    cache_dir : where to keep it; `cache()` when None. macros : as for `translate`.
    """
    cache_dir = cache() if cache_dir is None else cache_dir
    code, _ = translate(path, macros)
    flags = (*FLAGS, *os.environ.get("CUEMU_FLAGS", "").split())
    key = "\0".join((code, (HERE / "cuda_emu.h").read_text(), CXX, *flags))
    cache_dir.mkdir(parents=True, exist_ok=True)
    library = cache_dir / f"{path.stem}-{hashlib.sha256(key.encode()).hexdigest()[:24]}.so"
    if not library.exists():
        text = cache_dir / f"{library.stem}.{os.getpid()}.cpp"
        text.write_text(code)
        subprocess.run([CXX, *flags, f"-I{HERE}", "-o", str(text.with_suffix(".tmp")), str(text)], check=True)
        os.replace(text.with_suffix(".tmp"), library)
        text.unlink()
    return library


@functools.lru_cache(maxsize=None)
def module(path: Path) -> EmulatedModule:
    """The module of a .cu file."""
    return EmulatedModule(build(path))


class EmulatedModule:
    """Kernels of one compiled file."""

    def __init__(self, library: Path):
        self._library = ctypes.CDLL(str(library))
        self._library.cuemu_message.restype = ctypes.c_char_p

    def launch(
        self, kernel: str, grid: Sequence[int], block: Sequence[int], values: Sequence[Any], shared: int, mode: int
    ) -> None:
        """Run a kernel; arguments are numpy scalars (pointers as np.uintp).

        mode : 0 runs threads and blocks in order, 1 reversed, others shuffled with that seed. Shared memory is NaN.
        """
        function = getattr(self._library, f"cuemu_{kernel}")
        function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_int]
        held = [np.array([v]) for v in values]
        pointers = np.array([v.ctypes.data for v in held], np.uintp)
        sizes = [np.array([*size, 1, 1][:3], np.uint32) for size in (grid, block)]
        with _one_at_a_time:
            if function(sizes[0].ctypes.data, sizes[1].ctypes.data, shared, pointers.ctypes.data, mode):
                raise RuntimeError(f"{kernel}: {self._library.cuemu_message().decode()}")
