"""Tilt series imported by scipion-em-tomo, through the protocol: phantoms of known motion in, registered stacks out."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from flexalign_plugin.motion import MotionModel
from flexalign_plugin.movies.writers import write_mrc_movie
from flexalign_plugin.phantom import particle_phantom
from flexalign_plugin.tests.scipion_project import run

TOMO = importlib.util.find_spec("tomo") is not None
needs_tomo = pytest.mark.skipif(not TOMO, reason="scipion-em-tomo is not installed: pip install .[tomo]")

PIXEL_A = 3.0
ANGLES = (0.02, 3.0, -3.0, 6.0, -6.0)  # dose-symmetric, as recorded
DOSES = (3.0, 3.1, 3.2, 3.3, 3.4)
ORDER = (4, 2, 0, 1, 3)  # places in the above, by angle
SHAPE = (4, 256, 320)


def write_mdoc(path, names):
    lines = [f"PixelSpacing = {PIXEL_A}", "Voltage = 300", "", "[T = TiltAxisAngle = 85.0  Binning = 1]", ""]
    for z, (name, angle, dose) in enumerate(zip(names, ANGLES, DOSES)):
        lines += [f"[ZValue = {z}]", f"TiltAngle = {angle}", f"ExposureDose = {dose}"]
        lines += [f"SubFramePath = X:\\frames\\{name}", f"DateTime = 21-Nov-26  10:0{z}:00", ""]
    path.write_text("\n".join(lines))


@pytest.fixture(scope="module")
def tilts(tmp_path_factory):
    """Folder with the movies of one series, and the truth of each."""
    folder = tmp_path_factory.mktemp("tilts")
    truths = []
    for z in range(len(ANGLES)):
        phantom = particle_phantom(SHAPE, PIXEL_A, 6.0, drift_px=5, local_px=0, seed=z)
        write_mrc_movie(str(folder / f"tilt_{z}.mrc"), list(phantom.frames()), PIXEL_A)
        truths.append(phantom.truth)
    return folder, truths


def series(tilts, folder, *names):
    """Tilt series of the same movies under several names."""
    for name in names:
        movies = [f"{name}_{z}.mrc" for z in range(len(ANGLES))]
        for z, movie in enumerate(movies):
            shutil.copy(tilts[0] / f"tilt_{z}.mrc", folder / movie)
        write_mdoc(folder / f"{name}.mdoc", movies)


def imported(project, folder):
    from tomo.protocols import ProtImportTsMovies

    protocol = project.newProtocol(
        ProtImportTsMovies, filesPath=str(folder), filesPattern="*.mdoc", voltage=300.0, samplingRate=PIXEL_A
    )
    return run(project, protocol)


def new_alignment(project, source, **params):
    from flexalign_plugin.protocols import ProtFlexAlignTiltSeries

    protocol = project.newProtocol(ProtFlexAlignTiltSeries, doComputePSD=False, **params)
    protocol.inputTiltSeriesM.set(source)
    protocol.inputTiltSeriesM.setExtended("outputTiltSeriesM")
    return protocol


def stack(path):
    with mrcfile.open(path, permissive=False) as file:
        assert file.is_image_stack()
        return file.data.copy(), float(file.voxel_size.x)


def contents(output):
    """{tsId: [(file, index, angle, order, dose before, dose), ...]} of a set of tilt series."""
    found = {}
    for ts in output.iterItems():
        found[ts.getTsId()] = rows = []
        for ti in ts.iterItems():
            a = ti.getAcquisition()
            rows.append((ti.getFileName(), ti.getIndex(), ti.getTiltAngle(), int(ti.getAcquisitionOrder()),
                         a.getDoseInitial(), a.getDosePerFrame()))  # fmt: skip
    return found


@needs_tomo
def test_tilts_become_stacks_by_angle_with_their_dose_and_the_true_motion(project, tilts, tmp_path):
    series(tilts, tmp_path, "TS_1")
    source = imported(project, tmp_path)
    protocol = new_alignment(project, source, binFactor=2.0, splitEvenOdd=True)
    assert protocol.validate() == []
    run(project, protocol)
    assert protocol.isFinished(), protocol.getErrorMessage()

    for name in ("TiltSeries", "TiltSeriesDW", "TiltSeriesEven", "TiltSeriesOdd"):
        output = getattr(protocol, name)
        assert output.getSize() == 1 and not output.isStreamOpen()
        assert output.getSamplingRate() == 2 * PIXEL_A
        assert tuple(output.getDim()[:2]) == (SHAPE[2] // 2, SHAPE[1] // 2)
        rows = contents(output)["TS_1"]
        assert [row[1] for row in rows] == [1, 2, 3, 4, 5]
        assert [row[2] for row in rows] == pytest.approx([ANGLES[i] for i in ORDER])
        assert [row[3] for row in rows] == [i + 1 for i in ORDER]
        assert [row[4] for row in rows] == pytest.approx([sum(DOSES[:i]) for i in ORDER])
        images, pixel = stack(rows[0][0])
        assert images.shape == (5, SHAPE[1] // 2, SHAPE[2] // 2) and pixel == 2 * PIXEL_A
        assert images.std(axis=(1, 2)).min() > 0
    first = protocol.TiltSeries.getFirstItem().getFirstItem()
    assert [os.path.basename(name) for name in first.getOddEven()] == ["TS_1_odd.mrcs", "TS_1_even.mrcs"]
    odd, even = (stack(protocol._getExtraPath(f"TS_1_{half}.mrcs"))[0] for half in ("odd", "even"))
    weighted = stack(protocol._getExtraPath("TS_1_DW.mrcs"))[0]
    np.testing.assert_allclose((odd + even) / 2, weighted, atol=2e-3 * weighted.std())

    for z, truth in enumerate(tilts[1]):
        path = protocol._getExtraPath(f"TS_1_{z + 1:03d}_motion.json")
        with open(path) as file:
            settings = json.load(file)["settings"]
        assert settings["dose_per_frame"] == pytest.approx(DOSES[z] / SHAPE[0])
        assert settings["pre_exposure"] == pytest.approx(sum(DOSES[:z]))
        t = np.arange(SHAPE[0])
        found = np.stack(MotionModel.load(path).shift(t, SHAPE[1] / 2, SHAPE[2] / 2))
        error = found - np.stack(truth.shift(t, SHAPE[1] / 2, SHAPE[2] / 2))
        assert np.abs(error - error.mean(axis=1, keepdims=True)).max() < 0.3
    assert not list(Path(protocol._getExtraPath()).glob("*_aligned_mic*"))  # they are in the stacks
    assert "1 tilt series of 6 A/px" in protocol.summary()[0]
