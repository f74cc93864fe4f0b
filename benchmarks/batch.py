"""Many movies on a CPU: how many at once, how well each stage uses two threads, and what more cores would do.

    python benchmarks/batch.py                 8 movies of 4096 x 4096 x 30, 10 minutes on 2 idle cores
    python benchmarks/batch.py --quick         4 movies of 1024 x 1024 x 10
    python benchmarks/batch.py --memory        peak memory compared with what `execution.sharing` expects

Wall times say something only on a machine that does nothing else: the load is printed. The runs alternate, each in a
new process, with kernels compiled before; all movies have the same frames.

The prediction splits each stage into a part that can't be divided and one that is divided among any number of
threads: with wall times w1 and w2 of one and two threads, these are 2 w2 - w1 and 2 (w1 - w2), both at least 0. What a
movie of a batch costs more than its stages, for plots and files, is taken as not divisible. The prediction assumes that
all cores are as fast as the two that were measured, also when all are busy (no common limit of clock, caches and
memory), that the disk delivers the movies at the rate that is printed, and that all movies at once fit into memory.
"""

from __future__ import annotations

import argparse
import os
from statistics import median
from typing import Dict, List, Tuple

from benchmark_movies import add_workdir_option, phantom_file
from cost import GB, Run, run
from flexalign_plugin.execution.job import Job
from flexalign_plugin.execution.sharing import PROCESS_BYTES, bytes_of_movies
from flexalign_plugin.kernels import usable_cores
from flexalign_plugin.phantoms.phantom import particle_phantom
from flexalign_plugin.settings import Settings

SEED = 2026
CORES = (2, 16, 64)
Parts = Dict[str, Tuple[float, float]]  # {stage: wall seconds of its parts that can't and can be divided}


def parts_of(one: Dict[str, float], two: Dict[str, float]) -> Parts:
    """The parts of each stage, from its wall times with one and two threads."""
    return {stage: (max(2 * two[stage] - one[stage], 0.0), max(2 * (one[stage] - two[stage]), 0.0)) for stage in one}


def seconds(parts: Parts, threads: int) -> float:
    """Predicted wall time of a movie."""
    return sum(serial + parallel / threads for serial, parallel in parts.values())


def stage_seconds(runs: List[Run]) -> Dict[str, float]:
    """Median wall seconds of each stage."""
    return {stage: median(r.stages[stage]["wall"] for r in runs) for stage in runs[0].stages}


def _efficiency(one: float, two: float) -> str:
    return f"{one / (2 * two):.2f}" if two > 0.02 else "too short"


def stages(movie: str, folder: str, repeats: int) -> Tuple[Parts, float]:
    """The parts of each stage, and the CPU seconds of all stages with one thread."""
    runs: Dict[int, List[Run]] = {1: [], 2: []}
    for k in range(repeats):
        for threads, done in runs.items():
            output = os.path.join(folder, f"threads{threads}-{k}")
            done.append(run(movie, output, "--threads", str(threads), "--no-report"))
    one, two = (stage_seconds(runs[threads]) for threads in (1, 2))
    print("| stage | wall s, 1 thread | 2 threads | efficiency of 2 threads |\n|---|---|---|---|")
    for stage in one:
        print(f"| {stage} | {one[stage]:.2f} | {two[stage]:.2f} | {_efficiency(one[stage], two[stage])} |")
    total_1, total_2 = (median(r.wall_s for r in done) for done in runs.values())
    print(f"| whole command | {total_1:.1f} | {total_2:.1f} | {_efficiency(total_1, total_2)} |")
    cpu = {threads: median(r.cpu_s for r in done) for threads, done in runs.items()}
    print(f"\nCPU seconds: {cpu[1]:.1f} with 1 thread, {cpu[2]:.1f} with 2.", flush=True)
    return parts_of(one, two), median(sum(stage["cpu"] for stage in r.stages.values()) for r in runs[1])


