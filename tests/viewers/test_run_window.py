"""The window of the run: names of outliers are readable, and a click opens the movie's window."""

from __future__ import annotations

import os

import pytest
from matplotlib.backend_bases import MouseEvent
from matplotlib.dates import num2date

from flexalign_plugin.report_pages import collect_run

from ..report_pages.results import FULL, copy_result, make_results

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


def test_one_movie_is_one_movie_now(tmp_path):
    """No second movie on the axis, no years on the axis of time, no pace."""
    from flexalign_plugin.viewers.run_window import run_window

    when = 1e9
    path = make_results(tmp_path) / f"{FULL}_motion.json"
    os.utime(path, (when, when))
    figure = run_window(collect_run(str(tmp_path))).getFigure()
    figure.canvas.draw()
    motion, local, progress = figure.axes
    assert motion.get_title(loc="left") == "Motion of 1 movie, 1 failed"
    assert [tick for tick in motion.get_xticks() if 0.5 <= tick <= 1.5] == [1]
    first, last = (num2date(day).timestamp() for day in progress.get_xlim())
    assert last - first < 120 and first < when < last
    assert progress.get_title(loc="left") == "Throughput" and progress.get_xlabel() == "time"
    assert progress.lines[0].get_marker() == "o"


def test_local_motion_has_angstrom_beside_pixels(run):
    from flexalign_plugin.viewers.run_window import run_window

    figure = run_window(run).getFigure()
    figure.canvas.draw()
    local = figure.axes[1]
    (in_A,) = local.child_axes
    assert in_A.get_ylabel() == "(Å)"
    pixel_A = run.rows[0]["frames"]["pixel_size_A"]
    assert in_A.get_ylim() == pytest.approx([pixel_A * v for v in local.get_ylim()])


def test_both_windows_fit_a_laptop(run, tmp_path):
    """1366 x 768 pixels, of which matplotlib's toolbar takes 42 and title bar and panel about 70."""
    from flexalign_plugin.viewers.movie_window import MovieWindow
    from flexalign_plugin.viewers.run_window import run_window

    for figure in (run_window(run).getFigure(), MovieWindow(run, [FULL], FULL).getFigure()):
        width, height = figure.get_size_inches() * figure.dpi
        assert width <= 1366 and height <= 768 - 42 - 70
        figure.canvas.draw()
        inside = figure.bbox
        for axes in figure.axes:
            box = axes.get_tightbbox()
            assert box.x0 >= inside.x0 and box.x1 <= inside.x1 and box.y0 >= inside.y0 and box.y1 <= inside.y1
