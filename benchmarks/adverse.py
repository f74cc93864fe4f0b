"""Everything at once: a streaming run with a slow disk, a jumping clock, a full disk and workers that are killed.

    python benchmarks/adverse.py      20 minutes; as root, with a C compiler

The movies are read at 200 kB/s. Every 20 s the clock of the run and of its workers jumps, by up to 30 days in both
directions (`adverse.c`, which is preloaded). The folder of the run is a small disk in memory (tmpfs), which is full for
30 s. The worker is killed every minute. Afterwards every movie must be in one output, aligned or failed with a reason.
Then the run is continued, and its outputs are compared with those of a run without any of this.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from typing import Any, Dict, List, Optional

import numpy as np
import psutil

from flexalign_plugin.output.failures import read_failures
from flexalign_plugin.phantoms.movie_writers import write_mrc_movie
from flexalign_plugin.tests import scipion_project
from soak import grow
from soak import numbers as numbers_of

SHAPE, BURST = (6, 256, 256), 5
BYTES_PER_S, JUMP_EVERY_S = 2e5, 20
DISK_MB, FULL_FROM_S, FULL_S = 64, 70.0, 30.0
KILL_EVERY_S = 60.0
LIMIT_S = 3600.0
HERE = os.path.abspath(__file__)  # before the working folder changes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--movies", type=int, default=150)
    parser.add_argument("--child", nargs=2, metavar=("PROJECT", "ID"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        from flexalign_plugin.tests.protocols.killing import run

        run(args.child[0], int(args.child[1]), restart=False)
        return 0
    with tempfile.TemporaryDirectory(prefix="adverse-") as home:
        scipion_project.prepare(home)
        from flexalign_plugin.tests.protocols.killing import start, state, wait

        troubles = _preloaded(home)
        movies = _movies(home, args.movies)
        project = scipion_project.new_project("adverse")
        imported = scipion_project.import_movies(project, os.path.dirname(movies[0]), os.path.basename(movies[0]), 4.0)
        stream = imported.outputMovies
        template = stream.getFirstItem().clone()
        grow(stream, template, [], stream.STREAM_OPEN)
        protocol = scipion_project.new_alignment(project, imported, doLocalAlignment=False, doComputePSD=False)
        project._setupProtocol(protocol)
        protocol.makePathsAndClean()
        project._storeProtocol(protocol)
        number, where = protocol.getObjId(), os.path.abspath(".")
        folder = os.path.join(where, protocol.workingDir.get())
        mounted = _mount(folder)
        try:
            run = Disturbed(where, number, folder, troubles, mounted)
            given = 1
            while run.goes_on():
                registered = sum(len(numbers_of(folder, name)) for name in ("movies", "movies_failed"))
                if given < len(movies) and given - registered < 2 * BURST:
                    grow(stream, template, movies[given : given + BURST], stream.STREAM_OPEN)
                    given += BURST
                    if given >= len(movies):
                        grow(stream, template, [], stream.STREAM_CLOSED)
                time.sleep(0.5)
            good = run.report(len(movies))
            continued = wait(start(where, number, restart=False), LIMIT_S)
            after = state(folder)
        finally:
            if mounted:
                subprocess.run(["umount", "-l", folder], check=True)
        undisturbed = wait(start(where, number, restart=True), LIMIT_S)
        same = after == state(folder)
    verdict = "identical to" if same else "DIFFERENT from"
    print(f"after Continue (status {continued}) the outputs are {verdict} those of an undisturbed run ({undisturbed})")
    return 0 if good and same and continued == undisturbed == 0 else 1


class Disturbed:
    """A run with all troubles, in a process of its own."""

    def __init__(self, project: str, number: int, folder: str, troubles: Dict[str, str], mounted: bool) -> None:
        self._folder, self._mounted = folder, mounted
        self._log = os.path.join(os.path.dirname(project), "run.log")
        self._began, self._kills, self._full = time.monotonic(), 0, 0.0
        self._filler: Optional[str] = None
        command = [sys.executable, HERE, "--child", project, str(number)]
        with open(self._log, "wb") as log:
            self._run = subprocess.Popen(command, env={**os.environ, **troubles}, stdout=log, stderr=log)

    def goes_on(self) -> bool:
        """Cause the troubles that are due; whether the run has not ended."""
        seconds = time.monotonic() - self._began
        if self._run.poll() is None and seconds > LIMIT_S:
            self._run.kill()
            raise SystemExit(f"The run did not end within {LIMIT_S:g} s.")
        if self._mounted and self._filler is None and seconds > FULL_FROM_S:
            self._filler = _fill(self._folder)
        if self._filler and seconds > FULL_FROM_S + FULL_S:
            os.remove(self._filler)
            self._full, self._filler = seconds - FULL_FROM_S, ""
        if seconds > KILL_EVERY_S * (self._kills + 1):
            self._kills += 1
            for worker in _workers(self._run.pid):
                worker.kill()
        return self._run.poll() is None

    def report(self, n_movies: int) -> bool:
        """Print what happened; whether every movie is in one output, failures with a reason."""
        if self._filler:
            os.remove(self._filler)
        with open(self._log, encoding="utf-8", errors="replace") as file:
            log = file.read()
        done, failed = (numbers_of(self._folder, name) for name in ("movies", "movies_failed"))
        reasons = read_failures(os.path.join(self._folder, "extra", "failed.tsv"))
        lost = set(range(1, n_movies + 1)) - done - failed
        seconds = time.monotonic() - self._began
        print(
            f"{n_movies} movies, {seconds:.0f} s, status {self._run.returncode}; jumps of the clock: "
            f"{seconds // JUMP_EVERY_S:.0f}; disk full for {self._full:.0f} s, the run waited for room "
            f"{log.count('The run goes on.')} times; workers killed: {self._kills}"
        )
        print(
            f"aligned {len(done)}, failed {len(failed)} (listed with a reason: {len(reasons)}), in both "
            f"{len(done & failed)}, lost {len(lost)}"
        )
        for _, _, reason in reasons:
            print(f"  {reason}")
        if self._run.returncode:
            print(log[-3000:])
        return not lost and not done & failed and {int(i) for i, _, why in reasons if why} == failed


def _preloaded(home: str) -> Dict[str, str]:
    """Environment with the slow disk and the jumping clock."""
    library = os.path.join(home, "adverse.so")
    source = os.path.join(os.path.dirname(HERE), "adverse.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return {
        "LD_PRELOAD": library,
        "SLOW_FOLDER": os.path.join(os.path.realpath(home), "movies"),
        "SLOW_BYTES_PER_S": f"{BYTES_PER_S:.0f}",
        "JUMP_EVERY_S": str(JUMP_EVERY_S),
    }


def _movies(home: str, n: int) -> List[str]:
    folder = os.path.join(home, "movies")
    os.makedirs(folder)
    paths = [os.path.join(folder, f"movie_{i:05d}.mrcs") for i in range(n)]
    for i, path in enumerate(paths):
        write_mrc_movie(path, np.random.default_rng(i).poisson(4.0, SHAPE).astype(np.uint8), 4.0)
    return paths


def _mount(folder: str) -> bool:
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "adverse", folder], capture_output=True)
    if done.returncode:
        print("The disk is not filled, because only root can mount a tmpfs.")
        return False
    for name in ("extra", "logs", "tmp"):
        os.makedirs(os.path.join(folder, name))
    return True


def _fill(folder: str) -> str:
    path = os.path.join(folder, "filler")
    with open(path, "wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:  # full
                pass
    return path


def _workers(run: int) -> List[Any]:
    try:
        children = psutil.Process(run).children()
        return [child for child in children if any("worker_process" in part for part in child.cmdline())]
    except psutil.Error:
        return []


if __name__ == "__main__":
    raise SystemExit(main())
