"""Finding the parts of CUDA and naming the missing ones, with invented libraries; devices' names."""

from __future__ import annotations

import ctypes
import importlib.util
import subprocess
import sys
import types

import pytest

from flexalign_plugin import kernels
from flexalign_plugin.errors import SettingsError
from flexalign_plugin.kernels import cuda_installation, cufft, tuning
from flexalign_plugin.kernels.device import DeviceOutOfMemory


class FakeDriver:
    """libcuda with one GPU, or with an error."""

    def __init__(self, code=0, count=1):
        self.cuInit = lambda flags: code
        self._count = count

    def cuDeviceGetCount(self, count):
        count._obj.value = self._count

    def cuDeviceGet(self, handle, index):
        handle._obj.value = index

    def cuDeviceGetName(self, name, length, handle):
        name.value = b"NVIDIA Test"

    def cuDeviceTotalMem_v2(self, size, handle):
        size._obj.value = 24 * 10**9

    def cuDeviceGetAttribute(self, value, attribute, handle):
        value._obj.value = {75: 8, 76: 6}[attribute]

    def cuDriverGetVersion(self, number):
        number._obj.value = 12080


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine with all parts; its `driver` and `pycuda` can be taken away."""

    class Machine:
        driver = FakeDriver()
        pycuda = object()

        def load(self, name, *arguments, **options):
            if name != "libcuda.so.1":
                return load(name, *arguments, **options)
            if self.driver is None:
                raise OSError(f"{name}: cannot open shared object file")
            return self.driver

    load, find_spec = ctypes.CDLL, importlib.util.find_spec
    made = Machine()
    monkeypatch.setitem(sys.modules, "pycuda", types.ModuleType("pycuda"))
    monkeypatch.setitem(sys.modules, "pycuda.driver", types.ModuleType("pycuda.driver"))
    monkeypatch.setattr(cuda_installation.ctypes, "CDLL", made.load)
    monkeypatch.setattr(
        cuda_installation.importlib.util, "find_spec", lambda name: made.pycuda if name == "pycuda" else find_spec(name)
    )
    monkeypatch.setattr(cuda_installation, "find_nvcc", lambda: "/some/nvcc")
    monkeypatch.setattr(cufft, "load", lambda: None)
    monkeypatch.setattr(cufft, "version", lambda: "12.0.0")
    monkeypatch.setenv("FLEXALIGN_CACHE", str(tmp_path))
    return made


def test_all_parts_are_there(machine):
    assert cuda_installation.missing_parts() == []
    (gpu,) = cuda_installation.gpus()
    assert (gpu.name, gpu.total_bytes, gpu.compute_capability) == ("NVIDIA Test", 24 * 10**9, "8.6")
    assert cuda_installation.architecture(gpu) == "sm_86"
    assert cuda_installation.driver_version() == "12.8"


def test_each_missing_part_is_named_with_its_remedy(machine, monkeypatch):
    for driver, words in (
        (None, "driver .* is missing: install the driver"),
        (FakeDriver(100), "sees no GPU"),
        (FakeDriver(803), "different versions: restart"),
        (FakeDriver(46), "error 46"),
        (FakeDriver(count=0), "sees no GPU"),
    ):
        machine.driver = driver
        with pytest.raises(cuda_installation.DriverError, match=words):
            cuda_installation.gpus()
        assert len(cuda_installation.missing_parts()) == 1
        with pytest.raises(SettingsError, match=f"GPU cuda:0 can't be used: .*{words}"):
            kernels.select_backend("cuda")
        assert kernels.select_backend("auto").name == "cpu"
    machine.driver = FakeDriver()
    monkeypatch.setattr(cuda_installation, "find_nvcc", lambda: None)
    assert "nvcc" in cuda_installation.missing_parts()[0] and not cuda_installation.missing_parts(kernels_compiled=True)
    machine.pycuda = None

    def no_library():
        raise cufft.CufftMissing("libcufft.so.12: cannot open shared object file")

    monkeypatch.setattr(cufft, "load", no_library)
    pycuda, nvcc, library = cuda_installation.missing_parts()
    assert "pip install pycuda" in pycuda and "FLEXALIGN_CUDA_BIN" in nvcc and "pip install nvidia-cufft" in library


def test_a_pycuda_that_can_not_be_imported_is_named_with_its_error(machine, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)  # import raises ImportError
    (broken,) = cuda_installation.missing_parts()
    assert "pycuda is installed but can't be imported (ModuleNotFoundError: " in broken
    assert "--force-reinstall" in broken
    with pytest.raises(SettingsError, match="GPU cuda:0 can't be used: pycuda is installed but"):
        kernels.select_backend("cuda")
    machine.driver = None
    (missing,) = cuda_installation.missing_parts()
    assert "driver" in missing


class Library:
    """A cuFFT: what its transforms are, right, wrong or an error."""

    def __init__(self, transforms):
        self.transforms = transforms


@pytest.mark.parametrize(
    "libraries, used",
    [
        (["right", "wrong"], 0),
        (["wrong", "right"], 1),
        (["error", "missing", "wrong", "right"], 3),
        (["error", "wrong"], "error"),
        (["wrong", "error"], "error"),
        (["wrong", "wrong"], "wrong"),
    ],
)
def test_the_first_cufft_that_works_is_used(monkeypatch, libraries, used):
    made = {str(k): Library(transforms) for k, transforms in enumerate(libraries)}

    def load(name):
        if made[name].transforms == "missing":
            raise OSError(name)
        return made[name]

    def works():
        if cufft.load().transforms == "error":
            raise cufft.CufftError("cufftExecR2C", 6)
        return cufft.load().transforms == "right"

    monkeypatch.setattr(cufft, "_library", None)
    monkeypatch.setattr(cufft, "candidates", lambda: iter(made))
    monkeypatch.setattr(cufft.ctypes, "CDLL", load)
    if used == "error":
        with pytest.raises(cufft.CufftError, match="EXEC_FAILED"):
            cufft.choose(works)
    else:
        assert cufft.choose(works) == (used != "wrong")
    assert cufft.load() is made["0" if isinstance(used, str) else str(used)]


@pytest.mark.parametrize("code, free_bytes, kind", [(2, 1 << 40, "memory"), (5, 1 << 20, "memory"), (5, 1 << 40, "")])
def test_a_plan_without_memory_is_out_of_memory(monkeypatch, code, free_bytes, kind):
    """Some versions of cuFFT report an internal error when memory runs out."""

    def call(function, *arguments):
        if function == "cufftMakePlanMany64":
            raise cufft.CufftError(function, code)

    monkeypatch.setattr(cufft, "call", call)
    transforms = cufft.Transforms(lambda n: None, lambda: free_bytes, lambda: None)
    with pytest.raises(DeviceOutOfMemory if kind else cufft.CufftError, match=kind or "INTERNAL_ERROR"):
        transforms.plan("r2c", 64, 64, 1)


def test_devices_are_described(machine, monkeypatch, tmp_path):
    monkeypatch.setenv("FLEXALIGN_TUNING_FILE", str(tmp_path / "sizes.json"))
    tuned = tuning.Tuned((4032, 5600), (4050, 5760), 1.0, 2.0, 3.0)
    tuning._add(tmp_path / "sizes.json", "NVIDIA Test | 4092 x 5760 | 16 GiB", tuned)
    text = "\n".join(kernels.describe_devices())
    assert "cuda:0: NVIDIA Test, 24.0 GB, compute capability 8.6" in text
    assert "CUDA up to 12.8" in text and "cuFFT: 12.0.0" in text and "compiler: /some/nvcc" in text
    assert "| 4092 x 5760 | 16 GiB: 4032 x 5600" in text
    assert "no GPU can be used" not in text
    machine.driver = None
    assert "no GPU can be used: the NVIDIA driver" in "\n".join(kernels.describe_devices())


@pytest.mark.parametrize("name, index", [("cuda", 0), ("cuda:0", 0), ("cuda:12", 12)])
def test_device_names(name, index):
    assert cuda_installation.device_index(name) == index


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cuda0", "cuda:-1", "", "0"])
def test_what_is_no_device_is_refused(name):
    with pytest.raises(SettingsError, match="choose auto, cpu, cuda"):
        kernels.select_backend(name)


def test_gpu_lists():
    assert (
        cuda_installation.devices_of("0 1")
        == cuda_installation.devices_of("0,1")
        == cuda_installation.devices_of("0, 1 1")
        == ["cuda:0", "cuda:1"]
    )
    assert cuda_installation.devices_of("") == []
    with pytest.raises(SettingsError, match="'one' is no GPU number"):
        cuda_installation.devices_of("0 one")


def test_a_memory_limit_must_leave_memory():
    with pytest.raises(SettingsError, match="leaves no memory"):
        kernels.select_backend("cuda:0", memory_limit_gb=0)


def test_the_users_folders_come_first(monkeypatch, tmp_path):
    for folder, name in (("bin", "nvcc"), ("lib64", "libcufft.so.12"), ("mine", "libcufft.so.11"), ("mine", "nvcc")):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / name).write_text("#!/bin/sh\n")
        (tmp_path / folder / name).chmod(0o755)
    for variable in ("CUDA_PATH", "CUDA_ROOT", "FLEXALIGN_CUDA_BIN", "FLEXALIGN_CUDA_LIB", "CUDA_BIN", "CUDA_LIB"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    assert cuda_installation.find_nvcc() == str(tmp_path / "bin" / "nvcc")
    assert str(tmp_path / "lib64" / "libcufft.so.12") in list(cufft.candidates())
    monkeypatch.setenv("FLEXALIGN_CUDA_BIN", str(tmp_path / "mine"))
    monkeypatch.setenv("FLEXALIGN_CUDA_LIB", str(tmp_path / "mine"))
    assert cuda_installation.find_nvcc() == str(tmp_path / "mine" / "nvcc")
    assert next(cufft.candidates()) == str(tmp_path / "mine" / "libcufft.so.11")


def test_no_cufft_says_why(monkeypatch):
    monkeypatch.setattr(cufft, "_library", None)
    monkeypatch.setattr(cufft, "candidates", lambda: iter(["/no/such/libcufft.so.12"]))
    with pytest.raises(cufft.CufftMissing, match="no/such"):
        cufft.load()
    assert not cufft.is_present()


def test_importing_kernels_loads_no_gpu_library():
    code = "import sys, flexalign_plugin.kernels; print([m for m in sys.modules if 'cuda' in m or m == 'numba'])"
    assert subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE).stdout.strip() == b"[]"
