"""The gain's orientation is estimated from movies whose gain file was rotated or flipped in a known way."""

import numpy as np
import pytest

from flexalign_plugin.cli import main
from flexalign_plugin.errors import CorrectionError
from flexalign_plugin.movies import load_corrections, open_movie
from flexalign_plugin.movies.corrections import rotate_and_flip
from flexalign_plugin.movies.gain_orientation import ORIENTATIONS, find_orientation, orientation_warnings, raw_sum
from flexalign_plugin.phantoms.files import with_detector, write_phantom
from flexalign_plugin.phantoms.movie_writers import write_mrc_movie, write_tiff_movie
from flexalign_plugin.phantoms.phantom import particle_phantom
from flexalign_plugin.settings import Settings

SHAPE = (8, 256, 256)


@pytest.fixture(scope="module")
def phantom():
    return with_detector(particle_phantom(SHAPE, dose=2.0), seed=3)


@pytest.fixture(scope="module")
def movie(phantom, tmp_path_factory):
    files = write_phantom(phantom, str(tmp_path_factory.mktemp("gain")), "movie")
    with open_movie(files["movie"], Settings()) as opened:
        yield opened


@pytest.fixture(scope="module")
def total(movie):
    return raw_sum(movie)


def undone(gain, rotation, flip):
    """The image that `rotate_and_flip` turns into `gain`."""
    if flip != "none":
        gain = np.flip(gain, 0 if flip == "upside-down" else 1)
    return np.rot90(gain, -int(rotation) // 90) if rotation != "none" else gain


def saved(tmp_path, image, name="gain.mrc"):
    path = str(tmp_path / name)
    (write_mrc_movie if name.endswith(".mrc") else write_tiff_movie)(path, [np.ascontiguousarray(image)])
    return path


def divided(gain):
    return np.divide(1000, gain, out=np.zeros_like(gain), where=gain > 0)


def test_the_orientations_are_eight_different_ones():
    probe = np.arange(16).reshape(4, 4)
    assert len({rotate_and_flip(probe, *pair).tobytes() for pair in ORIENTATIONS}) == 8


@pytest.mark.parametrize("convention", ["multiply", "divide"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_orientation_is_found(tmp_path, phantom, movie, total, orientation, convention):
    gain = undone(phantom.gain if convention == "multiply" else divided(phantom.gain), *orientation)
    settings = Settings(gain=saved(tmp_path, gain))
    best = find_orientation(movie, total, settings).best
    assert (best.rotation, best.flip, best.convention) == (*orientation, convention)
    assert abs(best.slope - 1) < 0.15
    # What the finder names is what the aligner needs.
    right = Settings(gain=settings.gain, gain_rot=best.rotation, gain_flip=best.flip, gain_convention=best.convention)
    applied = load_corrections(movie, right).gain
    seen = phantom.gain > 0
    ratio = applied[seen] / phantom.gain[seen]
    assert np.ptp(ratio) < 1e-3 * ratio.mean()
    assert not orientation_warnings(total, load_corrections(movie, right), right)


@pytest.mark.parametrize("chosen", [("none", "none"), ("270", "left-right"), ("180", "upside-down")])
def test_a_wrong_choice_gives_a_warning_that_names_the_right_one(tmp_path, phantom, movie, total, chosen):
    path = saved(tmp_path, undone(phantom.gain, "90", "none"))
    wrong = Settings(gain=path, gain_rot=chosen[0], gain_flip=chosen[1], gain_convention="divide")
    (sentence,) = orientation_warnings(total / 8, load_corrections(movie, wrong), wrong)
    assert "gain rotation 90, gain flip none, gain convention multiply" in sentence


def test_another_name_for_the_right_orientation_gives_no_warning(tmp_path, phantom, movie, total):
    same = Settings(gain=saved(tmp_path, undone(phantom.gain, "180", "none")[::-1, ::-1][::-1, ::-1]), gain_rot="180")
    assert not orientation_warnings(total, load_corrections(movie, same), same)
    path = saved(tmp_path, phantom.gain[:, ::-1], "mirrored.mrc")
    same = Settings(gain=path, gain_rot="180", gain_flip="upside-down")
    assert not orientation_warnings(total, load_corrections(movie, same), same)


@pytest.mark.parametrize(
    "movie_format, gain_format", [("tiff", "mrc"), ("tiff", "tiff"), ("tiff", "gain"), ("eer", "gain")]
)
def test_row_orders_of_the_formats(tmp_path, movie_format, gain_format):
    # A sample that stands still: quick to render 128 times, and its structure is not smeared out of the sum.
    still = with_detector(particle_phantom(SHAPE, dose=2.0, drift_px=0, local_px=0), seed=3)
    files = write_phantom(still, str(tmp_path), "movie", movie_format, gain_format=gain_format, hardware_per_frame=16)
    settings = Settings(gain=files["gain"], n_frames=8)
    with open_movie(files["movie"], settings) as movie:
        best = find_orientation(movie, raw_sum(movie), settings).best
    convention = "divide" if gain_format == "gain" else "multiply"
    assert (best.rotation, best.flip, best.convention) == ("none", "none", convention)


@pytest.mark.parametrize("zoom", [2, 0.5])
def test_gain_of_another_sampling(tmp_path, movie, zoom):
    rng = np.random.default_rng(5)
    gain = rng.normal(1, 0.05, (128, 128) if zoom == 2 else (512, 512)).astype("f4")
    on_frame = gain.repeat(2, 0).repeat(2, 1) if zoom == 2 else gain.reshape(256, 2, 256, 2).mean((1, 3))
    total = rng.poisson(200 / on_frame).astype("f4")
    best = find_orientation(movie, total, Settings(gain=saved(tmp_path, undone(gain, "270", "none")))).best
    assert (best.rotation, best.flip, best.convention) == ("270", "none", "multiply")


def test_only_orientations_that_fit_frames_that_are_not_square(tmp_path):
    rng = np.random.default_rng(6)
    gain = rng.normal(1, 0.03, (128, 256)).astype("f4")
    path = str(tmp_path / "movie.mrc")
    write_mrc_movie(path, rng.poisson(100 / gain, (4, 128, 256)).astype("u2"))
    with open_movie(path, Settings()) as movie:
        verdict = find_orientation(movie, raw_sum(movie), Settings(gain=saved(tmp_path, undone(gain, "90", "none"))))
    assert (verdict.best.rotation, verdict.best.flip) == ("90", "none")
    assert {fit.rotation for fit in verdict.fits} == {"90", "270"} and len(verdict.fits) == 8


def test_an_undecided_orientation_has_a_reason(tmp_path, phantom, movie, total):
    def reason(image, frames):
        verdict = find_orientation(movie, frames, Settings(gain=saved(tmp_path, image)))
        assert verdict.best is None
        return verdict.reason

    rng = np.random.default_rng(7)
    assert "flat" in reason(np.ones(SHAPE[1:], "f4"), total)
    half = rng.normal(1, 0.05, (256, 128)).astype("f4")
    symmetric = np.concatenate([half, half[:, ::-1]], 1)
    assert "symmetric" in reason(symmetric, rng.poisson(200 / symmetric).astype("f4"))
    # Enough electrons to see a gain of 10 %, which is not there any more.
    strong = rng.normal(1, 0.1, SHAPE[1:]).clip(0.5, 1.5).astype("f4")
    assert "already" in reason(strong, (rng.poisson(400 / strong) * strong).astype("f4"))
    assert "too few" in reason(phantom.gain, rng.poisson(0.2, SHAPE[1:]).astype("f4"))


def test_never_wrong_at_low_dose_and_several_movies_decide(tmp_path):
    """3 % gain, 256 x 256 pixels: one movie of 0.2 electrons a pixel is too little, the sum of many is not."""
    rng = np.random.default_rng(8)
    gain = rng.normal(1, 0.03, (256, 256)).astype("f4")
    path = str(tmp_path / "movie.mrc")
    write_mrc_movie(path, np.ones((2, 256, 256), "u1"))
    settings = Settings(gain=saved(tmp_path, undone(gain, "180", "none")))
    with open_movie(path, settings) as movie:
        found = [find_orientation(movie, rng.poisson(n / gain).astype("f4"), settings).best for n in (0.2,) * 8 + (60,)]
    assert all(best is None or (best.rotation, best.convention) == ("180", "multiply") for best in found)
    assert found[-1] is not None and found[0] is None


def test_command(tmp_path, phantom, movie, capsys):
    gain = saved(tmp_path, undone(phantom.gain, "90", "upside-down"))
    assert main(["gain", movie.path, "--gain", gain]) == 0
    assert "Use: --gain-rot 90 --gain-flip upside-down --gain-convention multiply" in capsys.readouterr().out
    assert main(["gain", movie.path, "--gain", saved(tmp_path, np.ones(SHAPE[1:], "f4"), "flat.mrc")]) == 1
    assert "flat" in capsys.readouterr().out


def test_damaged_movie_is_named(tmp_path):
    path = str(tmp_path / "movie.mrc")
    write_mrc_movie(path, np.full((1, 128, 128), np.nan, "f4"))
    with open_movie(path, Settings()) as movie, pytest.raises(CorrectionError, match="not numbers"):
        raw_sum(movie)
