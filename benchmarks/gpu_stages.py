"""A backend that measures the time of each of its operations and counts the bytes that the operation must transfer.

The bytes of an operation are the least that any program must read from and write to the device's memory: inputs are
read once, results are written once, and the intermediate image of a two-dimensional transform, which does not fit into
a cache, is written and read once. Arithmetic is not counted, so operations with much arithmetic (correlations) may not
reach the lower limit of their time. Copies from and to the host are counted as they happen.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Optional, Sequence

import numpy as np

NEGLIGIBLE_WEIGHT = 3e-4  # relative weight below which both backends leave out coefficients of a spectrum
TAPS = 16  # values of a window that are read in one evaluation of the objective


@dataclass
class Transfers:
    """Bytes in the device's memory, from the host (up) and to the host (down); or the speeds in bytes per second."""

    memory: float = 0.0
    up: float = 0.0
    down: float = 0.0

    def seconds(self, speeds: Transfers) -> float:
        """Shortest time for these bytes at these speeds, if the three kinds of transfer run at the same time."""
        pairs = zip((self.memory, self.up, self.down), (speeds.memory, speeds.up, speeds.down))
        return max(n / speed if n else 0.0 for n, speed in pairs)


@dataclass
class Stage:
    """All calls of one operation."""

    calls: int = 0
    seconds: float = 0.0
    bytes: Transfers = field(default_factory=Transfers)


class Meter:
    """Measures operations and counts the copies of a device (None: the CPU, which copies nothing)."""

    def __init__(self, device: Optional[Any]):
        self.stages: Dict[str, Stage] = {}
        self._device = device
        self._now: Optional[Stage] = None
        if device is not None:
            self._upload, self._download = device.upload, device.download
            device.upload, device.download = self._counted_upload, self._counted_download

    def stop(self) -> None:
        """Restore the device's own functions."""
        if self._device is not None:
            self._device.upload, self._device.download = self._upload, self._download

    def _counted_upload(self, host: np.ndarray, *arguments: Any, **options: Any) -> Any:
        if self._now is not None:
            self._now.bytes.up += host.nbytes
        return self._upload(host, *arguments, **options)

    def _counted_download(self, array: Any) -> np.ndarray:
        host: np.ndarray = self._download(array)
        if self._now is not None:
            self._now.bytes.down += host.nbytes
        return host

    def run(self, name: str, memory_bytes: float, operation: Callable[[], Any]) -> Any:
        """Run the operation, which transfers `memory_bytes` in the device's memory; returns its result."""
        self._now = stage = self.stages.setdefault(name, Stage())
        self._wait()
        start = time.perf_counter()
        outcome = operation()
        self._wait()
        stage.seconds += time.perf_counter() - start
        stage.calls += 1
        stage.bytes.memory += memory_bytes
        self._now = None
        return outcome

    def _wait(self) -> None:
        if self._device is not None:
            self._device.synchronize()


