"""A `kernels.device.Device` on the CPU: the same .cu files compiled by the host's compiler, NumPy's transforms."""

from __future__ import annotations

from typing import Any, Optional, Sequence, Tuple

import numpy as np
import scipy.fft

from flexalign_plugin.kernels.device import Device, DeviceArray, DeviceOutOfMemory

from .compiler import KERNELS, module


class Memory:
    """An allocation, in the host's memory."""

    def __init__(self, device: EmulatedDevice, nbytes: int):
        self._device, self.host = device, np.full(nbytes, 255, np.uint8)  # NaN, or -1
        device.used_bytes += nbytes
        device.peak_bytes = max(device.peak_bytes, device.used_bytes)

    def __del__(self) -> None:
        self._device.used_bytes -= self.host.nbytes


def host_view(array: DeviceArray) -> np.ndarray:
    """The array's memory as the host sees it."""
    if array._owner is None:
        raise RuntimeError("this device memory was freed")
    start = array.pointer - array._owner.host.ctypes.data
    return array._owner.host[start : start + array.nbytes].view(array.dtype).reshape(array.shape)


def _rounding(batch: int) -> np.float32:
    """Close to 1: the last digits of a transform may depend on the batch, so that here they do."""
    return np.float32(1 + 1.2e-7 * batch)


class EmulatedDevice(Device):
    """
    Parameters
    ----------
    total_bytes : memory of the device.
    mode : order of threads and blocks, see `EmulatedModule.launch`.
    """

    def __init__(self, total_bytes: int = 4 << 30, mode: int = 0):
        self.name = "emulated"
        self.total_bytes = total_bytes
        self.mode = mode
        self.used_bytes = self.peak_bytes = self.uploaded_bytes = self.failures = 0

    def reset_peak(self) -> None:
        self.peak_bytes = self.used_bytes

    def release_unused(self) -> None:
        """Nothing is kept."""

    def free_bytes(self) -> int:
        return self.total_bytes - self.used_bytes

    def empty(self, shape: Sequence[int], dtype: Any) -> DeviceArray:
        nbytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        if nbytes == 0:
            raise ValueError(f"an empty array {tuple(shape)} on the device")
        self._take(nbytes)
        memory = Memory(self, nbytes)
        return DeviceArray(memory.host.ctypes.data, shape, dtype, memory)

    def _take(self, needed: int) -> None:
        free = self.total_bytes - self.used_bytes
        if needed > free:
            self.failures += 1
            raise DeviceOutOfMemory(needed, free)

    def zeros(self, shape: Sequence[int], dtype: Any) -> DeviceArray:
        array = self.empty(shape, dtype)
        host_view(array).fill(0)
        return array

    def upload(self, host: np.ndarray, out: Optional[DeviceArray] = None) -> DeviceArray:
        array = self.empty(host.shape, host.dtype) if out is None else out
        host_view(array)[...] = host
        self.uploaded_bytes += host.nbytes
        return array

    def download(self, array: DeviceArray) -> np.ndarray:
        return host_view(array).copy()

    def launch(
        self, module_name: str, kernel: str, grid: Sequence[int], block: Sequence[int], *args: Any, shared: int = 0
    ) -> None:
        values = [np.uintp(a.pointer) if isinstance(a, DeviceArray) else a for a in args]
        if not all(isinstance(v, np.generic) for v in values):
            raise TypeError(f"{kernel}: arguments are device arrays and numpy scalars, not {args}")
        limits: Tuple[int, ...] = (2**31 - 1, 65535, 65535)
        if any(not 0 < n <= most for n, most in zip(grid, limits)):
            raise ValueError(f"{kernel}: a grid of {tuple(grid)} blocks")
        module(KERNELS / f"{module_name}.cu").launch(kernel, grid, block, values, shared, self.mode)

    def _work(self, kind: str, images: DeviceArray, arrays: Sequence[DeviceArray], batch: int) -> None:
        """Take the transforms' work area for a moment."""
        *leading, ny, nx = images.shape
        count = int(np.prod(leading))
        if count % batch or any((a.pointer | a.nbytes // count * batch) % 8 for a in arrays if count > batch):
            raise ValueError(f"{kind}: {images.shape} in batches of {batch}: the images do not begin where they must")
        if any(a.pointer % 8 for a in arrays):
            raise ValueError(f"{kind}: {images.shape} does not begin at a multiple of 8 bytes")
        work = self.fft_work_bytes(kind, ny, nx, batch)
        self._take(work)
        self.peak_bytes = max(self.peak_bytes, self.used_bytes + work)

    def rfft2(self, real: DeviceArray, out: DeviceArray, batch: int = 1) -> None:
        self._work("r2c", real, (real, out), batch)
        host_view(out)[...] = scipy.fft.rfft2(host_view(real)) * _rounding(batch)

    def irfft2(self, spectrum: DeviceArray, out: DeviceArray, batch: int = 1) -> None:
        self._work("c2r", out, (spectrum, out), batch)
        images = scipy.fft.irfft2(host_view(spectrum), s=out.shape[-2:], norm="forward")
        host_view(out)[...] = images * _rounding(batch)
        host_view(spectrum).fill(np.nan)  # a device may leave anything there

    def fft_work_bytes(self, kind: str, ny: int, nx: int, batch: int) -> int:
        return 8 * batch * ny * (nx // 2 + 1)

    def synchronize(self) -> None:
        """Nothing runs on its own."""

    def close(self) -> None:
        """Nothing to give back: memory goes with its arrays."""
