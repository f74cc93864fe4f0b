"""A GPU, through pycuda and cuFFT.

One stream executes all kernels and transforms in order. Copies from the host run on a stream of their own, so that the
next frame is copied while the previous one is processed. Operations that are queued after a copy wait for it on the
device; the host does not wait. Memory comes from a pool, because returning memory to the driver would wait for all
operations.
"""

from __future__ import annotations

import atexit
import contextlib
import math
import os
import sys
import threading
import weakref
from typing import Any, Callable, Dict, Iterator, Optional, Sequence, Tuple

import numpy as np

from ..errors import SettingsError
from . import cuda_graph, cuda_installation, cufft
from .cubins import Cubins
from .device import Device, DeviceArray, DeviceError, DeviceOutOfMemory, Launch
from .pinned_memory import PinnedPair, PinnedPool, loan_of
from .pycuda_memory import Block, Pool

PINNED_BYTES = 1 << 20  # arrays of at least this size are downloaded to pinned memory, without another copy
MOST_CONTEXT_BYTES, MOST_PLAN_BYTES = 640 << 20, 256 << 20  # maximum; a larger difference is of other processes
_context_bytes: Dict[int, int] = {}  # of each GPU, measured when this process first uses it
_contexts: Dict[int, Any] = {}  # primary contexts of the GPUs that this process has used
DEFAULT_SHARED_BYTES = 48 << 10  # more dynamic shared memory has to be requested explicitly
MOST_BLOCKS = (2**31 - 1, 65535, 65535)
LANES = 128  # for float32 arithmetic of a multiprocessor
UNUSUAL_LANES = {"6.0": 64, "7.0": 64, "7.2": 64, "7.5": 64, "8.0": 64}  # by compute capability


