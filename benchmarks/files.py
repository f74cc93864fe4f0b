"""Cost of the formats of movies: decoding alone, and the whole `flexalign align` command compared with MRC.

    python benchmarks/files.py                 4096 x 4096, EER of 1,000 hardware frames in 40 frames; 30 minutes
    python benchmarks/files.py --quick         1024 x 1024, EER of 200 hardware frames in 8 frames

The EER movie has 1 e/px in each of its frames. The other files hold the frames that the EER reader renders at 4K, and
at 8K for the comparison with EER at 8K, so that all rows align the same pictures.

Decoding: all frames once, in one thread, from files that the system keeps in memory. GB/s are those of decoded pixels
and CPU seconds. Whole command: CPU seconds (user + system), medians of runs that alternate between the formats, each
in a new process, with kernels compiled before.
"""

from __future__ import annotations

import argparse
import bz2
import os
import shutil
import sys
import time
from dataclasses import dataclass
from statistics import median
from typing import Dict, Iterator, List, Tuple

import numpy as np

from benchmark_movies import add_workdir_option
from cost import run
from flexalign_plugin.files import atomic_path
from flexalign_plugin.jit import njit
from flexalign_plugin.movies import open_movie
from flexalign_plugin.phantoms.movie_writers import (
    eer_metadata_text,
    write_eer_movie,
    write_mrc_movie,
    write_tiff_movie,
)
from flexalign_plugin.phantoms.phantom import Phantom, particle_phantom
from flexalign_plugin.settings import Settings

SEED = 2027
SUB_PIXELS = 4  # positions of an event inside its pixel, along each axis
REFERENCES = {1: "MRC", 2: "MRC, 8K"}  # {EER sampling: the row that EER is compared with}
TARGET = "target: EER at most 1.5 times MRC"


@dataclass(frozen=True)
class File:
    """A movie, and how the command has to read it."""

    path: str
    n_frames: int
    sampling: int = 1

    @property
    def settings(self) -> Settings:
        return Settings(n_frames=self.n_frames, eer_sampling=self.sampling)

    @property
    def options(self) -> List[str]:
        if not self.path.endswith(".eer"):
            return []
        return ["--n-frames", str(self.n_frames), "--eer-sampling", str(self.sampling)]


def hardware_frames(phantom: Phantom, per_frame: int) -> Iterator[np.ndarray]:
    """Events (n, 4) int64 of each hardware frame, y, x, sub_y, sub_x: the phantom's counts, shared out at random."""
    rng = np.random.default_rng(SEED)
    for counts in phantom.frames():
        start = rng.integers(0, per_frame, counts.shape, np.uint8)
        for k in range(per_frame):
            events = np.empty((2 * int(phantom.dose * counts.size / per_frame) + 1000, 4), np.int64)
            n = _events(counts, start, k, per_frame, events)
            events[:n, 2:] = rng.integers(0, SUB_PIXELS, (n, 2), np.uint8)
            yield events[:n]


@njit(nogil=True)
def _events(counts, start, k, per_frame, events):  # type: ignore[no-untyped-def]
    """Put y and x of the events of hardware frame `k` into `events`; returns their number. Those of a pixel are in
    successive hardware frames, so that none has two of them."""
    n = 0
    for y in range(counts.shape[0]):
        for x in range(counts.shape[1]):
            after = np.int64(k) - np.int64(start[y, x])
            if counts[y, x] > (after + per_frame if after < 0 else after):
                events[n, 0], events[n, 1] = y, x
                n += 1
    return n


