"""Accuracy of the alignment: error of the estimated motion for phantom movies whose motion is known.

    python benchmarks/accuracy.py                  all tables, 4096 x 4096 frames, 21 minutes
    python benchmarks/accuracy.py --quick          the same with half the frame size
    python benchmarks/accuracy.py --only dose      one table
    python benchmarks/accuracy.py --default-only   without the other methods
    python benchmarks/accuracy.py --write          writes the tables into docs/accuracy.md
    python benchmarks/accuracy.py --torch PYTHON   also torch-motion-correction, in a Python where it is installed

Each figure is an RMS length in unbinned pixels over a 41 x 41 mesh of the whole frame and all frames, after subtracting
the mean over the frames at each position, because the choice of the reference frame is arbitrary. docs/accuracy.md
explains the figures.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from typing import Any, Dict, List, Optional, Tuple

import mrcfile
import numpy as np

from accuracy_scores import MESH, best_global, early_error, errors, sum_correlations
from benchmark_movies import ROOT, MovieFile, add_workdir_option, noise_file, phantom_file
from flexalign_plugin.aligner import align
from flexalign_plugin.kernels import select_backend
from flexalign_plugin.movies import load_corrections, open_movie
from flexalign_plugin.movies.inspection import inspect
from flexalign_plugin.phantoms.phantom import Phantom, grid_phantom, particle_phantom
from flexalign_plugin.result import MovieResult
from flexalign_plugin.settings import Settings
from peer_torch import torch_motion
from real_content import DOSE, fetch, real_phantom, size_of_frames

SEEDS = (2026, 2027, 2028)  # not used in the development of the aligner
DOSES = (0.5, 0.25, 0.1, 0.05)  # electrons per pixel and frame
DOCS = os.path.join(ROOT, "docs", "accuracy.md")
METHODS: Dict[str, Dict[str, Any]] = {
    "global only": {"do_local_alignment": False},
    "as published": {"do_refinement": False},
    "default": {},
}
Row = List[float]


class Bench:
    """Runs the aligner on phantom files and prints the rows of the tables."""

    def __init__(self, workdir: str, quick: bool, torch: Optional[str]):
        self.workdir = workdir
        self.torch = torch
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

    def uncorrected(self, movie: MovieFile, **options: Any) -> np.ndarray:
        """(ny, nx) mean of the frames with their gain, without motion correction."""
        settings = Settings(**options)
        with open_movie(movie.path, settings) as opened:
            corrections = load_corrections(opened, settings)
            return inspect(opened, self.backend, corrections, range(opened.n_frames), settings).mean

    def row(self, label: str, movie: MovieFile, **options: Any) -> Row:
        """Print and return the errors of the uncorrected frames, of the best global shifts and of each method, and the
        error estimate and the CPU seconds of the default method."""
        return self.results(label, movie, **options)[0]

    def results(self, label: str, movie: MovieFile, **options: Any) -> Tuple[Row, Dict[str, Any]]:
        assert movie.truth is not None
        results = {name: self.align(movie, **method, **options) for name, method in METHODS.items()}
        models = {name: result.model for name, result in results.items()}
        row = [*errors(movie.truth, list(models.values())), *own_figures(results["default"])]
        print_row(label, row, results["default"].warnings)
        return row, models


def own_figures(result: MovieResult) -> Row:
    expected = result.figures.expected_error_px
    return [np.nan if expected is None else expected, sum(stage["cpu"] for stage in result.timings_s.values())]


class Report:
    """Prints lines, and keeps them by table for `write`."""

    def __init__(self) -> None:
        self.tables: Dict[str, List[str]] = {}
        self._lines: List[str] = []

    def begin(self, name: str) -> None:
        self._lines = self.tables.setdefault(name, [])

    def line(self, text: str) -> None:
        print(text, flush=True)
        self._lines.append(text)

    def write(self, path: str) -> None:
        """Replace the text between the marks of each table in the page."""
        with open(path) as f:
            page = f.read()
        for name, lines in self.tables.items():
            start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
            if start not in page or end not in page:
                raise SystemExit(f"{path}: the marks {start.strip()} and {end} of the table are missing: add them.")
            before, after = page.split(start)[0], page.split(end)[1]
            page = before + start + "\n".join(lines).strip() + "\n" + end + after
        temporary = path + ".part"
        with open(temporary, "w") as f:
            f.write(page)
        os.replace(temporary, path)


report = Report()


def print_head(title: str, first: str, columns: Optional[List[str]] = None) -> None:
    columns = [first, *(columns or ["uncorrected", "best global", *METHODS, "expected", "CPU s"]), "warning"]
    report.line(f"\n**{title}**\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")


def print_row(label: str, values: Row, warnings: Optional[List[str]] = None) -> None:
    figures = " | ".join("none" if np.isnan(v) else f"{v:.1f}" if v > 10 else f"{v:.3f}" for v in values)
    report.line(f"| {label} | {figures} | {' '.join(warnings or [])} |")


def table_particles(bench: Bench) -> None:
    """The main figure: 9 px drift, local motion up to 6 px, 1 electron per pixel and frame."""
    print_head("Drift and local motion (target: 0.15)", "seed")
    results = {seed: bench.results(str(seed), bench.particles(seed)) for seed in SEEDS}
    print_row("median", list(np.median([row for row, _ in results.values()], axis=0)))
    first = SEEDS[0]
    phantom = particle_phantom(bench.size(30, 4096, 4096), seed=first)
    _print_sums(bench, "Drift and local motion", {str(first): (phantom, bench.particles(first), results[first][1])}, 4)


def table_drift(bench: Bench) -> None:
    """The same without local motion."""
    print_head("Drift alone (target: 0.05)", "seed")
    print_row("median", list(np.median([bench.row(str(s), bench.particles(s, local_px=0.0)) for s in SEEDS], axis=0)))


def table_field(bench: Bench) -> None:
    """Local motion of other shapes.

    The motion in the main table has 4 x 4 control values. The aligner's spline with 6 x 6 control points has its knots
    at the same places, so it can represent this motion exactly. It can't do that for all motions in this table.
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
            row = errors(movie.truth, [r.model for r in results], central)
            row += own_figures(results[-1])
            print_row(f"{doming:g} x the paper's, {region}", row, results[-1].warnings)


