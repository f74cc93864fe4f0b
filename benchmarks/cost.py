"""Cost of one movie: CPU seconds, memory and time of the whole `flexalign align` command and of its stages.

    python benchmarks/cost.py                  4096 x 4096 x 30 frames, 6 minutes
    python benchmarks/cost.py --quick          2048 x 2048 x 20

Each run is a new process that starts, reads, aligns, writes all files and ends. A run that is not counted comes first
and fills the cache of compiled kernels. The runs are also compared: the same input must give the same bytes.

CPU seconds (user + system) and peak memory are those that the kernel counted for the process and its children. This
peak includes pages of the memory-mapped movie, which the system frees whenever it needs memory; "own" is the peak
without them (RssAnon, read every 10 ms, summed over the processes).
"""

from __future__ import annotations

import argparse
import glob
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from statistics import median
from typing import Any, Callable, Dict, List

import psutil

from benchmark_movies import ROOT, add_workdir_option, phantom_file
from flexalign_plugin.phantoms.phantom import particle_phantom
from flexalign_plugin.result_files import MOTION

SEED = 2026
TARGETS = "targets: 20 CPU s, 2.5 GB"
POLL_S = 0.01
DOSE = ["--dose-per-frame", "1"]
GB = 1e9


@dataclass(frozen=True)
class Run:
    """One run of the command; `output` is the folder of its results."""

    output: str
    cpu_s: float
    wall_s: float
    peak_gb: float
    own_gb: float

    @property
    def stages(self) -> Dict[str, Dict[str, float]]:
        return _motion(self.output)["timings_s"]


def run(movie: str, output: str, *options: str) -> Run:
    """Align the movie into the emptied folder `output`."""
    shutil.rmtree(output, ignore_errors=True)
    command = [sys.executable, "-m", "flexalign_plugin", "align", movie, "--output", output, "--pixel-size", "1"]
    started = time.perf_counter()
    process = subprocess.Popen([*command, "--quiet", *options], env={**os.environ, "PYTHONPATH": ROOT})
    own = [0.0]
    poll = threading.Thread(target=_follow_memory, args=(process.pid, own))
    poll.start()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    process.returncode = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -1
    poll.join()
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with status {process.returncode}")
    return Run(output, usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss * 1024 / GB, own[0] / GB)


