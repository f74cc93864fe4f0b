"""Scipion's project window as its user meets it, for scenes: widgets are found by what is seen and pressed for real.

To be imported only where there is a display. Nothing waits for ever: no window keeps the program in its own loop,
events are handled while a scene waits for something, and every wait has a limit.
"""

from __future__ import annotations

import os
import time
import tkinter as tk
import traceback
from tkinter import ttk
from typing import Any, Callable, Iterator, List, Set

from pyworkflow.gui.project import ProjectWindow  # isort: skip: pyworkflow's imports go round in a circle
from pyworkflow.gui.dialog import Dialog
from pyworkflow.gui.form import FormWindow, GroupWidget, LineWidget, ParamWidget
from pyworkflow.utils import Message

# Windows stay open after they were shown, and the scene goes on.
tk.Misc.mainloop = lambda *_: None  # type: ignore[method-assign, assignment]


def below(widget: Any) -> Iterator[Any]:
    """All widgets inside another one, in the order of their making."""
    for child in widget.winfo_children():
        yield child
        yield from below(child)


class Scipion:
    """The window of a project."""

    def __init__(self, project: Any) -> None:
        self.window = ProjectWindow(project.path)
        self.project = self.window.project
        self.window.show()
        self.tk = self.window.root
        self.broken: List[str] = []  # exceptions in what buttons do, which Tk only prints
        tk.Tk.report_callback_exception = lambda _, *error: self.broken.append(  # type: ignore[method-assign]
            "".join(traceback.format_exception(*error))
        )
        self.handle_events()

    def handle_events(self, seconds: float = 0.1) -> None:
        end = time.monotonic() + seconds
        while True:
            self.tk.update()
            if time.monotonic() > end:
                break
            time.sleep(0.01)
        assert not self.broken, self.broken[0]

    def wait(self, what: str, until: Callable[[], Any], limit_s: float = 20.0) -> Any:
        """Handle events until something holds; returns it."""
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            self.handle_events(0.05)
            found = until()
            if found:
                return found
        raise AssertionError(f"{what}: not within {limit_s:g} s")

    def run_of(self, name: str) -> Any:
        """The run of the protocol class with this name."""
        return next(run for run in self.project.getRuns() if run.getClassName() == name)

    def open_form(self, protocol: Any) -> Form:
        """As a double click on a run does, or on a protocol in the tree."""
        return self._opened_by(lambda: self.window.viewWidget._openProtocolForm(protocol))

    def open_results(self, protocol: Any) -> Form:
        """As a click on *Analyze Results* does."""
        return self._opened_by(lambda: self.window.viewWidget._analyzeResults(protocol, None))

    def _opened_by(self, press: Callable[[], Any]) -> Form:
        opened: List[Any] = []
        original = FormWindow.__init__

        def remember(window: Any, *args: Any, **kwargs: Any) -> None:
            opened.append(window)
            original(window, *args, **kwargs)

        FormWindow.__init__ = remember
        try:
            press()
        finally:
            FormWindow.__init__ = original
        return Form(self, opened[0])

    def windows(self) -> List[Any]:
        """All windows but the project's own that are on the screen."""
        return [widget for widget in below(self.tk) if isinstance(widget, tk.Toplevel) and widget.winfo_viewable()]

    def dialogs(self) -> List[Dialog]:
        return [widget for widget in below(self.tk) if isinstance(widget, Dialog)]

    def answer(self, press: Callable[[], Any], button: str) -> str:
        """Press something that opens a dialog, then that button in it; returns what the dialog said.

        The dialog holds up whoever opened it, so that the answer is given by a timer.
        """
        said: List[str] = []

        def look() -> None:
            dialogs = self.dialogs()
            if not dialogs or not dialogs[-1].winfo_viewable():
                self.tk.after(50, look)
                return
            dialog = dialogs[-1]
            dialog.update_idletasks()
            self.picture(dialog, f"dialog_{dialog.title()}")
            said.append("\n".join(w.get("1.0", "end") for w in below(dialog) if isinstance(w, tk.Text)))
            next(w for w in below(dialog) if isinstance(w, tk.Button) and w["text"] == button).invoke()

        self.tk.after(50, look)
        press()
        self.handle_events()
        assert said, "no dialog was opened"
        return said[0]

    def picture(self, window: Any, name: str) -> None:
        """A picture of a window into the folder FLEXALIGN_SCREENSHOTS, for people, if it is set."""
        folder = os.environ.get("FLEXALIGN_SCREENSHOTS")
        if not folder:
            return
        from PIL import ImageGrab

        window.lift()
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            window.update()
        x, y = window.winfo_rootx(), window.winfo_rooty()
        box = x, y, x + window.winfo_width(), y + window.winfo_height()
        ImageGrab.grab(bbox=box, xdisplay="").save(os.path.join(folder, name.replace(" ", "_") + ".png"))


