"""A window with all results of one movie, its local motion as an animation, and buttons for the neighbouring movies."""

from __future__ import annotations

import os
import textwrap
from typing import Any, Callable, Dict, Optional, Sequence, Tuple

from matplotlib.axes import Axes
from matplotlib.widgets import Button, Slider
from pyworkflow.gui.plotter import Plotter

from flexalign_plugin.errors import ResultError
from flexalign_plugin.report_pages import Run
from flexalign_plugin.report_pages.concerns import (
    common_pixel_size_A,
    described,
    in_words,
    median,
    pixel_size_A,
    shown_order,
)
from flexalign_plugin.report_pages.details import details
from flexalign_plugin.result_files import MOTION, POWER_SPECTRUM_PICTURE, THUMBNAIL

from . import movie_charts as charts

# With the toolbar (42 px), a title bar and a panel the window fits a screen of 1366 x 768.
_SIZE_INCHES = (13.4, 6.5)  # at 100 px per inch
_LEFTS, _WIDTH = (0.012, 0.225, 0.445), 0.185  # three columns of charts
_UPPER, _LOWER, _HEIGHT = 0.575, 0.115, 0.36
_TEXT_LEFT, _COLUMN_RUN, _COLUMN_VALUE = 0.648, 0.994, 0.88
_TEXT_WIDTH = 68  # characters
_LINE = 0.031  # of the window's height
_PLAYED_MS = 2500  # duration of the animation


