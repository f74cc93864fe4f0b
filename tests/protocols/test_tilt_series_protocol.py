"""Tilt series imported by scipion-em-tomo, through the protocol: phantoms of known motion in, registered stacks out."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from flexalign_plugin.motion import MotionModel
from flexalign_plugin.phantoms.movie_writers import write_mrc_movie
from flexalign_plugin.phantoms.phantom import particle_phantom

from ..scipion_project import run
from .killing import computing, start, state, wait

TOMO = importlib.util.find_spec("tomo") is not None
needs_tomo = pytest.mark.skipif(not TOMO, reason="scipion-em-tomo is not installed: pip install .[tomo]")
with_tomo = pytest.mark.usefixtures("tomo_works")

PIXEL_A = 3.0
LOCKED_S, ATTEMPTS = 10, 3  # wait for a lock, of 1000 s in pyworkflow, and imports
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


@pytest.fixture
def tomo_works(monkeypatch):
    """tomo's import leaves a query open. This has no effect on Python 3.8, but on 3.11 its database stays locked."""
    from pyworkflow.mapper.sqlite_db import SqliteDb
    from tomo.objects import TiltSeriesM

    from flexalign_plugin.protocols import arrivals

    connect = SqliteDb._createConnection
    monkeypatch.setattr(SqliteDb, "_createConnection", lambda self, name, _: connect(self, name, LOCKED_S))
    monkeypatch.setattr(arrivals, "STILL_S", 0.05)  # damaged files are not still being written
    monkeypatch.setattr(TiltSeriesM, "getFirstItem", lambda self: [tilt.clone() for tilt in self.iterItems(limit=1)][0])


def imported(project, folder):
    """A finished import. Now and then, on Python 3.11 and later, tomo's import waits for a lock of its own and goes on
    without the tables of a series: it is then made again."""
    from tomo.protocols import ProtImportTsMovies

    for _ in range(ATTEMPTS):
        protocol = project.newProtocol(
            ProtImportTsMovies, filesPath=str(folder), filesPattern="*.mdoc", voltage=300.0, samplingRate=PIXEL_A
        )
        run(project, protocol)
        with contextlib.closing(sqlite3.connect(protocol._getPath("TiltSeriesM.sqlite"))) as database:
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
        if protocol.isFinished() and any(name.endswith("_Classes") for name in tables):
            return protocol
    pytest.skip("tomo's own import failed")


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
@with_tomo
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
    stacks = (stack(protocol._getExtraPath(f"TS_1{ending}.mrcs"))[0] for ending in ("", "_DW", "_odd", "_even"))
    plain, weighted, odd, even = stacks
    np.testing.assert_allclose((odd + even) / 2, weighted, atol=0.05 * weighted.std())
    assert np.abs(odd - even).mean() > 0.2 * weighted.std()
    assert np.abs(plain - weighted).mean() > 0.002 * weighted.std()

    for z, truth in enumerate(tilts[1]):
        path = protocol._getExtraPath(f"TS_1_{z + 1:03d}_motion.json")
        with open(path) as file:
            result = json.load(file)
        settings = result["settings"]
        assert result["frames"]["dose_per_frame"] == pytest.approx(DOSES[z] / SHAPE[0])
        assert settings["pre_exposure"] == pytest.approx(sum(DOSES[:z]))
        t = np.arange(SHAPE[0])
        estimated = np.stack(MotionModel.load(path).shift(t, SHAPE[1] / 2, SHAPE[2] / 2))
        error = estimated - np.stack(truth.shift(t, SHAPE[1] / 2, SHAPE[2] / 2))
        assert np.abs(error - error.mean(axis=1, keepdims=True)).max() < 0.3
    assert not list(Path(protocol._getExtraPath()).glob("*_aligned_mic*"))  # they are in the stacks
    assert "1 tilt series of 6 A/px" in protocol.summary()[0]