class Form:
    """A form: the parameters of a run, or of a viewer."""

    def __init__(self, scipion: Scipion, window: Any) -> None:
        self.scipion, self.window, self.protocol = scipion, window, window.protocol
        (self.tabs,) = (widget for widget in below(window.root) if isinstance(widget, ttk.Notebook))
        scipion.handle_events()

    def set(self, **values: Any) -> None:
        for name, value in values.items():
            self.window.setVar(name, value)
        self.scipion.handle_events()

    def set_level(self, level: str) -> None:
        """Normal or Advanced, by the button."""
        self.button(level).invoke()
        self.scipion.handle_events()

    def shown(self) -> Set[str]:
        """Names of the parameters that the user can see on some tab."""
        found = set()
        for tab in self.tabs.tabs():
            self.tabs.select(tab)
            self.scipion.handle_events(0)
            rows = ((name, w) for name, w in self._widgets() if not isinstance(w, LineWidget))
            found |= {name for name, widget in rows if widget.label.winfo_viewable()}
        return found

    def _widgets(self) -> Iterator[Any]:
        for name, widget in self.window.widgetDict.items():
            if isinstance(widget, ParamWidget) and not isinstance(widget, GroupWidget):
                yield name, widget

    def ugly(self) -> List[str]:
        """Labels that are cut off or run out of their window, and boxes with nothing in them, on any tab."""
        found = []
        for tab in self.tabs.tabs():
            self.tabs.select(tab)
            self.scipion.handle_events(0)
            left, right = self._horizontal(self.window.root)
            for widget in filter(lambda w: w.winfo_viewable(), below(self.window.root)):
                if isinstance(widget, tk.Label) and widget["text"]:
                    first, last = self._horizontal(widget)
                    if widget.winfo_width() < widget.winfo_reqwidth() or first < left or last > right:
                        found.append(f"label {widget['text']!r} is cut off")
                elif isinstance(widget, tk.LabelFrame) and not any(w.winfo_viewable() for w in below(widget)):
                    found.append(f"box {widget['text']!r} is empty")
        return found

    @staticmethod
    def _horizontal(widget: Any) -> Any:
        return widget.winfo_rootx(), widget.winfo_rootx() + widget.winfo_width()

    def button(self, text: str) -> Any:
        """The visible button with this text."""
        kinds = tk.Button, tk.Radiobutton
        found = [w for w in below(self.window.root) if isinstance(w, kinds) and w["text"] == text]
        return next(w for w in found if w.winfo_viewable())

    def with_wizard(self) -> Set[str]:
        """Names of the parameters with a wizard."""
        return {name for name, widget in self._widgets() if self._icons(widget, Message.LABEL_BUTTON_WIZ)}

    def wizard(self, name: str) -> Callable[[], Any]:
        """The function that a click on the wizard's icon beside a parameter calls."""
        return self._icon(name, Message.LABEL_BUTTON_WIZ)

    def eye(self, name: str) -> Callable[[], Any]:
        return self._icon(name, Message.LABEL_BUTTON_VIS)

    def _icon(self, name: str, text: str) -> Callable[[], Any]:
        (icon,) = self._icons(dict(self._widgets())[name], text)
        return icon.invoke

    @staticmethod
    def _icons(widget: Any, text: str) -> List[Any]:
        return [w for w in below(widget.btnFrame) if w["text"] == text] if widget.btnFrame else []

    def pictures(self, name: str) -> None:
        for i, tab in enumerate(self.tabs.tabs()):
            self.tabs.select(tab)
            self.scipion.picture(self.window.root, f"{name}_{i}")

    def close(self) -> None:
        self.window.root.destroy()
        self.scipion.handle_events()