class PycudaDevice(Device):
    """One GPU, used through its primary context, which cuFFT shares.

    Parameters
    ----------
    index : number of the GPU among those that CUDA_VISIBLE_DEVICES leaves visible.
    memory_limit_bytes : limit of the used memory, including that of CUDA and cuFFT; no limit when None.

    Raises
    ------
    SettingsError : the GPU does not exist, or software is missing; the message names it and the remedy.
    DeviceError : the GPU exists but can't be used.
    """

    def __init__(self, index: int = 0, memory_limit_bytes: Optional[int] = None):
        info = usable_gpu(index)
        import pycuda.driver as driver

        self._driver, self._index = driver, index
        self.name = f"{info.name} (cuda:{index})"
        self.total_bytes = min(info.total_bytes, memory_limit_bytes or info.total_bytes)
        self.compute_capability = info.compute_capability
        self._pool = Pool(driver, memory_limit_bytes)
        self._lock = threading.RLock()
        self._modules: Dict[str, Any] = {}
        self._functions: Dict[Tuple[str, str], Any] = {}
        self._open = False
        try:
            driver.init()
            self._context = _primary_context(driver, index)
            self._cubins = Cubins(cuda_installation.architecture(info))
            with self._current():
                used = info.total_bytes - self._pool.driver_free_bytes()
                self.context_bytes = _context_bytes.setdefault(index, max(min(used, MOST_CONTEXT_BYTES), 0))
                self._pool.take_other(self.context_bytes)
                self._stream = driver.Stream()
                self._copies = driver.Stream()
                self._recorder = driver.Stream()
                self._uploads, self._downloads = (PinnedPair(driver, s) for s in (self._copies, self._stream))
                self._pinned = PinnedPool(driver)
        except driver.Error as error:
            raise DeviceError(f"{self.name} can't be used: {error}. Check it with nvidia-smi.") from error
        self._transforms = cufft.Transforms(lambda n: self.empty((n,), np.uint8), self.free_bytes, self.synchronize)
        self._open = True
        _close_at_exit(self)

    @contextlib.contextmanager
    def _current(self) -> Iterator[None]:
        """Make the context current in this thread; errors of the driver become `DeviceError`."""
        driver = self._driver
        with self._lock:
            try:
                self._context.push()
                try:
                    yield
                finally:
                    with contextlib.suppress(driver.Error):  # after a fault this fails too; the fault is reported
                        driver.Context.pop()
            except driver.Error as error:
                raise DeviceError(f"{self.name} failed: {error}") from error

    @property
    def operations_per_s(self) -> Optional[float]:  # type: ignore[override]
        kind = self._driver.device_attribute
        gpu = self._driver.Device(self._index)
        units = gpu.get_attribute(kind.MULTIPROCESSOR_COUNT)
        lanes = UNUSUAL_LANES.get(self.compute_capability, LANES)
        return 2.0 * units * lanes * gpu.get_attribute(kind.CLOCK_RATE) * 1e3

    # Memory

    @property
    def peak_bytes(self) -> int:  # type: ignore[override]
        return self._pool.peak_bytes

    def reset_peak(self) -> None:
        self._pool.peak_bytes = self._pool.taken_bytes

    def release_unused(self) -> None:
        self.synchronize()
        with self._current():
            before = self._pool.driver_free_bytes()
            self._transforms.close()
            self._pool.take_other(before - self._pool.driver_free_bytes())
            self._pool.release_held()

    def free_bytes(self) -> int:
        with self._current():
            return self._pool.free_bytes()

    def empty(self, shape: Sequence[int], dtype: Any) -> DeviceArray:
        return self._new(shape, dtype)[0]

    def _new(self, shape: Sequence[int], dtype: Any) -> Tuple[DeviceArray, Block]:
        array = DeviceArray(0, shape, dtype, None)
        with self._current():
            hold = _Hold(self, self._pool.allocate(max(array.nbytes, 1)))
        return DeviceArray(hold.block.pointer, shape, dtype, hold), hold.block

    def _recycle(self, block: Block) -> None:
        """Return a block without arrays to the pool; operations that use it may still be queued."""
        if self._open:
            with self._current():
                self._pool.recycle(block, self._now(self._stream))

    def _now(self, stream: Any) -> Any:
        """Event that occurs when everything queued on a stream has finished."""
        return self._driver.Event(self._driver.event_flags.DISABLE_TIMING).record(stream)

    def zeros(self, shape: Sequence[int], dtype: Any) -> DeviceArray:
        array = self.empty(shape, dtype)
        if array.nbytes:
            with self._current():
                self._driver.memset_d8_async(array.pointer, 0, array.nbytes, self._stream)
        return array

    # Copies

    def host_array(self, shape: Sequence[int], dtype: Any) -> Optional[np.ndarray]:
        with self._current():
            return self._pinned.array(shape, dtype)

    def upload(self, host: np.ndarray, out: Optional[DeviceArray] = None) -> DeviceArray:
        host = np.ascontiguousarray(host).reshape(host.shape)
        if out is not None and out.nbytes != host.nbytes:
            raise ValueError(f"An array of {host.nbytes} bytes does not fill one of {out.nbytes}.")
        with self._current():
            # Events are made and deleted while the context is current, so no variable may hold one.
            if out is None:
                array, block = self._new(host.shape, host.dtype)
                if block.last_use is not None:
                    self._copies.wait_for_event(block.last_use)
            else:
                array = out
                self._copies.wait_for_event(self._now(self._stream))
            loan = loan_of(host)
            if loan is None:
                self._uploads.to_device(array.pointer, host)
            elif host.nbytes:
                self._driver.memcpy_htod_async(array.pointer, host, self._copies)
                loan.copied = self._now(self._copies)
            self._stream.wait_for_event(self._now(self._copies))
        return array

    def download(self, array: DeviceArray) -> np.ndarray:
        with self._current():
            host = self._pinned.array(array.shape, array.dtype) if array.nbytes >= PINNED_BYTES else None
            if host is not None:
                self._driver.memcpy_dtoh_async(host, array.pointer, self._stream)
                self._stream.synchronize()
                return host
            host = np.empty(array.shape, array.dtype)
            self._downloads.to_host(host, array.pointer)
        return host

    # Work

    def prepare(self) -> None:
        """Compile all kernels that are not compiled yet, and check that cuFFT works.

        Raises
        ------
        DeviceError : the compiler is missing or fails, or cuFFT does not fit the driver or the GPU.
        """
        with self._current():
            if not self._cubins.all_cached():
                self._cubins.compile_missing()
            if not cufft.choose(self._transforms_work):
                raise DeviceError(f"{self.name}: cuFFT computes wrong transforms. FLEXALIGN_CUDA_LIB chooses another.")

    def _transforms_work(self) -> bool:
        """Whether the current cuFFT library gives the transform of an impulse."""
        impulse = np.zeros((1, 8, 8), np.float32)
        impulse[0, 0, 0] = 1
        spectrum = self.empty((1, 8, 5), np.complex64)
        try:
            self.rfft2(self.upload(impulse), spectrum)
            return bool(np.allclose(self.download(spectrum), 1))
        finally:
            self._transforms.close()  # another library can't use the plan

    def launch(
        self, module: str, kernel: str, grid: Sequence[int], block: Sequence[int], *args: Any, shared: int = 0
    ) -> None:
        self._launch(self._stream, Launch(module, kernel, grid, block, args), shared)

    def sequence(
        self, source: DeviceArray, launches: Sequence[Launch], target: DeviceArray
    ) -> Callable[[np.ndarray], np.ndarray]:
        with self._current():
            pinned = [self._pinned.array(a.shape, a.dtype) for a in (source, target)]
            if pinned[0] is None or pinned[1] is None:
                return super().sequence(source, launches, target)
            for launch in launches:
                self._function(launch.module, launch.kernel)  # modules can't be loaded while work is recorded

            def work(stream: Any) -> None:
                self._driver.memcpy_htod_async(source.pointer, pinned[0], stream)
                for launch in launches:
                    self._launch(stream, launch)
                self._driver.memcpy_dtoh_async(pinned[1], target.pointer, stream)

            # On another stream, because work of other threads for the device's own must not be recorded.
            try:
                graph = cuda_graph.record(self._recorder, lambda: work(self._recorder))
            except (self._driver.Error, DeviceError):  # where the device has failed, the steps will as well
                graph = None
        return _Sequence(self, pinned[0], pinned[1], work, graph, (source, launches, target))

    def _launch(self, stream: Any, launch: Launch, shared: int = 0) -> None:
        module, kernel, grid, block, args = launch
        blocks, threads = (tuple(int(n) for n in (*size, 1, 1)[:3]) for size in (grid, block))
        if any(not 0 < n <= most for n, most in zip(blocks, MOST_BLOCKS)):
            raise ValueError(f"{kernel}: a grid of {blocks} blocks can't be launched.")
        values = [np.uintp(a.pointer) if isinstance(a, DeviceArray) else a for a in args]
        with self._current():
            function = self._function(module, kernel)
            if shared > DEFAULT_SHARED_BYTES:
                function.set_attribute(self._driver.function_attribute.MAX_DYNAMIC_SHARED_SIZE_BYTES, shared)
            try:
                function(*values, grid=blocks, block=threads, stream=stream, shared=shared)
            except self._driver.Error as error:
                raise DeviceError(f"{self.name} failed in {kernel} of {module}.cu: {error}") from error

    def _function(self, module: str, kernel: str) -> Any:
        if (module, kernel) not in self._functions:
            if module not in self._modules:
                self._modules[module] = self._load(module)
            self._functions[module, kernel] = self._modules[module].get_function(kernel)
        return self._functions[module, kernel]

    def _load(self, module: str) -> Any:
        code = self._cubins.get(module)
        try:
            return self._driver.module_from_buffer(code)
        except self._driver.MemoryError as error:
            raise DeviceOutOfMemory(len(code), self._pool.free_bytes()) from error
        except self._driver.Error:
            self._pool.driver_free_bytes()  # raises if the device has failed; otherwise the driver refuses this code
            return self._driver.module_from_buffer(self._cubins.recompile(module))

    def rfft2(self, real: DeviceArray, out: DeviceArray, batch: int = 1) -> None:
        self._transform("r2c", real, out, real.shape, batch)

    def irfft2(self, spectrum: DeviceArray, out: DeviceArray, batch: int = 1) -> None:
        self._transform("c2r", spectrum, out, out.shape, batch)

    def _transform(
        self, kind: str, source: DeviceArray, target: DeviceArray, images: Tuple[int, ...], batch: int
    ) -> None:
        *leading, ny, nx = images
        half = (*leading, ny, nx // 2 + 1)
        real, spectrum = (source, target) if kind == "r2c" else (target, source)
        if spectrum.shape != half or real.dtype != np.float32 or spectrum.dtype != np.complex64:
            raise ValueError(f"{kind}: {real.shape} {real.dtype} and {spectrum.shape} {spectrum.dtype} don't fit.")
        count = math.prod(leading)
        if count % batch:
            raise ValueError(f"{kind}: {count} images can't be transformed {batch} at a time.")
        with self._current():
            before = self._pool.driver_free_bytes() if self._transforms.is_new(kind, ny, nx, batch) else None
            plan = self._transforms.plan(kind, ny, nx, batch)
            if before is not None:  # its tables and code, minus those of a plan that it replaced
                taken = before - self._pool.driver_free_bytes()
                self._pool.take_other(min(max(taken, -MOST_PLAN_BYTES), MOST_PLAN_BYTES))
            steps = [batch * a.nbytes // max(count, 1) for a in (source, target)]
            for k in range(count // batch):
                addresses = source.pointer + k * steps[0], target.pointer + k * steps[1]
                self._transforms.execute(plan, *addresses, self._stream.handle)

    def fft_work_bytes(self, kind: str, ny: int, nx: int, batch: int) -> int:
        with self._current():
            return cufft.work_bytes(kind, ny, nx, batch)

    def synchronize(self) -> None:
        with self._current():
            self._stream.synchronize()  # it waits for every copy

    def close(self) -> None:
        if not self._open:
            return
        with self._current():
            self._driver.Context.synchronize()
            self._transforms.close()
            self._open = False
            self._functions.clear()
            self._modules.clear()
            self._pinned.release()
            self._pool.release_held()
            del self._uploads, self._downloads, self._copies, self._recorder, self._stream


def _primary_context(driver: Any, index: int) -> Any:
    """The GPU's primary context, retained until the process ends: when nobody holds it any more, cuFFT's state is lost.

    pycuda releases a context that is not current by making it so and does not undo that; hence the pop.
    """
    if index not in _contexts:
        context = _contexts[index] = driver.Device(index).retain_primary_context()

        def release() -> None:
            with contextlib.suppress(driver.Error):  # after a fault
                context.detach()
                driver.Context.pop()

        atexit.register(release)
    return _contexts[index]


class _Hold:
    """A block's owner, shared by an array and its views. The block returns to the pool with the last of them."""

    def __init__(self, device: PycudaDevice, block: Block):
        self._device = device
        self.block = block

    def __del__(self) -> None:
        if not sys.is_finalizing():
            with contextlib.suppress(DeviceError):  # after a fault the end of the process frees the memory
                self._device._recycle(self.block)


class _Sequence:
    """`Device.sequence`: one call of the driver where it has graphs; otherwise each step is one.

    Parameters
    ----------
    source, target : pinned memory that is copied to and from the device.
    work : queues all steps on a stream. graph : the same, recorded, or None. uses : kept as long as this exists.
    """

    def __init__(
        self,
        device: PycudaDevice,
        source: np.ndarray,
        target: np.ndarray,
        work: Callable[[Any], None],
        graph: Optional[cuda_graph.Graph],
        uses: Any,
    ):
        self._device, self._source, self._target = device, source, target
        self._work, self._graph, self._uses = work, graph, uses

    def __call__(self, host: np.ndarray) -> np.ndarray:
        device = self._device
        self._source[...] = host
        with device._current():
            if self._graph is None or not self._graph.launch(device._stream):
                self._work(device._stream)
            device._stream.synchronize()
        return self._target.copy()

    def __del__(self) -> None:
        if self._graph is not None and self._device._open and not sys.is_finalizing():
            with contextlib.suppress(DeviceError), self._device._current():  # after a fault it is of no use
                self._graph.close()


def usable_gpu(index: int) -> cuda_installation.GpuInfo:
    """The GPU of this number. Raises SettingsError, with what is missing, if it can't be used."""
    gpus = cuda_installation.visible_gpus()
    if gpus and index >= len(gpus):
        names = ", ".join(f"cuda:{gpu.index} is {gpu.name}" for gpu in gpus)
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        note = f" (CUDA_VISIBLE_DEVICES={hidden} hides others)" if hidden is not None else ""
        raise SettingsError(f"There is no GPU cuda:{index}: {names}{note}. Numbers start at 0.")
    compiled = bool(gpus) and Cubins(cuda_installation.architecture(gpus[index])).all_cached()
    missing = cuda_installation.missing_parts(compiled)
    if missing:
        raise SettingsError(f"GPU cuda:{index} can't be used: " + "; ".join(missing) + ".")
    return gpus[index]


def _close_at_exit(device: PycudaDevice) -> None:
    """Close the device at exit, before the interpreter deletes pycuda's objects in an undefined order."""
    reference = weakref.ref(device)

    def close() -> None:
        still_open = reference()
        if still_open is not None:
            still_open.close()

    atexit.register(close)
