"""Values that the form refuses before a run, each with one sentence that names the value."""

from __future__ import annotations

import numpy as np
import pytest

from flexalign_plugin.phantoms.movie_writers import write_mrc_movie

from ..scipion_project import import_movies, new_alignment
from .conftest import HARDWARE_FRAMES, PIXEL_A, SHAPE

REFUSED = [
    (dict(useGpu=True, gpuList="one"), "no GPU number"),
    (dict(binThreads=0), "at least 1 CPU core"),
    (dict(alignFrame0=0), "counted from 1"),
    (dict(alignFrameN=SHAPE[0] + 1), f"the movie has {SHAPE[0]} frames"),
    (dict(alignFrame0=4, alignFrameN=4), "must come after"),
    (dict(useAlignToSum=False, alignFrame0=3, sumFrame0=1, sumFrameN=4), "inside the aligned range"),
    (dict(binFactor=0.5), "0.5"),
    (dict(fcropFactor=1.5), "F-crop factor is 1.5"),
    (dict(onlyProcess=-1), "0 for all"),
    (dict(denoiserPairs=True, nDenoiserPairs=0), "Number of pairs"),
    (dict(useMovieDose=False, dosePerFrame=-1.0), "at least 0"),
    (dict(useMovieDose=False, preExposure=-1.0), "at least 0"),
    (dict(doSavePs=True), "dose per frame is not known"),
    (dict(splitEvenOdd=True, useAlignToSum=False, sumFrame0=3, sumFrameN=3), "can't be split"),
    (dict(cropOffsetX=300, cropDimX=100, cropDimY=100), "320 x 256"),
    (dict(maxResForCorrelation=5.0), "finer than"),
    (dict(maxShift=-1.0), "at least 0"),
    (dict(groupNFrames=0), "at least 1"),
    (dict(minLocalRes=50.0), "too small"),
    (dict(autoControlPoints=False, controlPointX=2), "at least 3"),
    (dict(autoControlPoints=False, controlPointX=8), "have room for 3 x 3 patches"),
    (dict(autoControlPoints=False, autoPatches=False, patchesX=3, patchesY=3), "at least 5 x 5 patches"),
]


@pytest.fixture(scope="module")
def imported(movies, tmp_path_factory):
    from ..scipion_project import new_project

    project = new_project("checks")
    return project, import_movies(project, movies.folder, "*.mrcs", PIXEL_A)


@pytest.mark.parametrize("params, words", REFUSED, ids=[" ".join(params) for params, _ in REFUSED])
def test_refused(imported, params, words):
    errors = new_alignment(*imported, **params).validate()
    assert errors and words in " ".join(errors)


def test_defaults_are_accepted_and_small_movies_get_a_hint(imported):
    assert new_alignment(*imported).validate() == []
    assert new_alignment(*imported, doApplyDoseFilter=False).warnings() == []
    assert "dose per frame is not known" in new_alignment(*imported).warnings()[0]
    assert new_alignment(*imported, useMovieDose=False, dosePerFrame=0.25).warnings() == []
    assert "aligned as whole frames" in new_alignment(*imported, minLocalRes=1000.0).warnings()[-1]


# Pixels of 4 A, 8 frames of 0.25 e/A^2 (0.25 x 8 / 40 in a hardware frame of EER).
MISTAKES = [
    (dict(samplingRateA=0.1), "1 A would make sense, if it was typed in nm"),
    (dict(samplingRateA=400.0), "4 A would make sense, if it was typed in pm"),
    (dict(samplingRateA=8.3e-10), "8.3 A would make sense, if it was typed in metres"),
    (dict(dosePerFrame=2.0), "a dose per frame of 0.25 (was the total dose typed?)"),
    (dict(samplingRateA=8.0), "a pixel size of 4 A (super-resolution or 8K?)"),
    (dict(samplingRateA=2.0), "a pixel size of 4 A (super-resolution or 8K?)"),
    (dict(gain=100), "The gain's values are about 100"),
    (dict(gain=0.01), "The gain's values are about 0.01"),
]


@pytest.mark.parametrize("kind", ["mrcs", "tiff", "eer"])
def test_each_mistake_is_named_in_the_form_before_the_run(project, movies, tmp_path, kind):
    share = SHAPE[0] / HARDWARE_FRAMES if kind == "eer" else 1
    for mistake, words in [({}, ""), *MISTAKES]:
        mistake = dict(mistake)
        pixel_A, gain = mistake.pop("samplingRateA", PIXEL_A), mistake.pop("gain", 1)
        dose = mistake.pop("dosePerFrame", 0.25) * share
        name = str(tmp_path / "scaled.mrc")
        write_mrc_movie(name, [np.full(SHAPE[1:], gain, np.float32) + 0.01 * gain * np.eye(*SHAPE[1:], dtype="f4")])
        imported = import_movies(project, movies.folder, f"*.{kind}", pixel_A, dosePerFrame=dose, gainFile=name)
        protocol = new_alignment(project, imported, nFrames=SHAPE[0], doLocalAlignment=False)
        said = " ".join(protocol.validate() + protocol.warnings())
        assert words in said if words else not said, (words, said)


def test_gain_must_have_the_size_of_the_movie_once_it_is_turned(project, movies, tmp_path):
    turned = str(tmp_path / "turned.mrc")
    write_mrc_movie(turned, [np.ones((SHAPE[2], SHAPE[1]), np.float32)])
    imported = import_movies(project, movies.folder, "*.mrcs", PIXEL_A, gainFile=turned)
    errors = new_alignment(project, imported).validate()
    assert len(errors) == 1 and "turned.mrc" in errors[0] and str(SHAPE[1]) in errors[0]
    assert new_alignment(project, imported, gainRot=1).validate() == []


def test_eer_frames_are_those_after_grouping(project, movies):
    imported = import_movies(project, movies.folder, "*.eer", PIXEL_A)
    assert new_alignment(project, imported, nFrames=SHAPE[0], alignFrameN=SHAPE[0]).validate() == []
    too_many = new_alignment(project, imported, nFrames=SHAPE[0], alignFrameN=HARDWARE_FRAMES)
    assert "the movie has 8" in too_many.validate()[0]
    assert new_alignment(project, imported, nFrames=HARDWARE_FRAMES + 1).validate() != []


def test_one_unreadable_movie_is_no_reason_to_refuse_the_others(project, movies, tmp_path):
    for name in ("a.mrcs", "b.mrcs"):
        (tmp_path / name).write_bytes(open(f"{movies.folder}/movie_1.mrcs", "rb").read())
    imported = import_movies(project, str(tmp_path), "*.mrcs", PIXEL_A)
    (tmp_path / "a.mrcs").unlink()
    assert new_alignment(project, imported).validate() == []
    (tmp_path / "b.mrcs").unlink()
    assert "a.mrcs" in new_alignment(project, imported).validate()[0]
