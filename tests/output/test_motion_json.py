"""The saved result: strict JSON, exact model, readable layout."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from flexalign_plugin.commands.align import _settings_file
from flexalign_plugin.motion import MotionModel
from flexalign_plugin.output.corrected_star import write_corrected_micrographs
from flexalign_plugin.output.motion_json import json_text, result_to_dict, settings_of_result
from flexalign_plugin.output.saved_result import load_saved_result
from flexalign_plugin.settings import Settings

from .synthetic import motion_model, movie_result


def refuse(constant):
    raise AssertionError(f"{constant} is no JSON")


@pytest.fixture(scope="module")
def result():
    model = motion_model((384, 400), n_frames=9, first_frame=1, n_aligned=7)
    return movie_result(model, gain="gain.mrc")


def test_model_and_settings_come_back_exactly(result, tmp_path):
    path = tmp_path / "a_motion.json"
    path.write_text(json_text(result_to_dict(result, {})))
    model = MotionModel.load(path)
    np.testing.assert_array_equal(model.coefficients_px, result.model.coefficients_px)
    np.testing.assert_array_equal(model.global_shifts_px, result.model.global_shifts_px)
    assert (model.frame_shape, model.n_frames, model.first_frame) == ((384, 400), 9, 1)
    saved = json.loads(path.read_text())
    assert Settings.from_dict(saved["settings"]) == result.settings
    assert saved["frames"] == {
        "in_movie": 9,
        "first_aligned": 2,
        "last_aligned": 8,
        "first_summed": 2,
        "last_summed": 8,
        "pixel_size_A": 1.0,
        "dose_per_frame": 1.0,
    }
    assert {"format", "version", "movie", "quality", "warnings", "notes", "timings_s"} <= set(saved)


def test_only_finite_numbers_and_plain_types():
    value = {
        "a": float("nan"),
        "b": [np.float32(1.5), np.inf, np.int64(3)],
        "c": np.arange(3),
        "d": (True, None, "x\n"),
    }
    assert json.loads(json_text(value), parse_constant=refuse) == {
        "a": None,
        "b": [1.5, None, 3],
        "c": [0, 1, 2],
        "d": [True, None, "x\n"],
    }


def test_lists_of_numbers_stand_on_one_line():
    text = json_text({"shifts": [[1.0, 2.0], [3.0, 4.0]], "empty": {}, "none": []})
    assert text == ('{\n  "shifts": [\n    [1.0, 2.0],\n    [3.0, 4.0]\n  ],\n  "empty": {},\n  "none": []\n}\n')


def eer_result(settings, given):
    model = motion_model((256, 256), n_frames=4, local_px=0)
    result = movie_result(model, **settings.to_dict())
    return dataclasses.replace(result, given=given, notes=["80 hardware frames summed by 20 into 4 frames."])


def test_results_of_eer_movies_hold_the_settings_as_given_and_what_became_of_them():
    given = Settings(pixel_size=1.0, eer_sampling=2, total_dose=40, n_frames=4)
    frames = dataclasses.replace(given, pixel_size=0.5, total_dose=None, dose_per_frame=10)
    saved = json.loads(json_text(result_to_dict(eer_result(frames, given), {})))
    assert settings_of_result(saved) == given
    assert (saved["frames"]["pixel_size_A"], saved["frames"]["dose_per_frame"]) == (0.5, 10)
    assert saved["micrograph"]["pixel_size_A"] == 0.5


@pytest.mark.parametrize("sampling, of_eer", [(1, True), (2, True), (4, True), (4, False)])
def test_results_of_version_1_0_0_keep_their_meaning(tmp_path, sampling, of_eer):
    """Their pixel size is that of the rendered grid. Only EER movies were rendered, whatever the setting."""
    old = Settings(pixel_size=0.4, eer_sampling=sampling, dose_per_frame=1.1)
    result = eer_result(old, None) if of_eer else movie_result(motion_model((256, 256), local_px=0), **old.to_dict())
    values = json.loads(json_text(result_to_dict(result, {})))
    values["format"] = "flexalign-result-1"
    for name in ("pixel_size_A", "dose_per_frame"):
        del values["frames"][name]
    for name in ("total_dose", "dose_per_hardware_frame", "eer_group", "eer_dose", "use_whole_frames"):
        del values["settings"][name]
    path = tmp_path / "a_motion.json"
    path.write_text(json.dumps(values))
    settings = settings_of_result(values)
    assert settings.pixel_size == pytest.approx(0.4 * sampling if of_eer else 0.4) and settings.dose_per_frame == 1.1
    assert load_saved_result(str(path)).settings == settings

    # RELION's list names the pixel size of the frames, and the command aligns with the same one again.
    (tmp_path / "a_aligned_mic.mrc").write_bytes(b"x")
    assert write_corrected_micrographs(str(tmp_path)) == []
    assert "opticsGroup1 1 0.400000" in " ".join((tmp_path / "corrected_micrographs.star").read_text().split())
    assert _settings_file(str(path))["pixel_size"] == settings.pixel_size
