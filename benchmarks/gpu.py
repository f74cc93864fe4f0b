"""Cost of a movie on a GPU: time, memory and the time of each stage, compared with the limit that the hardware sets.

    python benchmarks/gpu.py --all FOLDER                       for a new GPU: checks, FFT sizes, measurements
    python benchmarks/gpu.py                                    the five sizes of the paper's table 3, 8 bit
    python benchmarks/gpu.py --sizes 5760x4092x30 --repeats 9   other sizes, as columns x rows x frames
    python benchmarks/gpu.py --check                            checks of new hardware alone

It needs neither Scipion nor the installed package, only its dependencies and the CUDA components (docs/gpu.md). Movies
are tiles of a small picture in the host's memory. The motion is known: each tile moves by whole pixels, the global
drift plus a few pixels of its own. A smooth spline can't follow the steps between the tiles, so an error of up to one
pixel is expected. The time of a movie runs from raw frames in the host's memory to the micrograph in the host's memory,
with local alignment and refinement. The first movie, which also compiles, plans and tunes, is reported separately. With
files, reading and writing are included, both in a warm process and as a command of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import asdict
from statistics import median
from typing import Any, Callable, Dict, List, Optional, Sequence, TextIO, Tuple

import numpy as np

from benchmark_movies import ROOT, add_workdir_option
from flexalign_plugin.aligner import align
from flexalign_plugin.errors import FlexAlignError
from flexalign_plugin.kernels import select_backend
from flexalign_plugin.movies import Corrections
from flexalign_plugin.phantoms.phantom import particle_phantom
from flexalign_plugin.settings import Settings
from gpu_checks import check, describe, sizes
from gpu_stages import Demand, Meter, MeteredBackend, table

SIZES = "4096x4096x40,3838x3710x40,7676x7420x40,5760x4092x30,11520x8184x20"
SUPER_RESOLUTION = 7000  # frames with more columns are treated as super-resolution, with pixels of 0.5 A instead of 1 A
TILE = 1024
DRIFT_PX, LOCAL_PX = 9, 3
COPIED_BYTES = 1 << 29
Shape = Tuple[int, int, int]


class TiledMovie:
    """Frames in the host's memory, uint8, of tiles that each show the same small picture, moving by whole pixels.

    Attributes
    ----------
    shifts_px : (n, tiles_y, tiles_x, 2) true shifts [sy, sx], which are added to the content; zero in the first frame.
    """

    path, kind, notes, warnings, hardware_frames_per_frame, upsampling = "memory.mrc", "MRC", (), (), None, 1

    def __init__(self, shape: Shape, seed: int = 5):
        n, ny, nx = self.shape = shape
        self.dtype = np.dtype(np.uint8)
        side = min(TILE, ny, nx)
        rate = particle_phantom((1, side, side), drift_px=0, local_px=0, seed=seed).expected(0)
        rng = np.random.default_rng(seed)
        self.corners = [np.arange(0, length, side) for length in (ny, nx)]
        time_course = 1 - np.exp(-np.arange(n) / (n / 4))
        place = [2 * np.minimum(c + side / 2, length) / length - 1 for c, length in zip(self.corners, (ny, nx))]
        y, x = np.meshgrid(*place, indexing="ij")
        local = LOCAL_PX * np.stack([x * y, y - 0.5 * x**2], axis=-1)
        whole = time_course[:, None, None, None] * (np.array([DRIFT_PX, -0.6 * DRIFT_PX]) + local)
        self.shifts_px = np.rint(whole)
        self._side = side
        self._frames = [self._tiled(rng.poisson(rate).astype(np.uint8), moved) for moved in self.shifts_px.astype(int)]

    def damage(self) -> List[str]:
        return []

    def _tiled(self, small: np.ndarray, shifts: np.ndarray) -> np.ndarray:
        frame = np.empty(self.shape[1:], np.uint8)
        for i, y in enumerate(self.corners[0]):
            for j, x in enumerate(self.corners[1]):
                part = frame[y : y + self._side, x : x + self._side]
                part[...] = np.roll(small, -shifts[i, j], axis=(0, 1))[: part.shape[0], : part.shape[1]]
        return frame

    def frame(self, i: int) -> np.ndarray:
        return self._frames[i]

    def error_px(self, model: Any) -> float:
        """RMS error of a model at the centres of the tiles in pixels, after subtracting the mean error."""
        y, x = (np.minimum(c + self._side / 2, n - 1) for c, n in zip(self.corners, self.shape[1:]))
        return _spread(np.moveaxis(model.fields(range(self.shape[0]), y, x), 1, -1) - self.shifts_px)

    def unmoved_px(self) -> float:
        """The error of a model without motion."""
        return _spread(self.shifts_px)


def _spread(vectors: np.ndarray) -> float:
    return float(np.sqrt(((vectors - vectors.mean(axis=(0, 1, 2))) ** 2).sum(axis=-1).mean()))


def settings_for(shape: Shape) -> Settings:
    return Settings(pixel_size=0.5 if shape[2] > SUPER_RESOLUTION else 1.0, do_plots=False, do_compute_psd=False)


def speeds_of(backend: Any) -> Demand:
    """Bytes per second of a copy within the device's memory (read and written bytes are counted) and of large copies
    from and to pinned memory of the host, the fastest of a few repeats; and operations per second by its data sheet.
    """
    device, nbytes = getattr(backend, "device", None), COPIED_BYTES
    if device is None:
        source, target = np.ones((2, nbytes // 4), np.float32)
        copied = _fastest(lambda: np.copyto(target, source), lambda: None)
        return Demand(2 * nbytes / copied, np.inf, np.inf, np.inf)
    rows, columns = max(nbytes // 8 >> 12, 2), 1 << 12
    host = device.host_array((rows, columns), np.complex64)
    if host is None:  # a device without such memory
        host = np.empty((rows, columns), np.complex64)
    host[...] = 1
    source, target = device.upload(host), device.empty(host.shape, np.complex64)
    sizes = [np.int32(n) for n in (rows, columns, rows, columns)]

    def copy() -> None:  # a crop that keeps everything
        device.launch("crop", "crop", (columns // 128, rows, 1), (128,), source, *sizes, target)

    within = _fastest(copy, device.synchronize)
    up = _fastest(lambda: device.upload(host, out=target), device.synchronize)
    down = _fastest(lambda: device.download(source), device.synchronize)
    operations = device.operations_per_s or np.inf
    return Demand(2 * host.nbytes / within, host.nbytes / up, host.nbytes / down, operations)


def _fastest(operation: Callable[[], Any], wait: Callable[[], Any], repeats: int = 5) -> float:
    times = []
    for _ in range(repeats):
        wait()
        start = time.perf_counter()
        operation()
        wait()
        times.append(time.perf_counter() - start)
    return min(times)


def measure(backend: Any, shape: Shape, repeats: int, speeds: Demand) -> Dict[str, Any]:
    """Measure and print time, memory, error and stages for movies of one size."""
    n, ny, nx = shape
    print(f"\n## {nx} x {ny} x {n}, 8 bit\n", flush=True)
    movie, settings = TiledMovie(shape), settings_for(shape)
    device = getattr(backend, "device", None)

    def one(through: Any) -> Tuple[float, Any]:
        new = copy.copy(movie)  # a new object, because the device keeps the frames of the last movie
        start = time.perf_counter()
        result = align(new, settings, through, Corrections(None, None, None, []))
        return time.perf_counter() - start, result

    if device is not None:
        device.reset_peak()
    first_s, result = one(backend)
    walls = [one(backend)[0] for _ in range(repeats)]
    peak_gb = None if device is None else device.peak_bytes / 1e9
    meter = Meter(device)
    metered = [one(MeteredBackend(backend, meter))[0] for _ in range(repeats)]
    meter.stop()
    figures = {
        "wall_s": median(walls),
        "wall_from_to_s": [min(walls), max(walls)],
        "first_movie_s": first_s,
        "peak_device_gb": peak_gb,
        "error_px": movie.error_px(result.model),
        "correlated_area_px": result.figures.correlated_area_px,
        "patches": result.figures.patches,
        "local": result.model.is_local,
        "stages": {name: asdict(stage) for name, stage in meter.stages.items()},
        "metered_runs": repeats,
    }
    print(f"- one movie: **{median(walls):.3f} s** ({min(walls):.3f} - {max(walls):.3f}); the first {first_s:.2f} s")
    print(f"- peak device memory: {'none (CPU)' if peak_gb is None else f'{peak_gb:.2f} GB'}")
    print(f"- error of the motion {figures['error_px']:.2f} px (uncorrected: {movie.unmoved_px():.2f} px); ", end="")
    print(f"patches {figures['patches']}, local motion {'estimated' if figures['local'] else 'not estimated'}")
    print(f"- with synchronisation after each stage: {median(metered):.3f} s\n")
    print("\n".join(table(meter.stages, speeds, float(np.mean(metered)), repeats)), flush=True)
    return figures


def measure_files(
    backend: Any, device_name: str, shape: Shape, repeats: int, workdir: str
) -> Dict[str, Dict[str, float]]:
    """Seconds to align a movie file and write the results: in this warm process, and as a command of its own."""
    from flexalign_plugin.execution.job import Job, run_job
    from flexalign_plugin.phantoms.movie_writers import write_mrc_movie, write_tiff_movie

    n, ny, nx = shape
    settings, movie = settings_for(shape), TiledMovie(shape)
    frames = [movie.frame(i) for i in range(n)]
    seconds = {}
    print("\n| file | in a warm process, s | the whole command, s |\n|---|---|---|")
    for kind in ("MRC", "LZW TIFF"):
        folder = os.path.join(workdir, f"gpu-{nx}x{ny}x{n}-{os.getpid()}")
        os.makedirs(folder)
        try:
            path = os.path.join(folder, "movie.mrc" if kind == "MRC" else "movie.tif")
            if kind == "MRC":
                write_mrc_movie(path, frames, settings.pixel_size)
            else:
                write_tiff_movie(path, frames, compression="lzw", rows_per_strip=64)
            warm = [_succeeded(run_job(Job(path, folder, "out", settings), backend)) for _ in range(repeats + 1)][1:]
            words = [sys.executable, "-m", "flexalign_plugin", "align", path, "--output", folder, "--quiet"]
            words += ["--device", device_name, "--pixel-size", str(settings.pixel_size)]
            words += ["--no-do-plots", "--no-do-compute-psd"]
            command = [_command_seconds(words) for _ in range(repeats)]
        finally:
            shutil.rmtree(folder)
        seconds[kind] = {"warm_s": median(warm), "command_s": median(command)}
        print(f"| {kind} | {median(warm):.2f} | {median(command):.2f} |", flush=True)
    return seconds


def _succeeded(result: Any) -> float:
    if not result.ok:
        raise FlexAlignError(result.message)
    return float(result.seconds)


def _command_seconds(words: Sequence[str]) -> float:
    start = time.perf_counter()
    paths = os.pathsep.join(filter(None, (ROOT, os.environ.get("PYTHONPATH"))))
    done = subprocess.run(words, env={**os.environ, "PYTHONPATH": paths}, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise FlexAlignError(f"{' '.join(words)} ended with status {done.returncode}: {done.stderr.strip()}")
    return time.perf_counter() - start


def shapes(text: str) -> List[Shape]:
    """(frames, rows, columns) of "5760x4092x30,..."."""
    sizes = []
    for word in text.split(","):
        match = re.fullmatch(r"(\d+)x(\d+)x(\d+)", word.strip())
        if match is None:
            raise argparse.ArgumentTypeError(f"{word!r} is not a size: give columns x rows x frames, e.g. 5760x4092x30")
        nx, ny, n = map(int, match.groups())
        sizes.append((n, ny, nx))
    return sizes


def parse(words: Optional[Sequence[str]]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    option = parser.add_argument
    option("--device", default="cuda:0", help="cuda:0 (default), another GPU, or cpu")
    option("--sizes", type=shapes, default=SIZES, metavar="XxYxN,...", help="default: %(default)s")
    option("--repeats", type=int, default=5, help="movies of each size (default %(default)s)")
    option("--memory-limit", type=float, metavar="GB", help="maximum memory to use on the GPU")
    option("--no-tune", action="store_true", help="don't search for the fastest FFT size")
    option("--no-files", action="store_true", help="don't measure movies in files")
    option("--json", metavar="FILE", help="also write all figures to this file")
    option("--check", action="store_true", help="check this device instead of measuring")
    option("--all", metavar="FOLDER", help="all that a new GPU needs; report.md and figures.json go into this folder")
    add_workdir_option(parser)
    return parser.parse_args(words)


def main(words: Optional[Sequence[str]] = None, select: Callable[..., Any] = select_backend) -> int:
    arguments = parse(words)
    try:
        backend = select(arguments.device, None, arguments.memory_limit, tune=not arguments.no_tune)
    except FlexAlignError as error:
        print(f"The GPU can't be measured: {error}", file=sys.stderr)
        return 1
    if (arguments.check or arguments.all) and not hasattr(backend, "device"):
        print("--check and --all are for GPUs only: name one, e.g. with --device cuda:0.", file=sys.stderr)
        return 1
    if arguments.all:
        return everything(backend, arguments)
    if arguments.check:
        return 0 if check(backend, arguments.device) else 1
    figures = measure_all(backend, arguments)
    if arguments.json:
        write_json(arguments.json, figures)
    return 0


def measure_all(backend: Any, arguments: argparse.Namespace) -> Dict[str, Any]:
    """Measure and print movies of all sizes. A size that fails, for example for lack of memory, is reported."""
    speeds = speeds_of(backend)
    print(
        f"# {backend.name}, {backend.threads} threads\n\nCopies: {speeds.memory / 1e9:.0f} GB/s within the memory, "
        f"{speeds.up / 1e9:.1f} GB/s from and {speeds.down / 1e9:.1f} GB/s to pinned memory of the host. "
        f"Arithmetic: {speeds.operations / 1e12:.1f} TFLOP/s by its data sheet."
    )
    figures: Dict[str, Any] = {"device": backend.name, "speeds_per_s": asdict(speeds), "sizes": {}}
    for shape in arguments.sizes:
        measured: Dict[str, Any] = {}
        try:
            measured.update(measure(backend, shape, arguments.repeats, speeds))
            if not arguments.no_files:
                files = measure_files(backend, arguments.device, shape, arguments.repeats, arguments.workdir)
                measured["files"] = files
        except FlexAlignError as error:
            measured["error"] = str(error)
            print(f"\nNOT MEASURED: {error}", flush=True)
        figures["sizes"]["{2}x{1}x{0}".format(*shape)] = measured
    return figures


def everything(backend: Any, arguments: argparse.Namespace) -> int:
    """What a new GPU needs, in one order: parts, checks, FFT sizes, measurements. All goes into a folder."""
    os.makedirs(arguments.all, exist_ok=True)
    with open(os.path.join(arguments.all, "report.md"), "w", encoding="utf-8") as report:
        with contextlib.redirect_stdout(Both(sys.stdout, report)):
            print("## 1. What is installed\n")
            describe()
            print("\n## 2. Checks\n")
            good = check(backend, arguments.device)
            print("\n## 3. FFT sizes\n")
            sizes(backend.device, arguments.sizes)
            print("\n## 4. Measurements\n")
            figures = measure_all(backend, arguments)
            failed = [name for name, measured in figures["sizes"].items() if "error" in measured]
            print(f"\n{'All checks passed' if good else 'A CHECK FAILED'}; ", end="")
            print(f"not measured: {', '.join(failed)}." if failed else "all sizes were measured.")
    write_json(os.path.join(arguments.all, "figures.json"), {"checks_passed": good, **figures})
    print(f"Everything is in {arguments.all}: please send report.md and figures.json with a report of a problem.")
    return 0 if good and not failed else 1


class Both(io.TextIOBase):
    """Writes to two streams."""

    def __init__(self, *streams: TextIO):
        self._streams = streams

    def write(self, text: str) -> int:
        for stream in self._streams:
            stream.write(text)
            stream.flush()
        return len(text)


def write_json(path: str, figures: Dict[str, Any]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        json.dump(figures, file, indent=1)


if __name__ == "__main__":
    sys.exit(main())