def batches(movie: str, n_movies: int, folder: str, repeats: int) -> float:
    """Time the movies in all ways; returns the CPU seconds of a movie that has one thread."""
    names = []
    for i in range(n_movies):
        names.append(os.path.join(folder, f"movie{i + 1}.mrc"))
        if not os.path.exists(names[-1]):
            os.link(movie, names[-1])
    list_of_names = os.path.join(folder, "movies.txt")
    with open(list_of_names, "w", encoding="utf-8") as file:
        file.write("\n".join(names) + "\n")
    runs: Dict[Tuple[int, int], List[Run]] = {(1, 2): [], (2, 1): []}
    for k in range(repeats):
        for (workers, threads), done in runs.items():
            options = ["--workers", str(workers), "--threads", str(workers * threads), "--no-report"]
            done.append(run(f"@{list_of_names}", os.path.join(folder, f"batch{workers}x{threads}-{k}"), *options))
    cpu = 0.0
    print("| workers x threads | wall s a movie | movies an hour | CPU s a movie | own GB |\n|---|---|---|---|---|")
    for (workers, threads), done in runs.items():
        wall, cpu = (median(values) / n_movies for values in ([r.wall_s for r in done], [r.cpu_s for r in done]))
        own = median(r.own_gb for r in done)
        print(f"| {workers} x {threads} | {wall:.2f} | {3600 / wall:.0f} | {cpu:.1f} | {own:.2f} |", flush=True)
    return cpu


def prediction(parts: Parts, movie: str) -> None:
    on_disk = os.path.getsize(movie) / GB
    each = bytes_of_movies([Job(movie, "", "", Settings(pixel_size=1.0))]) / GB
    print("| cores | workers x threads | s for one movie | movies an hour | GB of memory | GB/s from disk |")
    print("|---|---|---|---|---|---|")
    for cores in CORES:
        threads = 1
        while threads <= cores:
            workers, taken = cores // threads, seconds(parts, threads)
            figures = f"{taken:.1f} | {3600 * workers / taken:.0f} | {workers * each:.0f}"
            print(f"| {cores} | {workers} x {threads} | {figures} | {workers * on_disk / taken:.2f} |")
            threads *= 4 if cores > 2 else 2


def memory(movie: str, folder: str) -> None:
    kinds: Dict[str, Dict[str, object]] = {
        "default": {},
        "dose-weighted": {"dose_per_frame": 1.0},
        "dose-weighted, even and odd": {"dose_per_frame": 1.0, "split_even_odd": True},
        "the same, low memory": {"dose_per_frame": 1.0, "split_even_odd": True, "low_memory": True},
        "dose-weighted, spectra of groups": {"dose_per_frame": 1.0, "do_save_ps": True},
        "aligned movie": {"do_save_movie": True},
    }
    print("| settings | own GB | expected GB |\n|---|---|---|")
    for label, values in kinds.items():
        options = [f"--{k.replace('_', '-')}={'yes' if v is True else v}" for k, v in values.items()]
        own = run(movie, os.path.join(folder, "memory"), *options).own_gb
        settings = Settings.from_dict({"pixel_size": 1.0, **values})
        expected = bytes_of_movies([Job(movie, "", "", settings)]) / GB
        print(f"| {label} | {own:.2f} | {expected:.2f} |", flush=True)
    print(f"\nOwn GB include the command itself, expected GB {PROCESS_BYTES / GB:g} for the worker process.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer and smaller movies")
    parser.add_argument("--memory", action="store_true", help="only the memory")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each kind (default %(default)s)")
    add_workdir_option(parser)
    arguments = parser.parse_args()
    n_movies, n, size = (4, 10, 1024) if arguments.quick else (8, 30, 4096)
    phantom = particle_phantom((n, size, size), seed=SEED)
    movie = phantom_file(arguments.workdir, f"particles_seed{SEED}_{size}x{size}x{n}", phantom).path
    folder = os.path.join(arguments.workdir, f"batch-{size}")
    os.makedirs(folder, exist_ok=True)
    run(movie, os.path.join(folder, "warm-up"))
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{size} x {size} x {n}, 8 bit, {usable_cores()} cores, load of the last 1, 5, 15 minutes: {load}\n")
    if arguments.memory:
        memory(movie, folder)
        return
    print("### Stages of one movie\n")
    parts, cpu_of_stages = stages(movie, folder, arguments.repeats)
    print(f"\n### {n_movies} movies, 2 cores\n")
    cpu = batches(movie, n_movies, folder, arguments.repeats)
    parts["plots and files"] = (max(cpu - cpu_of_stages, 0.0), 0.0)
    print("\n### Predicted (see the assumptions in `benchmarks/batch.py`)\n")
    prediction(parts, movie)


if __name__ == "__main__":
    main()
