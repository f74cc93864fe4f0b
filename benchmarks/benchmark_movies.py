"""Files of phantom movies, which the benchmarks make once in a working folder and then reuse."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from dataclasses import dataclass
from typing import Iterator, Optional, Tuple

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

from flexalign_plugin.phantoms.movie_writers import write_mrc_movie, write_tiff_movie  # noqa: E402
from flexalign_plugin.phantoms.phantom import Phantom, Truth  # noqa: E402


@dataclass(frozen=True)
class MovieFile:
    """A movie and its true motion, None if it contains noise only."""

    path: str
    truth: Optional[Truth]


def add_workdir_option(parser: argparse.ArgumentParser) -> None:
    default = os.path.join(tempfile.gettempdir(), "flexalign-benchmarks")
    parser.add_argument(
        "--workdir",
        default=default,
        metavar="DIR",
        help="folder where the movies are kept for later runs; delete it when done (default: %(default)s)",
    )


def phantom_file(workdir: str, name: str, phantom: Phantom, lzw: bool = False) -> MovieFile:
    """The phantom as `name`.mrc, or LZW `name`.tif; written unless it exists with the same size and motion."""
    path = os.path.join(workdir, name + (".tif" if lzw else ".mrc"))
    truth_path = path + ".truth.json"
    if not (os.path.exists(path) and os.path.exists(truth_path) and Truth.load(truth_path) == phantom.truth):
        _write(path, phantom.frames(), phantom.truth.pixel_size_A, lzw)
        phantom.truth.save(truth_path)
    return MovieFile(path, phantom.truth)


def noise_file(workdir: str, shape: Tuple[int, int, int], seed: int, dose: float = 1.0) -> MovieFile:
    """A movie of Poisson noise without signal."""
    path = os.path.join(workdir, f"noise_{shape[2]}x{shape[1]}x{shape[0]}_seed{seed}.mrc")
    if not os.path.exists(path):
        rng = np.random.default_rng(seed)
        _write(path, (rng.poisson(dose, shape[1:]).astype(np.uint8) for _ in range(shape[0])), 1.0, False)
    return MovieFile(path, None)


def _write(path: str, frames: Iterator[np.ndarray], pixel_size_A: float, lzw: bool) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    print(f"(writing {os.path.basename(path)})", file=sys.stderr, flush=True)
    if lzw:
        write_tiff_movie(path, frames, compression="lzw", rows_per_strip=64)
    else:
        write_mrc_movie(path, frames, pixel_size_A)
