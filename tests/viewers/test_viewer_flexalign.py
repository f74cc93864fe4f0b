"""The viewer shows the outputs of a run. Windows are not opened."""

from __future__ import annotations

import os
import sqlite3

import pytest
from matplotlib.backend_bases import MouseButton, MouseEvent

from flexalign_plugin.phantoms.movie_writers import write_mrc_movie
from flexalign_plugin.phantoms.phantom import particle_phantom

from ..scipion_project import import_movies, new_alignment, new_project, run


@pytest.fixture(scope="module")
def viewer(tmp_path_factory):
    from flexalign_plugin.viewers import FlexAlignViewer

    folder = tmp_path_factory.mktemp("viewed")
    phantom = particle_phantom((5, 200, 200), pixel_size_A=5.0, dose=4, contrast=0.4, drift_px=3, local_px=0.0)
    write_mrc_movie(str(folder / "a.mrcs"), phantom.frames(), 5.0)
    (folder / "c.mrcs").write_bytes((folder / "a.mrcs").read_bytes())
    (folder / "b.mrcs").write_bytes((folder / "a.mrcs").read_bytes()[:20000])
    before = os.getcwd()
    project = new_project("viewed")
    protocol = run(project, new_alignment(project, import_movies(project, str(folder), "*.mrcs", 5.0)))
    viewer = FlexAlignViewer(project=project)
    viewer.setProtocol(protocol)
    yield viewer
    os.chdir(before)


@pytest.fixture(autouse=True)
def _in_project(viewer):
    os.chdir(viewer.getProject().path)


def test_it_is_the_viewer_of_the_protocol(viewer):
    import pwem

    assert type(viewer) in pwem.Domain.findViewers(viewer.protocol, "tkinter")


def _columns(table):
    """Columns of the table in their order, and those that are shown as pictures."""
    with sqlite3.connect(table._emSet.getFileName()) as database:
        known = {"id", "enabled", *(name for (name,) in database.execute("SELECT label_property FROM Classes"))}
    visible, order, render = (labels.split(" ") for labels in table.getVisibleAndOrderLabels())
    assert visible == order and known >= set(visible)
    # Drawing these opens raw data for writing and changes its time.
    assert "_filename" not in visible and "stack" not in render
    return visible, [name for name in visible if name in render]


def test_tables_show_the_outputs(viewer):
    views = viewer._getVisualizeDict()
    (table,) = views["showMicrographs"]("showMicrographs")
    assert table._emSet is viewer.protocol.outputMicrographs
    visible, pictures = _columns(table)
    assert pictures == [f"{name}._filename" for name in ("thumbnail", "psdCorr", "plotGlobal", "plotLocal")]
    assert "_rlnAccumMotionTotal" in visible and visible[-1] == "_micName"
    (micrograph, *_) = viewer.protocol.outputMicrographs
    assert all(os.path.exists(getattr(micrograph, name[: -len("._filename")]).getFileName()) for name in pictures)
    (table,) = views["showMovies"]("showMovies")
    assert table._emSet is viewer.protocol.outputMovies
    visible, pictures = _columns(table)
    assert {"_alignment._xshifts", "_alignment._yshifts", "_micName"} <= set(visible) and not pictures
    assert not any("rln" in name for name in visible)  # long lists for RELION


def test_even_and_odd_micrographs_have_entries(viewer, monkeypatch):
    views = viewer._getVisualizeDict()
    for entry, name in (("showEven", "outputMicrographsEven"), ("showOdd", "outputMicrographsOdd")):
        (message,) = views[entry](entry)
        assert "nothing yet" in message.getMessage()  # this run has none
        made = viewer.protocol.outputMicrographs
        monkeypatch.setattr(viewer.protocol, name, made, raising=False)
        (table,) = views[entry](entry)
        assert table._emSet is made


def test_an_output_opens_in_the_same_table(viewer):
    import pwem

    from flexalign_plugin.viewers.tables import AlignedSetViewer

    for name in ("outputMicrographs", "outputMovies", "outputMoviesFailed"):
        output = getattr(viewer.protocol, name)
        first = pwem.Domain.findViewers(output, "tkinter")[0]
        assert first is AlignedSetViewer
        (table,) = first(project=viewer.getProject())._visualize(output)
        visible, _ = _columns(table)
    assert visible == ["id", "_micName", "reason"]
    imported = viewer.protocol.inputMovies.get()
    assert AlignedSetViewer not in pwem.Domain.findViewers(imported, "tkinter")


def test_a_failed_movie_has_its_reason_without_the_path(viewer):
    (failed,) = viewer.protocol.outputMoviesFailed
    reason = failed.reason.get()
    assert reason.startswith("Truncated") and "copy the file again" in reason and os.sep not in reason


def test_failures_are_shown_with_their_reasons(viewer):
    (view,) = viewer._getVisualizeDict()["showFailed"]("showFailed")
    with open(view.getFileList()[0]) as f:
        text = f.read()
    assert "b.mrcs" in text and "copy the file again" in " ".join(text.split())


def test_a_movies_window_goes_to_its_neighbours(viewer, tmp_path):
    (window,) = viewer._getVisualizeDict()["showMovie"]("showMovie")
    figure = window.getFigure()
    assert window.root == "a"
    assert sum(bool(axes.images) for axes in figure.axes) >= 2
    words = [text.get_text() for text in figure.texts]
    assert "Total motion" in words and "Rejected pairs" in words and any(w.endswith(" Å") for w in words)
    window.step(-1)
    assert window.root == "a"
    canvas = figure.canvas
    x, y = window.following.ax.transAxes.transform((0.5, 0.5))
    for name in ("button_press_event", "button_release_event"):
        canvas.callbacks.process(name, MouseEvent(name, canvas, x, y, MouseButton.LEFT))
    assert window.root == "c"
    assert any(text.get_text().startswith("c ") for text in figure.texts)
    figure.savefig(str(tmp_path / "window.png"))


def test_the_runs_window_shows_every_movie(viewer, tmp_path):
    (window,) = viewer._getVisualizeDict()["showRun"]("showRun")
    motion, _, progress = window.getFigure().axes
    assert motion.get_title(loc="left") == "Motion of 2 movies, 1 failed"
    assert len(motion.collections[0].get_offsets()) == 2
    assert list(progress.lines[0].get_ydata()) == [1, 2]
    window.getFigure().savefig(str(tmp_path / "run.png"))


def test_the_run_wrote_its_report_and_the_viewer_opens_it(viewer, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    (view,) = viewer._getVisualizeDict()["showReport"]("showReport")
    view.show()
    (address,) = opened
    assert address.startswith("file:///") and address.endswith("/extra/report.html")
    with open(view.path, encoding="utf-8") as f:
        text = f.read()
    assert '"root":"c"' in text and "b.mrcs" in text and '"running":false' in text


def test_an_unknown_movie_is_reported(viewer):
    viewer.movieId.set(99)
    (view,) = viewer._getVisualizeDict()["showMovie"]("showMovie")
    assert "99" in view.getMessage()