class MovieWindow(Plotter):
    """Shows one movie of a run. `roots` are the movies for the buttons, in order; `root` is the one shown first."""

    def __init__(self, run: Run, roots: Sequence[str], root: str) -> None:
        super().__init__(1, 1, figsize=_SIZE_INCHES, windowTitle="FlexAlign: one movie")
        self.tightLayoutOn = False
        self._timer: Any = None
        self.getFigure().canvas.mpl_connect("close_event", lambda _: self._stop())
        self._run, self._roots, self._index = run, list(roots), list(roots).index(root)
        self.draw_movie()

    @property
    def root(self) -> str:
        return self._roots[self._index]

    def step(self, by: int) -> None:
        """Show the movie `by` places further, if there is one."""
        if 0 <= self._index + by < len(self._roots):
            self._index += by
            self.draw_movie()
            self.getCanvas().draw_idle()

    def draw_movie(self) -> None:
        self._stop()
        self.getFigure().clear()
        self._draw_charts()
        self._write_text(next((row for row in self._run.rows if row["root"] == self.root), None))
        # Stored as attributes, because matplotlib keeps only weak references to buttons.
        self.previous = self._button("Previous", (_TEXT_LEFT, 0.02, 0.09, 0.045), lambda: self.step(-1))
        self.following = self._button("Next", (_TEXT_LEFT + 0.1, 0.02, 0.09, 0.045), lambda: self.step(1))
        for button, possible in (
            (self.previous, self._index > 0),
            (self.following, self._index + 1 < len(self._roots)),
        ):
            button.set_active(possible)
            button.label.set_color("black" if possible else "0.7")

    def _draw_charts(self) -> None:
        try:
            shown = details(self._run.folder, self.root)
        except ResultError as error:
            charts.missing(self._axes(0, _UPPER), self.root, "\n".join(textwrap.wrap(f"Can't be shown: {error}", 45)))
            return
        thumbnail, spectrum = (
            os.path.join(self._run.folder, self.root + end) for end in (THUMBNAIL, POWER_SPECTRUM_PICTURE)
        )
        charts.picture(self._axes(0, _UPPER), thumbnail, "Micrograph")
        if "profile" in shown:
            rings = shown.get("rings")
            below = 0.11 if rings is None else 0.155
            place = self._axes(1, _UPPER + below, _HEIGHT - below - 0.012)
            charts.picture(place, spectrum, charts.spectrum_title(rings))
            height = 0.07 if rings else 0.09
            charts.radial_averages(self._axes(1, _UPPER + below - 0.015 - height, height), shown["profile"], rings)
            if rings is not None:
                charts.ring_correlation(self._axes(1, _UPPER - 0.01, 0.07), rings)
        else:
            charts.missing(self._axes(1, _UPPER), "Power spectrum", "not written")
        self._chart(2, _UPPER, "shifts", "Global motion", charts.trajectory, shown)
        self._local_motion(shown, thumbnail)
        self._chart(1, _LOWER, "patches", "Patches", charts.residuals, shown)
        height = (_HEIGHT - 0.14) / 2 if "frc" in shown else _HEIGHT
        rejected = self._axes(2, _LOWER + _HEIGHT - height, height)
        if "frame_rejected" in shown:
            charts.rejected_pairs(rejected, shown)
        else:
            charts.missing(rejected, "Rejected pairs", "not in this result")
        if "frc" in shown:
            charts.even_odd_frc(self._axes(2, _LOWER, height), shown["frc"])

    def _axes(self, column: int, bottom: float, height: float = _HEIGHT) -> Axes:
        return self.getFigure().add_axes((_LEFTS[column], bottom, _WIDTH, height))

    def _chart(self, column: int, bottom: float, key: str, title: str, draw: Any, shown: Dict[str, Any]) -> None:
        axes = self._axes(column, bottom)
        if key in shown:
            draw(axes, shown)
        else:
            charts.missing(axes, title, "not measured")

    def _local_motion(self, shown: Dict[str, Any], thumbnail: str) -> None:
        axes = self._axes(0, _LOWER)
        if "field" not in shown:
            return charts.missing(axes, "Local motion", "none: only whole frames were aligned")
        motion = charts.LocalMotion(axes, shown, thumbnail)
        last = len(motion.frames) - 1
        place = self.getFigure().add_axes((_LEFTS[0] + 0.075, 0.025, 0.075, 0.03))
        self.slider = Slider(place, "", 0, last, valinit=last, valstep=1)
        self.slider.valtext.set_fontsize(9)
        self.slider.valtext.set_position((1.12, 0.5))

        def show(_: Any = None) -> None:
            i = int(self.slider.val)
            self.slider.valtext.set_text(f"frame {motion.frames[i]}")
            motion.draw(i)
            self.getCanvas().draw_idle()

        self.slider.on_changed(show)
        self.play = self._button("Play", (_LEFTS[0], 0.02, 0.06, 0.04), self._play_or_stop)
        show()

    def _play_or_stop(self) -> None:
        if self._timer is not None:
            return self._stop()
        self.play.label.set_text("Stop")
        last = int(self.slider.valmax)
        self.slider.set_val(0)
        self._timer = self.getCanvas().new_timer(interval=_PLAYED_MS // (last + 1))
        self._timer.add_callback(lambda: self.slider.set_val((int(self.slider.val) + 1) % (last + 1)))
        self._timer.start()

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer = None
            self.play.label.set_text("Play")
            self.getCanvas().draw_idle()

    def _button(self, label: str, place: Tuple[float, float, float, float], do: Callable[[], None]) -> Button:
        button = Button(self.getFigure().add_axes(place), label)
        button.on_clicked(lambda _: do())
        return button

    def _write_text(self, row: Optional[Any]) -> None:
        y = 0.95
        y = self._line(f"{self.root}   ({self._index + 1} of {len(self._roots)})", y, size=12, weight="bold")
        if row is None:
            self._line("The result of this movie can't be read: see the log of the run.", y, color=charts.ALARM)
            return
        for sentence in row["warnings"] + row["concerns"]:
            y = self._line(sentence, y, color=charts.ALARM)
        for sentence in row["notes"]:
            y = self._line(sentence, y, color="0.35")
        y -= 0.4 * _LINE
        self.getFigure().text(_COLUMN_VALUE, y, "this movie", fontsize=9, color="0.4", ha="right")
        self.getFigure().text(_COLUMN_RUN, y, "run's median", fontsize=9, color="0.4", ha="right")
        y -= _LINE
        values = row["values"]
        of_movie, of_run = pixel_size_A(row), common_pixel_size_A(self._run)
        names = shown_order(values)
        room = int((y - 0.09) / (0.92 * _LINE))
        if len(names) > room:
            names = names[: room - 1]
        for name in names:
            figure = described(name)
            high = figure.limit is not None and values[name] > figure.limit
            text, colour = self.getFigure().text, charts.ALARM if high else "black"
            text(_TEXT_LEFT, y, figure.label, fontsize=9)
            text(_COLUMN_VALUE, y, in_words(name, values[name], of_movie), fontsize=9, ha="right", color=colour)
            typical = in_words(name, median(self._run, name), of_run)
            text(_COLUMN_RUN, y, typical, fontsize=9, ha="right", color="0.4")
            y -= 0.92 * _LINE
        if len(names) < len(values):
            more = f"{len(values) - len(names)} more are in the report and in {row['root']}{MOTION}"
            self._line(more, y, size=8, color="0.4")

    def _line(self, sentence: str, y: float, size: int = 9, color: str = "black", weight: str = "normal") -> float:
        """Write a sentence, wrapped, and return the height at which the next one begins."""
        for line in textwrap.wrap(sentence, _TEXT_WIDTH) or [""]:
            # Without parse_math=False, dollar signs in names would start a formula.
            self.getFigure().text(
                _TEXT_LEFT, y, line, fontsize=size, color=color, weight=weight, va="baseline", parse_math=False
            )
            y -= _LINE
        return y - 0.25 * _LINE
