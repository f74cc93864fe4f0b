"""The gain estimated from phantoms, against the gain of their detector."""

from __future__ import annotations

import re

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, uniform_filter

from flexalign_plugin.cli import main
from flexalign_plugin.errors import CorrectionError
from flexalign_plugin.movies import load_corrections, open_movie
from flexalign_plugin.movies.corrections import read_image
from flexalign_plugin.movies.gain_estimate import GainEstimator
from flexalign_plugin.phantoms.files import with_detector
from flexalign_plugin.phantoms.movie_writers import write_mrc_movie, write_tiff_movie
from flexalign_plugin.phantoms.phantom import particle_phantom
from flexalign_plugin.settings import Settings

SHAPE, DOSE, MOVIES = (8, 320, 256), 6.0, 24
ELECTRONS = SHAPE[0] * DOSE * MOVIES
CONTRAST = 0.1  # rms of the specimens
DETECTOR = with_detector(particle_phantom((2, *SHAPE[1:]), local_px=0.0, band_limit_A=50.0), 7)
GAIN, HOT = DETECTOR.gain, np.array(DETECTOR.hot)


def frames(seed, gain=GAIN):
    """Counts of a specimen of its own that moves by 2 px from frame to frame."""
    rng = np.random.default_rng(seed)
    specimen = gaussian_filter(rng.standard_normal(SHAPE[1:]), 3.0, mode="wrap")
    specimen = 1 + CONTRAST * specimen / specimen.std()
    response = np.divide(1, gain, out=np.zeros_like(gain), where=gain > 0)
    rates = np.array([DOSE * response * np.roll(specimen, 2 * i, 1) for i in range(SHAPE[0])])
    if gain is GAIN:
        rates.reshape(SHAPE[0], -1)[:, HOT] = 30 * DOSE
    return rng.poisson(rates).astype(np.uint8)


def write(folder, seed, kind):
    path = str(folder / f"m{seed}{'.mrc' if kind == 'mrc' else '.tif'}")
    writer = write_mrc_movie if kind == "mrc" else write_tiff_movie
    writer(path, frames(seed))
    return path


@pytest.fixture(scope="module")
def movies(tmp_path_factory):
    """Paths of the movies of one camera."""
    folder = tmp_path_factory.mktemp("movies")
    return [write(folder, seed, "tiff") for seed in range(MOVIES)]


@pytest.fixture(scope="module")
def found(movies):
    return estimated(movies)


def estimated(paths):
    estimator = GainEstimator()
    for path in paths:
        with open_movie(path, Settings()) as movie:
            estimator.add(movie)
    return estimator.estimate()


def detail(image, good):
    """Relative detail of an image in its good pixels; the others are 0."""
    filled = np.where(good, image, np.median(image[good]))
    return np.where(good, filled / uniform_filter(filled, 16) - 1, 0.0)


def test_its_error_is_the_one_it_states(found):
    good = (GAIN > 0) & (found.gain > 0)
    relative = found.gain[good] / GAIN[good]
    error = (relative / np.median(relative)).std()
    # Counting noise of 1,150 electrons: 2.9 %. The specimens differ in 24 movies: 0.1 / sqrt(24) = 2 % if they stood
    # still.
    assert 0.98 / np.sqrt(ELECTRONS) < found.error < np.hypot(1 / np.sqrt(ELECTRONS), CONTRAST / np.sqrt(MOVIES))
    assert error == pytest.approx(found.error, rel=0.1)
    assert found.electrons_per_px == pytest.approx(ELECTRONS, rel=0.05)
    assert (found.movies, found.frames) == (MOVIES, MOVIES * SHAPE[0])
    # Between neighbouring pixels the gain differs by 3 %; here this is as much as the error.
    assert found.detail == pytest.approx(0.03, abs=0.004)


def test_the_pattern_is_gone_from_other_movies(found):
    """In the mean of movies that were not used."""
    good = (GAIN > 0) & (found.gain > 0)
    raw = sum(frames(seed).sum(axis=0, dtype=np.float64) for seed in range(100, 120))
    pattern = detail(np.divide(1, GAIN, out=np.zeros_like(GAIN), where=good), good)

    def correlation(image):
        return np.corrcoef(detail(image, good)[good], pattern[good])[0, 1]

    noise = np.hypot(1 / np.sqrt(20 * SHAPE[0] * DOSE), CONTRAST / np.sqrt(20))
    least = pattern[good].std() / np.hypot(pattern[good].std(), noise)
    before, after, ideal = (correlation(image) for image in (raw, raw * found.gain, raw * GAIN))
    assert before > least > 0.5
    # The error of the estimate is independent of the pattern: 0 within 4 / sqrt(pixels).
    assert abs(after) < abs(ideal) + 4 / np.sqrt(good.sum())


