"""The form contains the fields of Settings, with the names and most defaults of XmippProtFlexAlign."""

from __future__ import annotations

import re
from pathlib import Path

import flexalign_plugin
from flexalign_plugin.settings import FIELDS_OF_FORM, Settings

from ..scipion_project import import_movies, new_alignment
from .conftest import PIXEL_A, SHAPE

XMIPP_DEFAULTS = dict(
    alignFrame0=1,
    alignFrameN=0,
    useAlignToSum=True,
    sumFrame0=1,
    sumFrameN=0,
    binFactor=1.0,
    doSaveAveMic=True,
    doSaveMovie=False,
    nFrames=40,
    doLocalAlignment=True,
    autoControlPoints=True,
    controlPointX=6,
    controlPointY=6,
    controlPointT=5,
    autoPatches=True,
    patchesX=7,
    patchesY=7,
    minLocalRes=500.0,
    groupNFrames=3,
    maxResForCorrelation=0.0,  # here and for maxShift 0 is automatic; the original has 30 and 50
    doComputePSD=True,
    maxShift=0.0,
    gainRot=0,
    gainFlip=0,
)
# Not in the form: properties of the input movies, and the plots that Scipion's viewers always need.
NOT_IN_FORM = {"pixel_size", "voltage", "pre_exposure", "gain", "dark", "do_plots"} | {
    "dose_per_frame",
    "frame_doses",
    "total_dose",
    "dose_per_hardware_frame",
}


def protocol_class():
    from flexalign_plugin.protocols import ProtFlexAlign

    return ProtFlexAlign


def test_names_and_defaults_are_those_of_the_original():
    protocol = protocol_class()()
    assert {name: getattr(protocol, name).get() for name in XMIPP_DEFAULTS} == XMIPP_DEFAULTS


def test_every_setting_is_in_the_form_and_every_parameter_has_a_help_text():
    protocol = protocol_class()()
    assert {*FIELDS_OF_FORM.values()} | NOT_IN_FORM == set(Settings.__dataclass_fields__)
    for name in FIELDS_OF_FORM:
        assert protocol.getParam(name).help.get()


def test_every_parameter_is_explained_in_the_docs():
    """By its full name, or after a comma by its last letter: *controlPointX*, *Y*, *T*."""
    page = Path(flexalign_plugin.__file__).parent / "docs" / "parameters.md"
    explained = set()
    for names in re.findall(r"^\| (\*.+?) \|", page.read_text(encoding="utf-8"), re.MULTILINE):
        whole = ""
        for name in re.findall(r"\*(\w+)\*", names):
            whole = whole[: -len(name)] + name if len(name) == 1 else name
            explained.add(whole)
    missing = FIELDS_OF_FORM.keys() - explained
    assert not missing


def test_settings_take_the_form_the_movies_and_their_acquisition(project, movies):
    from flexalign_plugin.protocols import form_values

    imported = import_movies(
        project,
        movies.folder,
        "*.eer",
        PIXEL_A,
        dosePerFrame=0.1,
        doseInitial=2.0,
        gainFile=f"{movies.folder}/gain.mrc",
    )
    protocol = new_alignment(project, imported, nFrames=SHAPE[0], gainRot=1, gainFlip=2, eerSampling=1)
    settings = Settings(**form_values.settings_values(protocol, imported.outputMovies.getFirstItem()))
    assert (settings.gain_rot, settings.gain_flip, settings.eer_sampling) == ("90", "left-right", 2)
    assert settings.pixel_size == PIXEL_A and settings.voltage == 300 and settings.pre_exposure == 2.0
    assert settings.dose_per_hardware_frame == 0.1 and settings.dose_per_frame is None
    assert settings.gain.endswith("gain.mrc") and settings.dark is None and settings.defect_file is None


def test_eer_parameters_are_shown_for_eer_movies_only(project, movies):
    shown = {}
    for kind in ("eer", "tiff"):
        protocol = new_alignment(project, import_movies(project, movies.folder, f"*.{kind}", PIXEL_A))
        shown[kind] = protocol.evalParamCondition("nFrames"), protocol.evalParamCondition("flipTiff")
    assert shown == {"eer": (True, False), "tiff": (False, True)}
    assert not protocol_class()().evalParamCondition("nFrames")


def test_without_gpus_there_are_no_gpu_slots_and_a_job_requests_the_cores_of_one_movie():
    protocol = protocol_class()(binThreads=8)
    assert protocol.getGpuList() == []
    assert protocol.getTotalThreads() == 8


def test_an_empty_number_is_an_error_only_if_it_applies(project, movies):
    """Scipion reports it, without a traceback. A field that does not apply has its default."""
    from flexalign_plugin.protocols import form_values

    protocol = new_alignment(project, import_movies(project, movies.folder, "*.mrcs", PIXEL_A))
    protocol.minLocalRes.set(None)
    protocol.moviesPerJob.set(None)
    problems = protocol.validate()
    assert len(problems) == 2 and all("should be" in problem for problem in problems), problems
    protocol.moviesPerJob.set(1)
    protocol.doLocalAlignment.set(False)
    assert protocol.validate() == []
    assert form_values.settings_values(protocol, protocol.inputMovies.get().getFirstItem())["min_local_res"] == 500
