"""The window of one movie draws the movie's result. No display is needed."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from matplotlib.backend_bases import MouseButton, MouseEvent
from matplotlib.patches import Circle

from flexalign_plugin.motion import MotionModel
from flexalign_plugin.report_pages import collect_run
from flexalign_plugin.report_pages.concerns import in_words

from ..report_pages.results import FULL, make_results


@pytest.fixture
def window(tmp_path):
    from flexalign_plugin.viewers.movie_window import MovieWindow

    make_results(tmp_path, 1)
    path = tmp_path / f"{FULL}_motion.json"
    content = json.loads(path.read_text())
    content["quality"].update(
        patch_shifts_px=[[[0.0, 0.0]] * 8, [[0.0, 30.0], [0.0, -30.0]] * 4],
        patches_rejected=[0.0, 0.8],
        frame_pairs_rejected=[0.0, 0.0, 0.75, 0.0, 0.0, 0.0, 0.0, 0.25],
    )
    path.write_text(json.dumps(content))
    return MovieWindow(collect_run(str(tmp_path)), [FULL, "copy_0001"], FULL)


def _axes(window, title):
    (match,) = [axes for axes in window.getFigure().axes if axes.get_title().startswith(title)]
    return match


def _click(button):
    canvas = button.ax.figure.canvas
    x, y = button.ax.transAxes.transform((0.5, 0.5))
    for name in ("button_press_event", "button_release_event"):
        canvas.callbacks.process(name, MouseEvent(name, canvas, x, y, MouseButton.LEFT))


def test_local_motion_is_that_of_the_model_in_every_frame(window, tmp_path):
    axes = _axes(window, "Local motion")
    times = float(re.search(r"([\d.]+) times larger", axes.get_xlabel()).group(1))
    (points,) = [c for c in axes.collections if len(c.get_offsets()) > 1]
    model = MotionModel.load(str(tmp_path / f"{FULL}_motion.json"))
    window.slider.set_val(0)
    start = np.array(points.get_offsets())
    for i in (3, 7):
        window.slider.set_val(i)
        assert window.slider.valtext.get_text() == f"frame {model.first_frame + i + 1}"
        y, x = start[:, 1], start[:, 0]
        local = [
            np.stack(model.shift(np.full(len(y), float(model.first_frame + f)), y, x), 1) - model.global_shifts_px[f]
            for f in (0, i)
        ]
        expected = (local[1] - local[0])[:, ::-1]
        assert np.abs(expected).max() > 0.5
        np.testing.assert_allclose((points.get_offsets() - start) / times, expected, atol=0.02)


def test_play_goes_round_the_frames_and_ends_with_the_movie(window):
    started = []

    class Timer:
        def add_callback(self, do):
            self.tick = do

        def start(self):
            started.append(self)

        def stop(self):
            started.remove(self)

    window.getCanvas().new_timer = lambda interval: Timer()
    _click(window.play)
    (timer,) = started
    shown = [window.slider.val]
    for _ in range(8):
        timer.tick()
        shown.append(window.slider.val)
    assert shown == [0, 1, 2, 3, 4, 5, 6, 7, 0] and window.play.label.get_text() == "Stop"
    _click(window.following)
    assert window.root == "copy_0001" and not started


def test_residuals_and_rejected_pairs_of_patches_and_frames(window):
    good, bad = [p for p in _axes(window, "Patches").patches if isinstance(p, Circle)]
    assert bad.get_radius() > 2 * good.get_radius()
    assert bad.get_edgecolor()[0] > 0.6 > good.get_edgecolor()[0]
    assert "80 %" in "".join(text.get_text() for text in _axes(window, "Patches").texts)
    assert [bar.get_height() for bar in _axes(window, "Rejected pairs").patches] == [0, 0, 75, 0, 0, 0, 0, 25]


def test_an_unreadable_result_shows_the_reason_and_keeps_the_buttons(window, tmp_path):
    (tmp_path / "copy_0001_motion.json").write_text("{")
    _click(window.following)
    words = " ".join(text.get_text() for axes in window.getFigure().axes for text in axes.texts)
    assert "Can't be shown" in words
    _click(window.previous)
    assert window.root == FULL


def test_the_largest_local_motion_is_the_figure(window):
    row = next(row for row in window._run.rows if row["root"] == FULL)
    words = in_words("local_motion_max_px", row["values"]["local_motion_max_px"], row["frames"]["pixel_size_A"])
    assert f"at most {words}, edges included" in _axes(window, "Local motion").get_xlabel()
    assert words in [text.get_text() for text in window.getFigure().texts]
    assert " Å)" in words


def test_no_rejected_pair_is_said_and_not_drawn(window, tmp_path):
    path = tmp_path / f"{FULL}_motion.json"
    content = json.loads(path.read_text())
    content["quality"]["frame_pairs_rejected"] = [0.0] * 8
    path.write_text(json.dumps(content))
    window.draw_movie()
    axes = _axes(window, "Rejected pairs")
    assert not axes.patches and not axes.axison
    assert [text.get_text() for text in axes.texts] == ["none: all frame pairs agree"]


def test_thon_rings_are_drawn_with_their_ends(window, tmp_path):
    path = tmp_path / f"{FULL}_motion.json"
    content = json.loads(path.read_text())
    curve = [None] * 5 + list(np.linspace(1, 0, 91))
    both = {"corrected": curve, "uncorrected": curve}
    content["quality"].update(psd_profile=both, thon_ring_correlation=both, thon_rings_A=4.0)
    path.write_text(json.dumps(content))
    window.draw_movie()
    assert _axes(window, "Power spectrum").get_title().endswith("rings to 4 Å | none")
    charts = [axes for axes in window.getFigure().axes if "rings" in [text.get_text() for text in axes.texts]]
    uncorrected, corrected, level, end = charts[0].lines
    np.testing.assert_allclose(corrected.get_ydata()[5:], curve[5:])
    assert list(level.get_ydata()) == [0.5, 0.5] and list(end.get_xdata()) == [0.25, 0.25]
