"""Memory of a GPU, and pinned memory of the host. The GPU's context must be current in the calling thread."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from .device import DeviceOutOfMemory

TIDY_BYTES = 15 * 10**9  # above it, unused blocks are released before a new one is made, for other programs
CHUNK_BYTES = 8 << 20  # of a pinned buffer; its copy takes 0.3 ms, much longer than the start of a copy


class Block:
    """A piece of device memory. `last_use` is the event after which a free one may be overwritten."""

    def __init__(self, memory: Any, nbytes: int):
        self.memory = memory
        self.pointer = int(memory)
        self.nbytes = nbytes
        self.last_use: Optional[Any] = None


class Pool:
    """Blocks of device memory, kept for reuse because returning memory to the driver waits for all operations.

    pycuda's own pool has no limit. It also does not know when the last use of a free block ends, which is needed for
    copies that overlap with other operations.

    Parameters
    ----------
    driver : pycuda.driver. limit_bytes : limit of the memory taken from the driver, or None.

    Attributes
    ----------
    other_bytes : memory of the context and of the tables of cuFFT's plans; it counts for the limit and the peak.
    peak_bytes : maximum of all memory of this process, including blocks kept for reuse.
    """

    def __init__(self, driver: Any, limit_bytes: Optional[int]):
        self._driver = driver
        self._limit = limit_bytes
        self._held: Dict[int, List[Block]] = {}
        self.held_bytes = self.active_bytes = self.other_bytes = self.peak_bytes = 0

    @property
    def taken_bytes(self) -> int:
        """All device memory of this process."""
        return self.active_bytes + self.held_bytes + self.other_bytes

    def driver_free_bytes(self) -> int:
        return int(self._driver.mem_get_info()[0])

    def take_other(self, nbytes: int) -> None:
        """Count memory that CUDA or cuFFT took for this process, or released (negative)."""
        self.other_bytes = max(self.other_bytes + nbytes, 0)
        self.peak_bytes = max(self.peak_bytes, self.taken_bytes)

    def free_bytes(self) -> int:
        """Memory available to `allocate`: the driver's free memory and unused blocks, within the limit."""
        free = self.driver_free_bytes() + self.held_bytes
        if self._limit is None:
            return free
        return max(0, min(free, self._limit - self.active_bytes - self.other_bytes))

    def allocate(self, nbytes: int) -> Block:
        """Block of at least `nbytes`; raises DeviceOutOfMemory."""
        # Sizes are rounded up by at most 1/16, so that arrays of similar sizes can use the same blocks.
        step = max(256, 1 << max(nbytes.bit_length() - 5, 0))
        size = -(-nbytes // step) * step
        if self._held.get(size):
            block = self._held[size].pop()
            self.held_bytes -= size
        else:
            block = self._new_block(size)
        self.active_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.taken_bytes)
        return block

    def _new_block(self, size: int) -> Block:
        if self.taken_bytes + size > TIDY_BYTES:
            self.release_held()
        block = self._take(size)
        if block is None:
            self.release_held()
            block = self._take(size)
        if block is None:
            raise DeviceOutOfMemory(size, self.free_bytes())
        return block

    def _take(self, size: int) -> Optional[Block]:
        """New block from the driver, or None if there is not enough memory or the limit would be exceeded."""
        if self._limit is not None and self.taken_bytes + size > self._limit:
            return None
        try:
            return Block(self._driver.mem_alloc(size), size)
        except self._driver.MemoryError:
            return None

    def recycle(self, block: Block, last_use: Any) -> None:
        """Return a block to the pool; its content is not needed after the event `last_use`."""
        block.last_use = last_use
        self._held.setdefault(block.nbytes, []).append(block)
        self.active_bytes -= block.nbytes
        self.held_bytes += block.nbytes

    def release_held(self) -> None:
        """Return all unused blocks to the driver."""
        for blocks in self._held.values():
            for block in blocks:
                block.memory.free()
        self._held.clear()
        self.held_bytes = 0


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
