"""The first look at a movie: its mean, the value of uncovered pixels, frames that can't be used, hot pixels."""

from __future__ import annotations

import numpy as np
import pytest

from flexalign_plugin.errors import MovieError
from flexalign_plugin.kernels import select_backend
from flexalign_plugin.movies import Corrections
from flexalign_plugin.movies.inspection import inspect
from flexalign_plugin.settings import Settings

from ..in_memory import Stack

SHAPE = (6, 200, 300)


@pytest.fixture(scope="module")
def frames():
    return np.random.default_rng(1).poisson(3.0, SHAPE).astype(np.uint8)


def look(frames, corrections=None, aligned=None, **settings):
    aligned = aligned or range(len(frames))
    return inspect(Stack(frames), select_backend("cpu", 2), corrections or Corrections(), aligned, Settings(**settings))


def test_the_mean_is_that_of_the_aligned_frames(frames):
    seen = look(frames, aligned=range(1, 5))
    np.testing.assert_allclose(seen.mean, frames[1:5].mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(seen.fill, frames[1:5].mean(axis=(1, 2)), rtol=1e-6)
    assert len(seen.defects_px) == 0 and seen.defect_counts == {"hot_or_dead": 0} and not seen.notes + seen.warnings


def test_gain_and_dark_are_undone(frames):
    rng = np.random.default_rng(0)
    gain = (1 + 0.3 * rng.standard_normal(SHAPE[1:])).clip(0.3).astype(np.float32)
    dark = rng.uniform(0, 2, SHAPE[1:]).astype(np.float32)
    spoiled = (frames / gain + dark).astype(np.float32)
    seen = look(spoiled, Corrections(dark, gain), remove_hot_pixels=False)
    np.testing.assert_allclose(seen.mean, frames.mean(axis=0), rtol=1e-4, atol=1e-4)
    # The fill has the scale of the corrected frames; it can't know how gain and content go together.
    assert np.abs(seen.fill / frames.mean(axis=(1, 2)) - 1).max() < 0.1


def test_hot_and_listed_pixels_are_replaced_and_counted(frames):
    hot = frames.copy()
    hot[:, 50, 60] = 200
    listed = np.zeros(SHAPE[1:], bool)
    listed[10:12, 20] = True
    seen = look(hot, Corrections(defects=listed, counts={"defect_file": 2}))
    assert seen.defects_px.tolist() == [[10, 20], [11, 20], [50, 60]]
    assert seen.defect_counts == {"defect_file": 2, "hot_or_dead": 1}
    assert seen.notes == ["1 hot or dead pixels were found in the movie and replaced."]
    assert abs(seen.mean[50, 60] - 3) < 2


@pytest.mark.parametrize(
    "value, words", [(np.nan, "frame 3 holds pixels that are not numbers"), (0, "frame 3 is empty")]
)
def test_a_frame_that_can_not_be_used_is_named(frames, value, words):
    spoiled = frames.astype(np.float32)
    spoiled[2] = value
    with pytest.raises(MovieError, match=f"^memory.mrc: {words}"):
        look(spoiled)


def test_of_many_such_frames_only_the_first_are_named(frames):
    with pytest.raises(MovieError, match="frame 1, 2, 3, 4, 5 and 1 more is empty"):
        look(np.zeros_like(frames))


def test_frames_around_zero_are_not_empty():
    """Pairs of opposite values: the mean of each frame is exactly 0."""
    half = np.random.default_rng(4).normal(0, 5, (4, 100, 300)).astype(np.float32)
    frames = np.concatenate([half, -half], axis=1)
    assert (frames.mean(axis=(1, 2), dtype=np.float64) == 0).all()
    for values in (frames, np.round(frames).astype(np.int16)):
        seen = look(values)
        assert np.isfinite(seen.fill).all() and np.abs(seen.fill).max() < 1e-3 and len(seen.defects_px) == 0
        values[2] = 0
        with pytest.raises(MovieError, match="frame 3 is empty"):
            look(values)
