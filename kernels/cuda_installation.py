"""The software that the GPU backend needs (driver, pycuda, compiler, cuFFT): where it is and what is missing."""

from __future__ import annotations

import ctypes
import glob
import importlib
import importlib.util
import os
import shutil
from dataclasses import dataclass
from typing import List, Optional

from ..errors import SettingsError
from . import cufft

NO_DEVICE = 100
NO_COMPILER = (
    "the compiler nvcc of the CUDA toolkit is missing: install the toolkit, or set FLEXALIGN_CUDA_BIN to the folder "
    "that holds nvcc"
)
_REASONS = {
    NO_DEVICE: "the driver sees no GPU. Does nvidia-smi list one? CUDA_VISIBLE_DEVICES or the queue may hide it",
    803: "the driver's kernel module and its libraries are of different versions: restart the machine",
    804: "this GPU does not run with the compatibility libraries of a newer driver: update the driver itself",
    999: "the driver's kernel module does not answer: restart the machine",
}


@dataclass(frozen=True)
class GpuInfo:
    """One GPU as the driver reports it. `index` counts the GPUs that CUDA_VISIBLE_DEVICES leaves visible."""

    index: int
    name: str
    total_bytes: int
    compute_capability: str


def architecture(gpu: GpuInfo) -> str:
    """Name of a GPU's architecture for nvcc: "sm_90"."""
    return "sm_" + gpu.compute_capability.replace(".", "")


class DriverError(OSError):
    """The NVIDIA driver is missing or finds no GPU; the text explains which and what to do."""


def _driver() -> ctypes.CDLL:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise DriverError(
            "the NVIDIA driver (libcuda.so.1) is missing: install the driver of this machine's GPU; a container needs "
            "the GPU passed in (docker run --gpus all, apptainer exec --nv)"
        ) from error
    code = driver.cuInit(0)
    if code:
        other = f"the NVIDIA driver does not start (error {code}): see the messages of nvidia-smi"
        raise DriverError(_REASONS.get(code, other))
    return driver


def gpus() -> List[GpuInfo]:
    """All visible GPUs. Only the driver is needed.

    Raises
    ------
    DriverError : there is no driver or no GPU.
    """
    driver = _driver()
    count = ctypes.c_int()
    driver.cuDeviceGetCount(ctypes.byref(count))
    if not count.value:
        raise DriverError(_REASONS[NO_DEVICE])
    visible = []
    for index in range(count.value):
        handle, size, major, minor = ctypes.c_int(), ctypes.c_size_t(), ctypes.c_int(), ctypes.c_int()
        name = ctypes.create_string_buffer(256)
        driver.cuDeviceGet(ctypes.byref(handle), index)
        driver.cuDeviceGetName(name, len(name), handle)
        driver.cuDeviceTotalMem_v2(ctypes.byref(size), handle)
        driver.cuDeviceGetAttribute(ctypes.byref(major), 75, handle)
        driver.cuDeviceGetAttribute(ctypes.byref(minor), 76, handle)
        visible.append(GpuInfo(index, name.value.decode(), size.value, f"{major.value}.{minor.value}"))
    return visible


def visible_gpus() -> List[GpuInfo]:
    """As `gpus`, but an empty list if there is no driver or no GPU."""
    try:
        return gpus()
    except DriverError:
        return []


def driver_version() -> str:
    """Newest CUDA version that the driver supports, "13.0"."""
    number = ctypes.c_int()
    _driver().cuDriverGetVersion(ctypes.byref(number))
    return f"{number.value // 1000}.{number.value % 1000 // 10}"


def find_nvcc() -> Optional[str]:
    """Path of the CUDA compiler, or None. FLEXALIGN_CUDA_BIN and CUDA_HOME come before PATH."""
    folders = filter(None, (os.environ.get(v) for v in ("CUDA_HOME", "CUDA_PATH", "CUDA_ROOT")))
    scipion = os.environ.get("CUDA_BIN")  # Scipion's setting for all plugins
    chosen = (os.environ.get("FLEXALIGN_CUDA_BIN"), *(os.path.join(f, "bin") for f in folders), scipion)
    for folder in filter(None, chosen):
        nvcc = shutil.which("nvcc", path=folder)
        if nvcc:
            return nvcc
    others = ["/usr/local/cuda/bin", *sorted(glob.glob("/usr/local/cuda-*/bin"), reverse=True)]
    return shutil.which("nvcc") or shutil.which("nvcc", path=os.pathsep.join(others))


def missing_parts(kernels_compiled: bool = False) -> List[str]:
    """One line for each missing part of the GPU backend, with the remedy; empty if nothing is missing.

    kernels_compiled : whether the kernels are already compiled, so that no compiler is needed.
    """
    missing = []
    driver = True
    try:
        gpus()
    except DriverError as error:
        driver = False
        missing.append(str(error))
    if importlib.util.find_spec("pycuda") is None:
        missing.append("pycuda is missing: pip install pycuda (it is compiled, and needs the CUDA toolkit for that)")
    elif driver:  # without one pycuda can't be imported
        try:
            importlib.import_module("pycuda.driver")
        except Exception as error:  # whatever is wrong, it can't be used
            missing.append(
                f"pycuda is installed but can't be imported ({type(error).__name__}: {error}); it was perhaps compiled "
                "for another CUDA or NumPy: pip install --force-reinstall --no-cache-dir --no-deps pycuda"
            )
    if not kernels_compiled and find_nvcc() is None:
        missing.append(NO_COMPILER)
    try:
        cufft.load()
    except cufft.CufftMissing as error:
        missing.append(
            f"cuFFT is missing ({error}): pip install nvidia-cufft (CUDA 13) or nvidia-cufft-cu12 (CUDA 12), or set "
            "FLEXALIGN_CUDA_LIB to the folder that holds libcufft.so"
        )
    return missing


def device_index(device: str) -> int:
    """Index of "cuda" or "cuda:1".

    Raises
    ------
    SettingsError : this is no name of a CUDA device.
    """
    kind, _, number = device.partition(":")
    if kind != "cuda" or not (number or "0").isdigit() or device.endswith(":"):
        raise SettingsError(f"There is no device {device!r}: choose auto, cpu, cuda or a GPU by its number, as cuda:0.")
    return int(number or 0)


def devices_of(gpu_list: str) -> List[str]:
    """Device names of a list of GPU numbers as Scipion writes it: "0 1", "0,1" and "0-1" are ["cuda:0", "cuda:1"].

    Raises
    ------
    SettingsError : an item is no number or range.
    """
    numbers: List[int] = []
    for item in gpu_list.replace(",", " ").split():
        first, dash, last = item.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise SettingsError(f"GPU list {gpu_list!r}: {item!r} is no GPU number. Write numbers from 0 on, as 0 1.")
        numbers += range(int(first), int(last or first) + 1)
    return [f"cuda:{number}" for number in dict.fromkeys(numbers)]
