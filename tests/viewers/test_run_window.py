"""The window of the run: names of outliers are readable, and a click opens the movie's window."""

from __future__ import annotations

import pytest
from matplotlib.backend_bases import MouseEvent

from flexalign_plugin.report_pages import collect_run

from ..report_pages.results import copy_result, make_results

FAR = (3, 4, 37)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = make_results(tmp_path_factory.mktemp("run"))
    for i in range(40):
        copy_result(
            folder,
            f"a_rather_long_name_of_a_movie_from_some_grid_with_many_squares_{i:04d}",
            300.0 if i in FAR else 9.0,
            1e9 + i,
        )
    return collect_run(str(folder))


def test_names_of_outliers_lie_inside_and_apart(run):
    from flexalign_plugin.viewers.run_window import run_window

    figure = run_window(run).getFigure()
    motion = figure.axes[0]
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in motion.texts]
    assert [text.get_text()[-4:] for text in motion.texts] == [f"{i:04d}" for i in FAR]
    frame = motion.get_window_extent()
    assert all(frame.x0 < box.x0 and box.x1 < frame.x1 for box in boxes)
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_a_click_on_a_point_opens_its_movie(run, monkeypatch):
    from flexalign_plugin.viewers import run_window as module

    opened = []
    monkeypatch.setattr(module.MovieWindow, "show", lambda window: opened.append(window.root))
    figure = module.run_window(run).getFigure()
    figure.canvas.draw()
    x, y = figure.axes[0].transData.transform((38, 300.0))
    event = MouseEvent("button_press_event", figure.canvas, x, y, 1)
    figure.canvas.callbacks.process("button_press_event", event)
    assert opened == ["a_rather_long_name_of_a_movie_from_some_grid_with_many_squares_0037"]
    low = figure.axes[0].transData.transform((21, 9.0))[1]  # where points of neighbours and other figures lie close
    event = MouseEvent("button_press_event", figure.canvas, x, low, 1)
    figure.canvas.callbacks.process("button_press_event", event)
    assert len(opened) <= 2
