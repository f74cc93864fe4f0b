"""What became of each movie: one small JSON file beside its done marker, so that outputs survive Continue."""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Collection, Iterable, Optional, Tuple

from flexalign_plugin.worker import JobResult


def save_record(path: str, result: JobResult) -> None:
    _write(path, json.dumps(dataclasses.asdict(result)))


def load_record(path: str) -> Optional[JobResult]:
    """The record, or None where there is none (the movie was never finished)."""
    try:
        with open(path, encoding="utf-8") as f:
            return JobResult(**json.load(f))
    except FileNotFoundError:
        return None


def write_failures(path: str, failures: Iterable[Tuple[int, str, str]]) -> None:
    """Table for people and scripts: id, movie file, reason."""
    lines = ["id\tmovie\treason"]
    lines += ["\t".join((str(i), movie, " ".join(reason.split()))) for i, movie, reason in failures]
    _write(path, "\n".join(lines) + "\n")


def unique_root(name: str, taken: Collection[str], movie_id: int) -> str:
    """Start of the output files of a movie, different from all others.

    Only the movie's own endings are cut off: `a_1.234.tif` and `a_1.235.tif` are two movies. Where two folders hold
    movies of one name, the later gets its id.
    """
    root = os.path.basename(name)
    for ending in (".bz2", ".gz"):
        if root.lower().endswith(ending):
            root = root[: -len(ending)]
    root = os.path.splitext(root)[0]
    return f"{root}_{movie_id:06d}" if root in taken else root


def _write(path: str, text: str) -> None:
    temporary = f"{path}.{os.getpid()}.tmp"
    with open(temporary, "w", encoding="utf-8") as f:
        f.write(text)
    os.replace(temporary, path)
