"""Copies and kernels run in the right order, whenever a device runs them: in the schedules of the test driver, where
work is late (driver/fakecuda.cpp), and on a GPU behind a kernel that takes long.

Each test computes a wrong result if one of the backend's waits is missing; test_waits.py removes them one by one.
"""

from __future__ import annotations

import ctypes
import gc
import os
import threading

import numpy as np
import pytest

from flexalign_plugin.backend import FrameSource
from flexalign_plugin.kernels import cuda_graph, cufft
from flexalign_plugin.kernels.cuda_frames import FrameStore
from flexalign_plugin.kernels.device import DeviceError, Launch
from flexalign_plugin.kernels.pinned_memory import CHUNK_BYTES, POOL_BYTES, loan_of

from ..in_memory import Stack

SCHEDULES = ("late", "copies", "kernels", "random 1", "random 2", "random 3")
N = 4096


@pytest.fixture(params=SCHEDULES)
def device(own_kernels, request):
    """The device, in each schedule of the test driver."""
    if "FLEXALIGN_TEST_DRIVER" not in os.environ:
        if request.param != SCHEDULES[0]:
            pytest.skip("a GPU has its own schedule")
        yield own_kernels
        return
    library = ctypes.CDLL("libcuda.so.1")
    library.cuemu_schedule(request.param.encode())
    yield own_kernels
    own_kernels.synchronize()
    library.cuemu_schedule(b"late")


def numbers(seed: int, n: int = N) -> np.ndarray:
    return np.random.default_rng(seed).random(n, np.float32)


