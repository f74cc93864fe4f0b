"""A window about the whole run: motion of all movies in order, with outliers marked, and throughput.

A click on a movie's point opens the movie's own window.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, List, Tuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.ticker import MaxNLocator
from pyworkflow.gui.plotter import Plotter

from flexalign_plugin.quality.figures import in_chart
from flexalign_plugin.report_pages import Run
from flexalign_plugin.report_pages.concerns import (
    SHORTEST_PACE_S,
    common_pixel_size_A,
    described,
    number_text,
    pace,
)

from .movie_charts import ALARM, LOCAL
from .movie_window import MovieWindow

_SIZE_INCHES = (11, 6.5)  # as high as the movie's window
MOTIONS = tuple(zip(in_chart("motion"), ("#0b6e4f", "#2b6cb0", "#b7791f")))
_NAMED = 8  # number of outliers that are labelled with their names
_NAME_LENGTH = 66  # characters
_CHARACTER, _NEAR = 0.008, 0.06  # width of a character and height of a name, as fractions of the axes


def run_window(run: Run) -> Plotter:
    """The window of a run, which must have at least one movie."""
    plotter = Plotter(3, 1, figsize=_SIZE_INCHES, windowTitle="FlexAlign: the whole run")
    plotter.tightLayoutOn = False
    motion, local, progress = plotter.getFigure().subplots(3, 1, gridspec_kw={"height_ratios": (1.3, 1, 1)})
    plotter.getFigure().subplots_adjust(left=0.07, right=0.94, top=0.95, bottom=0.09, hspace=0.62)
    order = "acquisition" if run.order == "acquired" else "processing"
    for name, colour in MOTIONS:
        _dots(motion, run, name, colour)
    motion.legend(fontsize=9, loc="lower right", bbox_to_anchor=(1.005, 0.99), ncol=len(MOTIONS), frameon=False)
    movies = "1 movie" if len(run.rows) == 1 else f"{len(run.rows)} movies"
    motion.set_title(f"Motion of {movies}, {len(run.failed)} failed", fontsize=11, loc="left")
    motion.set_ylabel("motion (Å)")
    _dots(local, run, LOCAL, "#5b4b8a")
    local.set_ylabel("largest local\nmotion (px)")
    for axes, name in ((motion, MOTIONS[0][0]), (local, LOCAL)):
        axes.set_xlabel(f"movie, in order of {order} (click a point to open it)")
        axes.set_xlim(0.5, len(run.rows) + 0.5)
        axes.set_ylim(0, 1.05 * axes.get_ylim()[1])
        axes.set_axisbelow(True)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(True, color="0.92")
        _name_outliers(axes, run, name)
    pixel_A = common_pixel_size_A(run)
    if pixel_A is not None:
        in_A = local.secondary_yaxis("right", functions=(lambda px: px * pixel_A, lambda angstrom: angstrom / pixel_A))
        in_A.set_ylabel("(Å)")
    _throughput(progress, run)
    roots = [row["root"] for row in run.rows]
    clicks: List[Any] = []

    def open_movie(event: Any) -> None:
        if event.mouseevent not in clicks:  # matplotlib calls this once for each point under the mouse
            clicks[:] = [event.mouseevent]
            MovieWindow(run, roots, roots[int(event.ind[0])]).show()

    plotter.getCanvas().mpl_connect("pick_event", open_movie)
    return plotter


def _dots(axes: Axes, run: Run, name: str, colour: str) -> None:
    values = _values(run, name)
    if np.isnan(values).all():
        return
    axes.scatter(np.arange(1, len(values) + 1), values, s=16, color=colour, label=described(name).label, picker=4)
    rings = np.array(_outliers(run, name), int)
    axes.scatter(rings + 1, values[rings], s=70, facecolors="none", edgecolors=ALARM, linewidths=1.6)


def _values(run: Run, name: str) -> np.ndarray:
    return np.array([row["values"].get(name, np.nan) for row in run.rows], float)


def _outliers(run: Run, name: str) -> List[int]:
    label = described(name).label
    return [i for i, row in enumerate(run.rows) if any(text.startswith(label) for text in row["concerns"])]


def _name_outliers(axes: Axes, run: Run, name: str) -> None:
    """Write the names of outliers beside their points, on the side that has room, without overlap."""
    values, top, n = _values(run, name), axes.get_ylim()[1], len(run.rows)
    named: List[Tuple[float, float, float]] = []  # left, right, height
    for i in _outliers(run, name)[:_NAMED]:
        x, y = i / n, values[i] / top
        root = run.rows[i]["root"]
        if len(root) > _NAME_LENGTH:
            root = f"{root[: _NAME_LENGTH // 2]}…{root[-_NAME_LENGTH // 2 :]}"
        width = _CHARACTER * len(root)
        left, right = (x, x + width) if x < 0.5 else (x - width, x)
        above = sum(left < other[1] and other[0] < right and abs(y - other[2]) < _NEAR for other in named)
        named.append((left, right, y))
        axes.annotate(
            root,
            (i + 1, values[i]),
            xytext=(9 if x < 0.5 else -9, -3 - 11 * above),
            textcoords="offset points",
            ha="left" if x < 0.5 else "right",
            fontsize=8,
            parse_math=False,
        )


def _throughput(axes: Axes, run: Run) -> None:
    times = sorted(row["finished"] for row in run.rows)
    axes.step(
        date2num([datetime.fromtimestamp(t) for t in times]),
        np.arange(1, len(times) + 1),
        where="post",
        color="#0b6e4f",
        marker="o" if len(times) == 1 else None,  # a single movie makes no line
    )
    overall, _ = pace(times)
    per_hour = f", {number_text(overall)} movies per hour" if overall is not None else ""
    axes.set_title(f"Throughput{per_hour}", fontsize=11, loc="left")
    rim = max(0.02 * (times[-1] - times[0]), SHORTEST_PACE_S / 2)
    axes.set_xlim(*(date2num(datetime.fromtimestamp(t)) for t in (times[0] - rim, times[-1] + rim)))
    axes.set_xlabel("time")
    axes.set_ylabel("movies done")
    axes.set_ylim(0, len(times) * 1.08)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    locator = AutoDateLocator(maxticks=9)
    axes.xaxis.set_major_locator(locator)
    formatter = ConciseDateFormatter(locator)
    formatter.formats[5] = "%H:%M:%S"
    axes.xaxis.set_major_formatter(formatter)
    axes.grid(True, color="0.92")