def table_shapes(bench: Bench) -> None:
    """Movies that are long, short, not square, or have a gain reference that must be rotated."""
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
    rotated = os.path.join(bench.workdir, f"gain_{ny}x{nx}_seed{seed}.mrc")
    with mrcfile.new(rotated, np.ascontiguousarray(np.rot90(gain, -1)), overwrite=True):
        pass
    bench.row("5760 x 4092, gain of 4092 x 5760 rotated by 90", movie, gain=rotated, gain_rot="90")
    with_gain = pattern_correlation(bench.uncorrected(movie, gain=rotated, gain_rot="90"), gain)
    without = pattern_correlation(bench.uncorrected(movie), gain)
    report.line(
        f"\nThe gain's pattern in the mean of the frames: correlation {with_gain:.3f}, without the gain {without:.3f}."
    )


def pattern_correlation(mean: np.ndarray, gain: np.ndarray) -> float:
    """Correlation of the mean frame with the pattern of a gain that was not corrected."""
    return float(np.corrcoef(mean.ravel(), 1 / gain.ravel())[0, 1])


def table_dose(bench: Bench) -> None:
    """Decreasing dose."""
    print_head("Dose", "electrons per pixel and frame")
    for dose in DOSES:
        bench.row(f"{dose:g}", bench.particles(SEEDS[0], dose=dose))


def table_noise(bench: Bench) -> None:
    """Movies without signal: the shifts must stay bounded, and the result must have a warning."""
    report.line("\n**Noise alone**\n")
    for name, method in METHODS.items():
        result = bench.align(noise_file(bench.workdir, bench.size(30, 4096, 4096), SEEDS[0]), **method)
        t, y, x = np.arange(30.0)[:, None, None], *(np.linspace(0, n - 1, MESH) for n in result.model.frame_shape)
        largest = np.hypot(*result.model.shift(t, y[:, None], x)).max()
        report.line(f"- {name}: largest shift {largest:.3f} px. {' '.join(result.warnings) or 'No warning!'}")


def table_robust(bench: Bench) -> None:
    """Movies that are hard to align; the result must never be worse than that of global alignment alone."""
    print_head("Hard movies", "movie")
    seed = SEEDS[0]
    bench.row("0.02 e/px/frame", bench.particles(seed, dose=0.02))
    bench.row("7 frames, 0.25 e/px/frame", bench.particles(seed, n=7, dose=0.25))
    for dose in (1.0, 0.25):
        ice = bench.particles(seed, dose=dose, contrast=0.05, band_limit_A=20.0)
        bench.row(f"thick ice: contrast 5 %, nothing finer than 20 A, {dose:g} e/px/frame", ice)
    n, ny, nx = bench.size(30, 4096, 4096)
    gain = np.random.default_rng(seed).normal(1, 0.08, (ny, nx)).clip(0.5, 2).astype(np.float32)
    wrong = os.path.join(bench.workdir, f"wrong_gain_{ny}x{nx}.mrc")
    with mrcfile.new(wrong, np.ascontiguousarray(gain[::-1]), overwrite=True):
        pass
    for dose in (1.0, 0.5, 0.25):
        phantom = dataclasses.replace(particle_phantom((n, ny, nx), seed=seed, dose=dose), gain=gain)
        movie = bench.file(f"particles_pattern_dose{dose:g}_seed{seed}", phantom)
        bench.row(f"gain upside down: fixed pattern of 11 %, {dose:g} e/px/frame", movie, gain=wrong)


