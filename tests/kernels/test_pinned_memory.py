"""The pool of pinned memory keeps its limit without waiting for the device, on a driver that only counts."""

from __future__ import annotations

import numpy as np
import pytest

from flexalign_plugin.kernels.pinned_memory import CHUNK_BYTES, PinnedPool, loan_of


class Event:
    def __init__(self):
        self.done = False

    def query(self):
        return self.done


class Driver:
    """The part of pycuda.driver that the pool uses."""

    def __init__(self, most_bytes=1 << 40):
        self.waits, self.made, self.most_bytes = 0, 0, most_bytes
        self.Context = self

    class MemoryError(Exception):
        """As pycuda's."""

    def synchronize(self):
        self.waits += 1

    def pagelocked_empty(self, shape, dtype):
        if self.most_bytes < shape[0]:
            raise self.MemoryError
        self.made += 1
        return np.zeros(shape, dtype)


@pytest.mark.parametrize("shape, dtype", [((3, 5), np.float32), ((1, 7), np.uint8), ((2, 2), np.complex64)])
def test_arrays_are_of_the_wanted_kind(shape, dtype):
    array = PinnedPool(Driver()).array(shape, dtype)
    assert array.shape == shape and array.dtype == dtype and array.flags.c_contiguous and array.flags.writeable
    assert loan_of(array) is not None and loan_of(array[1:].ravel()[::2]) is loan_of(array)
    assert loan_of(np.zeros(shape, dtype)) is None


def test_memory_is_used_again_after_its_copy():
    driver = Driver()
    pool, copied = PinnedPool(driver), Event()
    array = pool.array((5,), np.uint8)
    loan_of(array).copied = copied
    address = array.ctypes.data
    del array
    other = pool.array((5,), np.uint8)
    assert other.ctypes.data != address and driver.made == 2
    copied.done = True
    assert pool.array((5,), np.uint8).ctypes.data == address and driver.waits == 0


def test_a_full_pool_lends_nothing_and_waits_for_nothing():
    driver = Driver()
    pool = PinnedPool(driver, limit_bytes=2 * CHUNK_BYTES)
    first, second = pool.array((5,), np.uint8), pool.array((5,), np.uint8)
    assert pool.array((5,), np.uint8) is None
    loan_of(first).copied = Event()  # still being copied
    del first
    assert pool.array((5,), np.uint8) is None and pool.array((5,), np.uint8) is None
    assert driver.waits == 0
    del second
    assert pool.array((5,), np.uint8) is not None


def test_unused_memory_of_another_size_is_freed_for_a_new_one():
    driver = Driver()
    pool = PinnedPool(driver, limit_bytes=4 * CHUNK_BYTES)
    for array in [pool.array((5,), np.uint8) for _ in range(3)]:
        del array
    large = pool.array((3 * CHUNK_BYTES,), np.uint8)
    assert large is not None and driver.waits == 1 and pool.taken_bytes <= 4 * CHUNK_BYTES
    pool.release()
    assert pool.taken_bytes == 3 * CHUNK_BYTES  # an array that is in use stays


def test_a_system_that_allows_no_pinned_memory_is_no_error():
    assert PinnedPool(Driver(most_bytes=0)).array((5,), np.uint8) is None
