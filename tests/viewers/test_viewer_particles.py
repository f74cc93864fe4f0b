"""The viewers of SwiftAlign and of its consensus. Windows are not opened."""

from __future__ import annotations

import os
import re
import sqlite3

import numpy as np
import pytest

from .. import particle_data as data
from ..scipion_project import new_project, run

N = 40


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Project, simulated particles, and a finished run with two volumes."""
    simulated = data.make(str(tmp_path_factory.mktemp("viewed")), N, n_volumes=2)
    before = os.getcwd()
    project = new_project("viewed_particles")
    protocol = data.new_swift_align(
        project, data.particles_of(project, simulated, range(N)), data.volumes_of(project, simulated.volumes)
    )
    run(project, protocol)
    assert protocol.isFinished(), protocol.getErrorMessage()
    yield project, simulated, protocol
    os.chdir(before)


@pytest.fixture(autouse=True)
def _in_project(finished):
    os.chdir(finished[0].path)


@pytest.fixture
def viewer(finished):
    from flexalign_plugin.viewers import SwiftAlignViewer

    viewer = SwiftAlignViewer(project=finished[0])
    viewer.setProtocol(finished[2])
    return viewer


def view(viewer, name):
    (shown,) = viewer._getVisualizeDict()[name](name)
    return shown


def test_it_is_the_viewer_of_the_protocol(viewer):
    import pwem

    assert type(viewer) in pwem.Domain.findViewers(viewer.protocol, "tkinter")


def test_the_overview_counts_all_particles(viewer):
    figure = view(viewer, "showOverview").getFigure()
    figure.canvas.draw()
    texts = [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]
    assert f"Directions of view of {N} particles" in texts
    counts = [
        sum(patch.get_height() for patch in axes.patches) for axes in figure.axes if axes.get_ylabel() == "particles"
    ]
    assert counts == [N]


def test_examples_and_report_are_those_of_the_run(viewer):
    assert view(viewer, "showExamples").getFigure().axes[0].images
    assert view(viewer, "showReport").path == os.path.abspath(viewer.protocol._getExtraPath("report.html"))
    page = open(viewer.protocol._getExtraPath("report.html")).read()
    assert f"<b>{N}</b>" in page and page.count("data:image/png") == 4


@pytest.mark.parametrize("name, output", [("showParticles", "outputParticles"), ("showClasses", "outputClasses")])
def test_tables_show_columns_that_exist(viewer, name, output):
    table = view(viewer, name)
    assert table._emSet is getattr(viewer.protocol, output)
    visible, order, render = table.getVisibleAndOrderLabels()
    if name == "showParticles":
        with sqlite3.connect(table._emSet.getFileName()) as database:
            known = {"id", "enabled", *(label for (label,) in database.execute("SELECT label_property FROM Classes"))}
        assert set(visible.split()) <= known and "_swift_posterior" in visible and render == "_filename"


def test_cones_for_chimera_surround_the_volume(finished, tmp_path):
    from flexalign_plugin.viewers.viewer_particles import write_chimera_script

    _, simulated, protocol = finished
    bild = protocol._getExtraPath("directions.bild")
    cones = np.array([line.split()[1:] for line in open(bild) if line.startswith(".cone")], float)
    assert np.linalg.norm(cones[:, :3], axis=1).min() > data.DIAMETER_A / 2
    script = open(write_chimera_script(str(tmp_path / "a.cxc"), bild, protocol._input_volumes()[0])).read()
    for path in re.findall(r'open "([^"]+)"', script):
        assert os.path.isabs(path) and os.path.exists(path)
    assert f"voxelSize {data.PIXEL_A:g} originIndex {data.BOX // 2}," in script


def test_without_chimera_the_file_is_named(viewer, monkeypatch):
    said = []
    monkeypatch.setattr(viewer, "infoMessage", lambda text, title: said.append(text))
    viewer._chimera()
    assert "ChimeraX is not installed" in said[0] and viewer.protocol._getExtraPath("directions.bild") in said[0]


def test_the_consensus_has_its_viewer(finished):
    from flexalign_plugin.protocols import ProtSwiftConsensus
    from flexalign_plugin.viewers import SwiftConsensusViewer

    project, _, protocol = finished
    consensus = project.newProtocol(ProtSwiftConsensus)
    for _ in range(2):
        data.add_pointer(consensus.inputAlignments, protocol, "outputParticles")
    run(project, consensus)
    assert consensus.isFinished(), consensus.getErrorMessage()
    viewer = SwiftConsensusViewer(project=project)
    viewer.setProtocol(consensus)
    assert view(viewer, "showAgreement").getFigure().axes[0].images
    table = view(viewer, "showParticles")
    assert table._emSet is consensus.outputParticles and "_swift_angle_spread" in table.getVisibleAndOrderLabels()[0]
