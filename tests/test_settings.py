from __future__ import annotations

import dataclasses
import json
import re

import pytest

from flexalign_plugin.errors import SettingsError
from flexalign_plugin.settings import FIELDS_OF_FORM, Settings


def test_a_name_in_the_form_is_the_field_in_camel_case():
    """Form, command line and saved results use the same names; only acronyms keep their capitals."""
    for form, field in FIELDS_OF_FORM.items():
        assert form.lower() == field.replace("_", "").lower()
        assert form[0].islower()


def test_saved_settings_come_back():
    settings = Settings(pixel_size=0.82, gain="g.mrc", max_shift=70.0, do_plots=False)
    assert Settings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


def test_unknown_names_are_refused():
    with pytest.raises(SettingsError, match="no_such_thing"):
        Settings.from_dict({"no_such_thing": 1})


def test_results_without_a_choice_of_the_reference_frame_are_middle_most():
    """Earlier versions knew nothing else. A file that says nothing about a result has the default."""
    saved = Settings(pixel_size=0.9).to_dict()
    assert Settings.of_result(saved).reference_frame == Settings.from_dict({}).reference_frame == "first"
    del saved["reference_frame"]
    assert Settings.of_result(saved) == Settings(pixel_size=0.9, reference_frame="middle-most")
    with pytest.raises(SettingsError, match="reference_frame is 'last': choose one of first, middle-most"):
        Settings(reference_frame="last")


@pytest.mark.parametrize(
    "values,words",
    [
        ({"pixel_size": 0}, "Pixel size is 0"),
        ({"voltage": 1}, "Voltage is 1 kV"),
        ({"dose_per_frame": -1.0}, "Dose per frame"),
        ({"pre_exposure": -1.0}, "Pre-exposure"),
        ({"gain_rot": "45"}, "gain_rot is '45'.*none, 90, 180, 270"),
        ({"eer_sampling": 3}, "eer_sampling is 3"),
        ({"n_frames": 1}, "EER frames"),
        ({"align_frame0": 0}, "counted from 1"),
        ({"align_frame0": 5, "align_frame_n": 5}, "5 to 5"),
        ({"use_align_to_sum": False, "sum_frame0": 4, "sum_frame_n": 2}, "Frames to sum"),
        ({"bin_factor": 0.5}, "Binning factor is 0.5"),
        ({"do_mag_cor": True, "scale_maj": 102.0}, "major scale is 102.0: .* at least 0.9 and at most 1.1"),
        ({"do_mag_cor": True, "scale_min": 0.0}, "Magnification distortion, minor scale is 0"),
        ({"do_mag_cor": True, "ang_dist": 1e9}, "Angle of the magnification distortion"),
        ({"crop_offset_x": -1}, "Crop offset X is -1 px: it must be at least 0"),
        ({"max_res_for_correlation": 1.5}, "1.5 A, finer than the pixel size allows .2 A."),
        ({"max_shift": -1}, "Maximum shift"),
        ({"max_res_for_correlation": 30.0, "min_local_res": 100.0}, "Patches of 100 A are too small.*120 A"),
        ({"min_local_res": 70.0}, "Patches of 70 A are too small.*80 A"),
        ({"pixel_size": 50.0}, "Patches of 500 A are too small to compare at 150 A"),
        ({"auto_patches": False, "patches_x": 1}, "Patches along X is 1: it must be at least 2"),
        ({"auto_control_points": False, "control_point_t": 2}, "at least 3"),
        ({"auto_control_points": False, "auto_patches": False, "patches_x": 3}, "more patches or fewer control points"),
    ],
)
def test_invalid_values_are_refused(values, words):
    with pytest.raises(SettingsError, match=words):
        Settings(**values)


NUMBERS = [field for field in dataclasses.fields(Settings) if field.metadata["bounds"] is not None]


def counting(name):
    """Values of other settings with which this setting has an effect."""
    only_if = Settings.__dataclass_fields__[name].metadata["bounds"].only_if
    return {only_if.lstrip("!"): not only_if.startswith("!")} if only_if else {}


@pytest.mark.parametrize("field", NUMBERS, ids=lambda field: field.name)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), "7", True, [1]])
def test_values_that_are_not_finite_numbers_are_refused(field, value):
    with pytest.raises(SettingsError, match=f"^{re.escape(field.metadata['label'])} is "):
        Settings(**{**counting(field.name), field.name: value})


def test_an_integer_of_400_digits_is_refused():
    with pytest.raises(SettingsError, match="Maximum shift is 1000"):
        Settings(max_shift=10**400)


@pytest.mark.parametrize("field", NUMBERS, ids=lambda field: field.name)
def test_declared_bounds_hold_at_both_ends(field):
    """The bounds themselves are allowed, the next number is not. Contradicting settings are in another test."""
    bounds = field.metadata["bounds"]
    step = 1 if field.type == "int" else 1e-6
    inside, outside = (
        [bounds.low + step if bounds.above else bounds.low],
        [bounds.low if bounds.above else bounds.low - step],
    )
    if bounds.high is not None:
        inside, outside = [*inside, bounds.high], [*outside, bounds.high + max(step, 1e-6 * bounds.high)]
    for value in inside:
        assert bounds.allow(value)
    for value in outside:
        with pytest.raises(SettingsError, match=re.escape(field.metadata["label"])):
            Settings(**{**counting(field.name), field.name: type(step)(value)})