@needs_tomo
@with_tomo
def test_a_damaged_tilt_is_left_out_and_continue_puts_it_in(project, tilts, tmp_path):
    series(tilts, tmp_path, "TS_1", "TS_2")
    source = imported(project, tmp_path)
    damaged = tmp_path / "TS_2_2.mrc"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:5000])
    protocol = run(project, new_alignment(project, source))
    assert protocol.isFinished(), protocol.getErrorMessage()
    for output in (protocol.TiltSeries, protocol.TiltSeriesDW):
        found = contents(output)
        assert list(found) == ["TS_1", "TS_2"]
        assert [row[3] for row in found["TS_1"]] == [i + 1 for i in ORDER]
        assert [row[3] for row in found["TS_2"]] == [i + 1 for i in ORDER if i != 2]
        assert [row[1] for row in found["TS_2"]] == [1, 2, 3, 4]
        # The damaged tilt, too, has exposed the specimen.
        assert found["TS_2"][-1][4] == pytest.approx(sum(DOSES[:3]))
        assert stack(found["TS_2"][0][0])[0].shape == (4, *SHAPE[1:])
    header, line = Path(protocol._getExtraPath("failed.tsv")).read_text().splitlines()
    assert header == "id\tmovie\treason" and "TS_2 at -3.0 degrees" in line and "TS_2_2.mrc" in line
    assert "1 tilt failed" in protocol.summary()[0] and "TS_2 at -3.0 degrees" in protocol.summary()[0]
    kept = os.stat(protocol._getExtraPath("TS_1.mrcs")).st_mtime_ns
    ids = [protocol.TiltSeries.getObjId(), protocol.TiltSeriesDW.getObjId()]

    damaged.write_bytes(whole)
    logged = []
    again = project.getProtocol(protocol.getObjId())
    again.info = lambda line, **_: logged.append(line)
    again = run(project, again)
    assert again.isFinished(), again.getErrorMessage()
    assert [again.TiltSeries.getObjId(), again.TiltSeriesDW.getObjId()] == ids
    found = contents(again.TiltSeries)
    assert {name: [row[3] for row in rows] for name, rows in found.items()} == {
        name: [i + 1 for i in ORDER] for name in ("TS_1", "TS_2")
    }
    assert again.TiltSeries.getSize() == 2 and not again.TiltSeries.isStreamOpen()
    assert stack(found["TS_2"][0][0])[0].shape == (5, *SHAPE[1:])
    assert os.stat(again._getExtraPath("TS_1.mrcs")).st_mtime_ns == kept  # only what was missing is done
    assert sum("aligned in" in line for line in logged) == 1
    assert not os.path.exists(again._getExtraPath("failed.tsv")) and "failed" not in again.summary()[0]
    assert not list(Path(again._getExtraPath()).glob("*_aligned_mic*"))


@needs_tomo
@with_tomo
@pytest.mark.parametrize(
    "label, value, named",
    [
        ("_tiltAngle", None, "TS_1, tilt 1: "),  # as the database keeps NaN
        ("_tiltAngle", float("inf"), "TS_1, tilt 1: "),
        ("_acquisition._dosePerFrame", float("inf"), "TS_1 at 0.0 degrees: "),
        ("_acquisition._doseInitial", float("-inf"), "TS_1 at 0.0 degrees: "),
    ],
)
def test_a_tilt_with_an_impossible_number_is_left_out(project, tilts, tmp_path, label, value, named):
    """It is the first one, which is also the one that the form looks at."""
    series(tilts, tmp_path, "TS_1")
    source = imported(project, tmp_path)
    with contextlib.closing(sqlite3.connect(source._getPath("TiltSeriesM.sqlite"))) as database, database:
        tables = [
            name
            for (name,) in database.execute("SELECT name FROM sqlite_master WHERE name LIKE '%\\_Classes' ESCAPE '\\'")
        ]
        (table,) = tables
        ((column,),) = database.execute(f'SELECT column_name FROM "{table}" WHERE label_property = ?', (label,))
        database.execute(f'UPDATE "{table.replace("Classes", "Objects")}" SET {column} = ? WHERE id = 1', (value,))
    protocol = new_alignment(project, source)
    assert protocol._validate() == []
    run(project, protocol)
    assert protocol.isFinished(), protocol.getErrorMessage()
    rows = contents(protocol.TiltSeries)["TS_1"]
    assert [row[3] for row in rows] == [i + 1 for i in ORDER if i != 0]
    assert stack(rows[0][0])[0].shape == (4, *SHAPE[1:])
    _, line = Path(protocol._getExtraPath("failed.tsv")).read_text().splitlines()
    assert named in line and "TS_1_0.mrc" in line


@needs_tomo
@with_tomo
def test_a_series_without_any_good_tilt_fails_alone_and_a_run_without_any_fails(project, tilts, tmp_path):
    series(tilts, tmp_path, "TS_1", "TS_2")
    source = imported(project, tmp_path)
    for name in tmp_path.glob("TS_1_*.mrc"):
        name.write_bytes(b"")
    protocol = new_alignment(project, source, doApplyDoseFilter=False)
    protocol._validate = list  # as if they had been damaged after it started
    run(project, protocol)
    assert protocol.isFinished(), protocol.getErrorMessage()
    assert list(contents(protocol.TiltSeries)) == ["TS_2"] and getattr(protocol, "TiltSeriesDW", None) is None
    assert "5 tilts failed" in protocol.summary()[0]
    assert len(Path(protocol._getExtraPath("failed.tsv")).read_text().splitlines()) == 6

    for name in tmp_path.glob("TS_2_*.mrc"):
        name.write_bytes(b"")
    protocol = new_alignment(project, source)
    protocol._validate = list
    run(project, protocol)
    assert protocol.isFailed() and getattr(protocol, "TiltSeries", None) is None
    assert "No tilt could be aligned" in protocol.getErrorMessage() and "TS_1_" in protocol.getErrorMessage()


