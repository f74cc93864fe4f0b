"""A long streaming run with damaged movies: checks that no movie is lost and that memory and open files do not grow.

    python benchmarks/soak.py --movies 1000    2 minutes

Small movies are appended to the input set in bursts while the protocol runs in a process of its own. One in fifty is
damaged, in one of ten ways. Memory and open files of the protocol and of its worker process are sampled. The growth is
measured in the second half of the run, after all caches are filled.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import tempfile
import time
from contextlib import closing
from typing import Callable, Dict, List, Tuple

import numpy as np
import psutil

from flexalign_plugin.phantoms.movie_writers import write_mrc_movie
from flexalign_plugin.tests import scipion_project

SHAPE, BURST = (4, 128, 128), 25
BROKEN_EVERY = 50
WAYS: List[Tuple[str, Callable[[bytes], bytes]]] = [
    ("empty", lambda b: b""),
    ("header only", lambda b: b[:1024]),
    ("half", lambda b: b[: len(b) // 2]),
    ("one byte short", lambda b: b[:-1]),
    ("half a header", lambda b: b[:500]),
    ("noise", lambda b: bytes(np.random.default_rng(1).integers(0, 256, len(b), dtype=np.uint8))),
    ("text", lambda b: b"not a movie\n" * 1000),
    ("unknown pixel type", lambda b: b[:12] + (99).to_bytes(4, "little") + b[16:]),
    ("no width", lambda b: bytes(4) + b[4:]),
    ("gone", lambda b: b""),
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--movies", type=int, default=1000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as home:
        scipion_project.prepare(home)
        from flexalign_plugin.tests.protocols.killing import start

        movies, broken = _movies(home, args.movies)
        project = scipion_project.new_project("soak")
        imported = scipion_project.import_movies(project, os.path.dirname(movies[0]), os.path.basename(movies[0]), 4.0)
        stream = imported.outputMovies
        template = stream.getFirstItem().clone()
        grow(stream, template, [], stream.STREAM_OPEN)
        protocol = scipion_project.new_alignment(project, imported, doLocalAlignment=False, doComputePSD=False)
        project._setupProtocol(protocol)
        protocol.makePathsAndClean()
        project._storeProtocol(protocol)
        folder = os.path.abspath(protocol.workingDir.get())
        began, run = time.monotonic(), start(os.path.abspath("."), protocol.getObjId(), restart=True)
        samples, workers, given = [], set(), 1
        while not _ended(run):
            registered = sum(len(numbers(folder, name)) for name in ("movies", "movies_failed"))
            if given < len(movies) and given - registered < 2 * BURST:
                grow(stream, template, movies[given : given + BURST], stream.STREAM_OPEN)
                given += BURST
                if given >= len(movies):
                    grow(stream, template, [], stream.STREAM_CLOSED)
            samples.append((registered, *_measure(run, workers)))
            time.sleep(0.5)
        seconds = time.monotonic() - began
        done, failed = numbers(folder, "movies"), numbers(folder, "movies_failed")
    lost = set(range(1, len(movies) + 1)) - done - failed
    print(f"{len(movies)} movies, {len(broken)} of them damaged in {min(len(broken), len(WAYS))} ways, {seconds:.0f} s")
    print(f"aligned {len(done)}, failed {len(failed)}, in both {len(done & failed)}, lost {len(lost)}")
    print(
        f"damaged movies that were aligned: {len(broken & done)}; undamaged movies that failed: {len(failed - broken)}"
    )
    print(f"{3600 * len(movies) / seconds:.0f} movies per hour; worker processes used: {len(workers)}")
    _growth(samples)
    return 1 if lost or done & failed or failed - broken else 0


def grow(stream, template, paths: List[str], state: int) -> None:
    stream.enableAppend()
    for path in paths:
        movie = template.clone()
        movie.setObjId(None)
        movie.setFileName(path)
        movie.setMicName(os.path.basename(path))
        stream.append(movie)
    stream.setStreamState(state)
    stream.write()
    stream.close()


def _movies(home: str, n: int) -> Tuple[List[str], set]:
    """Paths in order of arrival, and the 1-based numbers of the damaged movies."""
    folder = os.path.join(home, "movies")
    os.makedirs(folder)
    scene = np.random.default_rng(2).normal(0, 1, (SHAPE[1], SHAPE[2]))
    paths, broken = [], set()
    for i in range(n):
        path = os.path.join(folder, f"movie_{i:05d}.mrcs")
        frames = np.random.default_rng(i).poisson(np.exp(0.5 * scene) * 4.0, SHAPE).astype(np.uint8)
        write_mrc_movie(path, frames, 4.0)
        if i % BROKEN_EVERY == BROKEN_EVERY - 1:
            kind, damage = WAYS[(i // BROKEN_EVERY) % len(WAYS)]
            with open(path, "rb") as f:
                whole = f.read()
            with open(path, "wb") as f:
                f.write(damage(whole))
            if kind == "gone":
                os.remove(path)
            broken.add(i + 1)
        paths.append(path)
    return paths, broken


def _ended(run: int) -> bool:
    return os.waitpid(run, os.WNOHANG)[0] != 0


def numbers(folder: str, name: str) -> set:
    """Numbers of the movies in the output `name` of a run."""
    path = os.path.join(folder, f"{name}.sqlite")
    if not os.path.exists(path):
        return set()
    with closing(sqlite3.connect(path, timeout=60)) as database:
        try:
            return {number for (number,) in database.execute("SELECT id FROM Objects")}
        except sqlite3.OperationalError:  # its tables are being created
            return set()


def _measure(run: int, workers: set) -> Tuple[float, int, float, int]:
    """Memory in MiB and number of open files of the protocol, and of its worker process."""
    figures: Dict[int, Tuple[float, int]] = {}
    try:
        protocol = psutil.Process(run)
        # Other children write the report.
        own_workers = [child for child in protocol.children() if any("worker_process" in a for a in child.cmdline())]
        for process in [protocol, *own_workers]:
            figures[process.pid] = (process.memory_info().rss / 2**20, process.num_fds())
    except psutil.Error:
        return (float("nan"), -1, float("nan"), -1)
    own = figures.pop(run)
    workers.update(figures)
    return (*own, *(next(iter(figures.values())) if figures else (float("nan"), -1)))


def _growth(samples: List[Tuple]) -> None:
    table = np.array([s for s in samples if np.isfinite(s[3])], dtype=float)
    late = table[table[:, 0] >= table[-1, 0] / 2]
    for name, memory, files in (("protocol", 1, 2), ("worker", 3, 4)):
        slope = np.polyfit(late[:, 0], late[:, memory], 1)[0] * 1000
        print(
            f"{name}: {late[0, memory]:.0f} MiB half-way, {late[-1, memory]:.0f} MiB at the end ({slope:+.1f} MiB per "
            f"1,000 movies); open files {late[:, files].min():.0f} to {late[:, files].max():.0f}"
        )


if __name__ == "__main__":
    raise SystemExit(main())
