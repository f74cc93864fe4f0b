"""The viewer finds what a run made; windows themselves are not opened."""

from __future__ import annotations

import os

import pytest

from flexalign_plugin.movies.writers import write_mrc_movie
from flexalign_plugin.phantom import particle_phantom
from flexalign_plugin.tests.scipion_project import import_movies, new_alignment, new_project, run


@pytest.fixture(scope="module")
def viewer(tmp_path_factory):
    from flexalign_plugin.viewers import FlexAlignViewer

    folder = tmp_path_factory.mktemp("viewed")
    phantom = particle_phantom((5, 200, 200), pixel_size_A=5.0, dose=4, contrast=0.4, drift_px=3, local_px=0.0)
    write_mrc_movie(str(folder / "a.mrcs"), phantom.frames(), 5.0)
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


def test_tables_show_the_outputs(viewer):
    views = viewer._getVisualizeDict()
    (table,) = views["showMicrographs"]("showMicrographs")
    assert table._emSet is viewer.protocol.outputMicrographs
    visible, order, render = table.getVisibleAndOrderLabels()
    for picture in ("thumbnail", "psdCorr", "plotGlobal", "plotLocal"):
        assert f"{picture}._filename" in visible and f"{picture}._filename" in order and picture in render
    (table,) = views["showMovies"]("showMovies")
    assert table._emSet is viewer.protocol.outputMovies


def test_failures_are_shown_with_their_reasons(viewer):
    (view,) = viewer._getVisualizeDict()["showFailed"]("showFailed")
    with open(view.getFileList()[0]) as f:
        assert "b.mrcs" in f.read()


def test_pictures_of_a_movie_are_put_into_one_window(viewer, tmp_path):
    (plotter,) = viewer._getVisualizeDict()["showPictures"]("showPictures")
    axes = plotter.getFigure().axes
    assert {a.get_title() for a in axes} >= {"Motion of the whole frame", "Power spectrum before and after"}
    assert all(a.images for a in axes)
    plotter.getFigure().savefig(str(tmp_path / "window.png"))


def test_an_unknown_movie_is_said_to_be_unknown(viewer):
    viewer.movieId.set(99)
    (view,) = viewer._getVisualizeDict()["showPictures"]("showPictures")
    assert "99" in view.getMessage()
