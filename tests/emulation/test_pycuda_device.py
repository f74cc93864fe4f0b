"""The interface of `kernels.device.Device` on the real pycuda: memory, copies, launches, transforms, errors."""

from __future__ import annotations

import gc
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from flexalign_plugin.errors import SettingsError
from flexalign_plugin.kernels import cubins, cuda_installation, cufft
from flexalign_plugin.kernels.device import DeviceArray, DeviceError, DeviceOutOfMemory

from .conftest import KERNELS


@pytest.fixture
def device(gpu_device):
    return gpu_device


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float16, np.float32, np.complex64, np.float64])
def test_what_is_uploaded_comes_back(device, dtype):
    host = np.random.default_rng(0).integers(0, 200, (3, 5, 7)).astype(dtype)
    array = device.upload(host)
    assert (array.shape, array.dtype, array.nbytes) == ((3, 5, 7), np.dtype(dtype), host.nbytes)
    back = device.download(array)
    assert back.dtype == host.dtype
    np.testing.assert_array_equal(back, host)


def test_large_copies_go_through_several_pinned_buffers(device):
    host = np.arange((20 << 20) + 13, dtype=np.uint8)
    sent = host.copy()
    array = device.upload(sent)
    sent[:] = 0  # the copy must have left this array
    np.testing.assert_array_equal(device.download(array), host)
    np.testing.assert_array_equal(device.download(device.upload(host[::3])), host[::3])


def test_upload_into_a_part(device):
    array = device.zeros((4, 6), np.float32)
    row = device.view(array, 12, (6,))
    assert device.upload(np.arange(6, dtype=np.float32), out=row) is row
    expected = np.zeros((4, 6), np.float32)
    expected[2] = np.arange(6)
    np.testing.assert_array_equal(device.download(array), expected)
    np.testing.assert_array_equal(device.download(device.view(array, 12, (2, 3))), expected[2].reshape(2, 3))
    for offset, shape in ((20, (6,)), (-1, (2,))):
        with pytest.raises(ValueError, match="outside"):
            device.view(array, offset, shape)
    with pytest.raises(ValueError, match="does not fill"):
        device.upload(np.zeros(7, np.float32), out=row)


def test_memory_is_free_again_when_the_last_view_is_gone(device):
    gc.collect()
    before = device.free_bytes()
    array = device.empty((1 << 20,), np.float32)
    view = device.view(array, 100, (10,))
    assert device.free_bytes() <= before - array.nbytes
    array.free()
    assert device.free_bytes() <= before - (4 << 20)
    del view
    assert device.free_bytes() == before


def test_what_is_kept_for_reuse_can_be_given_back(device):
    spectrum = device.empty((1, 96, 49), np.complex64)
    device.rfft2(device.zeros((1, 96, 96), np.float32), spectrum)
    device.empty((3 << 20,), np.uint8).free()
    gc.collect()
    device.release_unused()
    device.reset_peak()
    assert device.peak_bytes < device.context_bytes + (300 << 20)
    images = np.random.default_rng(0).random((1, 96, 96), np.float32)
    device.rfft2(device.upload(images), spectrum)  # with a new plan and work area
    np.testing.assert_allclose(device.download(spectrum), np.fft.rfft2(images), atol=1e-2)


def test_too_large_arrays_are_refused_and_leave_the_device_usable(device):
    with pytest.raises(DeviceOutOfMemory) as error:
        device.empty((1 << 20, 1 << 20), np.float64)
    assert error.value.needed_bytes >= 8 << 40
    assert 0 < error.value.free_bytes <= device.total_bytes
    np.testing.assert_array_equal(device.download(device.zeros((5,), np.int32)), 0)


def test_held_memory_is_given_to_arrays_of_other_sizes(device):
    free = device.free_bytes()
    if free > 1 << 30:
        pytest.skip("takes most of the memory, which other programs may use")
    device.empty((int(0.6 * free),), np.uint8).free()
    second = device.empty((int(0.5 * free),), np.uint8)  # does not fit beside the first, which is only held
    assert second.shape == (int(0.5 * free),) and device.free_bytes() < 0.6 * free


