"""Reads a folder of results: one small row for each movie, and the movies that failed.

A row is read from `<root>_motion.json`. Rows of an earlier call, given as `known`, are reused if this file still has
the same time and size, so that an update during a run reads the new movies only.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Tuple
from urllib.parse import quote

from ..errors import ResultError, SettingsError
from ..inputs import has_type
from ..output.failures import read_failures
from ..output.motion_json import PARTS, load_result
from ..result_files import FAILED_MOVIES, MOTION, NOT_RESULTS, STARTS
from .concerns import SECONDS, concerns, numbers, pixel_size_A

_RESULT = re.compile("(.+?)((?:" + "|".join(re.escape(start) for start in STARTS) + ").*)", re.DOTALL)
Row = Dict[str, Any]
_ROW: Dict[str, Any] = {
    **{name: PARTS[name] for name in ("warnings", "notes", "frames", "micrograph")},
    "root": str,
    "movie": str,
    "acquired": Optional[float],
    "finished": float,
    "stamp": List[int],
    "values": Dict[str, float],
    "concerns": List[str],
    "files": List[List[str]],
    "settings": str,
}


@dataclass
class Run:
    """The movies of a folder.

    Attributes
    ----------
    rows : of the aligned movies, in order of acquisition, as values for JSON. Keys: root, movie, stamp (time and size
        of `<root>_motion.json`), acquired and finished (seconds since 1970; acquired may be None), values, warnings,
        notes, concerns, input (what the input amounts to), doubts (about it), settings (key of
        `settings`), frames, micrograph, files ([ending, quoted name]).
    failed : [movie, reason] of the movies that failed.
    order : "acquired" if the rows are sorted by the time of the movie files, "finished" if that is unknown for any.
    settings : {number: settings}, each distinct set of settings once.
    unreadable : sentences about results that can't be read.
    """

    folder: str
    rows: List[Row] = field(default_factory=list)
    failed: List[Tuple[str, str]] = field(default_factory=list)
    order: str = "acquired"
    settings: Dict[str, Dict[str, Any]] = field(default_factory=dict)
    unreadable: List[str] = field(default_factory=list)


def collect_run(folder: str, known: Optional[Run] = None) -> Run:
    """Read a folder of results, as written by `flexalign align` or by the protocol (its `extra`).

    Raises
    ------
    SettingsError : the folder can't be read.
    """
    run = Run(folder)
    earlier = {row["root"]: row for row in known.rows} if known is not None else {}
    old_settings = known.settings if known is not None else {}
    stamps, files = _listed(folder)
    for root, stamp in stamps.items():
        row = earlier.get(root)
        if row is not None and row["stamp"] == stamp:
            settings = old_settings[row["settings"]]
        else:
            try:
                content = load_result(os.path.join(folder, root + MOTION), "quality")
            except ResultError as error:
                run.unreadable.append(f"Left out: {error}")
                continue
            row, settings = _row(root, content), content.get("settings", {})
            row.update(stamp=stamp, finished=stamp[0] / 1e9)
        row["settings"] = _number_of(settings, run.settings)
        row["files"] = files.get(root, [])
        run.rows.append(row)
    if any(row["acquired"] is None for row in run.rows):
        run.order = "finished"
    run.rows.sort(key=lambda row: (row[run.order], row["root"]))
    values, pixels = [row["values"] for row in run.rows], [pixel_size_A(row) for row in run.rows]
    for row, sentences in zip(run.rows, concerns(values, pixels)):
        row["concerns"] = sentences
    run.failed = [
        (os.path.basename(movie), why) for _, movie, why in read_failures(os.path.join(folder, FAILED_MOVIES))
    ]
    return run


def rows_of_report(rows: Any, settings: Any) -> bool:
    """Whether the values of an earlier report have the types of `Run.rows` and `Run.settings`; a report may be damaged,
    or written by another program."""
    return (
        isinstance(settings, dict)
        and all(has_type(values, PARTS["settings"]) for values in settings.values())
        and has_type(rows, List[Dict[str, Any]])
        and all(set(_ROW) <= set(row) and all(has_type(row[name], _ROW[name]) for name in _ROW) for row in rows)
        and all(row["settings"] in settings and len(row["stamp"]) == 2 for row in rows)
        and all(has_type(row.get("details", {}), Dict[str, Any]) for row in rows)
        and all(has_type(row.get("details", {}).get("problems", []), List[str]) for row in rows)
    )


def holds_results(folder: str) -> bool:
    """Whether the folder has a result or a list of failures; SettingsError if the folder can't be read."""
    stamps, _ = _listed(folder)
    return bool(stamps) or os.path.exists(os.path.join(folder, FAILED_MOVIES))


def _listed(folder: str) -> Tuple[Dict[str, List[int]], Dict[str, List[List[str]]]]:
    """Time and size of each movie's result, and each movie's files."""
    stamps: Dict[str, List[int]] = {}
    files: Dict[str, List[List[str]]] = {}
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise SettingsError(f"{folder}: can't be read ({error.strerror}): give the folder of the results.") from error
    for entry in entries:
        parts = _RESULT.fullmatch(entry.name)
        if parts is None or entry.name.startswith(NOT_RESULTS):
            continue
        root, ending = parts.groups()
        if ending == MOTION:
            try:
                status = entry.stat()
            except FileNotFoundError:  # being replaced at this moment: the next update reads it
                continue
            stamps[root] = [status.st_mtime_ns, status.st_size]
        files.setdefault(root, []).append([ending, quote(os.fsencode(entry.name))])
    return stamps, files


def _row(root: str, content: Dict[str, Any]) -> Row:
    movie = content.get("movie", root)
    values = numbers(content["quality"])
    seconds = sum(stage.get("wall", 0.0) for stage in content.get("timings_s", {}).values())
    if 0 < seconds < math.inf:
        values[SECONDS] = round(seconds, 1)
    try:
        acquired: Optional[float] = round(os.stat(movie).st_mtime, 1)
    except (OSError, ValueError):
        acquired = None
    return {
        "root": root,
        "movie": os.path.basename(movie),
        "acquired": acquired,
        "values": values,
        "warnings": content.get("warnings", []),
        "input": (content.get("input") or {}).get("line", ""),
        "doubts": (content.get("input") or {}).get("doubts", []),
        "notes": content.get("notes", []),
        "frames": content.get("frames", {}),
        "micrograph": content.get("micrograph", {}),
    }


def _number_of(settings: Dict[str, Any], distinct: Dict[str, Dict[str, Any]]) -> str:
    for number, known in distinct.items():
        if known == settings:
            return number
    number = str(len(distinct))
    distinct[number] = settings
    return number