def _module():
    from flexalign_plugin.protocols import protocol_tilt_series

    return protocol_tilt_series


KILLS = {
    "after the record of a tilt": (computing, "save_record", 3, "after"),
    "stacks written, images removed, no record": (lambda: _module().SeriesRecord, "save", 1, "before"),
    "a series in half of the outputs": (lambda: _module().ProtFlexAlignTiltSeries, "_append_one", 1, "after"),
}


@needs_tomo
@with_tomo
def test_a_run_that_is_killed_repeatedly_is_completed_by_continue(project, tilts, tmp_path):
    series(tilts, tmp_path, "TS_1")
    protocol = new_alignment(project, imported(project, tmp_path))
    project._setupProtocol(protocol)
    protocol.makePathsAndClean()
    project._storeProtocol(protocol)
    where, number = os.path.abspath("."), protocol.getObjId()
    folder = os.path.join(where, protocol.workingDir.get())
    assert wait(start(where, number, restart=True)) == 0
    undisturbed = state(folder)
    assert {"tiltseries.sqlite", "tiltseries_dose-weighted.sqlite", "TS_1.mrcs", "TS_1_DW.mrcs"} <= set(undisturbed)
    for i, (moment, point) in enumerate(KILLS.items()):
        assert wait(start(where, number, restart=i == 0, point=point)) == signal.SIGKILL, moment
    assert wait(start(where, number, restart=False)) == 0
    assert state(folder) == undisturbed


@needs_tomo
@with_tomo
def test_errors_that_affect_every_tilt_are_reported_before_the_run(project, tilts, tmp_path):
    series(tilts, tmp_path, "TS_1")
    source = imported(project, tmp_path)
    (problem,) = new_alignment(project, source, alignFrameN=7).validate()
    assert "frames 1 to 7 are to be aligned, but the movie has 4" in problem
    assert new_alignment(project, source).warnings() == []
    (hint,) = new_alignment(project, source, doLocalAlignment=True, minLocalRes=700.0).warnings()
    assert "too short for two patches" in hint


@needs_tomo
def test_scipion_finds_the_protocol_and_its_form_explains_every_parameter():
    import pwem
    from pyworkflow.gui.project.viewprotocols_extra import ProtocolTreeConfig

    from flexalign_plugin.protocols import ProtFlexAlignTiltSeries
    from flexalign_plugin.settings import FIELDS_OF_FORM

    assert pwem.Domain.getProtocols().get("ProtFlexAlignTiltSeries") is ProtFlexAlignTiltSeries
    (menu,) = [m for name, m in ProtocolTreeConfig.load(pwem.Domain, "").items() if name == "Tomography"]
    (section,) = [child for child in menu.childs if child.text == "Tilt-series movies"]
    assert [child.value for child in section.childs] == ["ProtFlexAlignTiltSeries"]
    protocol = ProtFlexAlignTiltSeries()
    shown = [name for name in FIELDS_OF_FORM if protocol.hasAttribute(name)]
    assert {"maxShift", "gainRot", "splitEvenOdd", "binFactor"} <= set(shown) and "doSaveMovie" not in shown
    assert all(protocol.getParam(name).help.get() for name in shown)
    assert not protocol.doLocalAlignment and not protocol.evalParamCondition("nFrames")


NO_TOMO = """
import sys
class Finder:
    @staticmethod
    def find_spec(name, *_):
        if name.split(".")[0] == "tomo":
            raise ModuleNotFoundError("No module named " + MISSING, name=MISSING)
sys.meta_path.insert(0, Finder)
import flexalign_plugin.protocols as p
print(p.__all__)
"""


@pytest.mark.parametrize("missing, warns", [("tomo", False), ("tomo.objects", True)])
def test_without_a_usable_tomo_the_other_protocol_is_available(missing, warns):
    code = NO_TOMO.replace("MISSING", repr(missing))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "'ProtFlexAlign'" in done.stdout and "Tilt" not in done.stdout.splitlines()[-1]
    assert ("There is no protocol FlexAlign tilt series" in done.stderr + done.stdout) == warns