def test_a_value_without_effect_is_not_checked():
    assert Settings(scale_maj=102.0).scale_maj == 102.0
    assert Settings(sum_frame0=0).sum_frame0 == 0
    assert Settings(patches_x=0, control_point_t=1).patches_x == 0


def test_all_problems_are_reported_at_once():
    with pytest.raises(SettingsError, match="Pixel size.*Maximum shift"):
        Settings(pixel_size=-1, max_shift=-1)


@pytest.mark.parametrize(
    "values,align,total",
    [
        ({}, range(0, 20), range(0, 20)),
        ({"align_frame0": 3, "align_frame_n": 10}, range(2, 10), range(2, 10)),
        ({"use_align_to_sum": False, "sum_frame0": 5}, range(0, 20), range(4, 20)),
        ({"align_frame0": 3, "use_align_to_sum": False, "sum_frame0": 5, "sum_frame_n": 5}, range(2, 20), range(4, 5)),
    ],
)
def test_frame_ranges(values, align, total):
    assert Settings(**values).frame_ranges(20, "m.mrc") == (align, total)


@pytest.mark.parametrize(
    "values,words",
    [
        ({"align_frame_n": 21}, "m.mrc: frames 1 to 21 .* has 20"),
        ({"align_frame0": 21}, "m.mrc: frames 21 to the last"),
        ({"align_frame0": 20}, "only 1 frame"),
        ({"align_frame0": 3, "use_align_to_sum": False}, "only 3 to 20 are aligned"),
    ],
)
def test_frame_ranges_that_the_movie_does_not_have(values, words):
    with pytest.raises(SettingsError, match=words):
        Settings(**values).frame_ranges(20, "m.mrc")


def test_crop_window():
    assert Settings(crop_offset_y=10, crop_dim_x=40).crop_window(100, 80, "m") == (slice(10, 100), slice(0, 40))
    with pytest.raises(SettingsError, match="m.mrc: the crop .* 80 x 100 pixels"):
        Settings(crop_offset_x=50, crop_dim_x=40).crop_window(100, 80, "m.mrc")


@pytest.mark.parametrize(
    "name, allowed, refused",
    [
        ("pixel_size", [0.01, 1000.0], [0.009, 1000.1]),
        ("voltage", [10.0, 2000.0], [9.9, 2000.1]),
        ("dose_per_frame", [0.0, 10_000.0], [-0.1, 10_001.0]),
        ("pre_exposure", [0.0, 100_000.0], [-0.1, 100_001.0]),
        ("bin_factor", [1.0, 16.0], [0.99, 16.1]),
        ("fcrop_factor", [0.0625, 1.0], [0.0, 1.01]),
        ("max_res_for_correlation", [0.0], [-0.1, 10_001.0]),
        ("max_shift", [0.0, 100_000.0], [-0.1, 100_001.0]),
        ("scale_maj", [0.9, 1.1], [0.89, 1.11]),
        ("scale_min", [0.9, 1.1], [0.89, 1.11]),
        ("ang_dist", [-360.0, 360.0], [-361.0, 361.0]),
        ("patches_x", [2, 1000], [1, 1001]),
        ("patches_y", [2, 1000], [1, 1001]),
        ("min_local_res", [1_000_000.0], [0.0, 1_000_001.0]),
        ("group_n_frames", [1, 10_000], [0, 10_001]),
        ("control_point_x", [3, 100], [2, 101]),
        ("control_point_y", [3, 100], [2, 101]),
        ("control_point_t", [3, 1000], [2, 1001]),
    ],
)
def test_smallest_and_largest_values(name, allowed, refused):
    """In numbers, not as the field declares them: a bound that changes by mistake shows here."""
    others = {"do_local_alignment": name == "min_local_res", **counting(name)}
    for value in allowed:
        assert getattr(Settings(**{**others, name: value}), name) == value
    for value in refused:
        with pytest.raises(SettingsError, match=f"^{re.escape(Settings.__dataclass_fields__[name].metadata['label'])}"):
            Settings(**{**others, name: value})


def test_the_two_ways_of_binning_bin_by_16_at_most_together():
    assert Settings(bin_factor=8.0, fcrop_factor=0.5).output_binning == 16
    with pytest.raises(SettingsError, match="together bin by 16.1: the largest allowed binning is 16"):
        Settings(bin_factor=8.05, fcrop_factor=0.5)
    with pytest.raises(SettingsError, match="F-crop factor 0.06 together bin by 16.6667"):
        Settings(fcrop_factor=0.06)


def test_given_control_points_need_enough_automatic_patches():
    """Patches of 500 px in 1500 x 2000 px: 3 along y, 4 along x, enough for 4 and 5 control points."""
    given = dict(auto_control_points=False, control_point_t=3)
    Settings(**given, control_point_y=4, control_point_x=5).check_control_points(1500, 2000, "m.mrc")
    with pytest.raises(
        SettingsError, match="^m.mrc: 5 x 5 control points need .* have room for 4 x 3 patches of 500 A"
    ):
        Settings(**given, control_point_y=5, control_point_x=5).check_control_points(1500, 2000, "m.mrc")
    Settings(auto_control_points=True).check_control_points(100, 100, "m.mrc")