def test_a_memory_limit_is_kept(gpu_device):
    from flexalign_plugin.kernels.pycuda_device import PycudaDevice

    limited = PycudaDevice(0, memory_limit_bytes=(64 << 20) + gpu_device.context_bytes)
    try:
        assert limited.free_bytes() == 64 << 20
        first = limited.empty((40 << 20,), np.uint8)
        assert limited.free_bytes() <= 24 << 20
        with pytest.raises(DeviceOutOfMemory, match="32 MiB"):
            limited.empty((32 << 20,), np.uint8)
        assert limited.peak_bytes == (40 << 20) + limited.context_bytes
        first.free()
        limited.empty((48 << 20,), np.uint8)
        assert (48 << 20) <= limited.peak_bytes - limited.context_bytes <= 64 << 20  # the first is not kept beside it
        limited.reset_peak()
        gc.collect()
        limited.upload(np.zeros(5, np.uint8))
        assert limited.peak_bytes <= (64 << 20) + limited.context_bytes
    finally:
        limited.close()


def test_kernels_get_their_arguments(own_kernels):
    a = np.random.default_rng(1).random(1000, np.float32)
    source = own_kernels.upload(a)
    out = own_kernels.empty((1000,), np.float32)
    arguments = (source, np.float32(2.5), np.float64(0.75), np.int64(1000), np.uint8(3), out)
    own_kernels.launch("device_test", "scale", (16,), (64,), *arguments)
    np.testing.assert_allclose(own_kernels.download(out), 2.5 * a + 3.75, rtol=1e-6)


def test_dynamic_shared_memory(own_kernels):
    a = np.random.default_rng(2).random((1024, 256), np.float32)
    out = own_kernels.empty((1024,), np.float32)
    own_kernels.launch("device_test", "block_sums", (1024,), (256,), own_kernels.upload(a), out, shared=1024)
    np.testing.assert_allclose(own_kernels.download(out), a.sum(axis=1), rtol=1e-5)


def test_impossible_launches_are_refused(own_kernels):
    out = own_kernels.empty((64,), np.float32)
    with pytest.raises(ValueError, match="grid"):
        own_kernels.launch("device_test", "divergent", (1, 70000), (64,), out)
    with pytest.raises(DeviceError, match="divergent of device_test.cu"):
        own_kernels.launch("device_test", "divergent", (1,), (2048,), out)
    with pytest.raises(DeviceError):
        own_kernels.launch("device_test", "no_such_kernel", (1,), (64,), out)


def test_a_missed_barrier_shows_on_the_test_driver(own_kernels):
    if "emulation" not in own_kernels.name:
        pytest.skip("undefined on a GPU")
    with pytest.raises(DeviceError, match="not reached by all"):
        own_kernels.launch("device_test", "divergent", (1,), (32,), own_kernels.empty((32,), np.float32))
        own_kernels.synchronize()


