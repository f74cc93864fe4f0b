"""A device that computes nothing but counts the memory that a GPU would need, for movies of any size.

It uses the memory pool of the real device with a driver that only counts, and one work area for all transforms, as the
real device does. Downloaded windows have one clear peak in the middle and all other arrays are ones, which is enough
for a whole alignment.
"""

from __future__ import annotations

from typing import Any, Optional, Sequence

import numpy as np

from flexalign_plugin.kernels.device import Device, DeviceArray
from flexalign_plugin.kernels.pycuda_memory import Block, Pool

PEAKS = 7  # numbers per window from peaks.cu
CLEAR_PEAK = (0, 0, 0, 0, 10, 1, 0)


class CountingDriver:
    """The part of pycuda.driver that `Pool` uses."""

    class MemoryError(Exception):
        """As pycuda's."""

    class Context:
        @staticmethod
        def synchronize() -> None:
            """Nothing runs."""

    def __init__(self, total_bytes: int):
        self.total_bytes, self.used_bytes, self.allocations = total_bytes, 0, 0

    def mem_get_info(self):
        return self.total_bytes - self.used_bytes, self.total_bytes

    def mem_alloc(self, nbytes: int):
        if nbytes > self.total_bytes - self.used_bytes:
            raise self.MemoryError
        self.allocations += 1
        return CountedMemory(self, nbytes)


class CountedMemory:
    def __init__(self, driver: CountingDriver, nbytes: int):
        self._driver, self._nbytes = driver, nbytes
        driver.used_bytes += nbytes

    def __int__(self) -> int:
        return 0

    def free(self) -> None:
        self._driver.used_bytes -= self._nbytes


class _Hold:
    def __init__(self, pool: Pool, block: Block):
        self._pool, self._block = pool, block

    def __del__(self) -> None:
        self._pool.recycle(self._block, None)


class AccountingDevice(Device):
    """
    Parameters
    ----------
    total_bytes, limit_bytes : of the device's memory. other_bytes : part of it that context and plans take.
    """

    def __init__(self, total_bytes: int, limit_bytes: Optional[int] = None, other_bytes: int = 600 << 20):
        self.name, self.total_bytes = "accounting", min(total_bytes, limit_bytes or total_bytes)
        self.driver = CountingDriver(total_bytes - other_bytes)
        self._pool = Pool(self.driver, limit_bytes)
        self._pool.take_other(other_bytes)
        self._work: Optional[DeviceArray] = None

    @property
    def peak_bytes(self) -> int:  # type: ignore[override]
        return self._pool.peak_bytes

    def reset_peak(self) -> None:
        self._pool.peak_bytes = self._pool.taken_bytes

    def release_unused(self) -> None:
        self._work = None
        self._pool.release_held()

    def free_bytes(self) -> int:
        return self._pool.free_bytes()

    def empty(self, shape: Sequence[int], dtype: Any) -> DeviceArray:
        nbytes = DeviceArray(0, shape, dtype, None).nbytes
        return DeviceArray(0, shape, dtype, _Hold(self._pool, self._pool.allocate(max(nbytes, 1))))

    def zeros(self, shape: Sequence[int], dtype: Any) -> DeviceArray:
        return self.empty(shape, dtype)

    def upload(self, host: np.ndarray, out: Optional[DeviceArray] = None) -> DeviceArray:
        return self.empty(host.shape, host.dtype) if out is None else out

    def download(self, array: DeviceArray) -> np.ndarray:
        host = np.ones(array.shape, array.dtype)
        if array.shape[-1] == PEAKS:
            host[...] = CLEAR_PEAK
        return host

    def launch(
        self, module: str, kernel: str, grid: Sequence[int], block: Sequence[int], *args: Any, shared: int = 0
    ) -> None:
        """Nothing is computed."""

    def rfft2(self, real: DeviceArray, out: DeviceArray, batch: int = 1) -> None:
        self._take_work("r2c", real, batch)

    def irfft2(self, spectrum: DeviceArray, out: DeviceArray, batch: int = 1) -> None:
        self._take_work("c2r", out, batch)

    def _take_work(self, kind: str, images: DeviceArray, batch: int) -> None:
        work = self.fft_work_bytes(kind, *images.shape[-2:], batch)
        if work > (0 if self._work is None else self._work.nbytes):
            self._work = None
            self._work = self.empty((work,), np.uint8)

    def fft_work_bytes(self, kind: str, ny: int, nx: int, batch: int) -> int:
        return 8 * batch * ny * (nx // 2 + 1)  # of the size of the spectra; cuFFT needs no more for such sizes

    def synchronize(self) -> None:
        """Nothing runs."""

    def close(self) -> None:
        """Nothing to give back."""
