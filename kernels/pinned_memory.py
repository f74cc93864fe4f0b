"""Pinned memory of the host, from and to which a GPU copies. Its context must be current in the calling thread.

Large arrays are made in pinned memory and copied as a whole. Everything else goes through a pair of pinned buffers.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any, Deque, Dict, List, Optional, Sequence, Tuple

import numpy as np

CHUNK_BYTES = 8 << 20  # of a buffer of the pair; its copy takes 0.3 ms, much longer than the start of a copy
POOL_BYTES = 1 << 30  # most pinned memory of a `PinnedPool`


class _Loan:
    """Pinned memory while an array uses it. It returns to its pool with the last array."""

    def __init__(self, pool: PinnedPool, memory: np.ndarray, nbytes: int):
        self._pool = pool
        self._memory = memory
        self.copied: Optional[Any] = None  # event of the last copy from this memory
        self.__array_interface__ = {**memory[:nbytes].__array_interface__, "version": 3}

    def __del__(self) -> None:
        self._pool.give_back(self._memory, self.copied)


class PinnedPool:
    """Arrays in pinned memory. Allocating it is slow, so it is kept and used again.

    Parameters
    ----------
    driver : pycuda.driver. limit_bytes : limit of the memory.
    """

    def __init__(self, driver: Any, limit_bytes: int = POOL_BYTES):
        self._driver = driver
        self._limit = limit_bytes
        self._free: Dict[int, List[Tuple[np.ndarray, Optional[Any]]]] = {}
        self._returned: Deque[Tuple[np.ndarray, Optional[Any]]] = deque()  # by any thread, at any time
        self.taken_bytes = 0

    def array(self, shape: Sequence[int], dtype: Any) -> Optional[np.ndarray]:
        """Array of undefined content, or None if all memory is in use."""
        nbytes = math.prod(shape) * np.dtype(dtype).itemsize
        size = -(-nbytes // CHUNK_BYTES) * CHUNK_BYTES
        memory = self._unused(size)
        if memory is None:
            if self.taken_bytes + size > self._limit:
                self.release(except_size=size)
            if self.taken_bytes + size > self._limit:
                return None
            try:
                memory = self._driver.pagelocked_empty((size,), np.uint8)
            except self._driver.MemoryError:  # the system allows no more
                return None
            self.taken_bytes += size
        return np.asarray(_Loan(self, memory, nbytes)).view(dtype).reshape(shape)

    def _unused(self, size: int) -> Optional[np.ndarray]:
        """Memory of this size that no array and no copy uses."""
        self._sort()
        free = self._free.get(size, [])
        for k, (memory, copied) in enumerate(free):
            if copied is None or copied.query():
                del free[k]
                return memory
        return None

    def give_back(self, memory: np.ndarray, copied: Optional[Any]) -> None:
        """Take memory back that no array uses any more; it may be used again after the event `copied`."""
        self._returned.append((memory, copied))

    def _sort(self) -> None:
        while self._returned:
            memory, copied = self._returned.popleft()
            self._free.setdefault(len(memory), []).append((memory, copied))

    def release(self, except_size: int = 0) -> None:
        """Free all memory that no array uses, but that of one size, after everything that may use it has finished."""
        self._sort()
        sizes = [size for size, free in self._free.items() if free and size != except_size]
        if not sizes:
            return
        self._driver.Context.synchronize()
        for size in sizes:
            self.taken_bytes -= size * len(self._free.pop(size))


def loan_of(array: np.ndarray) -> Optional[_Loan]:
    """The loan of an array in the memory of a `PinnedPool`, or None."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    return base if isinstance(base, _Loan) else None


class PinnedPair:
    """Two pinned buffers of one stream: one is being copied while the host fills or reads the other."""

    def __init__(self, driver: Any, stream: Any):
        self._driver = driver
        self.stream = stream
        self._buffers: List[np.ndarray] = [driver.pagelocked_empty((CHUNK_BYTES,), np.uint8) for _ in range(2)]
        self._done = [driver.Event(driver.event_flags.DISABLE_TIMING) for _ in range(2)]
        self._next = 0

    def to_device(self, pointer: int, host: np.ndarray) -> None:
        """Copy a contiguous array to the device; the host array may be changed after the call."""
        source = host.reshape(-1).view(np.uint8)
        for start in range(0, len(source), CHUNK_BYTES):
            part = source[start : start + CHUNK_BYTES]
            k, self._next = self._next, 1 - self._next
            self._done[k].synchronize()
            pinned = self._buffers[k][: len(part)]
            pinned[:] = part
            self._driver.memcpy_htod_async(pointer + start, pinned, self.stream)
            self._done[k].record(self.stream)

    def to_host(self, host: np.ndarray, pointer: int) -> None:
        """Fill a contiguous array; returns when it is complete."""
        target = host.reshape(-1).view(np.uint8)
        pending: Optional[Tuple[int, np.ndarray]] = None
        for start in range(0, len(target), CHUNK_BYTES):
            part = target[start : start + CHUNK_BYTES]
            k, self._next = self._next, 1 - self._next
            self._driver.memcpy_dtoh_async(self._buffers[k][: len(part)], pointer + start, self.stream)
            self._done[k].record(self.stream)
            if pending is not None:
                self._finish(*pending)
            pending = k, part
        if pending is not None:
            self._finish(*pending)

    def _finish(self, k: int, part: np.ndarray) -> None:
        self._done[k].synchronize()
        part[:] = self._buffers[k][: len(part)]
