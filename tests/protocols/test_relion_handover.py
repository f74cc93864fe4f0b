"""What RELION's protocols read from our sets, without RELION's plugin (tests/interop runs that)."""

from __future__ import annotations

import io
import json
import os

import numpy as np
import pytest
from emtable import Table
from pwem.objects import Acquisition, SetOfMovies

from flexalign_plugin.protocols import relion_handover
from flexalign_plugin.protocols.relion_handover import DEFECTS, HOT_PIXELS, MOST_HOT_PIXELS, MOTION, Shifts

from ..scipion_project import import_movies, new_alignment, run
from .conftest import PIXEL_A

GENERAL = {"rlnMicrographOriginalPixelSize": 0.8, "rlnMicrographStartFrame": 1, "rlnMicrographPreExposure": 0.5}
EER = {**GENERAL, "rlnEERGrouping": 7, "rlnEERUpsampling": 2, "rlnMicrographDoseRate": 1.4}
ASSIGNED = """
data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnMtfFileName #3
_rlnVoltage #4
_rlnMicrographGainName #5
first   1 mtf.star 300.000000 other.mrc
second  2 mtf.star 200.000000 other.mrc
"""


def shifts(general, hot_pixels=()):
    return Shifts(general, np.zeros(0), list(hot_pixels))


def groups(acquisition):
    table = Table()
    table.readStar(io.StringIO(acquisition.opticsGroupInfo.get()), "optics")
    return [row._asdict() for row in table]


@pytest.fixture
def acquisition():
    return Acquisition(voltage=200, sphericalAberration=2.0, amplitudeContrast=0.07, dosePerFrame=1.0)


def test_a_set_without_optics_groups_gets_one(acquisition, tmp_path):
    relion_handover.describe(acquisition, shifts(EER), 3, str(tmp_path), raw=True)
    (group,) = groups(acquisition)
    assert (group["rlnVoltage"], group["rlnSphericalAberration"], group["rlnAmplitudeContrast"]) == (200, 2, 0.07)
    assert (group["rlnEERGrouping"], group["rlnEERUpsampling"], group["rlnMicrographStartFrame"]) == (7, 2, 3)
    assert group["rlnMicrographOriginalPixelSize"] == 0.8
    assert not {"rlnMicrographGainName", "rlnMicrographDefectFile"} & set(group)


def test_groups_and_mtf_of_the_input_stay_and_our_gain_is_named(acquisition, tmp_path):
    acquisition.opticsGroupInfo.set(ASSIGNED)
    general = {**GENERAL, "rlnMicrographGainName": str(tmp_path / "gain.mrc")}
    relion_handover.describe(acquisition, shifts(general), 1, str(tmp_path), raw=True)
    first, second = groups(acquisition)
    assert (first["rlnOpticsGroupName"], second["rlnOpticsGroupName"]) == ("first", "second")
    assert {group["rlnMtfFileName"] for group in (first, second)} == {"mtf.star"}
    assert {group["rlnMicrographGainName"] for group in (first, second)} == {str(tmp_path / "gain.mrc")}
    assert (first["rlnVoltage"], second["rlnVoltage"]) == (300, 200)
    # Aligned movies have gain and defects applied, and their frames are no hardware frames.
    relion_handover.describe(acquisition, shifts(EER), 1, str(tmp_path), raw=False)
    assert not set(relion_handover.OF_RAW_MOVIES) & set(groups(acquisition)[0])


def test_the_gain_is_named_relative_to_the_project_and_without_blanks(acquisition, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "extra").mkdir()
    for written, named in (
        (str(tmp_path / "extra" / "g_relion_1234.mrc"), "extra/g_relion_1234.mrc"),
        ("/an/earlier/place/g_relion_1234.mrc", "extra/g_relion_1234.mrc"),  # the project was moved
        ("/reference/of the day.gain", "extra/relion_gain.gain"),
        ("/reference/gain.mrc", "/reference/gain.mrc"),
    ):
        (tmp_path / "extra" / "g_relion_1234.mrc").touch()
        acquisition.opticsGroupInfo.set(None)
        general = {**GENERAL, "rlnMicrographGainName": written}
        relion_handover.describe(acquisition, shifts(general), 1, "extra", raw=True)
        assert groups(acquisition)[0]["rlnMicrographGainName"] == named
    assert os.readlink(tmp_path / "extra" / "relion_gain.gain") == "/reference/of the day.gain"


def test_many_pixels_become_a_defect_file_once(tmp_path):
    folder = str(tmp_path)
    column = [(7, y) for y in range(MOST_HOT_PIXELS)]
    relion_handover.share_defects(shifts(GENERAL, column), folder)
    assert not os.listdir(folder) and relion_handover.shared_defects(folder) == frozenset()
    area = [(x, y) for y in range(3) for x in range(20, 25)]
    relion_handover.share_defects(shifts(GENERAL, column + area), folder)
    assert relion_handover.shared_defects(folder) == frozenset(column + area)
    text = (tmp_path / DEFECTS).read_text()
    assert text.splitlines()[:2] == ["7 0 1 1", "20 0 5 1"]
    relion_handover.share_defects(shifts(GENERAL, column * 3), folder)  # the next movie: the set names the first
    assert (tmp_path / DEFECTS).read_text() == text


def test_continue_adds_what_a_set_of_an_earlier_version_lacks(project, movies, monkeypatch):
    imported = import_movies(project, movies.folder, "*.mrcs", PIXEL_A, gainFile=f"{movies.folder}/gain.mrc")
    with monkeypatch.context() as earlier:
        earlier.setattr(relion_handover, "set_motion", lambda *args: None)
        earlier.setattr(relion_handover, "describe", lambda *args: None)
        protocol = run(project, new_alignment(project, imported))
    path = protocol.outputMovies.getFileName()
    (movie,) = [m.clone() for m in SetOfMovies(filename=path)]
    assert not movie.hasAttribute(MOTION)
    micrograph = protocol.outputMicrographs.getFirstItem().getFileName()
    aligned = os.stat(micrograph).st_mtime_ns

    again = run(project, project.getProtocol(protocol.getObjId()))
    assert again.isFinished(), again.getErrorMessage()
    assert os.stat(micrograph).st_mtime_ns == aligned  # nothing is aligned again
    stored = SetOfMovies(filename=path)
    stored.loadAllProperties()
    (movie,) = [m.clone() for m in stored]
    assert len(json.loads(getattr(movie, MOTION).get())) in (0, 36)
    assert json.loads(getattr(movie, HOT_PIXELS).get()) is not None
    assert groups(stored.getAcquisition())[0]["rlnMicrographGainName"].endswith("gain.mrc")
    assert not stored.isStreamOpen()
