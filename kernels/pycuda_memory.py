"""Memory of a GPU, whose context must be current in the calling thread."""

from __future__ import annotations

from typing import Any, Dict, List, Optional

from .device import DeviceOutOfMemory

# Above these bytes or this share of the GPU's memory, whichever is more, unused blocks are released before a new one is
# made, for other programs. Releasing waits for all operations, so it must not happen with every new size.
TIDY_BYTES, TIDY_SHARE = 15 * 10**9, 0.5


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
        if self.taken_bytes + size > max(TIDY_BYTES, TIDY_SHARE * self._driver.mem_get_info()[1]):
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
        """Return all unused blocks to the driver, after everything that may use them has finished."""
        if not self.held_bytes:
            return
        self._driver.Context.synchronize()
        for blocks in self._held.values():
            for block in blocks:
                block.memory.free()
        self._held.clear()
        self.held_bytes = 0
