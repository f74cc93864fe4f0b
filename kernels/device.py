"""A CUDA device as `cuda.CudaBackend` sees it: memory, copies, kernel launches and Fourier transforms.

The backend speaks to this interface alone. `pycuda_device.PycudaDevice` is a GPU; the tests have one that computes on
the CPU.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Optional, Sequence, Tuple

import numpy as np

from ..errors import FlexAlignError

BATCH_BYTES = 1 << 30  # of whole frames handled at once: larger batches gain nothing


class DeviceError(FlexAlignError):
    """The device or its driver failed: nothing more can be computed on it by this process."""


class DeviceOutOfMemory(FlexAlignError):
    """An allocation did not fit. Nothing was changed: smaller batches may be tried.

    Attributes
    ----------
    needed_bytes : what was asked for. free_bytes : what was free then.
    """

    def __init__(self, needed_bytes: int, free_bytes: int):
        super().__init__(
            f"The GPU's memory is too small: {needed_bytes / 2**20:.0f} MiB more are needed, "
            f"{free_bytes / 2**20:.0f} MiB are free."
        )
        self.needed_bytes = needed_bytes
        self.free_bytes = free_bytes


class DeviceTooSmall(FlexAlignError):
    """A movie does not fit into the device's memory, however small the batches; others may."""


class DeviceArray:
    """C-contiguous array in the device's memory, which is free again when the last array or view of it is gone.

    Attributes
    ----------
    pointer : address on the device. shape, dtype : as in NumPy.
    """

    __slots__ = ("pointer", "shape", "dtype", "_owner")

    def __init__(self, pointer: int, shape: Sequence[int], dtype: Any, owner: Any):
        self.pointer = pointer
        self.shape: Tuple[int, ...] = tuple(int(n) for n in shape)
        self.dtype = np.dtype(dtype)
        self._owner = owner

    @property
    def size(self) -> int:
        """Number of items."""
        n = 1
        for length in self.shape:
            n *= length
        return n

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def part(self, offset_items: int, shape: Sequence[int]) -> DeviceArray:
        """View that begins `offset_items` items into this array; it keeps the memory."""
        view = DeviceArray(self.pointer + offset_items * self.dtype.itemsize, shape, self.dtype, self._owner)
        if offset_items < 0 or offset_items + view.size > self.size:
            raise ValueError(f"A view of {view.shape} at item {offset_items} is outside an array of {self.shape}.")
        return view

    def free(self) -> None:
        """Give this array's hold on the memory up before it is garbage."""
        self._owner = None


class Device(ABC):
    """One device. Work is done in the order of the calls; only copies from the host overlap with it.

    Methods may be called from any thread, one at a time. All that allocate raise `DeviceOutOfMemory`.

    Attributes
    ----------
    name : as the user knows it, "NVIDIA H200". total_bytes : its memory, or this process's limit.
    peak_bytes : most memory that was held at once since the start or the last `reset_peak`.
    """

    name: str
    total_bytes: int
    peak_bytes: int

    @abstractmethod
    def reset_peak(self) -> None:
        """Begin a new `peak_bytes` with what is held now."""

    @abstractmethod
    def release_unused(self) -> None:
        """Give back what is only kept for reuse, when other sizes will be needed from now on."""

    @abstractmethod
    def free_bytes(self) -> int:
        """Memory that new arrays can have: what nobody uses, within this process's limit."""

    @abstractmethod
    def empty(self, shape: Sequence[int], dtype: Any) -> DeviceArray:
        """Array of undefined content."""

    @abstractmethod
    def zeros(self, shape: Sequence[int], dtype: Any) -> DeviceArray:
        """Array of zero bytes."""

    @abstractmethod
    def upload(self, host: np.ndarray, stream: int = 0, out: Optional[DeviceArray] = None) -> DeviceArray:
        """Copy to the device. The host array may change as soon as this returns; later work sees the copy.

        Parameters
        ----------
        stream : index of the queue that copies; queues do not wait for each other.
        out : array of as many bytes to fill, instead of a new one.
        """

    @abstractmethod
    def download(self, array: DeviceArray) -> np.ndarray:
        """Copy to the host, after all work on the device is done."""

    def view(self, array: DeviceArray, offset_items: int, shape: Sequence[int]) -> DeviceArray:
        """Part of an array, in the same memory."""
        return array.part(offset_items, shape)

    @abstractmethod
    def launch(
        self, module: str, kernel: str, grid: Sequence[int], block: Sequence[int], *args: Any, shared: int = 0
    ) -> None:
        """Start a kernel of `kernels/<module>.cu`.

        Parameters
        ----------
        grid, block : one to three lengths. shared : bytes of dynamic shared memory.
        args : DeviceArray or NumPy scalar of exactly the kernel's type (np.uintp(0) is a null pointer).
        """

    @abstractmethod
    def rfft2(self, real: DeviceArray, out: DeviceArray) -> None:
        """out (..., ny, nx // 2 + 1) complex64 = unnormalised transforms of real (..., ny, nx) float32."""

    @abstractmethod
    def irfft2(self, spectrum: DeviceArray, out: DeviceArray) -> None:
        """out (..., ny, nx) float32 = unnormalised inverse transforms of the spectrum, whose content is lost."""

    @abstractmethod
    def fft_work_bytes(self, kind: str, ny: int, nx: int, batch: int) -> int:
        """Memory that `batch` transforms of (ny, nx) need besides their arrays. kind : "r2c" or "c2r"."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait for all work."""

    @abstractmethod
    def close(self) -> None:
        """Give everything back; the device can't be used afterwards."""