def table_fast(bench: Bench) -> None:
    """Motion as in real movies: most of it in the first frames. 1 e/A^2 in each frame."""
    phantoms = {}
    for seed in SEEDS[:2]:
        slow = particle_phantom(bench.size(30, 4096, 4096), seed=seed, control_points=5)
        decays = {"drift_decay_frames": 3.0, "local_decay_frames": 4.0}
        truth = dataclasses.replace(slow.truth, parameters={**slow.truth.parameters, **decays})
        phantoms[f"seed {seed}"] = (f"fast_seed{seed}", dataclasses.replace(slow, truth=truth))
    _with_early_frames(bench, "Fast early motion, 5 x 5 control values", phantoms, 4)


def table_real(bench: Bench) -> None:
    """Content of a real micrograph, fast early motion, 0.67 A/px, 1.8 e/A^2 in each frame of the highest dose."""
    path = fetch(bench.workdir)
    size = size_of_frames(bench.scale)[0]
    phantoms = {}
    for part in (1.0, 0.5, 0.25):
        phantom = real_phantom(path, 30, size, part * DOSE, SEEDS[0])
        phantoms[f"{part * DOSE:g} e/px/frame"] = (f"real_dose{part * DOSE:g}_seed{SEEDS[0]}", phantom)
    _with_early_frames(bench, "Real content (target: 0.18)", phantoms, 2)


def _with_early_frames(bench: Bench, title: str, phantoms: Dict[str, Tuple[str, Phantom]], early: int) -> None:
    """The usual table, then errors of the first frames and correlations of the sums with the noiseless image."""
    print_head(title, "movie")
    results = {}
    for label, (name, phantom) in phantoms.items():
        movie = bench.file(name, phantom)
        models = bench.results(label, movie)[1]
        if bench.torch:
            models["torch-motion-correction"] = torch_motion(bench.torch, movie)
        results[label] = (phantom, movie, models)
    _print_sums(bench, title.split(" (")[0], results, early)


def _print_sums(
    bench: Bench, title: str, results: Dict[str, Tuple[Phantom, MovieFile, Dict[str, Any]]], early: int
) -> None:
    columns = ["motion", "error in all frames", f"in the first {early}", "FRC 0.05-0.1", "FRC 0.1-0.2"]
    print_head(f"{title}: first frames; FRC of the sum over that with the true motion", "movie", columns)
    for label, (phantom, movie, models) in results.items():
        models["best global"] = best_global(phantom.truth)
        with open_movie(movie.path, Settings()) as opened:
            ratios = sum_correlations(bench.backend, phantom, opened, models)
        for name, model in models.items():
            rms = errors(phantom.truth, [model])[-1]
            figures = [rms, early_error(phantom.truth, model, early), *ratios[name]]
            print_row(f"{label} | {name}", figures)


TABLES = {
    "particles": table_particles,
    "drift": table_drift,
    "field": table_field,
    "grid": table_grid,
    "shapes": table_shapes,
    "dose": table_dose,
    "noise": table_noise,
    "robust": table_robust,
    "fast": table_fast,
    "real": table_real,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="frames of half the width and height")
    parser.add_argument("--only", choices=sorted(TABLES), action="append", help="only this table; may be repeated")
    parser.add_argument("--write", action="store_true", help="write the tables into docs/accuracy.md")
    parser.add_argument("--torch", metavar="PYTHON", help="Python with torch-motion-correction, for comparison")
    add_workdir_option(parser)
    parser.add_argument(
        "--default-only", action="store_true", help="leave out the other methods; takes a third of the time"
    )
    arguments = parser.parse_args()
    if arguments.default_only:
        for name in [method for method in METHODS if method != "default"]:
            del METHODS[name]
    bench = Bench(arguments.workdir, arguments.quick, arguments.torch)
    for name in arguments.only or TABLES:
        report.begin(name)
        TABLES[name](bench)
        if arguments.write:
            report.write(DOCS)


if __name__ == "__main__":
    main()
