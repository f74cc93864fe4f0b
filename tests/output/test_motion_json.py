"""The saved result: strict JSON, exact model, readable layout."""

from __future__ import annotations

import json

import numpy as np
import pytest

from flexalign_plugin.motion import MotionModel
from flexalign_plugin.output.motion_json import json_text, result_to_dict
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
    path.write_text(json_text(result_to_dict(result)))
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
