"""`flexalign` on a GPU from end to end, with its worker processes: on the real pycuda and the test driver."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import mrcfile
import numpy as np
import pytest

from flexalign_plugin import cli
from flexalign_plugin.execution.worker import _child_environment
from flexalign_plugin.motion import MotionModel

from . import compiler, driver

PHANTOM = "phantom --size 320 256 --frames 5 --pixel-size 4 --dose 5 --drift 4 --local 1 --movies 2 --name m"
ALIGN = "--pixel-size 4 --no-do-plots --min-local-res 500"
# Python runs this when it starts, in every process: NumPy instead of cuFFT.
SITE = """
from flexalign_plugin.kernels import cufft
from flexalign_plugin.tests.emulation.driver.cufft import NumpyCufft
cufft.call = NumpyCufft()
cufft.load = lambda: None
"""


@pytest.fixture(scope="module")
def flexalign(tmp_path_factory):
    """Runs `flexalign` in a folder with two movies, m_0001.mrc and m_0002.mrc, where there is one GPU."""
    missing = driver.what_is_missing()
    if missing:
        pytest.skip(f"the real pycuda can't run on the test driver: {missing}")
    folder = tmp_path_factory.mktemp("command")
    driver.build(folder)
    (folder / "sitecustomize.py").write_text(SITE)
    environment = _child_environment()
    environment.update(
        PYTHONPATH=os.pathsep.join(filter(None, (str(folder), driver.pycuda_folder(), environment.get("PYTHONPATH")))),
        LD_LIBRARY_PATH=str(folder),
        FLEXALIGN_CUDA_BIN=str(folder / "bin"),
        FLEXALIGN_CACHE=str(compiler.cache()),  # kernels that the other tests compiled serve again
        FLEXALIGN_TUNING_FILE=str(folder / "sizes.json"),
        CUEMU_MEM=str(256 << 20),
        CUEMU_FAULT=str(folder / "fault"),
    )
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    assert cli.main([*PHANTOM.split(), "--output", str(folder)]) == 0

    def run(words: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "flexalign_plugin", *words.split()]
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)

    run.folder = folder
    return run


def test_the_gpu_is_found_and_its_sizes_are_tuned(flexalign):
    tuned = flexalign("tune --device cuda --size 258 254 --frames 5")
    assert tuned.returncode == 0, tuned.stderr
    assert "| 254 x 258 |" in tuned.stdout and "the search took" in tuned.stdout
    assert str(flexalign.folder / "sizes.json") in tuned.stdout
    described = flexalign("info").stdout
    assert "cuda:0: " in described and "cuFFT: " in described
    assert "tuned FFT: " in described and "| 254 x 258 |" in described
    assert "no GPU can be used" not in described
    assert "will be used  cpu" in described and "not been run on hardware" in described


def test_a_movie_aligned_on_the_gpu_is_that_of_the_cpu(flexalign):
    results = {}
    for device, names in (("cpu", "m_0001.mrc"), ("cuda:0", "m_0001.mrc"), ("all", "m_0002.mrc m_0001.mrc")):
        # The default sizes: tuned ones leave a different margin of the frames out of the alignment.
        done = flexalign(f"align {names} --output {device} {ALIGN} --device {device} --no-fft-tuning --json")
        assert done.returncode == 0, done.stderr
        results[device] = json.loads(done.stdout.splitlines()[-1])
    cpu, gpu, again = results.values()
    assert again["movie"] == gpu["movie"] and gpu["device_fault"] == "" and gpu["warnings"] == cpu["warnings"]
    models = [MotionModel.load(flexalign.folder / r["files"]["motion"]) for r in (cpu, gpu)]
    y, x = np.linspace(0, 255, 5)[:, None], np.linspace(0, 319, 5)[None]
    for t in range(5):
        np.testing.assert_allclose(models[1].shift(t, y, x), models[0].shift(t, y, x), atol=0.02)
    images = [mrcfile.read(flexalign.folder / r["files"]["micrograph"]) for r in (cpu, gpu, again)]
    # White noise that is moved by d px changes by 2 pi d times the rms frequency, sqrt(1 / 6): 0.05 for 0.02 px.
    assert np.sqrt(np.mean((images[1] - images[0]) ** 2)) < 0.05 * images[0].std()
    assert np.array_equal(images[1], images[2])


@pytest.mark.parametrize("instead, status", [("error", 1), ("cpu", 0)])
def test_a_movie_too_large_for_the_gpu_goes_as_the_user_chose(flexalign, instead, status):
    words = f"{ALIGN} --device cuda:0 --gpu-memory 0.001 --on-device-failure {instead} --no-fft-tuning"
    done = flexalign(f"align m_0001.mrc --output small_{instead} {words}")
    assert done.returncode == status, done.stderr
    told = done.stderr if status else done.stdout
    assert "not enough memory for this movie" in told
    assert ("FAILED m_0001.mrc: " in told) if status else ("warning: Aligned on the CPU, because the GPU" in told)
    assert os.path.exists(flexalign.folder / f"small_{instead}" / "m_0001_aligned_mic.mrc") == (status == 0)


def test_a_gpu_that_fails_is_used_again_by_a_fresh_process(flexalign):
    """After a fault every call of the driver fails, as on a real GPU."""
    (flexalign.folder / "fault").touch()
    done = flexalign(f"align m_0001.mrc m_0002.mrc --output again {ALIGN} --device cuda:0 --no-fft-tuning")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("(it is restarted)") == 1 and "cuda:0 failed: " in done.stderr
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    assert "2 movies aligned" in done.stdout and "warning" not in done.stdout


def test_sizes_are_tuned_at_first_use_and_logged(flexalign):
    words = f"align m_0001.mrc --output tuned {ALIGN} --device cuda:0"
    first, second = flexalign(words), flexalign(words)
    assert first.returncode == second.returncode == 0, first.stderr
    assert "| 256 x 320 |" in first.stderr and "the search took" in first.stderr
    assert "the search took" not in second.stderr
    assert "| 256 x 320 |" in (flexalign.folder / "sizes.json").read_text()


def test_a_gpu_that_does_not_exist_is_reported_before_anything_is_done(flexalign):
    done = flexalign(f"align m_0001.mrc --output none {ALIGN} --device cuda:0,cuda:3")
    assert done.returncode == 2 and "There is no GPU cuda:3: cuda:0 is " in done.stderr
    assert not os.path.exists(flexalign.folder / "none")
