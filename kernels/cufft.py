"""cuFFT through ctypes: batched 2-D transforms of real images, out of place, in a work area from the caller.

cuFFT uses the CUDA runtime, so the current context must be the device's primary context.
"""

from __future__ import annotations

import ctypes
import glob
import os
import sys
from collections import OrderedDict
from typing import Any, Callable, Iterator, List, Optional, Tuple

from .device import DeviceArray, DeviceError, DeviceOutOfMemory

KINDS = {"r2c": 0x2A, "c2r": 0x2C}
ALLOC_FAILED, INTERNAL_ERROR = 2, 5
PLAN_BYTES = 256 << 20  # of the device, which a plan's tables and code don't exceed
MAX_PLANS = 32  # kept at a time, because each has tables on the device
_STATUS = {
    1: "INVALID_PLAN",
    2: "ALLOC_FAILED",
    3: "INVALID_TYPE",
    4: "INVALID_VALUE",
    5: "INTERNAL_ERROR",
    6: "EXEC_FAILED",
    7: "SETUP_FAILED",
    8: "INVALID_SIZE",
    9: "UNALIGNED_DATA",
    11: "INVALID_DEVICE",
    13: "NO_WORKSPACE",
    14: "NOT_IMPLEMENTED",
    16: "NOT_SUPPORTED",
    17: "MISSING_DEPENDENCY",
    18: "NVRTC_FAILURE",
    19: "NVJITLINK_FAILURE",
}
_library: Any = None


class CufftError(DeviceError):
    """A call of cuFFT failed. `code` is its status."""

    def __init__(self, function: str, code: int):
        super().__init__(
            f"{function} failed with CUFFT_{_STATUS.get(code, code)}. If this happens with every movie, the cuFFT "
            "library does not fit the driver or the GPU: `flexalign info` names it, FLEXALIGN_CUDA_LIB chooses another."
        )
        self.code = code


class CufftMissing(OSError):
    """No libcufft could be loaded."""


def candidates() -> Iterator[str]:
    """Possible places of libcufft: the user's folder, NVIDIA's wheels, the toolkit, then the loader's search path."""
    if os.environ.get("FLEXALIGN_CUDA_LIB"):
        yield from _newest_first(glob.escape(os.environ["FLEXALIGN_CUDA_LIB"]))
    for path in dict.fromkeys(sys.path):
        for wheel in ("cu13", "cu12", "cufft"):
            yield from _newest_first(os.path.join(glob.escape(path or "."), "nvidia", wheel, "lib"))
    for variable, folder in (("CUDA_HOME", "lib64"), ("CUDA_PATH", "lib64"), ("CUDA_ROOT", "lib64"), ("CUDA_LIB", "")):
        if os.environ.get(variable):
            yield from _newest_first(os.path.join(glob.escape(os.environ[variable]), folder))
    yield from ("libcufft.so.12", "libcufft.so.11", "libcufft.so.10")
    yield from _newest_first("/usr/local/cuda*/lib64")


def _newest_first(folder: str) -> List[str]:
    """Libraries in a folder (a glob pattern): libcufft.so.10 to .19, not cuFFTW."""
    return sorted(glob.glob(os.path.join(folder, "libcufft.so.1[0-9]")), reverse=True)


def load() -> Any:
    """The library, loaded once.

    Raises
    ------
    CufftMissing : no library could be loaded; the text is the loader's message for the first candidate.
    """
    global _library
    if _library is None:
        reasons: List[str] = []
        _library = next(_loaded(reasons), None)
        if _library is None:
            raise CufftMissing(reasons[0])
    return _library


def _loaded(reasons: List[str]) -> Iterator[Any]:
    """The libraries that can be loaded; the loader's messages about the others are added to `reasons`."""
    for path in candidates():
        try:
            library = ctypes.CDLL(path)
        except OSError as error:
            reasons.append(str(error))
        else:
            yield library


def choose(works: Callable[[], bool]) -> bool:
    """Use the first library that works, and say whether there is one; else the first that can be loaded stays.

    works : makes transforms with the current library and says whether they are right. The current context must be that
        of the device.

    Raises
    ------
    CufftError : of the first library, if none works.
    """
    global _library
    first, failure = load(), None
    for library in (first, *_loaded([])):  # the first is tried again only where it has failed
        _library = library
        try:
            if works():
                return True
        except CufftError as error:
            failure = failure or error
    _library = first
    if failure is not None:
        raise failure
    return False


def is_present() -> bool:
    """Whether a library can be loaded."""
    try:
        load()
    except CufftMissing:
        return False
    return True


def call(function: str, *arguments: Any) -> None:
    """Call a function of cuFFT and raise `CufftError` unless it succeeds."""
    code = getattr(load(), function)(*arguments)
    if code:
        raise CufftError(function, code)


def version() -> str:
    """Version of the loaded library, "12.0.0"."""
    number = ctypes.c_int()
    call("cufftGetVersion", ctypes.byref(number))
    return f"{number.value // 1000}.{number.value // 100 % 10}.{number.value % 100}"


