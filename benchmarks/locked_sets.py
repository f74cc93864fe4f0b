"""Locks the sets of a running protocol, as a program that reads them on a slow file server may do.

    python benchmarks/locked_sets.py --seconds 75      4 minutes

The output of movies is locked as soon as it has an item, and then the input set, right after movies were added to it.
The run must wait, go on by itself, and have every movie in its outputs.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import tempfile
import time
from contextlib import closing

import numpy as np

from flexalign_plugin.phantoms.movie_writers import write_mrc_movie
from flexalign_plugin.tests import scipion_project
from soak import grow, numbers

MOVIES, SHAPE = 12, (4, 128, 128)
LIMIT_S = 600.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=75.0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="locked-") as home:
        scipion_project.prepare(home)
        from flexalign_plugin.tests.protocols.killing import start, wait

        folder = os.path.join(home, "movies")
        os.makedirs(folder)
        movies = [os.path.join(folder, f"movie_{i:02d}.mrcs") for i in range(MOVIES)]
        for i, path in enumerate(movies):
            write_mrc_movie(path, np.random.default_rng(i).poisson(4.0, SHAPE).astype(np.uint8), 4.0)
        project = scipion_project.new_project("locked")
        imported = scipion_project.import_movies(project, folder, "movie_00.mrcs", 4.0)
        stream = imported.outputMovies
        template = stream.getFirstItem().clone()
        grow(stream, template, movies[1:4], stream.STREAM_OPEN)
        protocol = scipion_project.new_alignment(project, imported, doLocalAlignment=False, doComputePSD=False)
        project._setupProtocol(protocol)
        protocol.makePathsAndClean()
        project._storeProtocol(protocol)
        run_folder = os.path.abspath(protocol.workingDir.get())
        run = start(os.path.abspath("."), protocol.getObjId(), restart=True)
        _until(lambda: bool(numbers(run_folder, "movies")))
        _lock(os.path.join(run_folder, "movies.sqlite"), args.seconds)
        grow(stream, template, movies[4:8], stream.STREAM_OPEN)
        _lock(os.path.abspath(stream.getFileName()), args.seconds)
        _until(lambda: len(numbers(run_folder, "movies")) == 8)
        grow(stream, template, movies[8:], stream.STREAM_CLOSED)
        status = wait(run, LIMIT_S)
        aligned = numbers(run_folder, "movies")
    print(f"locked twice for {args.seconds:g} s; status {status}; {len(aligned)} of {MOVIES} movies aligned")
    return 0 if status == 0 and len(aligned) == MOVIES else 1


def _until(true) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not true():
        if time.monotonic() > deadline:
            raise SystemExit(f"The run did not go on within {LIMIT_S:g} s.")
        time.sleep(0.2)


def _lock(path: str, seconds: float) -> None:
    with closing(sqlite3.connect(path, timeout=60, isolation_level=None)) as database:
        database.execute("BEGIN EXCLUSIVE")
        time.sleep(seconds)
        database.execute("ROLLBACK")


if __name__ == "__main__":
    raise SystemExit(main())
