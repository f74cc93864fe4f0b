"""Kills runs of the protocol at random moments, continues them, and compares the outputs with an uninterrupted run.

    python benchmarks/kills.py --kills 50      4 minutes

Each time a new run is started, and the worker process, the protocol or both are killed with SIGKILL after a random
time. Then the run is continued. The items and properties of every set, the bytes of every micrograph and the names of
all files are compared.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import tempfile
import time
from collections import Counter

import numpy as np
import psutil

from flexalign_plugin.phantoms.movie_writers import write_mrc_movie
from flexalign_plugin.tests import scipion_project

MOVIES, SHAPE = 4, (6, 256, 256)
VICTIMS = ("worker", "protocol", "group")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    chance = random.Random(args.seed)
    with tempfile.TemporaryDirectory(prefix="kills-") as home:
        scipion_project.prepare(home)
        from flexalign_plugin.tests.protocols.killing import start, state, wait

        project, number, folder = _project(home)
        began = time.monotonic()
        if wait(start(project, number, restart=True)) != 0:
            raise SystemExit("The uninterrupted run failed.")
        whole = time.monotonic() - began
        expected = state(folder)
        counts: Counter[str] = Counter()
        for i in range(args.kills):
            run, victim = start(project, number, restart=True), VICTIMS[i % len(VICTIMS)]
            time.sleep(chance.uniform(0.0, whole))
            killed = _kill(run, victim)
            wait(run)
            again = wait(start(project, number, restart=False))
            same = again == 0 and state(folder) == expected
            counts[f"{victim} killed" if killed else "ended before the kill"] += 1
            counts["identical" if same else "different"] += 1
            if not same:
                print(f"After kill {i + 1} ({victim}) the outputs differ.", flush=True)
    print(f"An uninterrupted run of {MOVIES} movies takes {whole:.1f} s.")
    print(", ".join(f"{outcome}: {n}" for outcome, n in sorted(counts.items())))
    return 1 if counts["different"] else 0


def _project(home: str) -> tuple:
    movies = os.path.join(home, "movies")
    os.makedirs(movies)
    frames = np.random.default_rng(1).poisson(4.0, SHAPE).astype(np.uint8)
    for i in range(MOVIES):
        write_mrc_movie(os.path.join(movies, f"movie_{i}.mrcs"), frames, 4.0)
    project = scipion_project.new_project("kills")
    imported = scipion_project.import_movies(project, movies, "*.mrcs", 4.0)
    protocol = scipion_project.new_alignment(project, imported, doLocalAlignment=False, doComputePSD=False)
    project._setupProtocol(protocol)
    protocol.makePathsAndClean()
    project._storeProtocol(protocol)
    where = os.path.abspath(".")
    return where, protocol.getObjId(), os.path.join(where, protocol.workingDir.get())


def _kill(run: int, victim: str) -> bool:
    """Kill the processes; returns whether any of them was still running."""
    if os.waitid(os.P_PID, run, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        return False
    workers = [child.pid for child in psutil.Process(run).children(recursive=True)]
    targets = {"worker": workers, "protocol": [run], "group": [run, *workers]}[victim]
    for process in targets:
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            targets = [other for other in targets if other != process]
    return bool(targets)


if __name__ == "__main__":
    raise SystemExit(main())
