"""A backend that measures the time of each of its operations and counts what the operation demands of the device.

The bytes of an operation are the least that any program must read from and write to the device's memory: inputs are
read once, results are written once, and the intermediate image of a two-dimensional transform, which does not fit into
a cache, is written and read once. Copies from and to the host are counted as they happen, but for the few kB of each
evaluation of the objective. Arithmetic is counted where there is much of it: in the correlations and in the warp, as
their kernels do it. A multiplication with an addition counts as two operations.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np

NEGLIGIBLE_WEIGHT = 3e-4  # relative weight below which both backends leave out coefficients of a spectrum
TAPS = 16  # values of a window that are read in one evaluation of the objective
# Of one pixel of one frame in warp.cu: 36 taps and six rows, the weights along both axes, and the field.
WARP_OPERATIONS = 2 * (36 + 6) + 2 * 30 + 20


@dataclass
class Demand:
    """Bytes in the device's memory, from the host (up) and to the host (down), and operations of float32 arithmetic; or
    all these per second, which are the speeds of a device."""

    memory: float = 0.0
    up: float = 0.0
    down: float = 0.0
    operations: float = 0.0

    def limit(self, speeds: Demand) -> Tuple[float, str]:
        """Shortest time in seconds at these speeds, if everything runs at the same time, and what sets it."""
        parts = [(self.memory, speeds.memory, "memory"), (self.up, speeds.up, "copies from the host")]
        parts += [(self.down, speeds.down, "copies to the host"), (self.operations, speeds.operations, "arithmetic")]
        return max((n / speed if n else 0.0, name) for n, speed, name in parts)


@dataclass
class Stage:
    """All calls of one operation."""

    calls: int = 0
    seconds: float = 0.0
    demand: Demand = field(default_factory=Demand)


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
            self._now.demand.up += host.nbytes
        return self._upload(host, *arguments, **options)

    def _counted_download(self, array: Any) -> np.ndarray:
        host: np.ndarray = self._download(array)
        if self._now is not None:
            self._now.demand.down += host.nbytes
        return host

    def run(self, name: str, memory_bytes: float, operation: Callable[[], Any], arithmetic: float = 0.0) -> Any:
        """Run the operation, which transfers `memory_bytes` in the device's memory and needs `arithmetic` operations;
        returns its result."""
        self._now = stage = self.stages.setdefault(name, Stage())
        self._wait()
        start = time.perf_counter()
        outcome = operation()
        self._wait()
        stage.seconds += time.perf_counter() - start
        stage.calls += 1
        stage.demand.memory += memory_bytes
        stage.demand.operations += arithmetic
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
        rows, columns = np.count_nonzero(used.any(axis=1)), np.count_nonzero(used.any(axis=0))
        kept = rows * columns
        arguments = (spectra, size, weight, pairs, *rest)
        stage = self._meter.stages.setdefault("correlation", Stage())
        windows = self._meter.run(
            "correlation",
            8 * kept * int(np.prod(spectra.shape[:2])),
            lambda: self._backend.correlate(*arguments, **more),
        )
        metered = MeteredWindows(windows, self._meter)
        stage.demand.memory += metered.nbytes
        stage.demand.operations += metered.pairs * pair_operations(rows, columns, metered.width)
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
        moved, arithmetic = moved + _corrections(source), WARP_OPERATIONS * len(frames) * pixels
        return self._meter.run("warp and sum", moved, lambda: self._backend.warp_sum(*arguments), arithmetic)

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
        self.pairs, self.width = self._shape[0] * self._shape[1], self._shape[-1]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._windows, name)

    def peaks(self, *arguments: Any, **options: Any) -> Any:
        return self._meter.run("peaks", self.nbytes, lambda: self._windows.peaks(*arguments, **options))

    def objective(self, shifts: np.ndarray, weights: np.ndarray) -> Any:
        moved = 4 * TAPS * self._shape[0] * self._shape[1]
        return self._meter.run("objective", moved, lambda: self._windows.objective(shifts, weights))


def pair_operations(rows: int, columns: int, width: int) -> int:
    """Operations for one window of `width` squared values from spectra of rows by columns (correlate.cu).

    They are the product, and two matrix products in which the values at +o and -o share their sums.
    """
    offsets = width // 2 + 1
    return 6 * rows * columns + 8 * rows * columns * offsets + 4 * columns * offsets * width


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


def table(stages: Dict[str, Stage], speeds: Demand, total_s: float, runs: int) -> List[str]:
    """Lines of a Markdown table: time and bytes of each stage in one run (mean of `runs`), and its lower limit."""
    lines = ["| stage | calls | ms | GB in memory | GB/s | GB from, to host | GFLOP | least ms | set by | ratio |"]
    lines.append("|---|---|---|---|---|---|---|---|---|---|")
    for name, stage in stages.items():
        seconds, demand = stage.seconds / runs, stage.demand
        least, bound = demand.limit(speeds)
        limit = least / runs
        memory, up, down = (b / runs / 1e9 for b in (demand.memory, demand.up, demand.down))
        lines.append(
            f"| {name} | {stage.calls / runs:.0f} | {1e3 * seconds:.1f} | {memory:.3f} | {memory / seconds:.0f} | "
            f"{up:.3f}, {down:.3f} | {demand.operations / runs / 1e9:.1f} | {1e3 * limit:.2f} | {bound} | "
            f"{seconds / limit:.1f} |"
        )
    rest = total_s - sum(stage.seconds for stage in stages.values()) / runs
    lines.append(f"| work on the host | | {1e3 * rest:.1f} | | | | | | | |")
    return lines
