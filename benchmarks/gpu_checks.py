"""Checks of a new GPU: what is installed, transforms, all tests and NVIDIA's own checkers on it, fast FFT sizes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import Any, Dict, Sequence, Tuple

import numpy as np

from benchmark_movies import ROOT
from flexalign_plugin.band import fft_size_below
from flexalign_plugin.kernels import describe_devices, tuning

CHECKS = ("tests/kernels", "tests/emulation")
TRANSFORMS, MOST_ERROR = ((2, 96, 100), (1, 4050, 5760), (3, 76, 135)), 2e-5  # float32 rounds to 1e-7 in each step
SANITIZED = "tests/kernels/test_cuda.py::test_every_operation_agrees_with_the_cpu"


def describe() -> None:
    """Print the GPUs and the software that they need, with versions."""
    print("\n".join(f"- {line}" for line in describe_devices()))
    print(f"- Python {sys.version.split()[0]}, NumPy {np.__version__}")
    for command in (["nvidia-smi"], ["nvcc", "--version"]):
        if shutil.which(command[0]):
            print()
            _run(command, dict(os.environ))


def check(backend: Any, device_name: str) -> bool:
    """Check new hardware: compare transforms with NumPy, and run the tests and NVIDIA's compute-sanitizer on it."""
    print("### Transforms against NumPy in double precision\n")
    good = max(transform_error(backend.device, *size) for size in TRANSFORMS) < MOST_ERROR
    environment = {**os.environ, "FLEXALIGN_TEST_DEVICE": device_name}
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    commands = [[*tests, *CHECKS]]
    sanitizer = shutil.which("compute-sanitizer")
    for tool in ("memcheck", "racecheck") if sanitizer else ():
        commands.append([sanitizer, "--tool", tool, "--error-exitcode", "9", *tests, SANITIZED])
    if sanitizer is None:
        print("\ncompute-sanitizer of the CUDA toolkit is not in PATH: its checks are skipped.")
    for command in commands:
        print(f"\n### FLEXALIGN_TEST_DEVICE={device_name} {' '.join(command)}\n", flush=True)
        good = _run(command, environment) and good
    print(f"\n{'All checks passed.' if good else 'A CHECK FAILED, see above.'}")
    return good


def transform_error(device: Any, batch: int, ny: int, nx: int) -> float:
    """Measure and print the largest error of the forward and backward transforms, relative to the RMS."""
    images = np.random.default_rng(0).standard_normal((batch, ny, nx)).astype(np.float32)
    spectrum = device.empty((batch, ny, nx // 2 + 1), np.complex64)
    device.rfft2(device.upload(images), spectrum)
    right = np.fft.rfft2(images.astype(np.float64))
    forward = np.abs(device.download(spectrum) - right).max() / np.sqrt(np.mean(np.abs(right) ** 2))
    back = device.empty(images.shape, np.float32)
    device.irfft2(spectrum, back)
    backward = np.abs(device.download(back) / (ny * nx) - images).max()
    print(f"- {batch} x {ny} x {nx}: {forward:.1e} forward, {backward:.1e} forward and backward")
    return float(max(forward, backward))


def sizes(device: Any, shapes: Sequence[Tuple[int, int, int]]) -> None:
    """Search and print the fastest FFT size for each (frames, rows, columns), and the work area of the default one."""
    for shape in shapes:
        _, ny, nx = shape
        work = device.fft_work_bytes("r2c", fft_size_below(ny), fft_size_below(nx), 1)
        print(f"- {tuning.tune(device, shape)} The default size needs a work area of {work / 1e6:.0f} MB.", flush=True)


def _run(command: Sequence[str], environment: Dict[str, str]) -> bool:
    """Run a command in the checkout and print what it says; whether it succeeded."""
    streams: Dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, cwd=ROOT, env=environment, **streams) as running:
        assert running.stdout is not None
        for line in running.stdout:
            print(line, end="")
    return running.returncode == 0
