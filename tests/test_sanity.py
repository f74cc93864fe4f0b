"""The line that says what the input amounts to, and the doubts about it.

Each mistake is made with the values of a K3 movie, whose true ones are known; its doubt must name the true value.
"""

from __future__ import annotations

import dataclasses

import pytest

from flexalign_plugin.sanity import InputFacts, number, odd_pixel_hint, unit_hint

PIXEL_A, DOSE, FRAMES = 0.83, 1.2, 40
K3 = (4092, 5760)
# 90 % of the electrons are counted.
COUNTED = 0.9 * DOSE * PIXEL_A**2


def facts(pixel_size_A=PIXEL_A, dose=DOSE, counted=COUNTED, frame_px=K3, **more):
    total = None if dose is None else dose * FRAMES
    return InputFacts(pixel_size_A, frame_px, FRAMES, total, counted=counted, **more)


def test_the_line():
    assert facts().line == ("0.83 A/px, field 0.48 x 0.34 um, 40 frames x 1.2 = 48 e/A^2; counted in the movie: 43")
    assert facts(counted=None, frame_px=(4096, 4096)).line == (
        "0.83 A/px, field 0.34 um, 40 frames x 1.2 = 48 e/A^2; the movie holds no electron counts to compare with"
    )
    assert facts(dose=None).line.endswith("40 frames, dose not given; counted in the movie: 43 e/A^2")
    assert "40 frames of different dose, 48 e/A^2 in all;" in facts(same_dose=False).line


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 1.0, 1.3])
def test_no_doubt_about_a_movie_that_makes_sense(share):
    """Thick specimens and energy filters take electrons; a dose may be measured behind the specimen."""
    assert facts(counted=share * DOSE * PIXEL_A**2, gain=1.0).doubts == []
    assert facts(counted=None, gain=0.9).doubts == []
    assert facts(dose=None).doubts == []


@pytest.mark.parametrize(
    "pixel_size_A, frame_px", [(0.2, (8184, 11520)), (10.0, K3), (0.16, (8184, 11520)), (1.0, (64, 64))]
)
def test_no_doubt_about_unusual_pixel_sizes(pixel_size_A, frame_px):
    assert facts(pixel_size_A, counted=None, frame_px=frame_px).doubts == []


@pytest.mark.parametrize(
    "typed, words",
    [
        (dict(pixel_size_A=0.083), "0.83 A would make sense, if it was typed in nm"),
        (dict(pixel_size_A=83.0), "0.83 A would make sense, if it was typed in pm"),
        (dict(pixel_size_A=0.16, frame_px=(2048, 2048)), "1.6 A would make sense, if it was typed in nm"),
        (dict(dose=48.0), "if 48 is the dose of the whole movie, the dose per frame is 1.2."),
        (dict(dose=500.0), "check the dose per frame."),
        (dict(gain=0.01), "The gain's values are about 0.01"),
        (dict(gain=100.0), "Divide its values by 100"),
    ],
)
def test_mistakes_that_are_seen_without_counting(typed, words):
    (doubt,) = facts(**{"counted": None, **typed}).doubts
    assert words in doubt


@pytest.mark.parametrize(
    "typed, words",
    [
        (dict(dose=48.0), "a dose per frame of 1.2 (was the total dose typed?)"),
        (dict(dose=1.2 / 25, hardware_frames=25), "a dose per frame of 1.2 (was it that of a hardware frame?)"),
        (dict(pixel_size_A=1.66), "a pixel size of 0.83 A (super-resolution or 8K?)"),
        (dict(pixel_size_A=0.415), "a pixel size of 0.83 A (super-resolution or 8K?)"),
        (dict(pixel_size_A=8.3), ""),
        (dict(dose=0.2), "a dose per frame of 1.1, 43 in all, would make sense"),
    ],
)
def test_mistakes_that_counting_shows(typed, words):
    (doubt,) = facts(**typed).doubts
    assert words in doubt and doubt.startswith("The movie holds ")


@pytest.mark.parametrize(
    "typed, words",
    [
        # The doses of hardware frames: that of a whole frame, and of the whole movie.
        (dict(dose=1.2 * 25), "make sense: a dose per hardware frame of 0.048 (was that of a whole frame typed?)"),
        (dict(dose=1.2 * 40 * 25), "a dose per hardware frame of 0.048 (was the total dose typed?)"),
        # The most probable cause comes first, and a pixel size is that of the 4K grid.
        (dict(pixel_size_A=0.415), "given: a pixel size of 0.83 A (super-resolution or 8K?)"),
        (dict(pixel_size_A=0.415 / 2, rendering=2), "given: a pixel size of 0.83 A (super-resolution or 8K?)"),
    ],
)
def test_mistakes_with_eer_movies(typed, words):
    counted = COUNTED / typed.get("rendering", 1) ** 2
    (doubt,) = facts(**{"hardware_frames": 25, "counted": counted, **typed}).doubts
    assert words.replace("make sense: ", "given: ") in doubt
    known = facts(**{"hardware_frames": 25, "counted": counted, "recorded_pixel_A": 0.83, **typed}).doubts
    # With another pixel size in the file, which is said elsewhere, doses can't be compared.
    assert (known == []) == ("pixel" in words) and not any("pixel size of" in doubt for doubt in known)


def test_a_pixel_in_nm_that_is_not_odd_by_itself_is_seen_by_counting():
    """2.4 A typed as 0.24."""
    right = facts(2.4, counted=0.9 * DOSE * 2.4**2)
    assert right.doubts == []
    (doubt,) = dataclasses.replace(right, pixel_size_A=0.24).doubts
    assert "a pixel size of 2.4 A (was it typed in nm?)" in doubt


def test_a_fine_rendering_of_eer_is_no_mistake():
    """16K pixels of 0.13 A on a sensor with 0.52 A."""
    fine = facts(0.13, counted=None, frame_px=(16384, 16384))
    assert fine.doubts and dataclasses.replace(fine, rendering=4).doubts == []


def test_of_a_dark_movie_the_beam_is_suspected_too():
    (doubt,) = facts(counted=0.01 * COUNTED).doubts
    assert "whether the beam was blocked" in doubt


@pytest.mark.parametrize(
    "typed, words", [(8.3e-10, "8.3 A would make sense, if it was typed in metres"), (0.83, ""), (5e4, ""), (0.0, "")]
)
def test_units(typed, words):
    assert (words in unit_hint(typed)) and bool(unit_hint(typed)) == bool(words or typed == 0.83)


def test_numbers_are_written_as_people_write_them():
    assert [number(v, 2) for v in (0.48, 46.3, 1920, 0.000012, 3.0, 0.1234)] == [
        "0.48",
        "46",
        "1920",
        "1.2e-05",
        "3",
        "0.12",
    ]
    assert odd_pixel_hint(1.0) == "" and "0.83 A" in odd_pixel_hint(83.0)
