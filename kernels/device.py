"""A CUDA device as `cuda.CudaBackend` sees it: memory, copies, kernel launches and Fourier transforms.

The backend uses only this interface. `pycuda_device.PycudaDevice` implements it for GPUs; the tests have an
implementation that computes on the CPU.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Callable, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from ..errors import FlexAlignError

BATCH_BYTES = 1 << 30  # of whole frames processed at once; larger batches are not faster
ALIGNMENT = 256  # bytes, of arrays that share a piece of memory


class DeviceError(FlexAlignError):
    """The device or its driver failed; this process can't use the device any more."""


class DeviceOutOfMemory(FlexAlignError):
    """An allocation did not fit. The device still works: the operation can be repeated with smaller batches.

    Attributes
    ----------
    needed_bytes : size of the allocation. free_bytes : memory that was free.
    """

    def __init__(self, needed_bytes: int, free_bytes: int):
        super().__init__(
            f"The GPU's memory is too small: {needed_bytes / 2**20:.0f} MiB more are needed, "
            f"{free_bytes / 2**20:.0f} MiB are free."
        )
        self.needed_bytes = needed_bytes
        self.free_bytes = free_bytes


class DeviceTooSmall(FlexAlignError):
    """A movie does not fit into the device's memory even with the smallest batches; smaller movies may fit."""


class DeviceArray:
    """C-contiguous array in the device's memory. The memory is released with the last array or view that uses it.

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
        """View of this memory that begins at item `offset_items`; raises ValueError if it exceeds the array."""
        view = DeviceArray(self.pointer + offset_items * self.dtype.itemsize, shape, self.dtype, self._owner)
        if offset_items < 0 or offset_items + view.size > self.size:
            raise ValueError(f"A view of {view.shape} at item {offset_items} is outside an array of {self.shape}.")
        return view

    def as_type(self, shape: Sequence[int], dtype: Any) -> DeviceArray:
        """The same memory as an array of another type with as many bytes."""
        return DeviceArray(self.pointer, shape, dtype, self._owner)

    def free(self) -> None:
        """Release this array's reference to the memory now instead of at garbage collection."""
        self._owner = None


class Launch(NamedTuple):
    """A kernel and its arguments, as `Device.launch` takes them."""

    module: str
    kernel: str
    grid: Sequence[int]
    block: Sequence[int]
    args: Sequence[Any]


class Device(ABC):
    """One device. Operations run in the order of the calls; only copies from the host overlap with them.

    Methods may be called from any thread, one at a time. Methods that allocate memory may raise `DeviceOutOfMemory`.

    Attributes
    ----------
    name : for messages, "NVIDIA H200". total_bytes : its memory, or this process's limit.
    peak_bytes : maximum of the used memory since the start or the last `reset_peak`.
    operations_per_s : float32 operations per second by its data sheet (a multiplication with an addition counts as
        two); None if unknown.
    """

    name: str
    total_bytes: int
    peak_bytes: int
    operations_per_s: Optional[float] = None

    @abstractmethod
    def reset_peak(self) -> None:
        """Set `peak_bytes` to the memory that is used now."""

    @abstractmethod
    def release_unused(self) -> None:
        """Release memory that is only kept for reuse."""

    @abstractmethod
    def free_bytes(self) -> int:
        """Memory that is available for new arrays, within this process's limit."""

    @abstractmethod
    def empty(self, shape: Sequence[int], dtype: Any) -> DeviceArray:
        """Array of undefined content."""

    @abstractmethod
    def zeros(self, shape: Sequence[int], dtype: Any) -> DeviceArray:
        """Array of zero bytes."""

    @abstractmethod
    def upload(self, host: np.ndarray, out: Optional[DeviceArray] = None) -> DeviceArray:
        """Copy to the device. The host array may be changed after the call, unless it is from `host_array`.

        Parameters
        ----------
        out : existing array of the same number of bytes to fill; a new one is made when None.
        """

    def host_array(self, shape: Sequence[int], dtype: Any) -> Optional[np.ndarray]:
        """Array in memory of the host that is copied fastest, of undefined content; None if there is no such memory.

        It must not be changed after its upload. Its memory is used again when nothing refers to the array any more.
        """
        return None

    def upload_together(self, *host: np.ndarray) -> List[DeviceArray]:
        """Copies of small arrays, in one piece of memory and with one copy."""
        starts = np.cumsum([0] + [-(-a.nbytes // ALIGNMENT) * ALIGNMENT for a in host])
        packed = np.zeros(int(starts[-1]), np.uint8)
        for start, a in zip(starts, host):
            packed[start : start + a.nbytes] = np.ascontiguousarray(a).reshape(-1).view(np.uint8)
        whole = self.upload(packed)
        parts = (self.view(whole, int(start), (a.nbytes,)) for start, a in zip(starts, host))
        return [part.as_type(a.shape, a.dtype) for part, a in zip(parts, host)]

    @abstractmethod
    def download(self, array: DeviceArray) -> np.ndarray:
        """Copy to the host after all operations on the device have finished. Large arrays are as from `host_array`."""

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

    def sequence(
        self, source: DeviceArray, launches: Sequence[Launch], target: DeviceArray
    ) -> Callable[[np.ndarray], np.ndarray]:
        """Function that copies a host array to `source`, starts the kernels and returns `target` as a host array.

        For work that is repeated with other input. The host array has the shape and type of `source`.
        """

        def run(host: np.ndarray) -> np.ndarray:
            self.upload(host, out=source)
            for launch in launches:
                self.launch(launch.module, launch.kernel, launch.grid, launch.block, *launch.args)
            return self.download(target)

        return run

    @abstractmethod
    def rfft2(self, real: DeviceArray, out: DeviceArray, batch: int = 1) -> None:
        """out (..., ny, nx // 2 + 1) complex64 = unnormalised transforms of real (..., ny, nx) float32.

        Parameters
        ----------
        batch : transforms that are made at once; the number of images must be a multiple. The last digits of a result
            may depend on it, so it must not depend on the memory.

        Notes
        -----
        Both arrays begin at multiples of 8 bytes, and so does every `batch`-th image.
        """

    @abstractmethod
    def irfft2(self, spectrum: DeviceArray, out: DeviceArray, batch: int = 1) -> None:
        """out (..., ny, nx) float32 = unnormalised inverse transforms of the spectrum, whose content is destroyed.

        Parameters and alignment as for `rfft2`.
        """

    @abstractmethod
    def fft_work_bytes(self, kind: str, ny: int, nx: int, batch: int) -> int:
        """Work area in bytes that `batch` transforms of (ny, nx) need. kind : "r2c" or "c2r"."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until all operations have finished."""

    @abstractmethod
    def close(self) -> None:
        """Release everything; the device can't be used afterwards."""