@pytest.mark.parametrize("ny, nx", [(32, 48), (30, 45), (7, 10)])
def test_transforms_against_numpy(device, ny, nx):
    images = np.random.default_rng(3).standard_normal((3, ny, nx)).astype(np.float32)
    spectrum = device.empty((3, ny, nx // 2 + 1), np.complex64)
    device.rfft2(device.upload(images), spectrum)
    expected = np.fft.rfft2(images)
    np.testing.assert_allclose(device.download(spectrum), expected, atol=1e-5 * np.abs(expected).max())
    back = device.empty((3, ny, nx), np.float32)
    device.irfft2(spectrum, back)
    np.testing.assert_allclose(device.download(back) / (ny * nx), images, atol=1e-5)
    assert device.fft_work_bytes("r2c", ny, nx, 3) >= 0


def test_transforms_share_a_work_area_and_refuse_wrong_shapes(device):
    for n in (64, 16, 128, 64):
        images = np.random.default_rng(n).random((2, n, n), np.float32)
        spectrum = device.empty((2, n, n // 2 + 1), np.complex64)
        device.rfft2(device.upload(images), spectrum)
        np.testing.assert_allclose(device.download(spectrum), np.fft.rfft2(images), rtol=1e-4, atol=1e-3 * n)
    with pytest.raises(ValueError, match="don't fit"):
        device.rfft2(device.zeros((2, 8, 8), np.float32), device.zeros((2, 8, 8), np.complex64))


def test_a_work_area_that_does_not_fit_is_out_of_memory(device):
    from flexalign_plugin.kernels.pycuda_device import PycudaDevice

    limited = PycudaDevice(0, memory_limit_bytes=(1 << 20) + device.context_bytes)
    try:
        real = limited.empty((1, 300, 302), np.float32)
        spectrum = limited.empty((1, 300, 152), np.complex64)
        if limited.fft_work_bytes("r2c", 300, 302, 1) <= limited.free_bytes():
            pytest.skip("this cuFFT needs a smaller work area")
        with pytest.raises(DeviceOutOfMemory, match="GPU's memory"):
            limited.rfft2(real, spectrum)
    finally:
        limited.close()


def test_other_threads_can_use_and_drop_arrays(device):
    host = np.arange(100, dtype=np.float32)
    results = []

    def work() -> None:
        array = device.upload(host)
        results.append(device.download(array))

    for _ in range(3):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert len(results) == 3
    np.testing.assert_array_equal(results, [host] * 3)


def test_compiled_kernels_are_kept_on_disk(own_kernels, monkeypatch, tmp_path):
    monkeypatch.setenv("FLEXALIGN_CACHE", str(tmp_path))
    architecture = "sm_" + own_kernels.compute_capability.replace(".", "")
    fresh = cubins.Cubins(architecture, KERNELS)
    assert not fresh.all_cached()
    code = fresh.get("device_test")
    assert cubins.Cubins(architecture, KERNELS).all_cached()
    monkeypatch.setattr(cuda_installation, "find_nvcc", lambda: None)
    assert cubins.Cubins(architecture, KERNELS).get("device_test") == code


def test_a_damaged_kept_kernel_is_compiled_again(own_kernels, monkeypatch, tmp_path):
    monkeypatch.setenv("FLEXALIGN_CACHE", str(tmp_path))
    damaged = cubins.Cubins("sm_" + own_kernels.compute_capability.replace(".", ""), KERNELS)
    damaged.get("device_test")
    (kept,) = (tmp_path / "kernels").glob("*.cubin")
    kept.write_bytes(b"no kernel")
    again = cubins.Cubins("sm_" + own_kernels.compute_capability.replace(".", ""), KERNELS)
    monkeypatch.setattr(own_kernels, "_cubins", again)
    monkeypatch.setattr(own_kernels, "_modules", {})
    monkeypatch.setattr(own_kernels, "_functions", {})
    numbers, out = own_kernels.zeros((256,), np.float32), own_kernels.zeros((1,), np.float32)
    own_kernels.launch("device_test", "block_sums", (1,), (256,), numbers, out, shared=1024)
    assert kept.read_bytes() != b"no kernel"


@pytest.mark.parametrize("broken", [True, False])
def test_other_faults_are_not_taken_for_damaged_kernels(own_kernels, monkeypatch, broken):
    """Nothing is compiled again if the memory is full or the device has failed."""
    driver, pool = own_kernels._driver, own_kernels._pool

    def fail(*arguments):
        raise driver.LaunchError("illegal address") if broken else driver.MemoryError("out of memory")

    monkeypatch.setattr(cubins.Cubins, "recompile", lambda *arguments: pytest.fail("compiled again"))
    monkeypatch.setattr(own_kernels, "_driver", SimpleNamespace(**{**vars(driver), "module_from_buffer": fail}))
    if broken:
        monkeypatch.setattr(pool, "driver_free_bytes", fail)
    with pytest.raises(DeviceError if broken else DeviceOutOfMemory, match="illegal address" if broken else "memory"):
        own_kernels.launch("device_test", "block_sums", (1,), (256,), np.uintp(0), np.uintp(0), shared=1024)


def test_compiler_errors_are_reported(own_kernels, monkeypatch, tmp_path):
    (tmp_path / "broken.cu").write_text('extern "C" __global__ void f(float *a) { a[0] = no_such_name; }\n')
    monkeypatch.setenv("FLEXALIGN_CACHE", str(tmp_path))
    with pytest.raises(DeviceError, match=r"(?s)can't compile broken.cu .*no_such_name"):
        cubins.Cubins("sm_90", tmp_path).get("broken")


def test_a_number_without_a_gpu_is_refused(device):
    from flexalign_plugin.kernels.pycuda_device import PycudaDevice

    with pytest.raises(SettingsError, match=r"There is no GPU cuda:99: cuda:0 is "):
        PycudaDevice(99)


def test_a_missing_library_is_named(device, monkeypatch):
    from flexalign_plugin.kernels.pycuda_device import PycudaDevice

    def missing() -> None:
        raise cufft.CufftMissing("libcufft.so.12: cannot open shared object file")

    monkeypatch.setattr(cufft, "load", missing)
    with pytest.raises(SettingsError, match=r"cuFFT is missing .*pip install nvidia-cufft"):
        PycudaDevice(0)


def test_arrays_outlive_a_closed_device(gpu_device):
    from flexalign_plugin.kernels.pycuda_device import PycudaDevice

    closed = PycudaDevice(0)
    array = closed.zeros((10,), np.float32)
    closed.close()
    closed.close()
    assert isinstance(array, DeviceArray)
    array.free()
