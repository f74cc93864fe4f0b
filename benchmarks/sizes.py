"""The five movie sizes of the paper on this machine's CPU, beside the GPU times of the paper.

    python benchmarks/sizes.py                 all sizes, 7 GB of movies, 15 minutes on 2 idle cores
    python benchmarks/sizes.py --only 5760     only sizes whose name contains 5760

Each run is the whole `flexalign align` command with default settings, on a movie of 8 bits with 1 e/px/frame in a file
that the system keeps in memory. The GPU times are those of Strelak et al. 2020, Electronics 9:1040, table 4: FlexAlign
and MotionCor2 on an RTX 2080, tuned. The movies differ, but the number of pixels is the same.
"""

from __future__ import annotations

import argparse
import glob
import os
from statistics import median

from accuracy_scores import errors
from benchmark_movies import add_workdir_option, phantom_file
from cost import run
from flexalign_plugin.kernels import usable_cores
from flexalign_plugin.motion import MotionModel
from flexalign_plugin.phantoms.phantom import particle_phantom
from flexalign_plugin.result_files import MOTION

SEED = 2026
# (nx, ny, frames): seconds of FlexAlign and of MotionCor2 in the paper.
PAPER = {
    (4096, 4096, 40): (9.2, 4.6),
    (3838, 3710, 40): (7.6, 4.3),
    (7676, 7420, 40): (25.6, 15.7),
    (5760, 4092, 30): (8.8, 5.0),
    (11520, 8184, 20): (20.5, 13.1),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="runs of each size (default %(default)s)")
    parser.add_argument("--only", metavar="WORDS", help="only sizes whose name contains these words")
    parser.add_argument("--low-memory", action="store_true", help="with --low-memory, to compare")
    add_workdir_option(parser)
    arguments = parser.parse_args()
    options = ["--no-report", *(["--low-memory"] if arguments.low_memory else [])]
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{usable_cores()} cores, load of the last 1, 5, 15 minutes: {load}; medians of {arguments.repeats} runs\n")
    print("| movie | CPU s | wall s | peak GB | own GB | error, px | paper: FlexAlign, s | paper: MotionCor2, s |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    warm = False
    for (nx, ny, n), (flexalign, motioncor) in PAPER.items():
        label = f"{nx} x {ny} x {n}"
        if arguments.only and arguments.only not in label:
            continue
        phantom = particle_phantom((n, ny, nx), seed=SEED)
        movie = phantom_file(arguments.workdir, f"particles_seed{SEED}_{nx}x{ny}x{n}", phantom).path
        output = os.path.join(arguments.workdir, "sizes")
        if not warm:
            run(movie, output, *options)
            warm = True
        runs = [run(movie, output, *options) for _ in range(arguments.repeats)]
        (motion,) = glob.glob(os.path.join(output, f"*{MOTION}"))
        error = errors(phantom.truth, [MotionModel.load(motion)])[-1]
        figures = [median(r.cpu_s for r in runs), median(r.wall_s for r in runs)]
        memory = [median(r.peak_gb for r in runs), median(r.own_gb for r in runs)]
        row = [*(f"{value:.1f}" for value in figures), *(f"{value:.2f}" for value in memory), f"{error:.3f}"]
        print(f"| {label} | {' | '.join(row)} | {flexalign} | {motioncor} |", flush=True)


if __name__ == "__main__":
    main()