def _follow_memory(pid: int, own: List[float]) -> None:
    """Store in own[0] the peak memory of the process and its children in bytes, without pages of files."""
    try:
        process = psutil.Process(pid)
        while True:
            now = 0.0
            for each in [process, *process.children(recursive=True)]:
                with open(f"/proc/{each.pid}/status") as status:
                    now += sum(float(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon"))
            own[0] = max(own[0], now)
            time.sleep(POLL_S)
    except (OSError, psutil.Error):
        return  # the process has ended


def _motion(output: str) -> Dict[str, Any]:
    (path,) = glob.glob(os.path.join(output, f"*{MOTION}"))
    with open(path) as file:
        return dict(json.load(file))


def differences(a: str, b: str) -> List[str]:
    """Names of the files that differ between the folders; the times in `_motion.json` are ignored."""
    names = sorted(set(os.listdir(a)) | set(os.listdir(b)))
    return [name for name in names if not _same(os.path.join(a, name), os.path.join(b, name))]


def _same(a: str, b: str) -> bool:
    contents = []
    for path in (a, b):
        if not os.path.exists(path):
            return False
        with open(path, "rb") as file:
            # RELION's list contains the path of the folder.
            contents.append(file.read().replace(os.path.dirname(path).encode(), b"OUTPUT"))
    if a.endswith(MOTION):
        contents = [json.dumps({**json.loads(c), "timings_s": None}).encode() for c in contents]
    return contents[0] == contents[1]


def print_costs(label: str, runs: List[Run]) -> None:
    def median_of(value: Callable[[Run], float]) -> float:
        return median(value(r) for r in runs)

    spread = f"{min(r.cpu_s for r in runs):.1f} - {max(r.cpu_s for r in runs):.1f}"
    figures = [f"{median_of(lambda r: r.cpu_s):.1f}", spread, f"{median_of(lambda r: r.wall_s):.1f}"]
    figures += [f"{median_of(lambda r: r.peak_gb):.2f}", f"{median_of(lambda r: r.own_gb):.2f}"]
    print(f"| {label} | {' | '.join(figures)} |", flush=True)


def print_stages(title: str, runs: List[Run]) -> None:
    print(f"\n### {title}: medians of each stage\n\n| stage | CPU s | wall s |\n|---|---|---|")
    rest = {"cpu": median(r.cpu_s for r in runs), "wall": median(r.wall_s for r in runs)}
    for stage in runs[0].stages:
        times = {kind: median(r.stages[stage][kind] for r in runs) for kind in rest}
        rest = {kind: rest[kind] - times[kind] for kind in rest}
        print(f"| {stage} | {times['cpu']:.2f} | {times['wall']:.2f} |")
    print(f"| the rest: starting Python, plots, writing | {rest['cpu']:.2f} | {rest['wall']:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smaller movie")
    parser.add_argument("--only", metavar="WORDS", help="only rows of the table whose name contains these words")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each kind (default %(default)s)")
    add_workdir_option(parser)
    arguments = parser.parse_args()
    n, size = (20, 2048) if arguments.quick else (30, 4096)
    phantom = particle_phantom((n, size, size), seed=SEED)
    name = f"particles_seed{SEED}_{size}x{size}x{n}"
    mrc = phantom_file(arguments.workdir, name, phantom).path
    tiff = phantom_file(arguments.workdir, name, phantom, lzw=True).path
    still = particle_phantom((n, size, size), seed=SEED, local_px=0.0)
    without = phantom_file(arguments.workdir, name.replace("_", "_local_px0_", 1), still).path
    kinds = {
        "MRC": (mrc, []),
        "MRC, no local motion in it": (without, []),
        "LZW TIFF": (tiff, []),
        "MRC, as published": (mrc, ["--no-do-refinement"]),
        "MRC, no spectra and plots": (mrc, ["--no-do-compute-psd", "--no-do-plots"]),
        "MRC, dose-weighted": (mrc, DOSE),
        "MRC, dose-weighted, even and odd": (mrc, [*DOSE, "--split-even-odd"]),
        "the same, low memory": (mrc, [*DOSE, "--split-even-odd", "--low-memory"]),
        "MRC, spectra of groups of 4 e/A^2": (mrc, [*DOSE, "--do-save-ps"]),
    }
    folder = os.path.join(arguments.workdir, "cost")
    run(mrc, os.path.join(folder, "warm-up"))
    run(tiff, os.path.join(folder, "warm-up"))

    print(f"### {size} x {size} x {n}, 8 bit, medians of {arguments.repeats} runs ({TARGETS})\n")
    print("| movie | CPU s | from - to | wall s | peak GB | own GB |\n|---|---|---|---|---|---|", flush=True)
    runs: Dict[str, List[Run]] = {}
    for kind, (movie, options) in kinds.items():
        if kind != "MRC" and arguments.only and arguments.only not in kind:
            continue
        label = kind.replace(" ", "-").replace(",", "")
        outputs = [os.path.join(folder, f"{label}-{k}") for k in range(arguments.repeats)]
        runs[kind] = [run(movie, output, *options) for output in outputs]
        print_costs(kind, runs[kind])
    for kind in ("MRC", "LZW TIFF"):
        if kind not in runs:
            continue
        print_stages(kind, runs[kind])

    print("\n### Same input, same bytes\n")
    first = runs["MRC"][0].output
    others = {f"run {k}": r for k, r in enumerate(runs["MRC"][1:], 2)}
    others["a run with one thread"] = run(mrc, os.path.join(folder, "one-thread"), "--threads", "1")
    for what, other in others.items():
        different = differences(first, other.output)
        verdict = f"DIFFERENT: {', '.join(different)}" if different else "the same, byte for byte"
        print(f"- {what}, {len(os.listdir(first))} files: {verdict}")


if __name__ == "__main__":
    main()
