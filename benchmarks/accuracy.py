"""How well the motion is recovered: error of the motion model on phantom movies whose motion is known.

    python benchmarks/accuracy.py                  all tables, 4096 x 4096 frames, about half an hour
    python benchmarks/accuracy.py --quick          the same with half the frame size, a few minutes
    python benchmarks/accuracy.py --only dose      one table: particles, drift, field, grid, shapes, dose or noise

Every figure is an RMS length in unbinned pixels over a 41 x 41 mesh of the whole frame and all frames, after each
position's mean over the frames is taken off (which frame is the reference is free). docs/accuracy.md explains them.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from typing import Any, Dict, List, Optional, Tuple

import mrcfile
import numpy as np
from benchmark_movies import MovieFile, add_workdir_option, noise_file, phantom_file

from flexalign_plugin.aligner import align
from flexalign_plugin.kernels import select_backend
from flexalign_plugin.motion import MotionModel
from flexalign_plugin.movies import open_movie
from flexalign_plugin.phantom import Phantom, Truth, field_rms_error, grid_phantom, particle_phantom
from flexalign_plugin.result import MovieResult
from flexalign_plugin.settings import Settings

SEEDS = (2026, 2027, 2028)  # never used while the aligner was tuned
DOSES = (0.5, 0.25, 0.1, 0.05)  # electrons per pixel and frame
MESH = 41
METHODS: Dict[str, Dict[str, Any]] = {
    "global only": {"do_local_alignment": False},
    "as published": {"do_refinement": False},
    "default": {},
}
Row = List[float]


class Bench:
    """Runs the aligner on phantom files and prints the tables' rows as they come."""

    def __init__(self, workdir: str, quick: bool):
        self.workdir = workdir
        self.scale = 2 if quick else 1
        self.backend = select_backend("cpu")

    def size(self, n: int, ny: int, nx: int) -> Tuple[int, int, int]:
        return n, ny // self.scale, nx // self.scale

    def file(self, name: str, phantom: Phantom) -> MovieFile:
        n, ny, nx = phantom.shape
        return phantom_file(self.workdir, f"{name}_{nx}x{ny}x{n}", phantom)

    def particles(self, seed: int, n: int = 30, ny: int = 4096, nx: int = 4096, **options: Any) -> MovieFile:
        name = "particles" + "".join(f"_{key}{value:g}" for key, value in options.items())
        return self.file(f"{name}_seed{seed}", particle_phantom(self.size(n, ny, nx), seed=seed, **options))

    def align(self, movie: MovieFile, **options: Any) -> MovieResult:
        settings = Settings(pixel_size=movie.truth.pixel_size_A if movie.truth else 1.0, **options)
        with open_movie(movie.path, settings) as opened:
            return align(opened, settings, self.backend)

    def row(self, label: str, movie: MovieFile, **options: Any) -> Row:
        """Print and return the errors of doing nothing, of the best global shifts and of each method."""
        assert movie.truth is not None
        results = {name: self.align(movie, **method, **options) for name, method in METHODS.items()}
        models = [result.model for result in results.values()]
        row = errors(movie.truth, models)
        print_row(label, row, results["default"].warnings)
        return row


def best_global(truth: Truth) -> MotionModel:
    """The mean of the true motion over the mesh: no alignment with one shift for each frame comes closer."""
    y, x = (np.linspace(0, n - 1, MESH) for n in truth.frame_shape)
    t = np.arange(truth.n_frames, dtype=float)
    shifts = np.stack(truth.shift(t[:, None, None], y[:, None], x)).mean(axis=(2, 3)).T
    return MotionModel(truth.frame_shape, truth.n_frames, 0, shifts, None, truth.pixel_size_A)


def errors(truth: Truth, models: List[MotionModel], central: float = 1.0, follow_content: bool = False) -> Row:
    options = {"mesh": MESH, "central": central, "follow_content": follow_content}
    found = [field_rms_error(model, truth, **options) for model in [best_global(truth), *models]]  # type: ignore[arg-type]
    return [found[0].nothing_px, *(f.rms_px for f in found)]


