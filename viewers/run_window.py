"""A window about the whole run: motion of the movies in their order, with those that stand out, and throughput."""

from __future__ import annotations

from datetime import datetime

import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.ticker import MaxNLocator
from pyworkflow.gui.plotter import Plotter

from flexalign_plugin.report_pages import Run
from flexalign_plugin.report_pages.figures import described

MOTIONS = (
    ("accumulated_motion_total_A", "#0b6e4f"),
    ("accumulated_motion_early_A", "#2b6cb0"),
    ("accumulated_motion_late_A", "#b7791f"),
)
_NAMED = 8  # of the movies that stand out


def run_window(run: Run) -> Plotter:
    """Window about a run with at least one movie."""
    plotter = Plotter(3, 1, figsize=(11, 9), windowTitle="FlexAlign: the whole run")
    plotter.tightLayoutOn = False
    motion, local, progress = plotter.getFigure().subplots(3, 1, gridspec_kw={"height_ratios": (1.3, 1, 1)})
    plotter.getFigure().subplots_adjust(left=0.08, right=0.97, top=0.95, bottom=0.07, hspace=0.42)
    order = "acquisition" if run.order == "acquired" else "the results' writing"
    for name, colour in MOTIONS:
        _dots(motion, run, name, colour)
    motion.legend(fontsize=9, loc="upper right")
    motion.set_title(f"Motion of {len(run.rows)} movies, {len(run.failed)} failed", fontsize=11)
    motion.set_ylabel("motion (Å)")
    _dots(local, run, "local_motion_max_px", "#5b4b8a")
    local.set_ylabel("largest local motion (px)")
    for axes in (motion, local):
        axes.set_xlabel(f"movie, in order of {order}")
        axes.set_xlim(0.5, max(len(run.rows), 2) + 0.5)
        axes.set_ylim(bottom=0)
        axes.set_axisbelow(True)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(True, color="0.92")
    _throughput(progress, run)
    return plotter


def _dots(axes: Axes, run: Run, name: str, colour: str) -> None:
    label = described(name).label
    values = np.array([row["values"].get(name, np.nan) for row in run.rows], float)
    if np.isnan(values).all():
        return
    at = np.arange(1, len(values) + 1)
    axes.scatter(at, values, s=16, color=colour, label=label)
    far = [i for i, row in enumerate(run.rows) if any(text.startswith(label) for text in row["concerns"])]
    axes.scatter(at[far], values[far], s=70, facecolors="none", edgecolors="#c62828", linewidths=1.6)
    for i in far[:_NAMED]:
        axes.annotate(
            run.rows[i]["root"],
            (at[i], values[i]),
            xytext=(-8, -3),
            textcoords="offset points",
            ha="right",
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
    )
    hours = (times[-1] - times[0]) / 3600
    pace = f", {(len(times) - 1) / hours:.0f} movies per hour" if hours > 0 else ""
    axes.set_title(f"Throughput{pace}", fontsize=11)
    axes.set_ylabel("movies done")
    axes.set_ylim(0, len(times) * 1.08)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    locator = AutoDateLocator(maxticks=9)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.grid(True, color="0.92")
