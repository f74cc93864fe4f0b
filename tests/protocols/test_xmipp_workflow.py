"""A workflow with Xmipp's FlexAlign becomes one with ours that Scipion loads, with the same values.

The protocols below are as Scipion exports them, with scipion-em-xmipp 29.0.1. tests/interop/test_xmipp.py has Xmipp's
own class make such a file.
"""

from __future__ import annotations

import copy
import json

import pytest

from flexalign_plugin.cli import main
from flexalign_plugin.errors import SettingsError
from flexalign_plugin.xmipp_workflow import translate

COMMON = {"object.comment": "", "_useQueue": False, "_prerequisites": "", "_queueParams": None, "runMode": 0}
IMPORT = {
    **COMMON,
    "object.className": "ProtImportMovies",
    "object.id": "2",
    "object.label": "pwem - import movies",
    "importFrom": 0,
    "filesPath": "/data/session",
    "filesPattern": "*.tiff",
    "voltage": 300.0,
    "samplingRate": 0.83,
    "dosePerFrame": 1.2,
    "gainFile": "/data/gain.mrc",
    "darkFile": None,
}
FLEXALIGN = {
    **COMMON,
    "object.className": "XmippProtFlexAlign",
    "object.id": "67",
    "object.label": "xmipp3 - FlexAlign",
    "alignFrame0": 1,
    "alignFrameN": 0,
    "useAlignToSum": True,
    "sumFrame0": 1,
    "sumFrameN": 0,
    "binFactor": 1.0,
    "cropOffsetX": 0,
    "cropOffsetY": 0,
    "cropDimX": 0,
    "cropDimY": 0,
    "doSaveAveMic": True,
    "doSaveMovie": False,
    "nFrames": 40,
    "doLocalAlignment": True,
    "autoControlPoints": True,
    "controlPointX": 6,
    "controlPointY": 6,
    "controlPointT": 5,
    "autoPatches": False,
    "patchesX": 9,
    "patchesY": 7,
    "minLocalRes": 500.0,
    "groupNFrames": 3,
    "maxResForCorrelation": 30.0,
    "doComputePSD": True,
    "maxShift": 60,
    "gainRot": 1,
    "gainFlip": 2,
    "hostName": "localhost",
    "numberOfThreads": 2,
    "numberOfMpi": 1,
    "gpuList": "0",
    "useGpu": True,
    "inputMovies": "2.outputMovies",
}
NEXT = {
    **COMMON,
    "object.className": "ProtMovieEraser",
    "object.id": "130",
    "object.label": "pwem - movie eraser",
    "dryMode": True,
    "sourceSet": "67.outputMovies",
}
WORKFLOW = [IMPORT, FLEXALIGN, NEXT]
TURNED = {"gainRot": 1, "gainFlip": 1, "gainRowOrder": 2}


def flexalign(values, **imported):
    """The translation of FLEXALIGN with other values, behind an import with other values."""
    before = [{**IMPORT, **imported}, {**FLEXALIGN, **values}]
    (_, new), notes = translate(before)
    return new, " ".join(notes)


def test_scipion_loads_the_translation_with_the_values_of_the_workflow(project, tmp_path):
    path, new = tmp_path / "xmipp.json", tmp_path / "flexalign.json"
    path.write_text(json.dumps(WORKFLOW))
    assert main(["xmipp-workflow", str(path), "--output", str(new)]) == 0
    assert json.loads(path.read_text()) == WORKFLOW
    project.loadProtocols(str(new))
    imported, aligned, following = list(project.getRuns())
    assert aligned.getClassName() == "ProtFlexAlign" and aligned.getObjLabel() == "FlexAlign"
    assert aligned.inputMovies.getObjValue().getObjId() == imported.getObjId()
    assert aligned.inputMovies.getExtended() == "outputMovies"
    assert following.sourceSet.getObjValue().getObjId() == aligned.getObjId()
    kept = {"autoPatches", "patchesX", "patchesY", "maxResForCorrelation", "maxShift", "gainRot", "useGpu", "nFrames"}
    kept |= {"minLocalRes", "groupNFrames", "doLocalAlignment", "binFactor", "doSaveMovie", "doComputePSD", "gpuList"}
    assert {name: getattr(aligned, name).get() for name in kept} == {name: FLEXALIGN[name] for name in kept}
    assert {name: getattr(aligned, name).get() for name in TURNED} == TURNED
    assert aligned.numberOfThreads.get() == 1


def test_other_protocols_and_the_input_are_left_as_they_are():
    before = copy.deepcopy(WORKFLOW)
    (imported, _, following), _ = translate(WORKFLOW)
    assert (imported, following) == (IMPORT, NEXT) and WORKFLOW == before