def make_files(folder: str, phantom: Phantom, per_frame: int, words: str) -> Dict[str, File]:
    """{row of the table: file} of rows with these words in their names, and of REFERENCES; made unless they exist."""
    n, ny, nx = phantom.shape
    stem = os.path.join(folder, f"files_{nx}x{ny}x{n}")
    eer = f"{stem}.eer"
    os.makedirs(folder, exist_ok=True)
    if not os.path.exists(eer):
        print(f"(writing {os.path.basename(eer)})", file=sys.stderr, flush=True)
        text = eer_metadata_text(phantom.truth.pixel_size_A, phantom.dose * n, n * per_frame)
        write_eer_movie(eer, hardware_frames(phantom, per_frame), (ny, nx), metadata=text)
    files = {"EER": File(eer, n), "EER, 8K": File(eer, n, 2)}
    for sampling, label in REFERENCES.items():
        files[label] = File(f"{stem}_{sampling}.mrc", n)
        if not os.path.exists(files[label].path):
            write_mrc_movie(files[label].path, _frames(File(eer, n, sampling)), phantom.truth.pixel_size_A / sampling)
    source = files["MRC"]
    for compression, label in (("lzw", "LZW TIFF"), ("zstd", "zstd TIFF")):
        files[label] = File(f"{stem}_{compression}.tif", n)
        if words in label and not os.path.exists(files[label].path):
            write_tiff_movie(files[label].path, _frames(source), compression, rows_per_strip=64)
    files["bzip2 MRC"] = packed = File(f"{source.path}.bz2", n)
    if words in "bzip2 MRC" and not os.path.exists(packed.path):
        with atomic_path(packed.path) as temporary, bz2.open(temporary, "wb") as target:
            with open(source.path, "rb") as plain:
                shutil.copyfileobj(plain, target, 1 << 24)
    return {label: file for label, file in files.items() if words in label or label in REFERENCES.values()}


def _frames(file: File) -> Iterator[np.ndarray]:
    with open_movie(file.path, file.settings) as movie:
        for i in range(movie.n_frames):
            yield movie.frame(i)


@njit(nogil=True)
def _sum(frame):  # type: ignore[no-untyped-def]
    total = 0
    for value in frame.reshape(-1):
        total += value
    return total


def decoding(file: File) -> Tuple[float, float, float]:
    """CPU seconds to open the file and to decode all frames in one thread, and GB of decoded pixels."""
    with open(file.path, "rb") as data:
        while data.read(1 << 24):
            pass
    _sum(np.zeros((1, 1), np.uint8))
    started = time.process_time()
    with open_movie(file.path, file.settings) as movie:
        opened = time.process_time()
        if movie.read_in_order:
            movie.prefetch(threads=1)
        for i in range(movie.n_frames):
            _sum(movie.frame(i))  # pages of a mapped file are read only now
        return opened - started, time.process_time() - opened, movie.n_bytes / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smaller movie")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each kind (default %(default)s)")
    parser.add_argument(
        "--only", metavar="WORDS", default="", help="only rows whose name contains these words, and MRC"
    )
    parser.add_argument("--no-command", action="store_true", help="only decoding")
    add_workdir_option(parser)
    arguments = parser.parse_args()
    n, size, per_frame = (8, 1024, 25) if arguments.quick else (40, 4096, 25)
    phantom = particle_phantom((n, size, size), seed=SEED)
    files = make_files(arguments.workdir, phantom, per_frame, arguments.only)

    print(f"### Decoding {size} x {size} x {n}, 1 e/px/frame, one thread\n")
    print("| file | GB on disk | CPU s to open | CPU s to decode | GB/s a core |\n|---|---|---|---|---|", flush=True)
    for label, file in files.items():
        runs = [decoding(file) for _ in range(arguments.repeats + 1)][1:]
        opened, decoded = (median(r[k] for r in runs) for k in (0, 1))
        on_disk = os.path.getsize(file.path) / 1e9
        print(f"| {label} | {on_disk:.2f} | {opened:.2f} | {decoded:.2f} | {runs[0][2] / decoded:.2f} |", flush=True)
    if arguments.no_command:
        return

    print(f"\n### The whole command, medians of {arguments.repeats} runs ({TARGET})\n")
    print("| file | CPU s | times MRC | wall s | own GB |\n|---|---|---|---|---|", flush=True)
    outputs = {label: os.path.join(arguments.workdir, "files", label.replace(", ", "-")) for label in files}
    for label, file in files.items():
        run(file.path, outputs[label], *file.options)
    results = [
        {label: run(f.path, outputs[label], *f.options) for label, f in files.items()} for _ in range(arguments.repeats)
    ]
    for label, file in files.items():
        own = [result[label] for result in results]
        reference = [result[REFERENCES[file.sampling if label != "MRC, 8K" else 2]] for result in results]
        ratio = median(a.cpu_s / b.cpu_s for a, b in zip(own, reference))
        figures = f"{median(r.cpu_s for r in own):.1f} | {ratio:.2f} | {median(r.wall_s for r in own):.1f}"
        print(f"| {label} | {figures} | {median(r.own_gb for r in own):.2f} |", flush=True)


if __name__ == "__main__":
    main()