def print_head(title: str, first: str) -> None:
    columns = [first, "doing nothing", "best global", *METHODS, "warning"]
    print(f"\n### {title}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)


def print_row(label: str, values: Row, warnings: Optional[List[str]] = None) -> None:
    figures = " | ".join(f"{v:.3f}" for v in values)
    print(f"| {label} | {figures} | {' '.join(warnings or [])} |", flush=True)


def table_particles(bench: Bench) -> None:
    """The main figure: 9 px drift, local motion up to 6 px, 1 electron per pixel and frame."""
    print_head("Drift and local motion (target: default <= 0.25)", "seed")
    print_row("median", list(np.median([bench.row(str(s), bench.particles(s)) for s in SEEDS], axis=0)))


def table_drift(bench: Bench) -> None:
    """The same without local motion."""
    print_head("Drift alone (target: default <= 0.05)", "seed")
    print_row("median", list(np.median([bench.row(str(s), bench.particles(s, local_px=0.0)) for s in SEEDS], axis=0)))


def table_field(bench: Bench) -> None:
    """Local motion of other shapes.

    The main table's motion has 4 x 4 control values. With 6 x 6 control points the aligner's own spline has its knots
    at the same places and can follow such a motion exactly, which is luck. It can't be lucky with all of these.
    """
    print_head("Local motion of other shapes and sizes", "control values")
    seed = SEEDS[0]
    for points in (3, 5, 6):
        bench.row(f"{points} x {points}", bench.particles(seed, control_points=points))
    bench.row("4 x 4, up to 8.3 px", bench.particles(seed, local_px=8.3))


def table_grid(bench: Bench) -> None:
    """The published phantom: drift and doming of up to 2 % of the frame."""
    print_head("The paper's grid phantom", "doming, region")
    for doming in (1.0, 0.1):
        movie = bench.file(f"grid_doming{doming:g}", grid_phantom(bench.size(30, 4096, 4096), doming))
        assert movie.truth is not None
        results = [bench.align(movie, **method) for method in METHODS.values()]
        for region, central in (("central 80 %", 0.8), ("overall", 1.0)):
            row = errors(movie.truth, [r.model for r in results], central, follow_content=True)
            print_row(f"{doming:g} x the paper's, {region}", row, results[-1].warnings)


def table_shapes(bench: Bench) -> None:
    """Movies that are long, short, not square, or come with a gain that has to be turned."""
    print_head("Other movies", "movie")
    seed = SEEDS[0]
    bench.row("80 px drift over 40 frames", bench.particles(seed, n=40, drift_px=80.0))
    bench.row("7 frames", bench.particles(seed, n=7))
    bench.row("3838 x 3710", bench.particles(seed, ny=3710, nx=3838))
    bench.row("5760 x 4092", bench.particles(seed, ny=4092, nx=5760))

    n, ny, nx = bench.size(30, 4092, 5760)
    rng = np.random.default_rng(seed)
    gain = rng.normal(1, 0.08, (ny, nx)).clip(0.5, 2).astype(np.float32)
    phantom = dataclasses.replace(particle_phantom((n, ny, nx), seed=seed), gain=gain)
    movie = bench.file(f"particles_gain_seed{seed}", phantom)
    turned = os.path.join(bench.workdir, f"gain_{ny}x{nx}_seed{seed}.mrc")
    with mrcfile.new(turned, np.ascontiguousarray(np.rot90(gain, -1)), overwrite=True):
        pass
    bench.row("5760 x 4092, gain of 4092 x 5760 rotated by 90", movie, gain=turned, gain_rot="90")
    left = [pattern_left(bench.align(movie, **options), gain) for options in ({"gain": turned, "gain_rot": "90"}, {})]
    print(f"\nThe gain's pattern in the mean of the frames: correlation {left[0]:.3f}, without the gain {left[1]:.3f}.")


def pattern_left(result: MovieResult, gain: np.ndarray) -> float:
    return float(np.corrcoef(result.uncorrected.ravel(), 1 / gain.ravel())[0, 1])


def table_dose(bench: Bench) -> None:
    """Ever fewer electrons."""
    print_head("Dose", "electrons per pixel and frame")
    for dose in DOSES:
        bench.row(f"{dose:g}", bench.particles(SEEDS[0], dose=dose))


def table_noise(bench: Bench) -> None:
    """Nothing to see: the shifts must stay bounded and the user must be told."""
    print("\n### Noise alone\n", flush=True)
    for name, method in METHODS.items():
        result = bench.align(noise_file(bench.workdir, bench.size(30, 4096, 4096), SEEDS[0]), **method)
        t, y, x = np.arange(30.0)[:, None, None], *(np.linspace(0, n - 1, MESH) for n in result.model.frame_shape)
        largest = np.hypot(*result.model.shift(t, y[:, None], x)).max()
        print(f"{name}: largest shift {largest:.3f} px. {' '.join(result.warnings) or 'No warning!'}", flush=True)


TABLES = {
    "particles": table_particles,
    "drift": table_drift,
    "field": table_field,
    "grid": table_grid,
    "shapes": table_shapes,
    "dose": table_dose,
    "noise": table_noise,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="frames of half the width and height")
    parser.add_argument("--only", choices=sorted(TABLES), action="append", help="this table only; may be repeated")
    add_workdir_option(parser)
    arguments = parser.parse_args()
    bench = Bench(arguments.workdir, arguments.quick)
    for name in arguments.only or TABLES:
        TABLES[name](bench)


if __name__ == "__main__":
    main()
