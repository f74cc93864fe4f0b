"""Dead pixels, columns and rows in movies of known statistics, with few counts, with a gain, and without counting."""

from __future__ import annotations

import numpy as np
import pytest

from flexalign_plugin.kernels import select_backend
from flexalign_plugin.movies import Corrections
from flexalign_plugin.movies.dead_pixels import find_dead_pixels, whole_lines
from flexalign_plugin.movies.inspection import inspect
from flexalign_plugin.settings import Settings

from ..emulation import cuda_backend
from ..in_memory import Stack

N, SIZE = 8, 512
SHAPE = SIZE, SIZE


def counted(total, seed=0, dtype="u1"):
    """Frames with `total` (number or image) expected counts per pixel in all."""
    rng = np.random.default_rng(seed)
    return rng.poisson(np.broadcast_to(np.asarray(total, float) / N, (N, *SHAPE))).astype(dtype)


def found_in(frames, gain=None, known=None):
    raw = frames.mean(axis=0, dtype=np.float64).astype(np.float32)
    image = raw if gain is None else raw * gain
    return find_dead_pixels(Stack(frames), range(len(frames)), raw, image, gain, known)


def box(rows, columns):
    mask = np.zeros(SHAPE, bool)
    mask[rows, columns] = True
    return mask


LINES = {
    "column": box(slice(None), 100),
    "two columns": box(slice(None), slice(200, 202)),
    "row": box(300, slice(None)),
    "column at the edge": box(slice(None), SIZE - 1),
    "half a row": box(77, slice(0, SIZE // 2)),
}


@pytest.mark.parametrize("total", [0.1, 0.3, 1, 3, 10, 20, 50])
def test_less_than_one_good_pixel_of_a_movie_is_replaced(total):
    assert sum(np.count_nonzero(found_in(counted(total, seed))) for seed in range(4)) < 4


@pytest.mark.parametrize("total", [0.1, 0.3, 1, 3, 10, 20, 50])
def test_columns_and_rows_are_found_where_single_pixels_can_not_be(total):
    """256 pixels expect 25.6 counts at 0.1 counts: more than log(256^2 * 512^2) = 23.6, but the lowest side decides,
    which is 10 % lower. Whole lines expect twice as many."""
    frames = counted(total, 1)
    dead = np.logical_or.reduce(list(LINES.values()))
    frames[:, dead] = 0
    found = found_in(frames)
    for name, mask in LINES.items():
        assert found[mask].all() or (name, total) == ("half a row", 0.1), name
    # Good pixels at the ends of a dead part may be 0 by chance too.
    assert np.count_nonzero(found & ~dead) < max(20, 3 / total)
    assert whole_lines(found) == "4 whole columns (x 100, 200, 201, 511) and 1 whole row (y 300)"


@pytest.mark.parametrize("total, least", [(14, 0.5), (16, 0.9), (20, 0.99)])
def test_single_pixels_are_found_from_a_probability_on(total, least):
    """The limit is log(512^2) = 12.5 counts; the surroundings are known to some 5 %, and the lowest side decides."""
    frames = counted(total, 2)
    dead = np.random.default_rng(0).random(SHAPE) < 5e-4
    frames[:, dead] = 0
    found = found_in(frames)
    assert found[dead].mean() > least and np.count_nonzero(found & ~dead) <= 1


def test_the_report_of_dead_columns_at_20_counts():
    """Median sum of 20 counts, uneven illumination and gain (sigma 8): mean - 6 sigma is below zero."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    frames = counted(20 * (1 + 0.7 * np.sin(6 * y) * np.sin(5 * x)) * rng.normal(1, 0.05, SHAPE).clip(0.5), 3)
    dead = LINES["column"] | LINES["row"]
    frames[:, dead] = 0
    assert frames.sum(axis=0).std() > 8
    found = found_in(frames)
    assert found[dead].all() and np.count_nonzero(found & ~dead) < 5


def test_dark_parts_of_the_picture_are_no_defects():
    """A black bar and a grid bar that ends in the frame, beside a hole twice as bright; half of their pixels are 0."""
    expected = np.full(SHAPE, 30.0)
    y, x = np.mgrid[:SIZE, :SIZE]
    expected[(y - 250) ** 2 + (x - 150) ** 2 < 100**2] = 75
    expected[:, 300:360] = 0.7
    expected[400:, 100:140] = 0.3
    expected[:, 420:432] = 0.5
    expected[:, 470:] = 0  # beyond the rim of the beam
    assert np.count_nonzero(found_in(counted(expected, 4))) <= 4


def test_a_hot_pixel_beside_dark_ones_does_not_make_them_dead():
    frames = counted(1.0, 5)
    frames[:, 40:500:20, 40:500:20] = 255
    hot = box(slice(40, 500, 20), slice(40, 500, 20))
    assert np.count_nonzero(found_in(frames, known=hot)) == 0


def test_clusters_and_blocks():
    """4 x 4 pixels from 10 counts on, 8 x 8 from 3 on; 40 x 40 are left to a defect map."""
    for total, size, is_found in ((10, 4, True), (3, 8, True), (30, 40, False)):
        frames = counted(total, 6)
        block = box(slice(200, 200 + size), slice(300, 300 + size))
        frames[:, block] = 0
        assert found_in(frames)[block].mean() == pytest.approx(float(is_found), abs=0.4), size
        if is_found:
            assert found_in(frames)[block].all()


def test_weak_pixels_are_no_dead_ones_if_the_gain_knows_them():
    """A third of the pixels counts only a fifth: 4 of 20 counts, so that 1.8 % of them, 1,600 pixels, are 0."""
    rng = np.random.default_rng(7)
    gain = np.where(rng.random(SHAPE) < 1 / 3, 5.0, 1.0).astype(np.float32)
    frames = counted(20 / gain, 7)
    dead = np.flatnonzero(gain.ravel() == 1)[:: SIZE * 4]
    frames.reshape(N, -1)[:, dead] = 0
    assert np.count_nonzero(frames.sum(axis=0) == 0) > 1000
    found = found_in(frames, gain)
    assert found.ravel()[dead].mean() > 0.9
    assert np.count_nonzero(found) - np.count_nonzero(found.ravel()[dead]) <= 5


def test_gain_corrected_float_movies():
    """Multiples of each pixel's gain, in units in which a count is 37."""
    gain = np.random.default_rng(8).normal(37, 3, SHAPE).astype(np.float32)
    for total in (0.3, 3, 20):
        frames = counted(total, 8).astype(np.float32) * gain
        assert np.count_nonzero(found_in(frames)) <= 1
        frames[:, LINES["column"]] = 0
        found = found_in(frames)
        assert found[LINES["column"]].all() and np.count_nonzero(found & ~LINES["column"]) < 20


def integrated(seed=0, level=1000.0, dtype="i2"):
    """Analog frames: a level, and noise of 12."""
    noise = np.random.default_rng(seed).normal(level, 12, (N, *SHAPE))
    return np.round(noise).astype(dtype) if np.dtype(dtype).kind in "ui" else noise.astype(dtype)


@pytest.mark.parametrize("dtype, level", [("i2", 1000.0), ("u2", 1000.0), ("f4", 0.0), ("f4", 1e5), ("f2", 300.0)])
def test_a_value_that_never_changes(dtype, level):
    """Stuck at values that are as usual as any other: their mean does not give them away."""
    frames = integrated(9, level, dtype)
    assert not found_in(frames).any()
    stuck = box(slice(20, 500, 40), 33) | LINES["column"]
    frames[:, stuck] = frames[3, stuck]
    np.testing.assert_array_equal(found_in(frames), stuck)


def test_frames_too_few_to_tell_chance_from_stuck():
    """Two frames agree in 2 % of the pixels anyway."""
    assert not found_in(integrated(10)[:2]).any()


def test_a_sum_of_zero_is_no_dead_pixel_where_values_may_be_negative():
    frames = np.random.default_rng(11).integers(-2, 4, (N, *SHAPE)).astype(np.int8)
    assert np.count_nonzero(frames.sum(axis=0) == 0) > 1000
    frames[:, LINES["column"]] = 0
    np.testing.assert_array_equal(found_in(frames), LINES["column"])


def test_an_area_without_data_is_left_alone():
    """A corner that the program that wrote the movie filled with one value."""
    frames = integrated(12)
    frames[:, :60, :100] = 7
    assert np.count_nonzero(found_in(frames)) < 0.05 * 60 * 100


@pytest.mark.parametrize("factor, is_found", [(0.2, True), (0.7, False), (1.0, False), (1.3, False), (2.0, True)])
@pytest.mark.parametrize("total", [1, 20])
def test_columns_that_count_too_little_or_too_much(total, factor, is_found):
    """512 pixels of 1 count: 23 counts, 5 %, of noise, so that half or one and a half are out of the question."""
    expected = np.full(SHAPE, float(total))
    lines = LINES["column"] | LINES["row"]
    expected[lines] *= factor
    found = found_in(counted(expected, 13))
    assert found[lines].all() if is_found else np.count_nonzero(found) <= 1
    assert np.count_nonzero(found & ~lines) <= 1


def test_known_defects_are_not_found_again():
    frames = counted(3.0, 14)
    frames[:, LINES["column"]] = 0
    frames[:, LINES["two columns"]] = 0
    found = found_in(frames, known=LINES["column"])
    assert not found[LINES["column"]].any() and found[LINES["two columns"]].all()


def test_empty_constant_and_tiny_movies():
    for frames in (np.zeros((N, *SHAPE), "u1"), np.full((N, *SHAPE), 5, "u1"), np.ones((3, 4, 5), "f4")):
        assert not found_in(frames).any()


@pytest.fixture(params=["cpu", "cuda"], scope="module")
def backend(request):
    return select_backend("cpu", threads=2) if request.param == "cpu" else cuda_backend()


@pytest.mark.parametrize("dtype", ["u1", "i2", "f4"])
def test_with_and_without_gain_on_each_backend(backend, dtype):
    """Zeros in the raw frames count; the corrected ones have the gain's units. Both backends give the same pixels."""
    rng = np.random.default_rng(15)
    gain = rng.normal(1, 0.08, SHAPE).clip(0.5).astype(np.float32)
    frames = counted(2.0, 15, dtype)
    dead = LINES["column"] | LINES["half a row"]
    frames[:, dead] = 0
    for corrections in (Corrections(), Corrections(gain=gain)):
        seen = inspect(Stack(frames), backend, corrections, range(N), Settings())
        found = np.zeros(SHAPE, bool)
        found[tuple(seen.defects_px.T)] = True
        assert found[dead].all() and np.count_nonzero(found & ~dead) < 10
        assert seen.defect_counts["hot_or_dead"] == np.count_nonzero(found)
        assert "were found in the movie and replaced, among them 1 whole column (x 100)." in seen.notes[0]
        # The mean of the good neighbours: 2 counts within 5 sigma of the mean over the column.
        level = seen.mean[LINES["column"]].mean() * N
        assert abs(level - 2.0) < 5 * np.sqrt(2.0 / SIZE)