class MeteredBackend:
    """Runs the operations of another backend under a `Meter`; other attributes are those of that backend."""

    def __init__(self, backend: Any, meter: Meter):
        self._backend, self._meter = backend, meter

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def sum_raw(self, source: Any, frames: range) -> Any:
        pixels = _pixels(source)
        moved = len(frames) * pixels * source.movie.dtype.itemsize + 4 * pixels
        return self._meter.run("sum of raw frames", moved, lambda: self._backend.sum_raw(source, frames))

    def correct(self, source: Any, raw: np.ndarray) -> Any:
        moved = 8 * raw.size + _corrections(source)
        return self._meter.run("correction of the mean", moved, lambda: self._backend.correct(source, raw))

    def spectra(self, source: Any, frames: range, band: Any) -> Any:
        rows, half = band.full[0], band.spectrum_shape[1]
        raw = band.full[0] * band.full[1] * source.movie.dtype.itemsize
        moved = len(frames) * (raw + 16 * rows * half + 8 * band.spectrum_shape[0] * half) + _corrections(source)
        return self._meter.run("spectra of frames", moved, lambda: self._backend.spectra(source, frames, band))

    def patch_spectra(self, spectra: Any, band: Any, shifts: np.ndarray, corners: np.ndarray, patch: Any) -> Any:
        whole = band.spectrum_shape[0] * band.spectrum_shape[1]
        of_patch = patch[0] * (patch[1] // 2 + 1)
        moved = len(shifts) * (24 * whole + 4 * band.size[0] * band.size[1])
        moved += len(shifts) * len(corners) * (4 * patch[0] * patch[1] + 24 * of_patch)
        arguments = (spectra, band, shifts, corners, patch)
        return self._meter.run("spectra of patches", moved, lambda: self._backend.patch_spectra(*arguments))

    def power(self, spectra: Any, size: Any, shifts: np.ndarray) -> Any:
        coefficients = size[0] * (size[1] // 2 + 1)
        moved = 8 * coefficients * int(np.prod(spectra.shape[:2])) + 8 * coefficients
        return self._meter.run("power", moved, lambda: self._backend.power(spectra, size, shifts))

    def correlate(self, spectra: Any, size: Any, weight: np.ndarray, pairs: np.ndarray, *rest: Any, **more: Any) -> Any:
        used = np.abs(weight) > NEGLIGIBLE_WEIGHT * np.abs(weight).max()
        kept = np.count_nonzero(used.any(axis=0)) * np.count_nonzero(used.any(axis=1))
        arguments = (spectra, size, weight, pairs, *rest)
        stage = self._meter.stages.setdefault("correlation", Stage())
        windows = self._meter.run(
            "correlation",
            8 * kept * int(np.prod(spectra.shape[:2])),
            lambda: self._backend.correlate(*arguments, **more),
        )
        metered = MeteredWindows(windows, self._meter)
        stage.bytes.memory += metered.nbytes
        return metered

    def aligned_power(self, spectra: Any, size: Any, weight: np.ndarray) -> Any:
        used = np.abs(weight) > NEGLIGIBLE_WEIGHT * np.abs(weight).max()
        kept = np.count_nonzero(used.any(axis=0)) * np.count_nonzero(used.any(axis=1))
        bytes_of_spectra = 8 * kept * int(np.prod(spectra.shape[:2]))
        return MeteredPower(self._backend.aligned_power(spectra, size, weight), self._meter, bytes_of_spectra)

    def warp_sum(self, source: Any, model: Any, frames: Sequence[int], weights: np.ndarray, fill: np.ndarray) -> Any:
        pixels = _pixels(source)
        moved = len(frames) * pixels * source.movie.dtype.itemsize + 4 * pixels * len(np.atleast_2d(weights))
        arguments = (source, model, frames, weights, fill)
        return self._meter.run("warp and sum", moved + _corrections(source), lambda: self._backend.warp_sum(*arguments))

    def mix(self, sums: Any, mixes: Sequence[Any]) -> Any:
        _, ny, nx = sums.shape
        used = sum(int(mix.factors.any(axis=0).sum()) for mix in mixes)
        half = ny * (nx // 2 + 1)
        moved = used * (4 * ny * nx + 16 * half) + len(mixes) * (16 * half + 4 * ny * nx)
        return self._meter.run("filter and whitening", moved, lambda: self._backend.mix(sums, mixes))

    def fourier_crop(self, image: np.ndarray, size: Any) -> Any:
        moved = 4 * image.size + 24 * image.shape[0] * (size[1] // 2 + 1) + 16 * size[0] * (size[1] // 2 + 1)
        return self._meter.run(
            "binning", moved + 4 * size[0] * size[1], lambda: self._backend.fourier_crop(image, size)
        )

    def tile_power(self, image: np.ndarray, rows: np.ndarray, columns: np.ndarray, window: np.ndarray) -> Any:
        tile = len(window)
        moved = 4 * image.size + len(rows) * len(columns) * (4 * tile * tile + 24 * tile * (tile // 2 + 1))
        arguments = (image, rows, columns, window)
        return self._meter.run("power spectra of images", moved, lambda: self._backend.tile_power(*arguments))


class MeteredWindows:
    """Runs the operations of another backend's correlation windows under a `Meter`."""

    def __init__(self, windows: Any, meter: Meter):
        self._windows, self._meter = windows, meter
        on_device = getattr(windows, "_windows", None)  # on the CPU they are an array
        self._shape = (windows.values if on_device is None else on_device).shape
        self.nbytes = 4 * int(np.prod(self._shape))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._windows, name)

    def peaks(self, *arguments: Any, **options: Any) -> Any:
        return self._meter.run("peaks", self.nbytes, lambda: self._windows.peaks(*arguments, **options))

    def objective(self, shifts: np.ndarray, weights: np.ndarray) -> Any:
        moved = 4 * TAPS * self._shape[0] * self._shape[1]
        return self._meter.run("objective", moved, lambda: self._windows.objective(shifts, weights))


class MeteredPower:
    """Runs the operations of another backend's aligned power under a `Meter`."""

    def __init__(self, power: Any, meter: Meter, bytes_of_spectra: int):
        self._power, self._meter, self._bytes = power, meter, bytes_of_spectra

    def slopes(self, shifts: np.ndarray) -> Any:
        return self._meter.run("slopes of the likelihood", 2 * self._bytes, lambda: self._power.slopes(shifts))

    def curvature(self, shifts: np.ndarray, factors: np.ndarray) -> Any:
        arguments = (shifts, factors)
        return self._meter.run("its curvature", self._bytes, lambda: self._power.curvature(*arguments))


def _pixels(source: Any) -> int:
    return int(source.movie.shape[1] * source.movie.shape[2])


def _corrections(source: Any) -> int:
    return 4 * _pixels(source) * sum(image is not None for image in (source.dark, source.gain))


def table(stages: Dict[str, Stage], speeds: Transfers, total_s: float, runs: int) -> List[str]:
    """Lines of a Markdown table: time and bytes of each stage in one run (mean of `runs`), and its lower limit."""
    lines = ["| stage | calls | ms | GB in memory | GB/s | GB from, to host | lower limit ms | ratio to the limit |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for name, stage in stages.items():
        seconds, limit = stage.seconds / runs, stage.bytes.seconds(speeds) / runs
        memory, up, down = (b / runs / 1e9 for b in (stage.bytes.memory, stage.bytes.up, stage.bytes.down))
        lines.append(
            f"| {name} | {stage.calls / runs:.0f} | {1e3 * seconds:.1f} | {memory:.3f} | {memory / seconds:.0f} | "
            f"{up:.3f}, {down:.3f} | {1e3 * limit:.2f} | {seconds / limit:.1f} |"
        )
    rest = total_s - sum(stage.seconds for stage in stages.values()) / runs
    lines.append(f"| work on the host | | {1e3 * rest:.1f} | | | | | |")
    return lines
