"""Records: one small JSON file with the result of each movie, written after all other files of the movie.

The output sets are made from the records, and compared with them when a run is continued. A run may therefore be killed
at any moment.
"""

from __future__ import annotations

import dataclasses
import errno
import glob
import json
import logging
import os
import re
import sqlite3
from contextlib import closing
from typing import Any, Collection, Dict, List, Optional, Set, Tuple

from pyworkflow.utils.retry_streaming import is_sqlite_lock_error, retry_on_sqlite_lock

from flexalign_plugin.errors import OutputError
from flexalign_plugin.execution.job import JobResult
from flexalign_plugin.files import atomic_path, remove_all_leftovers
from flexalign_plugin.inputs import read_json
from flexalign_plugin.quality.figures import Figures

RECORD_FORMAT = "flexalign-record-1"
# How often, and how long each time, a set is tried that another process, for example a viewer, has locked: 20 min with
# pyworkflow's pauses, about as long as pyworkflow itself waits to write a set.
LOCKED_ATTEMPTS, LOCKED_SECONDS = 60, 10.0
logger = logging.getLogger(__name__)


def save_record(path: str, result: JobResult) -> None:
    write_values(path, RECORD_FORMAT, dataclasses.asdict(result))


def load_record(path: str) -> Optional[JobResult]:
    """The record, or None if there is none because the movie was never finished, or it is not one of this version or an
    earlier one."""
    try:
        result = JobResult.from_file(read_values(path, RECORD_FORMAT))
        Figures.from_dict(result.quality)
    except ValueError:
        return None
    return result


def write_values(path: str, record_format: str, values: Dict[str, Any]) -> None:
    """Write a record with the name of its format."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as f:
        json.dump({"format": record_format, **values}, f)


def read_values(path: str, record_format: str) -> Dict[str, Any]:
    """Content of a record, without its format; records of 1.0.0 state none.

    Raises
    ------
    ValueError : there is none, or its format is another one. OSError : the disk can't be read.
    """
    try:
        values = read_json(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINVAL, errno.EISDIR, errno.EFBIG):  # none, or nothing that we wrote
            raise ValueError(str(error)) from error
        raise
    if not isinstance(values, dict) or values.pop("format", record_format) != record_format:
        raise ValueError(f"{path} is not a record of the format {record_format}")
    return values


def sort_out(folder: str, results: str) -> Tuple[Set[int], int]:
    """Remove the records of movies that have to be aligned again, and the incomplete files of a killed run.

    Parameters
    ----------
    folder : folder with the records `movie_<number>.json`.
    results : folder with the files that are listed in the records.

    Returns
    -------
    Numbers of the movies that are aligned and have all their files, complete; number of removed records.
    """
    done, removed = set(), 0
    for path in glob.glob(os.path.join(glob.escape(folder), "movie_*.json")):
        record, number = load_record(path), re.search(r"movie_(\d+)\.json$", path)
        # The folder in the record may be outdated, because the project may have been moved.
        if record is not None and number and record.ok and record.has_its_files(results):
            done.add(int(number.group(1)))
        else:
            _remove(path)
            removed += 1
    for directory in (folder, results):
        remove_all_leftovers(directory)
    return done, removed


def _remove(path: str) -> None:
    if os.path.isdir(path):  # somebody made it, with something in it perhaps
        os.replace(path, f"{path}.old")
    else:
        os.remove(path)


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
    if numbers is not None and numbers <= set(allowed) and (not columns or set(columns) <= _columns(path)):
        return False
    for name in (path, path + "-journal", path + "-wal", path + "-shm"):
        if os.path.exists(name):
            os.remove(name)
    return True
