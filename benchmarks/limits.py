"""Automatic resolution and largest shift, compared with fixed limits of 30 A and 50 A, suitable for the movie or not.

    python benchmarks/limits.py                 all movies, three seeds, 6 minutes
    python benchmarks/limits.py --seeds 2026    one seed
    python benchmarks/limits.py --only jump     movies whose names contain this

Each row: RMS length of the error over the frame and all frames in pixels, as in accuracy.py. It gives the medians over
the seeds with fixed limits (30 A, 50 A) and with automatic ones, the largest amount by which the automatic limits are
worse for any seed, the chosen limits, and the CPU seconds of the alignment. Movies stay in memory.
"""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any, Dict, List, Tuple

import numpy as np

import benchmark_movies  # noqa: F401  makes the package importable from a checkout
from flexalign_plugin.aligner import align
from flexalign_plugin.kernels import select_backend
from flexalign_plugin.phantoms.phantom import Phantom, field_rms_error, particle_phantom
from flexalign_plugin.settings import Settings
from flexalign_plugin.tests.in_memory import Stack

SEEDS = (2026, 2027, 2028)
FIXED = {"max_res_for_correlation": 30.0, "max_shift": 50.0}
STAGES = ("spectra", "global alignment", "local alignment")
N = 16
# {name: (size, A/px, options of the phantom)}. "decay": time constant of the drift in frames.
MOVIES: Dict[str, Tuple[int, float, Dict[str, Any]]] = {
    "ordinary, 1 A/px, 2048 px": (2048, 1.0, {}),
    "the same, 0.05 e/px": (2048, 1.0, {"dose": 0.05}),
    "the same, 0.02 e/px": (2048, 1.0, {"dose": 0.02}),
    "super-resolution, 0.35 A/px, 2048 px, detail to 5 A": (
        2048,
        0.35,
        {"dose": 0.12, "band_limit_A": 5.0, "drift_px": 20.0, "min_local_res": 240.0},
    ),
    "the same, detail to 10 A": (2048, 0.35, {"dose": 0.12, "drift_px": 20.0, "min_local_res": 240.0}),
    "the same, detail to 40 A": (
        2048,
        0.35,
        {"dose": 0.12, "band_limit_A": 40.0, "drift_px": 20.0, "min_local_res": 240.0},
    ),
    "thick: nothing finer than 60 A, contrast 6 %": (
        2048,
        1.0,
        {"dose": 0.5, "band_limit_A": 60.0, "contrast": 0.06},
    ),
    "the same, 0.1 e/px": (2048, 1.0, {"dose": 0.1, "band_limit_A": 60.0, "contrast": 0.06}),
    "low magnification, 4 A/px": (1024, 4.0, {"dose": 2.0, "band_limit_A": 12.0, "local_px": 3.0}),
    "low magnification, 8 A/px, nothing finer than 60 A": (
        1024,
        8.0,
        {"dose": 0.5, "band_limit_A": 60.0, "local_px": 3.0},
    ),
    "jump of 350 A at 4 A/px": (
        1024,
        4.0,
        {"dose": 2.0, "band_limit_A": 12.0, "local_px": 1.0, "drift_px": 100.0, "decay": 0.5},
    ),
    "jump of 240 A at 1 A/px": (2048, 1.0, {"dose": 0.5, "local_px": 2.0, "drift_px": 250.0, "decay": 0.3}),
    "steady drift of 1200 A at 4 A/px": (
        1024,
        4.0,
        {"dose": 2.0, "band_limit_A": 12.0, "local_px": 1.0, "drift_px": 300.0, "decay": 1000.0},
    ),
    "drift of 500 A, 1 A/px": (2048, 1.0, {"dose": 0.5, "local_px": 2.0, "drift_px": 500.0, "decay": 3.0}),
}


def make(size: int, pixel_size: float, seed: int, decay: float = 0.0, **options: Any) -> Phantom:
    phantom = particle_phantom((N, size, size), pixel_size, seed=seed, **options)
    if not decay:
        return phantom
    parameters = {**phantom.truth.parameters, "drift_decay_frames": decay}
    return dataclasses.replace(phantom, truth=dataclasses.replace(phantom.truth, parameters=parameters))


def row(backend: Any, name: str, seeds: List[int]) -> None:
    size, pixel_size, options = MOVIES[name]
    options = dict(options)
    common = {"pixel_size": pixel_size, "min_local_res": options.pop("min_local_res", 500.0)}
    fixed, automatic, cpu, chosen, uncorrected = [], [], [], set(), 0.0
    for seed in seeds:
        phantom = make(size, pixel_size, seed, **options)
        movie: Any = Stack(np.stack(list(phantom.frames())))
        for limits, errors in ((FIXED, fixed), ({}, automatic)):
            result = align(movie, Settings(**common, **limits, do_compute_psd=False, do_plots=False), backend)
            error = field_rms_error(result.model, phantom.truth)
            errors.append(error.rms_px)
            cpu.append(sum(result.timings_s[stage]["cpu"] for stage in STAGES))
            uncorrected = error.uncorrected_px
        figures = result.figures
        chosen.add(f"{figures.max_res_for_correlation_A:.0f} A, {figures.max_shift_A:.0f} A")
    figures = [uncorrected, np.median(fixed), np.median(automatic), max(np.subtract(automatic, fixed))]
    times = f"{np.median(cpu[::2]):.1f} | {np.median(cpu[1::2]):.1f}"
    print(f"| {name} | {' | '.join(f'{v:.3f}' for v in figures)} | {'; '.join(sorted(chosen))} | {times} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--only", default="", metavar="WORD")
    arguments = parser.parse_args()
    backend = select_backend("cpu")
    # Compile the kernels before the measurements.
    align(Stack(np.stack(list(make(512, 2.0, 1).frames()))), Settings(pixel_size=2.0), backend)
    columns = "movie", "uncorrected", "fixed", "automatic", "worse by at most", "chosen", "CPU s fixed", "CPU s auto"
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for name in MOVIES:
        if arguments.only in name:
            row(backend, name, arguments.seeds)


if __name__ == "__main__":
    main()
