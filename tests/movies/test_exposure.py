"""Pixel size and dose of the frames, and an EER file's own metadata against what was given."""

from __future__ import annotations

import re

import numpy as np
import pytest

from flexalign_plugin.errors import MovieError, SettingsError
from flexalign_plugin.movies import EerMetadata, open_movie, read_eer_metadata, settings_of_frames
from flexalign_plugin.movies.eer_metadata import parse_metadata
from flexalign_plugin.movies.exposure import contradictions, no_dose_note, total_dose
from flexalign_plugin.phantoms.movie_writers import (
    eer_metadata_text,
    write_eer_movie,
    write_mrc_movie,
    write_tiff_movie,
)
from flexalign_plugin.settings import Settings

PIXEL_A, DOSE = 0.9, 40.0  # truth: 40 e/A^2 in 43 hardware frames
N_HARDWARE = 43


@pytest.fixture
def eer(tmp_path):
    path = str(tmp_path / "m.eer")
    own = eer_metadata_text(PIXEL_A, DOSE * PIXEL_A**2, N_HARDWARE)
    write_eer_movie(path, [np.array([[3, 4, 1, 2]])] * N_HARDWARE, (32, 48), metadata=own)
    return path


@pytest.mark.parametrize("sampling", [1, 2, 4])
@pytest.mark.parametrize("group, grouping", [(4, {"n_frames": 10}), (5, {"eer_group": 5}), (3, {"eer_dose": 2.7})])
@pytest.mark.parametrize(
    "dose", [{"total_dose": DOSE}, {"dose_per_hardware_frame": DOSE / N_HARDWARE}, {"dose_per_frame": None}, {}]
)
def test_of_eer_frames(eer, sampling, group, grouping, dose):
    """The dose of a group is that of its hardware frames, whatever is left out at the end."""
    if "dose_per_frame" in dose:
        if "eer_dose" in grouping:
            pytest.skip("refused")
        dose = {"dose_per_frame": DOSE / N_HARDWARE * group}
    given = Settings(pixel_size=PIXEL_A, eer_sampling=sampling, **grouping, **dose)
    with open_movie(eer, given) as movie:
        frames = settings_of_frames(movie, given)
        assert movie.hardware_frames_per_frame == group and movie.upsampling == sampling
        assert contradictions(movie, given) == []
        assert total_dose(movie, given) == (pytest.approx(DOSE) if dose else None)
    assert frames.pixel_size == pytest.approx(PIXEL_A / sampling)
    assert frames.dose_per_frame == (pytest.approx(DOSE / N_HARDWARE * group) if dose else None)
    assert frames.is_dose_weighted == bool(dose)


def test_of_other_movies(tmp_path):
    """EER settings have no effect on them."""
    path = str(tmp_path / "m.mrc")
    write_mrc_movie(path, np.ones((8, 16, 16), "u1"))
    given = Settings(pixel_size=1.1, eer_sampling=4, eer_group=3, total_dose=20)
    with open_movie(path, given) as movie:
        frames = settings_of_frames(movie, given)
        assert (frames.pixel_size, frames.dose_per_frame, movie.upsampling) == (1.1, 2.5, 1)
        assert contradictions(movie, given) == []
        with pytest.raises(SettingsError, match="m.mrc: the dose per hardware frame is given, but this is no EER"):
            settings_of_frames(movie, Settings(dose_per_hardware_frame=0.1))


def test_metadata_of_a_file(eer, tmp_path):
    own = read_eer_metadata(eer)
    assert own.pixel_size_A == pytest.approx(PIXEL_A) and own.n_hardware_frames == N_HARDWARE
    assert own.total_dose() == pytest.approx(DOSE, rel=1e-5) and own.camera == "phantom"
    assert own.exposure_s == pytest.approx(N_HARDWARE / 250)
    plain = str(tmp_path / "m.tif")
    write_tiff_movie(plain, np.ones((2, 16, 16), "u1"))
    assert read_eer_metadata(plain) == EerMetadata()
    with pytest.raises(MovieError, match=r"absent.eer: can't be read"):
        read_eer_metadata(str(tmp_path / "absent.eer"))


@pytest.mark.parametrize(
    "text, pixel, dose",
    [
        ('<item name="sensorPixelSize.width" unit="m">7.06e-11</item>', 0.706, None),
        ('<item name="sensorPixelSize.width">7.06e-11</item>', 0.706, None),
        ('<item name="sensorPixelSize.width" unit="parsec">7</item>', None, None),
        ('<item name="meanDoseRate" unit="e/pixel/s">8</item><item name="exposureTime">5</item>', None, 40.0),
        ('<item name="totalDose">-3</item>', None, None),
        ('<item name="totalDose">nan</item><item name="sensorPixelSize.width">inf</item>', None, None),
        ('<item name="totalDose"/><item/>', None, None),
        ('<item name="totalDose">1e99</item><item name="sensorPixelSize.width">1e-200</item>', None, None),
    ],
)
def test_metadata_that_are_partly_missing_or_make_no_sense(text, pixel, dose):
    own = parse_metadata(f"<metadata>{text}</metadata>\0\0".encode())
    assert own.pixel_size_A == (None if pixel is None else pytest.approx(pixel)) and own.dose_per_pixel == dose


@pytest.mark.parametrize("text", [b"", b"\0", b"<metadata>", b"\xff\xfe\x00", b"plain text"])
def test_metadata_that_can_not_be_read(text):
    assert parse_metadata(text) == EerMetadata()


@pytest.mark.parametrize(
    "given, words",
    [
        ({"pixel_size": 0.95, "total_dose": 52}, []),  # a nominal pixel size, and a camera that misses electrons
        ({"pixel_size": 9.0, "total_dose": 40}, ["pixel size is 9 A, .*own metadata it is 0.9 A: check"]),
        ({"pixel_size": 0.45, "eer_sampling": 2}, ["is 0.45 A, .* 0.9 A: give that of the 4K grid"]),
        ({"pixel_size": 0.9, "dose_per_hardware_frame": 40}, ["is 1720 e/A.2 .*about 40, which is 0.93 for each of"]),
        ({"pixel_size": 0.9, "dose_per_frame": 0.93}, ["movie is 10 e/A.2 .*about 40"]),  # typed of a hardware frame
    ],
)
def test_what_was_given_against_the_metadata(eer, given, words):
    settings = Settings(n_frames=10, **given)
    with open_movie(eer, settings) as movie:
        sentences = contradictions(movie, settings)
        assert len(sentences) == len(words) and all(re.search(w, s) for w, s in zip(words, sentences)), sentences


def test_without_a_dose_the_note_states_that_of_the_metadata(eer):
    settings = Settings(pixel_size=PIXEL_A, n_frames=10)
    with open_movie(eer, settings) as movie:
        assert "According to the movie's own metadata it is about 40 e/A^2 in all." in no_dose_note(movie, settings)


@pytest.mark.parametrize(
    "values, words",
    [
        ({"total_dose": 40, "dose_per_frame": 1}, "More than one dose is given"),
        ({"eer_dose": 1, "eer_group": 8}, "EER frames are to have 8 hardware frames and a dose of 1 e/A"),
        ({"eer_dose": 1, "dose_per_frame": 1}, "EER frames are to have a dose of 1 e/A.2, but the dose of a frame"),
        ({"total_dose": float("nan")}, "Total dose is nan"),
        ({"eer_dose": float("inf")}, "Dose per EER frame is inf"),
    ],
)
def test_settings_that_contradict_each_other(values, words):
    with pytest.raises(SettingsError, match=words):
        Settings(**values)
