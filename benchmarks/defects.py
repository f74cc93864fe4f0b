"""Dead pixels, columns and rows: the share that is found, false alarms, and what the search costs.

    python benchmarks/defects.py             frames of 4096 x 4096 pixels, 3 minutes
    python benchmarks/defects.py --quick     1024 x 1024
    python benchmarks/defects.py --only cost

The sum of a counting movie's frames is drawn from the Poisson distribution, without gain and without a list of defects.
Then defects of each kind are set to 0, or for hot lines to twice the counts. "Good pixels replaced" counts those of a
movie without any defect, mean over the movies. Cost: the first stage of a particle phantom of 30 frames in memory, with
and without the search.
"""

from __future__ import annotations

import argparse
import time
from statistics import median
from typing import Callable, Dict, Tuple

import numpy as np

import benchmark_movies  # noqa: F401  makes the package importable from a checkout
from flexalign_plugin.kernels import select_backend
from flexalign_plugin.movies import Corrections, find_hot_pixels
from flexalign_plugin.movies.dead_pixels import find_dead_pixels
from flexalign_plugin.movies.inspection import inspect
from flexalign_plugin.phantoms.phantom import particle_phantom
from flexalign_plugin.settings import Settings
from flexalign_plugin.tests.in_memory import Stack

N_FRAMES = 30
COUNTS = (0.1, 0.3, 1, 3, 10, 15, 17, 18, 20, 30, 50)
SEEDS = 3
REPEATS = 5
Masks = Dict[str, np.ndarray]


def defects(size: int, rng: np.random.Generator) -> Masks:
    """{kind: (size, size) bool}; kinds may touch, as in a camera."""

    def mask(set_it: Callable[[np.ndarray], None]) -> np.ndarray:
        empty = np.zeros((size, size), bool)
        set_it(empty)
        return empty

    def squares(width: int) -> Callable[[np.ndarray], None]:
        def set_it(image: np.ndarray) -> None:
            for y, x in rng.integers(0, size - width, (200 if width == 1 else 40, 2)):
                image[y : y + width, x : x + width] = True

        return set_it

    def columns(start: float, length: int) -> Callable[[np.ndarray], None]:
        def set_it(image: np.ndarray) -> None:
            image[:length, [int(start * size), int((start + 0.5) * size)]] = True
            image[int((start + 0.02) * size), :length] = True

        return set_it

    return {
        "pixels": mask(squares(1)),
        "4 x 4": mask(squares(4)),
        "8 x 8": mask(squares(8)),
        "64 px of a line": mask(columns(0.1, 64)),
        "256 px": mask(columns(0.2, 256)),
        "whole lines": mask(columns(0.3, size)),
    }


def found(total: np.ndarray) -> np.ndarray:
    """(size, size) bool: what the search finds in a counting movie with this sum of frames (size, size)."""
    mean = total / np.float32(N_FRAMES)
    # Of the frames the search looks at a few values only, to learn that they are those of counts.
    frame = (total > 0).astype(np.uint8)
    movie = Stack(np.broadcast_to(frame, (N_FRAMES, *frame.shape)))
    hot = find_hot_pixels(mean)
    return hot | find_dead_pixels(movie, range(N_FRAMES), mean, mean, None, hot)


def table(size: int) -> None:
    kinds = [*defects(size, np.random.default_rng(0)), "hot lines"]
    print(f"### {size} x {size} px, {SEEDS} movies each: share that is found\n")
    print(f"| counts per pixel | {' | '.join(kinds)} | by the mean alone: whole lines | good pixels replaced |")
    print("|" + "---|" * (len(kinds) + 3), flush=True)
    for counts in COUNTS:
        shares = {kind: [] for kind in [*kinds, "old"]}  # type: ignore[var-annotated]
        false = []
        for seed in range(SEEDS):
            rng = np.random.default_rng(seed)
            total = rng.poisson(counts, (size, size)).astype(np.float32)
            false.append(np.count_nonzero(found(total)))
            masks = defects(size, rng)
            for mask in masks.values():
                total[mask] = 0
            hot = np.zeros((size, size), bool)
            hot[:, int(0.45 * size)] = hot[int(0.55 * size)] = True
            total[hot] += rng.poisson(counts, np.count_nonzero(hot))
            map_found = found(total)
            for kind, mask in [*masks.items(), ("hot lines", hot)]:
                shares[kind].append(map_found[mask].mean())
            shares["old"].append(find_hot_pixels(total / np.float32(N_FRAMES))[masks["whole lines"]].mean())
        row = " | ".join(f"{np.mean(values):.0%}" for values in shares.values())
        print(f"| {counts:g} | {row} | {np.mean(false):.1f} |", flush=True)


def cost(size: int) -> None:
    backend = select_backend("cpu")
    frames = np.stack(list(particle_phantom((N_FRAMES, size, size), seed=2026).frames()))
    dead = frames.copy()
    dead[:, :, size // 3] = 0
    thin = (frames * (np.random.default_rng(0).random(frames.shape, np.float32) < 0.1)).astype(np.uint8)
    print(f"\n### {size} x {size} x {N_FRAMES}: CPU s of the stage 'read and sum', medians of {REPEATS}\n")
    print("| movie | without any search | hot pixels and dead ones | the dead ones alone |\n|---|---|---|---|")
    for name, movie in (
        ("1 count per pixel and frame", Stack(frames)),
        ("with a dead column", Stack(dead)),
        ("0.1 counts per pixel and frame", Stack(thin)),
    ):
        mean = movie.frames.sum(axis=0, dtype=np.float32) / np.float32(N_FRAMES)
        steps: Tuple[Callable[[], object], ...] = (
            lambda movie=movie: inspect(  # type: ignore[misc]
                movie, backend, Corrections(), range(N_FRAMES), Settings(remove_hot_pixels=False)
            ),
            lambda movie=movie: inspect(movie, backend, Corrections(), range(N_FRAMES), Settings()),  # type: ignore[misc]
            lambda movie=movie, mean=mean: find_dead_pixels(movie, range(N_FRAMES), mean, mean),  # type: ignore[misc]
        )
        print(f"| {name} | {' | '.join(f'{cpu_seconds(step):.3f}' for step in steps)} |", flush=True)


def cpu_seconds(step: Callable[[], object]) -> float:
    step()  # compiles
    seconds = []
    for _ in range(REPEATS):
        start = time.process_time()
        step()
        seconds.append(time.process_time() - start)
    return median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="frames of 1024 x 1024 pixels")
    parser.add_argument("--only", choices=("found", "cost"), help="only this table")
    arguments = parser.parse_args()
    size = 1024 if arguments.quick else 4096
    if arguments.only != "cost":
        table(size)
    if arguments.only != "found":
        cost(size)


if __name__ == "__main__":
    main()
