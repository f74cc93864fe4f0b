"""Records: one small JSON file with the result of each movie, written after all other files of the movie.

The output sets are made from the records, and compared with them when a run is continued. A run may therefore be killed
at any moment.
"""

from __future__ import annotations

import dataclasses
import glob
import json
import logging
import os
import re
import sqlite3
from contextlib import closing
from typing import Collection, List, Optional, Set, Tuple

from pyworkflow.utils.retry_streaming import is_sqlite_lock_error, retry_on_sqlite_lock

from flexalign_plugin.errors import OutputError
from flexalign_plugin.execution.job import JobResult
from flexalign_plugin.files import atomic_path, remove_all_leftovers

# How often, and how long each time, a set is tried that another process, for example a viewer, has locked: 20 min with
# pyworkflow's pauses, about as long as pyworkflow itself waits to write a set.
LOCKED_ATTEMPTS, LOCKED_SECONDS = 60, 10.0
logger = logging.getLogger(__name__)


def save_record(path: str, result: JobResult) -> None:
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as f:
        json.dump(dataclasses.asdict(result), f)


def load_record(path: str) -> Optional[JobResult]:
    """The record, or None if there is none because the movie was never finished."""
    try:
        with open(path, encoding="utf-8") as f:
            return JobResult(**json.load(f))
    except (FileNotFoundError, ValueError):  # a power failure can leave an empty file
        return None


def sort_out(folder: str, results: str) -> Tuple[Set[int], int]:
    """Remove the records of movies that have to be aligned again, and the incomplete files of a killed run.

    Parameters
    ----------
    folder : folder with the records `movie_<number>.json`.
    results : folder with the files that are listed in the records.

    Returns
    -------
    Numbers of the movies that are aligned and have all their files; number of removed records.
    """
    done, removed = set(), 0
    for path in glob.glob(os.path.join(glob.escape(folder), "movie_*.json")):
        record, number = load_record(path), re.search(r"movie_(\d+)\.json$", path)
        if record is not None and number and record.ok and all(_exists(f, results) for f in record.files.values()):
            done.add(int(number.group(1)))
        else:
            os.remove(path)
            removed += 1
    for directory in (folder, results):
        remove_all_leftovers(directory)
    return done, removed


def _exists(path: str, folder: str) -> bool:
    # The folder in the record may be outdated, because the project may have been moved.
    return os.path.exists(os.path.join(folder, os.path.basename(path)))


def numbers_in_set(path: str) -> Optional[Set[int]]:
    """Numbers of the items in the file of a set; None if there is no file or the set is incomplete or damaged."""
    if not os.path.exists(path):
        return None
    told: List[Exception] = []

    def is_lock(error: Exception) -> bool:
        if is_sqlite_lock_error(error) and not told:
            told.append(error)
            logger.warning("%s is locked by another program: the run waits and goes on when it is free.", path)
        return is_sqlite_lock_error(error)

    try:
        return retry_on_sqlite_lock(LOCKED_ATTEMPTS, predicate=is_lock)(_numbers_in)(path)
    except sqlite3.OperationalError as error:  # does not mean that it is damaged
        if told:
            raise OutputError(
                f"{path} was locked by another program for too long: close viewers of this run, then use Continue."
            ) from error
        raise
    except sqlite3.DatabaseError:
        return None


def _columns(path: str) -> Set[str]:
    """Names of the items' attributes in the file of a set."""
    with closing(sqlite3.connect(path, timeout=LOCKED_SECONDS)) as database:
        return {name for (name,) in database.execute("SELECT label_property FROM Classes")}


def _numbers_in(path: str) -> Optional[Set[int]]:
    with closing(sqlite3.connect(path, timeout=LOCKED_SECONDS)) as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type='table'")}
        # Tables are created first, properties are written with the first items. A run may be killed in between.
        if not {"Objects", "Properties"} <= tables or not database.execute("SELECT 1 FROM Properties").fetchone():
            return None
        return {number for (number,) in database.execute("SELECT id FROM Objects")}


def remove_unfit_set(path: str, allowed: Collection[int], columns: Collection[str] = ()) -> bool:
    """Remove the file of a set that is damaged, lacks one of these columns or contains movies without a record, so that
    it is made again.

    Returns
    -------
    Whether the file was removed.
    """
    if not os.path.exists(path):
        return False
    numbers = numbers_in_set(path)
    if numbers is not None and numbers <= set(allowed) and set(columns) <= _columns(path):
        return False
    for name in (path, path + "-journal", path + "-wal", path + "-shm"):
        if os.path.exists(name):
            os.remove(name)
    return True