def test_defaults_of_xmipp_that_the_file_does_not_name_are_written():
    shortened = {key: value for key, value in FLEXALIGN.items() if key not in ("maxShift", "maxResForCorrelation")}
    del shortened["useGpu"]
    (_, new), _ = translate([IMPORT, shortened])
    assert (new["maxShift"], new["maxResForCorrelation"], new["useGpu"]) == (50, 30.0, True)
    (_, new), notes = translate([IMPORT, shortened], cpu=True)
    assert new["useGpu"] is False and "GPU" not in " ".join(notes)


@pytest.mark.parametrize(
    "rotation, flip, expected", [(0, 1, 1), (0, 2, 2), (1, 0, 0), (1, 1, 2), (1, 2, 1), (2, 1, 1), (3, 1, 2), (3, 2, 1)]
)
def test_flips_with_a_quarter_turn_are_exchanged(rotation, flip, expected):
    new, said = flexalign({"gainRot": rotation, "gainFlip": flip})
    assert (new["gainRot"], new["gainFlip"]) == (rotation, expected)
    assert ("Xmipp flips before it rotates" in said) == (flip != expected)


@pytest.mark.parametrize(
    "imported, order",
    [
        ({"filesPattern": "*.tif"}, 2),
        ({"filesPattern": "*.mrcs"}, 1),
        ({"filesPattern": "FoilHole_*_fractions.EER"}, 1),
        ({"filesPath": "/data/movie.tiff", "filesPattern": ""}, 2),
    ],
)
def test_the_order_of_the_gains_rows_is_xmipps(imported, order):
    new, said = flexalign({}, **imported)
    assert new["gainRowOrder"] == order and "not known" not in said


def test_what_is_not_known_is_said():
    new, said = flexalign({}, filesPattern="*")
    assert "gainRowOrder" not in new and "check its orientation" in said
    new, said = flexalign({}, filesPattern="*", gainFile=None)
    assert "gainRowOrder" not in new and "check its orientation" not in said
    _, said = flexalign({}, gainFile="/data/detector.gain")
    assert "divided by the .gain file" in said
    # The import is found behind other protocols, and a circle of inputs is no endless loop.
    between = {**NEXT, "object.id": "5", "inputMovies": "2.outputMovies"}
    _, _, new = translate([IMPORT, between, {**FLEXALIGN, "inputMovies": "5.outputMovies"}])[0]
    assert new["gainRowOrder"] == 2
    (new,), said = translate([{**FLEXALIGN, "inputMovies": "67.outputMovies"}])
    assert "gainRowOrder" not in new and "check its orientation" in " ".join(said)


def test_jobs_of_a_queue_keep_their_number():
    queue = '["main", {"QUEUE_FOR_JOBS": "Y"}]'
    assert flexalign({"_queueParams": queue, "numberOfThreads": 5})[0]["numberOfThreads"] == 5


@pytest.mark.parametrize("value", [4, -1, "90 degrees", 1.5])
def test_a_value_that_the_form_does_not_have_is_refused(value):
    with pytest.raises(SettingsError, match="id 67: gainRot is .* 0 to 3"):
        flexalign({"gainRot": value})


@pytest.mark.parametrize(
    "content, words",
    [
        (None, "can't be read"),
        ("~no JSON", "not a JSON file"),
        ('{"object.className": "XmippProtFlexAlign"}', "not a workflow"),
        (json.dumps([IMPORT, NEXT]), "nothing to translate"),
    ],
)
def test_a_file_that_is_no_such_workflow_is_refused(tmp_path, capsys, content, words):
    path = tmp_path / "workflow.json"
    if content is not None:
        path.write_text(content)
    assert main(["xmipp-workflow", str(path), "--output", str(tmp_path / "new.json")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line and str(path) in line
    assert not (tmp_path / "new.json").exists()


def test_the_workflow_itself_is_never_overwritten(tmp_path, capsys):
    path = tmp_path / "workflow.json"
    path.write_text(json.dumps(WORKFLOW))
    (tmp_path / "link.json").symlink_to(path)
    for output in (path, tmp_path / "link.json"):
        assert main(["xmipp-workflow", str(path), "--output", str(output)]) == 2
        assert "is the workflow itself" in capsys.readouterr().err
    assert json.loads(path.read_text()) == WORKFLOW
    assert main(["xmipp-workflow", str(path), "--output", str(path / "new.json")]) == 1
    assert str(path) in capsys.readouterr().err
