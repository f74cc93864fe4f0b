"""The compiled kernels: nvcc compiles them at first use, and they are kept on disk for all processes of this user."""

from __future__ import annotations

import hashlib
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Dict, List

from ..errors import OutputError
from ..files import atomic_path
from . import block_sizes, cuda_installation
from .device import DeviceError

logger = logging.getLogger(__name__)
SOURCES = Path(__file__).resolve().parent
OPTIONS = ("-std=c++17", "-lineinfo", *block_sizes.compiler_options())


def cache_folder() -> Path:
    """FLEXALIGN_CACHE, or flexalign/ in the user's cache folder. Without a home, a path that can't be written."""
    chosen = os.environ.get("FLEXALIGN_CACHE")
    folder = chosen or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "flexalign")
    folder = os.path.expanduser(folder)
    return Path(os.devnull, "no home folder") if folder.startswith("~") else Path(folder)


class Cubins:
    """Device code of every module for one architecture.

    File names depend on the content of all sources and on the options, not on the compiler: a machine without nvcc can
    use what another machine compiled into the same home folder.

    Parameters
    ----------
    architecture : "sm_90". sources : folder of the .cu and .cuh files; every .cu is a module of that name.
    """

    def __init__(self, architecture: str, sources: Path = SOURCES):
        self._architecture = architecture
        self._sources = sources
        self._folder = cache_folder() / "kernels"
        digest = hashlib.sha256("\0".join([architecture, *OPTIONS]).encode())
        for path in sorted([*sources.glob("*.cu"), *sources.glob("*.cuh")]):
            digest.update(path.name.encode() + path.read_bytes())
        self._key = digest.hexdigest()[:16]
        self._code: Dict[str, bytes] = {}

    def module_names(self) -> List[str]:
        """Names of all kernel modules: `warp` is warp.cu."""
        return sorted(path.stem for path in self._sources.glob("*.cu"))

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}-{self._architecture}-{self._key}.cubin"

    def all_cached(self) -> bool:
        """Whether nothing needs to be compiled."""
        return all(name in self._code or self._path(name).is_file() for name in self.module_names())

    def get(self, name: str) -> bytes:
        """Device code of a module, from memory, disk or the compiler.

        Raises
        ------
        DeviceError : it can't be compiled; the text holds the compiler's message.
        """
        if name not in self._code:
            try:
                self._code[name] = self._path(name).read_bytes()
            except OSError:
                self.compile_missing()
        return self._code[name]

    def compile_missing(self) -> None:
        """Compile all modules that are neither in memory nor on disk, in parallel."""
        names = [n for n in self.module_names() if n not in self._code and not self._path(n).is_file()]
        nvcc = cuda_installation.find_nvcc()
        if names and nvcc is None:
            raise DeviceError("The GPU's kernels can't be compiled: " + cuda_installation.NO_COMPILER + ".")
        with ThreadPoolExecutor(max(1, min(len(names), os.cpu_count() or 1))) as pool:
            for name, code in zip(names, pool.map(lambda n: self._compile(n, str(nvcc)), names)):
                self._code[name] = code
                self._store(self._path(name), code)

    def recompile(self, name: str) -> bytes:
        """Compile a module again, because the driver refused the stored one (another driver, a damaged file)."""
        nvcc = cuda_installation.find_nvcc()
        if nvcc is None:
            raise DeviceError(
                f"The driver refuses the compiled kernel {self._path(name)}, and it can't be compiled again: "
                + cuda_installation.NO_COMPILER
                + "."
            )
        self._code[name] = self._compile(name, nvcc)
        self._store(self._path(name), self._code[name])
        return self._code[name]

    def _compile(self, name: str, nvcc: str) -> bytes:
        import pycuda.compiler
        import pycuda.driver

        path = self._sources / f"{name}.cu"
        source = f'#line 1 "{path.name}"\n' + path.read_text(encoding="utf-8")
        options = ["-arch", self._architecture, *OPTIONS, f"-I{self._sources}"]
        try:
            code: bytes = pycuda.compiler.compile_plain(source, options, False, nvcc, None, "cubin")
        except pycuda.driver.CompileError as error:
            message = (getattr(error, "stderr", "") or str(error)).strip()
            raise DeviceError(
                f"{nvcc} can't compile {path.name} for this GPU ({self._architecture}). If it does not know the GPU, "
                f"install a CUDA toolkit that does, or set FLEXALIGN_CUDA_BIN to another one. Its message: {message}"
            ) from error
        return code

    def _store(self, path: Path, code: bytes) -> None:
        """Keep device code on disk if possible; it stays in memory in any case."""
        try:
            with atomic_path(str(path)) as temporary, open(temporary, "wb") as file:
                file.write(code)
        except OutputError:
            logger.warning("Compiled kernels can't be kept in %s: every process compiles them again.", path.parent)
