"""A window with all that is known of one movie, and buttons to its neighbours."""

from __future__ import annotations

import os
import textwrap
from typing import Any, List, Optional, Sequence

from matplotlib.axes import Axes
from matplotlib.image import imread
from matplotlib.widgets import Button
from pyworkflow.gui.plotter import Plotter

from flexalign_plugin.report_pages import Run
from flexalign_plugin.report_pages.figures import FIGURES, described, in_words, median

# File endings of a movie's pictures and what they show, with the place (left, bottom, width, height) in the window.
PICTURES = (
    ("_thumbnail.png", "Micrograph", (0.01, 0.50, 0.28, 0.42)),
    ("_plot_psd.png", "Power spectrum before and after", (0.30, 0.50, 0.28, 0.45)),
    ("_plot_global.png", "Motion of the whole frame", (0.01, 0.02, 0.28, 0.43)),
    ("_plot_local.png", "Local motion", (0.30, 0.02, 0.30, 0.43)),
)
_TEXT_LEFT, _COLUMN_RUN, _COLUMN_VALUE = 0.625, 0.985, 0.89
_TEXT_WIDTH = 62  # characters
_LINE = 0.031  # of the window's height
_ALARM = "#b3261e"


class MovieWindow(Plotter):
    """One movie of a run; `roots` are those that the buttons go through, in order."""

    def __init__(self, run: Run, roots: Sequence[str], root: str) -> None:
        super().__init__(1, 1, figsize=(15, 8.6), windowTitle="FlexAlign: one movie")
        self.tightLayoutOn = False
        self._run, self._roots, self._at = run, list(roots), list(roots).index(root)
        self._buttons: List[Any] = []
        self.draw_movie()

    @property
    def root(self) -> str:
        return self._roots[self._at]

    def step(self, by: int) -> None:
        """Show a neighbour; at the ends nothing happens."""
        if 0 <= self._at + by < len(self._roots):
            self._at += by
            self.draw_movie()
            self.getCanvas().draw_idle()

    def draw_movie(self) -> None:
        figure = self.getFigure()
        figure.clear()
        for ending, title, place in PICTURES:
            path = os.path.join(self._run.folder, self.root + ending)
            axes = figure.add_axes(place)
            axes.axis("off")
            if os.path.exists(path):
                axes.imshow(imread(path), cmap="gray", interpolation="antialiased")
                if ending == "_thumbnail.png":  # the plots have titles of their own
                    axes.set_title(title, fontsize=10)
            else:
                axes.text(0.5, 0.5, f"{title}:\nnot written", ha="center", va="center", color="0.5")
        row = next((row for row in self._run.rows if row["root"] == self.root), None)
        self._write_text(row)
        # Kept, because matplotlib forgets buttons that nobody holds.
        self._buttons = [self._button("Previous", 0.625, -1), self._button("Next", 0.725, 1)]

    def _button(self, label: str, left: float, by: int) -> Button:
        axes: Axes = self.getFigure().add_axes((left, 0.02, 0.09, 0.045))
        button = Button(axes, label)
        possible = 0 <= self._at + by < len(self._roots)
        button.set_active(possible)
        button.label.set_color("black" if possible else "0.7")
        button.on_clicked(lambda _: self.step(by))
        return button

    def _write_text(self, row: Optional[Any]) -> None:
        y = 0.955
        y = self._line(f"{self.root}   ({self._at + 1} of {len(self._roots)})", y, size=12, weight="bold")
        if row is None:
            self._line("Its result can't be read: see the run's log.", y, color=_ALARM)
            return
        for sentence in row["warnings"] + row["concerns"]:
            y = self._line(sentence, y, color=_ALARM)
        for sentence in row["notes"]:
            y = self._line(sentence, y, color="0.35")
        y -= 0.4 * _LINE
        self.getFigure().text(_COLUMN_VALUE, y, "this movie", fontsize=9, color="0.4", ha="right")
        self.getFigure().text(_COLUMN_RUN, y, "run's median", fontsize=9, color="0.4", ha="right")
        y -= _LINE
        values = row["values"]
        names = [name for name in FIGURES if name in values] + [name for name in values if name not in FIGURES]
        for name in names:
            if y < 0.09:
                break
            figure = described(name)
            high = figure.limit is not None and values[name] > figure.limit
            text, colour = self.getFigure().text, _ALARM if high else "black"
            text(_TEXT_LEFT, y, figure.label, fontsize=10)
            text(_COLUMN_VALUE, y, in_words(name, values[name]), fontsize=10, ha="right", color=colour)
            text(_COLUMN_RUN, y, in_words(name, median(self._run, name)), fontsize=10, ha="right", color="0.4")
            y -= 0.92 * _LINE

    def _line(self, sentence: str, y: float, size: int = 10, color: str = "black", weight: str = "normal") -> float:
        """Write a sentence in as many lines as it needs; returns where the next may begin."""
        for line in textwrap.wrap(sentence, _TEXT_WIDTH) or [""]:
            # Names may hold dollar signs, which are no mathematics.
            self.getFigure().text(
                _TEXT_LEFT, y, line, fontsize=size, color=color, weight=weight, va="baseline", parse_math=False
            )
            y -= _LINE
        return y - 0.25 * _LINE
