"""What scipion-em-tomo and the tilt-series protocol of cisTEM's plugin read from our tilt series."""

from __future__ import annotations

import os

import mrcfile
import numpy as np
import pytest

from .. import scipion_project
from ..protocols.test_tilt_series_protocol import (  # noqa: F401 (fixtures)
    ANGLES,
    DOSES,
    ORDER,
    PIXEL_A,
    SHAPE,
    imported,
    new_alignment,
    series,
    tilts,
    tomo_works,
)
from .conftest import recorded_command

pytest.importorskip("tomo")


@pytest.fixture
def run(tilts, tmp_path, tomo_works):  # noqa: F811
    """A finished run on one tilt series, binned by 2."""
    project = scipion_project.new_project(f"interop_{tmp_path.name}")
    series(tilts, tmp_path, "TS_1")
    protocol = new_alignment(project, imported(project, tmp_path), binFactor=2.0)
    scipion_project.run(project, protocol)
    assert protocol.isFinished(), protocol.getErrorMessage()
    return project, protocol


def test_imods_files_have_angles_and_doses_in_the_order_of_the_stack(run, tmp_path):
    """`generateTltFile`, which the plugins of IMOD, AreTomo, Warp and others call."""
    from tomo.convert import getAnglesAndDosesFromTlt

    _, protocol = run
    (ts,) = [ts.clone(ignoreAttrs=[]) for ts in protocol.TiltSeriesDW.iterItems()]
    path = str(tmp_path / "TS_1.tlt")
    ts.generateTltFile(path, includeDose=True)
    found = np.loadtxt(path)
    after = np.cumsum(DOSES)  # tomo's accumulated dose includes that of the tilt itself
    assert found[:, 0] == pytest.approx([ANGLES[z] for z in ORDER], abs=0.01)
    assert found[:, 1] == pytest.approx([after[z] for z in ORDER], abs=0.01)
    angles, *_ = getAnglesAndDosesFromTlt(path)
    assert angles == pytest.approx([ANGLES[z] for z in ORDER], abs=0.01)


def test_ctffind_reads_our_stack(run):
    pytest.importorskip("cistem")
    from cistem.protocols import CistemProtTsCtffind

    project, aligned = run
    protocol = project.newProtocol(CistemProtTsCtffind, lowRes=30.0, highRes=10.0)
    protocol.inputTiltSeries.set(aligned)
    protocol.inputTiltSeries.setExtended("TiltSeries")
    project._setupProtocol(protocol)
    protocol.makePathsAndClean()
    protocol._initialize()
    (content,) = protocol.tsCtfMdList
    protocol.convertInputStep(content)
    with recorded_command(protocol, lambda _: None) as commands:
        protocol.processTiltSeriesStep(content)
    _, name, _, _, pixel_size, voltage, cs, contrast, *_ = commands[0]
    assert float(pixel_size) == pytest.approx(2 * PIXEL_A)
    assert [float(v) for v in (voltage, cs, contrast)] == pytest.approx([300, 2.7, 0.1])
    assert os.path.samefile(name, aligned._getExtraPath("TS_1.mrcs"))
    with mrcfile.open(name, permissive=False) as mrc:
        assert mrc.data.shape == (len(ANGLES), SHAPE[1] // 2, SHAPE[2] // 2)
        assert float(mrc.voxel_size.x) == pytest.approx(2 * PIXEL_A)
