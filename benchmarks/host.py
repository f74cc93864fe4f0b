"""What the host does while a GPU aligns a movie: CPU time, and how often it calls the device. No GPU is needed.

    python benchmarks/host.py                                   the sizes of the paper's table 3
    python benchmarks/host.py --sizes 5760x4092x30 --json FILE  other sizes, as columns x rows x frames

The real aligner and the real CUDA backend run on a device that computes nothing. Its answers are those of a plausible
movie: frames with counting noise, pairs of frames with scattered shifts, a likelihood that is quadratic about a smooth
motion. The refinement therefore takes about as many steps as for a real movie. CPU time inside the device is not
counted; on a GPU its driver takes some time for each call, which is not known here.

Counted for each movie after the first: CPU time of the process, kernel launches, uploads (one for each raw frame, and
all others), downloads, for which the host waits, and questions about free memory. Power spectra are computed; plots and
files are not made.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from contextlib import contextmanager
from statistics import median
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np

from benchmark_movies import ROOT
from flexalign_plugin.aligner import align
from flexalign_plugin.kernels.cuda import CudaBackend
from flexalign_plugin.kernels.device import DeviceArray
from flexalign_plugin.movies import Corrections
from flexalign_plugin.settings import Settings

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, ROOT)
from flexalign_plugin.tests.emulation.accounting import PEAKS, AccountingDevice

SIZES = "4096x4096x40,3838x3710x40,7676x7420x40,5760x4092x30,11520x8184x20"
SUPER_RESOLUTION = 7000  # frames with more columns are treated as super-resolution, with pixels of 0.5 A instead of 1 A
GPU_BYTES = 141 * 10**9
COUNTS = ("launches", "uploads", "synchronising_downloads", "memory_queries")
SMALL = 1 << 22  # bytes: uploads that the device remembers, because its answers depend on them
SIGNAL, SIGNAL_END = 0.1, 0.15  # of one frame relative to its noise, and the frequency at which it is 1 / e of that
PAIR_SCATTER, MOTION = 0.3, 0.3  # band pixels


class KnownArray(DeviceArray):
    """An array whose content on the host is remembered; None if it is not known."""

    __slots__ = ("host",)
    host: Optional[np.ndarray]

    def as_type(self, shape: Sequence[int], dtype: Any) -> DeviceArray:
        other = KnownArray(self.pointer, shape, dtype, self._owner)
        other.host = None if self.host is None else self.host.reshape(-1).view(dtype).reshape(shape)
        return other


class IdleDevice(AccountingDevice):
    """A device that computes nothing, counts the calls and measures the CPU time that its own answers take."""

    def __init__(self) -> None:
        super().__init__(GPU_BYTES)
        self.counts: Counter[str] = Counter()
        self.own_s = 0.0
        self.frames, self._middle = 1, 0
        self._images: Dict[Tuple[int, ...], np.ndarray] = {}
        self._answers: Dict[Tuple[int, ...], np.ndarray] = {}

    @contextmanager
    def _mine(self) -> Iterator[None]:
        """CPU time in this block is the device's, not the host's."""
        start = time.process_time()
        yield
        self.own_s += time.process_time() - start

    def free_bytes(self) -> int:
        self.counts["memory_queries"] += 1
        return super().free_bytes()

    def upload(self, host: np.ndarray, stream: int = 0, out: Optional[DeviceArray] = None) -> DeviceArray:
        self.counts["uploads"] += 1
        with self._mine():
            array = super().upload(host, stream, out)
            return self._known(array, host.copy() if host.nbytes < SMALL else None)

    def view(self, array: DeviceArray, offset_items: int, shape: Sequence[int]) -> DeviceArray:
        part = array.part(offset_items, shape)
        host = getattr(array, "host", None)
        if host is None:
            return part
        with self._mine():
            return self._known(part, host.ravel()[offset_items : offset_items + part.size].reshape(shape))

    @staticmethod
    def _known(array: DeviceArray, host: Optional[np.ndarray]) -> KnownArray:
        known = KnownArray(array.pointer, array.shape, array.dtype, array._owner)
        known.host = host
        return known

    def launch(
        self, module: str, kernel: str, grid: Sequence[int], block: Sequence[int], *args: Any, shared: int = 0
    ) -> None:
        self.counts["launches"] += 1
        if kernel == "find_peaks":
            self._middle = args[0].shape[-1] // 2
        if (module, kernel) == ("aligned", "slopes"):
            with self._mine():
                self._answers[args[-1].shape] = self._slopes(args)
        elif (module, kernel) == ("aligned", "add_products"):
            with self._mine():
                self._answers[args[-1].shape] = self._products(args[-1].shape[0], float(args[1].host.sum()))

    def download(self, array: DeviceArray) -> np.ndarray:
        self.counts["synchronising_downloads"] += 1
        with self._mine():
            return self._content(array)

    def _content(self, array: DeviceArray) -> np.ndarray:
        shape = array.shape
        if shape in self._answers:
            return self._answers.pop(shape)
        if shape[-1] == PEAKS:
            return self._peaks(shape)
        if len(shape) == 3 and shape[0] == 2 and array.dtype == np.float32:
            return self._powers(shape[1:])
        if len(shape) >= 2 and min(shape[-2:]) >= 256 and array.dtype == np.float32:
            return self._image(shape)
        return np.ones(shape, array.dtype)

    def _image(self, shape: Tuple[int, ...]) -> np.ndarray:
        """A mean of frames with counting noise."""
        if shape not in self._images:
            self._images[shape] = np.random.default_rng(1).poisson(30, shape).astype(np.float32)
        return self._images[shape].copy()

    def _peaks(self, shape: Tuple[int, ...]) -> np.ndarray:
        """Clear peaks, scattered about the middle; a few are far away."""
        rng = np.random.default_rng(2)
        out = np.zeros(shape, np.float32)
        out[..., :2] = self._middle
        out[..., 2:4] = rng.normal(0, PAIR_SCATTER, (*shape[:-1], 2))
        out[..., 0:2][rng.random(shape[:-1]) < 0.02] += 5
        out[..., 4], out[..., 5] = 10.0, 1.0
        return out

    def _powers(self, size: Tuple[int, ...]) -> np.ndarray:
        sy, sxh = size
        radius = np.hypot(np.fft.fftfreq(sy)[:, None], np.linspace(0, 0.5, sxh))
        signal = SIGNAL * np.exp(-((radius / SIGNAL_END) ** 2))
        n = self.frames
        return np.stack([n * n * signal + n, n * (signal + 1)]).astype(np.float32)

    def _slopes(self, args: Tuple[Any, ...]) -> np.ndarray:
        """Terms of aligned.cu for a likelihood that is quadratic about a smooth motion."""
        n, sy, sxh = (int(v) for v in args[1:4])
        weight, ky, kx, shifts, terms = (args[8].host, args[9].host, args[10].host, args[11].host, args[13])
        batch = shifts.size // (2 * n)
        weight = weight.reshape(len(ky), len(kx))
        signal = SIGNAL * np.exp(-((np.hypot(ky[:, None], kx) / SIGNAL_END) ** 2))
        self._per_pair = np.array([(weight * signal * (2 * np.pi * k) ** 2).sum() for k in (ky[:, None], kx)])
        b, t = np.arange(batch)[:, None, None], np.arange(n)[None, :, None]
        truth = MOTION * np.sin(3 * b / batch + t / n + np.arange(2))
        away = shifts.reshape(batch, n, 2) - truth
        away -= away.mean(axis=1, keepdims=True)
        out = np.zeros(terms.shape, np.float32)
        blocks = terms.shape[1]
        out[:, :, :n, :2] = (-n * self._per_pair * away / (2 * np.pi) / blocks)[:, None]
        value = 0.5 * n * n * (weight * signal).sum() - 0.5 * n * (self._per_pair * away**2).sum(axis=(1, 2))
        out[:, :, n, 2] = (2 * value / blocks)[:, None]
        return out

    def _products(self, n: int, factors: float) -> np.ndarray:
        out = np.zeros((n, n, 4), np.float32)
        out[..., 0], out[..., 2] = (factors * self._per_pair / (2 * np.pi) ** 2)[:, None, None]
        return out


class SameFrame:
    """A movie of one frame, again and again, in memory."""

    path, kind, notes, warnings, hardware_frames_per_frame, upsampling = "memory.mrc", "MRC", (), (), None, 1

    def __init__(self, shape: Tuple[int, int, int]):
        self.shape, self.dtype = shape, np.dtype(np.uint8)
        self._frame = np.random.default_rng(3).poisson(1, shape[1:]).astype(np.uint8)

    def damage(self) -> List[str]:
        return []

    def frame(self, i: int) -> np.ndarray:
        return self._frame


def measure(shape: Tuple[int, int, int], repeats: int) -> Dict[str, float]:
    """CPU time of the host in ms and the counts of one movie, as the issue of a first movie is over."""
    device = IdleDevice()
    device.frames = shape[0]
    backend = CudaBackend(device, 2)
    settings = Settings(pixel_size=0.5 if shape[2] > SUPER_RESOLUTION else 1.0, do_plots=False)
    times, stages = [], {}
    for k in range(repeats + 1):
        movie = SameFrame(shape)
        device.counts.clear()
        device.own_s, start = 0.0, time.process_time()
        result = align(movie, settings, backend, Corrections(None, None, None, []))
        if k:
            times.append(1e3 * (time.process_time() - start - device.own_s))
        stages = result.timings_s
    assert result.model.is_local, "the refinement was not run"
    print({name: round(1e3 * each["cpu"]) for name, each in stages.items()}, "CPU ms with the device's own")
    return {"host_cpu_ms": round(median(times), 1), **{name: device.counts[name] for name in COUNTS}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default=SIZES, help="columns x rows x frames (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", metavar="FILE", help="write all figures to this file")
    arguments = parser.parse_args()
    figures = {}
    for size in arguments.sizes.split(","):
        nx, ny, n = map(int, size.split("x"))
        figures[size] = measure((n, ny, nx), arguments.repeats)
        print(size, figures[size], flush=True)
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(figures, file, indent=1)


if __name__ == "__main__":
    main()