def test_dead_and_hot_pixels_are_marked(found):
    dead = np.flatnonzero(GAIN == 0)
    assert not found.gain.ravel()[np.concatenate([dead, HOT])].any()
    assert (found.dead_px, found.hot_px) == (len(dead), len(HOT))
    assert np.count_nonzero(found.gain == 0) == len(dead) + len(HOT)


def test_one_strange_movie_among_many_changes_little(movies, found, tmp_path):
    """A grid bar covers two fifths of one movie."""
    dark = frames(50)
    dark[:, :, :100] //= 8
    write_tiff_movie(str(tmp_path / "bar.tif"), dark)
    gain = estimated([*movies, str(tmp_path / "bar.tif")]).gain
    good = (GAIN > 0) & (gain > 0) & (found.gain > 0)
    change = np.where(good, gain / np.where(good, found.gain, 1), 1.0)
    # At the edge of the bar the smooth part of that movie is wrong by up to half of the step of 7 / 8, 14 % of its
    # group of four movies, which is one of eight. Averaged over 9 x 9 pixels, the noise is below 0.006.
    assert abs(uniform_filter(change / np.median(change), 9) - 1).max() < 0.14 / 8 + 0.006


def test_movies_of_another_size_and_a_single_movie_are_refused(movies, tmp_path):
    write_mrc_movie(str(tmp_path / "small.mrc"), np.ones((3, 64, 64), np.uint8))
    estimator = GainEstimator()
    with open_movie(movies[0], Settings()) as movie:
        estimator.add(movie)
    with pytest.raises(CorrectionError, match="two or more movies"):
        estimator.estimate()
    with open_movie(str(tmp_path / "small.mrc"), Settings()) as movie, pytest.raises(CorrectionError, match="64 x 64"):
        estimator.add(movie)


def test_corrected_movies_need_no_gain(tmp_path):
    flat = []
    for seed in range(8):
        flat.append(str(tmp_path / f"{seed}.mrc"))
        write_mrc_movie(flat[-1], frames(seed, np.ones_like(GAIN)))
    found = estimated(flat)
    assert not found.is_useful and found.detail < 0.5 * found.error


@pytest.mark.parametrize("ending", ["mrc", "tif"])
@pytest.mark.parametrize("kind", ["mrc", "tiff"])
def test_the_file_is_applied_to_movies_of_either_row_order(tmp_path, kind, ending, capsys):
    paths = [write(tmp_path, seed, kind) for seed in range(4)]
    (tmp_path / "broken.mrc").write_bytes(b"no movie")
    gain = tmp_path / f"estimate.{ending}"
    assert main(["gain", "--estimate", *paths, str(tmp_path / "broken.mrc"), "-o", str(gain)]) == 1
    said = capsys.readouterr()
    assert "Left out:" in said.err and "broken.mrc" in said.err
    (electrons,) = re.findall(r"from 4 movies, 32 frames, (\d+) electrons per pixel", said.out)
    assert int(electrons) == pytest.approx(4 * SHAPE[0] * DOSE, rel=0.05)
    image, found_kind = read_image(str(gain), "Gain")
    assert found_kind == {"mrc": "MRC", "tif": "TIFF"}[ending] and image.dtype == np.float32
    with open_movie(paths[0], Settings()) as movie:
        applied = load_corrections(movie, Settings(gain=str(gain))).gain
    good = (GAIN > 0) & (applied > 0)
    # The noise of 192 electrons and of the specimens is 9 %, the gain's own spread 4 %.
    assert np.corrcoef(applied[good], GAIN[good])[0, 1] > 0.3
    assert abs(np.corrcoef(applied[::-1][good], GAIN[good])[0, 1]) < 0.25


def test_what_does_not_fit_together_is_refused_in_a_sentence(movies, tmp_path, capsys):
    for words in (
        ["--estimate", movies[0], movies[1]],
        ["--gain", "a.mrc", movies[0], "-o", str(tmp_path / "a.mrc")],
        ["--estimate", movies[0], movies[1], "-o", str(tmp_path / "a.gain")],
        ["--estimate", movies[0], movies[1], "-o", movies[0]],
    ):
        assert main(["gain", *words]) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
