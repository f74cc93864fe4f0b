"""Writes the report: the page's own parts, and its data as JSON.

The file is also a cache: the next `write_report` reuses the data of results that have not changed.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple
from urllib.parse import quote

from .. import __version__
from ..errors import ResultError
from ..files import atomic_path, output_error
from ..inputs import JSON_BYTES, json_value, read_text
from ..quality.figures import FRACTION, in_chart
from ..result_files import REPORT
from ..settings import Settings
from .collect import Row, Run, collect_run, rows_of_report
from .concerns import common_pixel_size_A, described, dose_figure, pace, shown_order
from .details import details
from .packing import packed, unpacked

DETAILED = 40  # number of movies with pictures in the page, about 50 kB each
_NEWEST_SHARE = 0.6  # fraction of them that are the newest; the others are those with the most warnings
_HERE = Path(__file__).parent
_FORMAT = f"flexalign-report-3 {__version__}"
_DATA_START, _DATA_END = '<script type="application/json" id="data">', "</script>"


@dataclass
class _Earlier:
    """Data of the last report of a folder: the rows, and {root: (stamp, details)} of the movies that have pictures."""

    run: Optional[Run] = None
    details: Dict[str, Tuple[List[int], Dict[str, Any]]] = field(default_factory=dict)


def write_report(
    folder: str,
    path: Optional[str] = None,
    title: str = "",
    detailed: int = DETAILED,
    running: bool = False,
    expected: Optional[int] = None,
) -> Run:
    """Write the report of a folder of results as one HTML file. The data of an earlier report at `path` are reused.

    Parameters
    ----------
    path : of the report; default: `report.html` in the folder.
    detailed : number of movies whose pictures are in the page; those of the others are linked.
    running : whether the run goes on: the page states that and reloads every minute.
    expected : number of movies of the whole run, if known.

    Raises
    ------
    SettingsError : the folder can't be read; OutputError : the report can't be written.
    """
    path = path or os.path.join(folder, REPORT)
    earlier = _earlier(path, folder)
    run = collect_run(folder, earlier.run)
    chosen = _chosen(run, detailed)
    kept = {}
    for row in run.rows:
        root, stamp = row["root"], row["stamp"]
        if root not in chosen:
            continue
        try:
            known = earlier.details.get(root)
            kept[root] = known if known is not None and known[0] == stamp else (stamp, details(folder, root))
            run.unreadable += kept[root][1].get("problems", [])
        except ResultError as error:
            run.unreadable.append(f"{root}: its motion can't be shown ({error}).")
    content = _content(run, kept, path, title or _title(folder))
    content.update(running=running, expected=expected, detailed=detailed)
    try:
        with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as f:
            f.write(_page(content))
    except OSError as error:
        raise output_error(path, error) from error
    return run


def _chosen(run: Run, detailed: int) -> Dict[str, bool]:
    """Roots of the newest movies and of those with the most warnings."""
    newest = sorted(run.rows, key=lambda row: row["finished"], reverse=True)
    n_newest = round(_NEWEST_SHARE * detailed)
    worst = sorted(newest[n_newest:], key=_need, reverse=True)
    return {row["root"]: True for row in newest[:n_newest] + worst[: detailed - n_newest]}


def _need(row: Row) -> Tuple[int, float]:
    doubts = 2 * len(row["warnings"]) + len(row["concerns"])
    return doubts, row["values"].get(in_chart("motion")[0], 0.0)


def _content(run: Run, kept: Dict[str, Any], path: str, title: str) -> Dict[str, Any]:
    names = shown_order(name for row in run.rows for name in row["values"])
    base = os.path.relpath(run.folder, os.path.dirname(path) or ".")
    return {
        "format": _FORMAT,
        "version": __version__,
        "folder": os.path.abspath(run.folder),
        "title": title,
        "written": round(time.time()),
        "base": "" if base == "." else quote(os.fsencode(base)) + "/",
        "order": run.order,
        "figures": {name: _figure(name) for name in names},
        "charts": {chart: in_chart(chart) for chart in ("motion", "local motion", "pairs")},
        "dose": dose_figure([row["values"] for row in run.rows]),
        "pace": pace([row["finished"] for row in run.rows]),
        "pixel_size_A": common_pixel_size_A(run),
        "defaults": Settings().to_dict(),
        "settings": run.settings,
        "failed": run.failed,
        "unreadable": run.unreadable,
        **packed([{**row, "details": kept[row["root"]][1]} if row["root"] in kept else row for row in run.rows]),
    }


def _figure(name: str) -> Dict[str, Any]:
    figure = described(name)
    return {**figure._asdict(), "unit": "%" if figure.unit == FRACTION else figure.unit}


def _title(folder: str) -> str:
    """Name of the folder; of the run, for a protocol's `extra`."""
    parent, name = os.path.split(os.path.abspath(folder))
    return os.path.basename(parent) if name == "extra" else name


def _page(content: Dict[str, Any]) -> str:
    parts = {name: (_HERE / name).read_text(encoding="utf-8") for name in ("style.css", "charts.js", "report.js")}
    page = (_HERE / "page.html").read_text(encoding="utf-8")
    for name, text in parts.items():
        page = page.replace(f"@{name}@", text)
    # ASCII, with <, > and & escaped, so that no name ends the script element or starts another element.
    data = json.dumps(content, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        data = data.replace(character, f"\\u{ord(character):04x}")
    return page.replace("@data@", f"\n{_DATA_START}{data}{_DATA_END}\n")


def _earlier(path: str, folder: str) -> _Earlier:
    """Data of the folder from an earlier report at `path`; empty if there is none."""
    try:
        lines = read_text(path, JSON_BYTES).split("\n")
        line = next(line for line in lines if line.startswith(_DATA_START))
        content = json_value(line.strip()[len(_DATA_START) : -len(_DATA_END)])
        if content["format"] != _FORMAT or content["folder"] != os.path.abspath(folder):
            return _Earlier()
        rows, settings = unpacked(content), content["settings"]
        if not rows_of_report(rows, settings):
            return _Earlier()
        known = {row["root"]: (row["stamp"], row.pop("details")) for row in rows if "details" in row}
        return _Earlier(Run(folder, rows, settings=settings), known)
    except (OSError, ValueError, LookupError, TypeError, StopIteration):  # no report, or a file of another program
        return _Earlier()
