"""Implementations of `backend.Backend`: one for the CPU and one for CUDA GPUs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, List, Optional

from ..errors import SettingsError

if TYPE_CHECKING:
    from ..backend import Backend


def select_backend(
    device: str = "auto", threads: Optional[int] = None, memory_limit_gb: Optional[float] = None, tune: bool = True
) -> Backend:
    """Backend for a device name.

    Parameters
    ----------
    device : "cpu", "cuda:1" (a GPU by its number), "cuda" (the first GPU), or "auto": the CPU, until the GPU backend
        has been tested on real hardware.
    threads : CPU threads; all that this process may use when None.
    memory_limit_gb : limit of the GPU memory that this process uses, in GB; no limit when None.
    tune : whether a GPU searches the fastest size of a frame's transform for each new frame size.

    Raises
    ------
    SettingsError : the device does not exist, or software that it needs is missing.
    FlexAlignError : the device does not work.
    """
    check_device(device)
    if device not in ("auto", "cpu"):
        from .cuda_installation import device_index

        return _cuda_backend(device_index(device), threads, memory_limit_gb, tune)
    from .cpu import CpuBackend

    return CpuBackend(threads or usable_cores())


def check_device(device: str) -> None:
    """Raise SettingsError unless this is the name of a device."""
    if device not in ("auto", "cpu"):
        from .cuda_installation import device_index

        device_index(device)


def check_usable(device: str) -> None:
    """Raise SettingsError unless this device can be used here; the message names what is missing."""
    check_device(device)
    if device not in ("auto", "cpu"):
        from .cuda_installation import device_index
        from .pycuda_device import usable_gpu

        usable_gpu(device_index(device))


def _cuda_backend(index: int, threads: Optional[int], memory_limit_gb: Optional[float], tune: bool) -> Backend:
    if memory_limit_gb is not None and not memory_limit_gb > 0:
        raise SettingsError(f"A GPU memory limit of {memory_limit_gb:g} GB leaves no memory: give a number above 0.")
    from .pycuda_device import PycudaDevice

    limit = None if memory_limit_gb is None else int(memory_limit_gb * 1e9)
    device = PycudaDevice(index, limit)
    try:
        device.prepare()
        from .cuda import CudaBackend
        from .tuning import Tuner

        return CudaBackend(device, threads or usable_cores(), Tuner(device) if tune else None)
    except BaseException:
        device.close()
        raise


def describe_devices() -> List[str]:
    """Lines for `flexalign info`: GPUs, CUDA software, tuned FFT sizes, what is missing and how to install it."""
    from . import cuda_installation, cufft, tuning
    from .cubins import Cubins, cache_folder

    gpus = cuda_installation.visible_gpus()
    lines = [f"cpu: {usable_cores()} threads"]
    for gpu in gpus:
        memory = f"{gpu.total_bytes / 1e9:.1f} GB"
        lines.append(f"cuda:{gpu.index}: {gpu.name}, {memory}, compute capability {gpu.compute_capability}")
    if gpus:
        lines.append(f"driver: supports CUDA up to {cuda_installation.driver_version()}")
    nvcc = cuda_installation.find_nvcc()
    if nvcc:
        lines.append(f"compiler: {nvcc}")
    if cufft.is_present():
        lines.append(f"cuFFT: {cufft.version()}")
    compiled = bool(gpus) and all(Cubins(cuda_installation.architecture(gpu)).all_cached() for gpu in gpus)
    if gpus:
        lines.append(f"kernels: {'compiled' if compiled else 'compiled when first used'}, kept in {cache_folder()}")
    for key, tuned in tuning.read_file(tuning.default_file()).items():
        lines.append(f"tuned FFT: {key}: {tuned.size[0]} x {tuned.size[1]}")
    lines += [f"no GPU can be used: {part}" for part in cuda_installation.missing_parts(compiled)]
    return lines


def usable_cores() -> int:
    """Number of CPU cores that this process may use; a queueing system may have allotted only some."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