def late_copy(device, source):
    """A copy of an array on the device, which is made late."""
    out = device.empty(source.shape, np.float32)
    device.launch("device_test", "late_copy", (-(-source.size // 64),), (64,), source, np.int64(source.size), out)
    return out


def test_a_kernel_waits_for_its_upload(device):
    stale = device.upload(numbers(1))
    device.synchronize()
    out = late_copy(device, device.upload(numbers(2), out=stale))
    np.testing.assert_array_equal(device.download(out), numbers(2))


def test_an_upload_into_an_array_waits_for_the_kernel_that_reads_it(device):
    array = device.upload(numbers(1))
    out = late_copy(device, array)
    device.upload(numbers(2), out=array)
    np.testing.assert_array_equal(device.download(out), numbers(1))
    np.testing.assert_array_equal(device.download(array), numbers(2))


def test_an_upload_into_used_memory_waits_for_the_kernel_that_reads_it(device):
    array = device.upload(numbers(1))
    pointer = array.pointer
    out = late_copy(device, array)
    gc.collect()  # what this frees must not be used instead
    del array
    new = device.upload(numbers(2))
    assert new.pointer == pointer, "the test is about a block that is used again"
    np.testing.assert_array_equal(device.download(out), numbers(1))
    np.testing.assert_array_equal(device.download(new), numbers(2))


def test_pinned_buffers_are_filled_again_only_when_they_were_copied(device):
    large = numbers(1, 5 * CHUNK_BYTES // 8)  # two chunks and a half
    arrays = [device.upload(large), device.upload(numbers(2)), device.upload(numbers(3))]
    for array, host in zip(arrays, (large, numbers(2), numbers(3))):
        np.testing.assert_array_equal(device.download(late_copy(device, array)), host)


def test_pinned_memory_is_used_again_only_when_it_was_copied(device):
    arrays = []
    for seed in range(3):
        host = device.host_array((N,), np.float32)
        host[:] = numbers(seed)
        arrays.append(device.upload(host))
        del host
    for seed, array in enumerate(arrays):
        np.testing.assert_array_equal(device.download(late_copy(device, array)), numbers(seed))


def test_pinned_memory_comes_back_when_no_array_uses_it(device):
    first = device.host_array((N,), np.float32)
    address, part = first.ctypes.data, first[5:9]
    del first
    others = [device.host_array((N,), np.float32) for _ in range(4)]
    assert address not in [other.ctypes.data for other in others]
    del part
    assert device.host_array((N,), np.float32).ctypes.data == address


def test_large_results_come_back_in_pinned_memory_which_is_used_again(device):
    large = numbers(1, (1 << 20) // 4 + 3)
    array = device.upload(large)
    result = device.download(late_copy(device, array))
    assert loan_of(result) is not None
    np.testing.assert_array_equal(result, large)
    address = result.ctypes.data
    assert device.download(array).ctypes.data != address
    np.testing.assert_array_equal(result, large)
    del result
    assert address in [a.ctypes.data for a in [device.download(array) for _ in range(6)]]


def test_frames_that_threads_read_arrive_as_they_are(device, monkeypatch):
    """In pinned memory where there is some, and otherwise by a detour."""
    frames = np.random.default_rng(0).integers(0, 60000, (9, 60, 68)).astype(">u2")
    for most_bytes in (POOL_BYTES, 2 * CHUNK_BYTES, 0):
        monkeypatch.setattr(device._pinned, "_limit", most_bytes)
        store = FrameStore(device, 3)
        source = FrameSource(Stack(frames), None, None, None)
        arrived = list(store.frames(source, range(9)))
        for raw, frame in zip(arrived, frames):
            np.testing.assert_array_equal(device.download(raw), frame)
        assert arrived[0].dtype == np.uint16
        store.close()


def test_memory_is_released_only_when_nothing_uses_it(device):
    source = device.upload(numbers(1))
    out = late_copy(device, source)
    del source
    gc.collect()
    with device._current():
        device._pool.release_held()
    np.testing.assert_array_equal(device.download(out), numbers(1))
    host = device.host_array((N,), np.float32)
    host[:] = numbers(2)
    array = device.upload(host)
    del host
    with device._current():
        device._pinned.release()
    np.testing.assert_array_equal(device.download(array), numbers(2))


def test_plans_are_destroyed_only_when_nothing_uses_them(device, monkeypatch):
    monkeypatch.setattr(cufft, "MAX_PLANS", 1)
    for release in (lambda: None, device.release_unused):
        spectra = []
        for n in (16, 24):
            image = numbers(n, n * n).reshape(1, n, n)
            spectra.append((image, device.empty((1, n, n // 2 + 1), np.complex64)))
            device.rfft2(late_copy(device, device.upload(image)), spectra[-1][1])
        release()
        for image, spectrum in spectra:
            np.testing.assert_allclose(device.download(spectrum), np.fft.rfft2(image), atol=1e-3)


def test_a_device_is_closed_only_when_it_has_finished(device):
    closed = type(device)(0)
    closed._cubins = device._cubins
    image = numbers(1, 256).reshape(1, 16, 16)
    spectrum = closed.empty((1, 16, 9), np.complex64)
    closed.rfft2(late_copy(closed, closed.upload(image)), spectrum)
    closed.close()
    device.synchronize()


@pytest.mark.parametrize("graphs", ["recorded", "without", "failing"])
def test_a_sequence_is_repeated_with_other_input(device, monkeypatch, graphs):
    """Recorded by the driver, and step by step where it can't."""

    def fail(*arguments):
        raise DeviceError("it can't be recorded")

    if graphs == "failing":
        monkeypatch.setattr(cuda_graph, "record", fail)
    elif graphs == "without" and "FLEXALIGN_TEST_DRIVER" in os.environ:
        monkeypatch.setenv("CUEMU_NO_GRAPHS", "1")
    elif graphs == "without":
        monkeypatch.setattr(cuda_graph, "record", lambda *arguments: None)
    source, target = device.empty((N,), np.float32), device.empty((N,), np.float32)
    half = device.empty((N,), np.float32)
    size = (-(-N // 64),), (64,)
    launches = [
        Launch("device_test", "late_copy", *size, (source, np.int64(N), half)),
        Launch("device_test", "late_copy", *size, (half, np.int64(N), target)),
    ]
    run = device.sequence(source, launches, target)
    results = [run(numbers(seed)) for seed in range(3)]
    for seed, result in enumerate(results):
        np.testing.assert_array_equal(result, numbers(seed))
    if "FLEXALIGN_TEST_DRIVER" in os.environ:
        driver = ctypes.CDLL("libcuda.so.1")
        before = driver.cuemu_launched_graphs()
        run(numbers(5))
        assert driver.cuemu_launched_graphs() - before == driver.cuemu_graphs() == (graphs == "recorded")
        del run
        gc.collect()
        assert driver.cuemu_graphs() == 0


def test_synchronize_waits_for_everything(device):
    if "FLEXALIGN_TEST_DRIVER" not in os.environ:
        pytest.skip("only the test driver tells what has not run yet")
    late_copy(device, device.upload(numbers(1)))
    late_copy(device, device.upload(numbers(2)))
    device.synchronize()
    assert ctypes.CDLL("libcuda.so.1").cuemu_pending() == 0


def test_events_do_not_accumulate_and_contexts_stay_balanced(device):
    """pycuda loses an event that is deleted while its context is not current, and leaves a context that it releases
    current."""
    if "FLEXALIGN_TEST_DRIVER" not in os.environ:
        pytest.skip("only the test driver counts them")
    driver = ctypes.CDLL("libcuda.so.1")
    counts = []

    def work():
        for _ in range(3):
            array = device.upload(numbers(1))
            device.upload(numbers(2), out=array)
            device.download(array)
            other = type(device)(0)
            other.upload(numbers(1))
            other.close()
            del array, other
            gc.collect()
            counts.append((driver.cuemu_events(), driver.cuemu_retained(), driver.cuemu_current()))

    for _ in range(2):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert len(counts) == 6 and len(set(counts)) == 1 and counts[0][1:] == (1, 0), counts