class Plan:
    """`batch` transforms of (ny, nx) images, float32 <-> (ny, nx // 2 + 1) complex64; the work area is the caller's.

    Attributes
    ----------
    work_bytes : exact size of the work area.
    """

    def __init__(self, kind: str, ny: int, nx: int, batch: int):
        self._kind = kind
        self._handle: Optional[ctypes.c_int] = _new_handle()
        work = ctypes.c_size_t()
        try:
            call("cufftMakePlanMany64", self._handle, *_layout(kind, ny, nx, batch), ctypes.byref(work))
        except CufftError:
            self.close()
            raise
        self.work_bytes = work.value

    def execute(self, source: int, target: int, work: int, stream: int) -> None:
        """Transform the images at the device address `source`, unnormalised. c2r destroys its input."""
        call("cufftSetStream", self._handle, ctypes.c_void_p(stream))
        if self.work_bytes:
            call("cufftSetWorkArea", self._handle, ctypes.c_void_p(work))
        function = "cufftExecR2C" if self._kind == "r2c" else "cufftExecC2R"
        call(function, self._handle, ctypes.c_void_p(source), ctypes.c_void_p(target))

    def close(self) -> None:
        if self._handle is not None:
            handle, self._handle = self._handle, None
            call("cufftDestroy", handle)


def work_bytes(kind: str, ny: int, nx: int, batch: int) -> int:
    """Exact size of a plan's work area, without making the plan."""
    handle, work = _new_handle(), ctypes.c_size_t()
    try:
        call("cufftGetSizeMany64", handle, *_layout(kind, ny, nx, batch), ctypes.byref(work))
    finally:
        call("cufftDestroy", handle)
    return work.value


def _new_handle() -> ctypes.c_int:
    handle = ctypes.c_int()
    call("cufftCreate", ctypes.byref(handle))
    call("cufftSetAutoAllocation", handle, ctypes.c_int(0))
    return handle


def _layout(kind: str, ny: int, nx: int, batch: int) -> Tuple[Any, ...]:
    """Arguments rank, n, inembed, istride, idist, onembed, ostride, odist, type, batch of the plan functions."""
    long = ctypes.c_longlong

    def rows_of(width: int) -> Tuple[Any, ...]:
        return (long * 2)(ny, width), long(1), long(ny * width)

    real, half = rows_of(nx), rows_of(nx // 2 + 1)
    source, target = (real, half) if kind == "r2c" else (half, real)
    return (ctypes.c_int(2), (long * 2)(ny, nx), *source, *target, ctypes.c_int(KINDS[kind]), long(batch))


class Transforms:
    """Plans of one device, cached by shape. They share one work area, because they run one after the other.

    Parameters
    ----------
    allocate : (bytes) -> DeviceArray, raises DeviceOutOfMemory. free_bytes : memory that is free.
    synchronize : waits until everything that was queued has finished.
    """

    def __init__(
        self,
        allocate: Callable[[int], DeviceArray],
        free_bytes: Callable[[], int],
        synchronize: Callable[[], None],
    ):
        self._allocate = allocate
        self._free_bytes = free_bytes
        self._synchronize = synchronize
        self._plans: OrderedDict[Tuple[str, int, int, int], Plan] = OrderedDict()
        self._work: Optional[DeviceArray] = None

    def is_new(self, *key: Any) -> bool:
        """Whether there is no plan of (kind, ny, nx, batch) yet."""
        return key not in self._plans

    def execute(self, plan: Plan, source: int, target: int, stream: int) -> None:
        """Queue a plan's transforms on a stream. Raises DeviceOutOfMemory when the work area does not fit."""
        if plan.work_bytes > (0 if self._work is None else self._work.nbytes):
            self._work = None  # the old one first: both together may not fit
            self._work = self._allocate(plan.work_bytes)
        plan.execute(source, target, 0 if self._work is None else self._work.pointer, stream)

    def plan(self, kind: str, ny: int, nx: int, batch: int) -> Plan:
        """The plan, new or cached. Raises DeviceOutOfMemory when its tables do not fit."""
        key = kind, ny, nx, batch
        plan = self._plans.get(key)
        if plan is None:
            try:
                plan = Plan(*key)
            except CufftError as error:
                # Some versions report an internal error when memory runs out.
                short = error.code == INTERNAL_ERROR and self._free_bytes() < PLAN_BYTES
                if error.code != ALLOC_FAILED and not short:
                    raise
                raise DeviceOutOfMemory(work_bytes(*key), self._free_bytes()) from error
            self._plans[key] = plan
            if len(self._plans) > MAX_PLANS:
                self._synchronize()  # its transforms may still be queued
                self._plans.popitem(last=False)[1].close()
        self._plans.move_to_end(key)
        return plan

    def close(self) -> None:
        """Release all plans, none of which may still be in use, and the work area; they are made again when needed."""
        for plan in self._plans.values():
            plan.close()
        self._plans.clear()
        self._work = None
