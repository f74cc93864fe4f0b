"""What became of each movie: one small JSON file, written when everything else of the movie is there.

The records are the truth: the output sets are made from them and compared with them when a run is continued, so that a
run may be killed at any moment.
"""

from __future__ import annotations

import dataclasses
import glob
import json
import os
import re
import sqlite3
from contextlib import closing
from typing import Collection, Optional, Set, Tuple

from flexalign_plugin.execution.job import JobResult
from flexalign_plugin.files import atomic_path, remove_all_leftovers

LOCKED_SECONDS = 60.0  # a viewer may hold a set for a moment


def save_record(path: str, result: JobResult) -> None:
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as f:
        json.dump(dataclasses.asdict(result), f)


def load_record(path: str) -> Optional[JobResult]:
    """The record, or None where there is none (the movie was never finished)."""
    try:
        with open(path, encoding="utf-8") as f:
            return JobResult(**json.load(f))
    except (FileNotFoundError, ValueError):  # empty after a power failure: as good as none
        return None


def sort_out(folder: str, results: str) -> Tuple[Set[int], int]:
    """Keep only what need not be done again, and remove what a killed run left half-written.

    Parameters
    ----------
    folder : with records `movie_<number>.json`; results : with the files that records speak of.

    Returns
    -------
    Numbers of the movies that are aligned with every file in place; how many records were removed.
    """
    done, removed = set(), 0
    for path in glob.glob(os.path.join(glob.escape(folder), "movie_*.json")):
        record, number = load_record(path), re.search(r"movie_(\d+)\.json$", path)
        if record is not None and number and record.ok and all(_there(file, results) for file in record.files.values()):
            done.add(int(number.group(1)))
        else:
            os.remove(path)
            removed += 1
    for where in (folder, results):
        remove_all_leftovers(where)
    return done, removed


def _there(path: str, folder: str) -> bool:
    # By name: the project may have been moved.
    return os.path.exists(os.path.join(folder, os.path.basename(path)))


def numbers_in_set(path: str) -> Optional[Set[int]]:
    """Numbers of the items in the file of a set; None where it is no whole set."""
    if not os.path.exists(path):
        return None
    try:
        with closing(sqlite3.connect(path, timeout=LOCKED_SECONDS)) as database:
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type='table'")}
            # The tables come first, the properties with the first items: a run may be killed in between.
            if not {"Objects", "Properties"} <= tables or not database.execute("SELECT 1 FROM Properties").fetchone():
                return None
            return {number for (number,) in database.execute("SELECT id FROM Objects")}
    except sqlite3.OperationalError:  # can't be read now, which does not mean that it is damaged
        raise
    except sqlite3.DatabaseError:
        return None


def remove_unfit_set(path: str, allowed: Collection[int]) -> bool:
    """Remove the file of a set that is damaged or holds other movies than the records; it will be made again."""
    if not os.path.exists(path):
        return False
    numbers = numbers_in_set(path)
    if numbers is not None and numbers <= set(allowed):
        return False
    for name in (path, path + "-journal", path + "-wal", path + "-shm"):
        if os.path.exists(name):
            os.remove(name)
    return True
