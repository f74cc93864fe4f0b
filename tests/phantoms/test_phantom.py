"""Phantoms agree with their truth: direct evaluation, statistics and inverse maps."""

from __future__ import annotations

import dataclasses
import os

import numba
import numpy as np
import pytest

from flexalign_plugin.errors import OutputError
from flexalign_plugin.movies import load_corrections, open_movie
from flexalign_plugin.phantoms.files import hardware_frames, with_detector, write_phantom
from flexalign_plugin.phantoms.phantom import Truth, field_rms_error, grid_phantom, particle_phantom
from flexalign_plugin.settings import Settings

SHAPE = (6, 96, 128)


def test_rendered_structure_agrees_with_its_fourier_sum():
    phantom = particle_phantom(SHAPE, pixel_size_A=2.0, drift_px=5, local_px=3, seed=3)
    spline = phantom.spline.astype(float)
    py, px = spline.shape
    ky, kx = np.fft.fftfreq(py), np.fft.fftfreq(px)
    transfer = np.multiply.outer((2 + np.cos(2 * np.pi * ky)) / 3, (2 + np.cos(2 * np.pi * kx)) / 3)
    spectrum = np.fft.fft2(spline) * transfer
    rng = np.random.default_rng(0)
    y, x = rng.integers(0, SHAPE[1], 200), rng.integers(0, SHAPE[2], 200)
    at_y, at_x = (v + phantom.margin for v in phantom.truth.to_reference(4.0, y, x))
    waves_y, waves_x = np.exp(2j * np.pi * np.outer(at_y, ky)), np.exp(2j * np.pi * np.outer(at_x, kx))
    direct = np.einsum("py,yx,px->p", waves_y, spectrum, waves_x).real / spline.size
    contrast = spline.std()
    assert abs(phantom.expected(4.0)[y, x] - direct).max() < 0.01 * contrast
    # The nominal gradient of the structure turns that into a position error.
    gradient = np.sqrt((abs(2 * np.pi * kx * spectrum) ** 2).sum() / spline.size**2)
    assert np.sqrt(((phantom.expected(4.0)[y, x] - direct) ** 2).mean()) / gradient < 0.005


def test_structure_and_counts_have_the_stated_statistics():
    phantom = particle_phantom((2, 256, 256), pixel_size_A=1.0, dose=0.8, contrast=0.15, seed=4)
    expected = phantom.expected(0.0)
    assert expected.mean() == pytest.approx(0.8, rel=0.01)
    assert expected.std() == pytest.approx(0.8 * 0.15, rel=0.1)
    power = abs(np.fft.fft2(expected * np.hanning(256)[:, None] * np.hanning(256))) ** 2
    k = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.fftfreq(256))
    assert power[k > 0.12].mean() < 1e-4 * power[(k > 0.02) & (k < 0.06)].mean()
    noise = phantom.counts(0.0, exposure=50, stream=7) - 50.0 * expected
    assert abs(noise.mean()) < 0.15
    assert noise.var() == pytest.approx(40.0, rel=0.05)


def test_same_seed_same_counts_whatever_the_threads():
    first = list(particle_phantom(SHAPE, seed=9).frames())
    threads = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        again = list(particle_phantom(SHAPE, seed=9).frames())
    finally:
        numba.set_num_threads(threads)
    assert all(np.array_equal(a, b) for a, b in zip(first, again))
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first[0], particle_phantom(SHAPE, seed=10).frame(0))


@pytest.mark.parametrize("make", [particle_phantom, grid_phantom])
def test_truth_is_its_own_inverse_and_survives_the_file(make, tmp_path):
    make(SHAPE).truth.save(tmp_path / "a_truth.json")
    truth = Truth.load(tmp_path / "a_truth.json")
    t, y, x = np.arange(6.0)[:, None, None], np.linspace(0, 95, 7)[:, None], np.linspace(0, 127, 8)
    sy, sx = truth.shift(t, y, x)
    assert sy.shape == sx.shape == (6, 7, 8)
    back = truth.to_reference(t, y - sy, x - sx)
    np.testing.assert_allclose(back[0], np.broadcast_to(y, sy.shape), atol=1e-5)
    np.testing.assert_allclose(back[1], np.broadcast_to(x, sx.shape), atol=1e-5)
    at_reference = truth.shift(truth.parameters.get("reference_frame", 0), y, x)
    np.testing.assert_allclose(at_reference, 0, atol=1e-9)
    assert not list(tmp_path.glob("*.tmp"))


def test_drift_and_local_motion_have_the_stated_size_and_slow_down():
    truth = particle_phantom((30, 500, 600), drift_px=9, local_px=6, seed=2).truth
    y, x = np.linspace(0, 499, 4)[:, None], np.linspace(0, 599, 4)
    end = np.stack(truth.shift(29, y, x))
    assert np.linalg.norm(end.mean(axis=(1, 2))) == pytest.approx(9)
    assert abs(end - end.mean(axis=(1, 2), keepdims=True)).max() == pytest.approx(6)
    steps = np.abs(np.diff(truth.shift(np.arange(30.0), 250, 300)[1]))
    assert steps[0] > 3 * steps[-1]


def test_grid_phantom_is_the_published_one():
    phantom = grid_phantom((30, 400, 400), doming=0.0)
    expected = phantom.expected(29.0)  # n - t = 0: shifted by cos(0)/10 in x only
    line, background = 1.05, 1.25
    assert expected[225, 250] == pytest.approx(line)
    assert expected[225, 225] == pytest.approx(background)
    # Sampled at x + 0.1: the last column before a line sees a tenth of it, the line's last column a tenth too little.
    assert expected[225, 247] == pytest.approx(background - 0.1 * 0.2)
    assert expected[225, 252] == pytest.approx(line + 0.1 * 0.2)
    sy, sx, k1, k2 = grid_phantom((30, 400, 400)).truth.grid_constants(29.0)
    assert (sy, sx, k1, k2) == pytest.approx((0.0, 0.1, 0.05, 0.025))
    sy, sx, k1, k2 = grid_phantom((30, 400, 400)).truth.grid_constants(0.0)
    assert sx == pytest.approx(-0.039 * 29 + 0.002 * 841 + np.cos(29) / 10)
    assert sy == pytest.approx(-0.02 * 29 + 0.002 * 841 + np.sin(841) / 5)


def test_grid_phantom_shows_the_grid_where_its_truth_says():
    phantom = grid_phantom((30, 600, 600))
    y, x = (a.astype(float) for a in np.mgrid[100:500:7, 100:500:7])
    for t in (0.0, 14.0, 29.0):
        at_y, at_x = phantom.truth._dome(np.full(y.shape, t), y, x)
        rendered = phantom.expected(t)[y.astype(int), x.astype(int)]
        inside = [np.abs(v - 50 * np.round(v / 50)) for v in (at_y, at_x)]
        assert rendered[np.minimum(*inside) < 1.0] == pytest.approx(1.05, abs=1e-5)
        assert rendered[np.minimum(*inside) > 3.5] == pytest.approx(1.25, abs=1e-5)


class _Offset:
    """The truth seen from a reference that is moved by a constant, plus a motion of `extra` px RMS along x."""

    def __init__(self, truth: Truth, extra: float) -> None:
        self.truth, self.extra = truth, extra

    def shift(self, t, y, x):
        sy, sx = self.truth.shift(t, y - 5.0, x + 3.0)
        wave = np.sqrt(2) * np.sin(2 * np.pi * np.asarray(t) / self.truth.n_frames)
        return sy + 5.0, sx - 3.0 + self.extra * wave


def test_field_error_ignores_a_constant_and_measures_the_rest():
    truth = particle_phantom((12, 200, 200)).truth
    truth = dataclasses.replace(truth, frame_shape=(4000, 4000))  # the motion's gradient, which adds to it, is small
    assert field_rms_error(_Offset(truth, 0.0), truth).rms_px < 1e-5
    error = field_rms_error(_Offset(truth, 0.3), truth, central=0.8)
    assert error.rms_px == pytest.approx(0.3, rel=0.01)
    assert error.uncorrected_px > 1


@pytest.mark.parametrize("reference", [0, 9])
def test_field_error_is_exact_for_another_reference_frame(reference):
    """A perfect model with another reference frame: its shifts differ, its positions of the content do not."""
    truth = grid_phantom((10, 400, 400)).truth
    other = Truth("grid", truth.frame_shape, 10, 1.0, {**truth.parameters, "reference_frame": reference})
    at = np.arange(10.0)[:, None, None], np.linspace(0, 399, 5)[:, None], np.linspace(0, 399, 5)
    difference = np.stack(other.shift(*at)) - np.stack(truth.shift(*at))
    assert np.abs(difference - difference.mean(axis=1, keepdims=True)).max() > 0.05
    assert field_rms_error(other, truth).rms_px < 1e-6


def test_defocus_makes_thon_rings():
    """The first zero of the contrast transfer at 10,000 A defocus and 300 kV lies at 1 / 14.25 A."""
    plain, seen = (
        particle_phantom((2, 512, 512), band_limit_A=4.0, local_px=1e-9, defocus_A=d, seed=1) for d in (0.0, 10000.0)
    )
    k = np.hypot(np.fft.fftfreq(512)[:, None], np.fft.rfftfreq(512))
    powers = [np.abs(np.fft.rfft2(p.expected(0.0))) ** 2 for p in (plain, seen)]
    zero, ring = abs(k - 0.0702) < 0.0015, abs(k - 0.055) < 0.002
    ratio = powers[1] / powers[0].mean()
    assert ratio[zero].mean() < 0.05 * ratio[ring].mean()


@pytest.mark.parametrize(
    "movie_format, gain_format",
    [
        ("mrc", "mrc"),
        ("mrc", "tiff"),
        ("tiff", "tiff"),
        ("tiff", "mrc"),
        ("eer", "gain"),
        ("eer", "mrc"),
        ("mrc", "gain"),
    ],
)
def test_the_written_gain_undoes_the_detector_with_default_settings(tmp_path, movie_format, gain_format):
    phantom = with_detector(grid_phantom((10, 96, 128), doming=0), seed=5)
    files = write_phantom(phantom, str(tmp_path), "p", movie_format, gain_format=gain_format, hardware_per_frame=20)
    settings = Settings(gain=files["gain"], n_frames=10)
    with open_movie(files["movie"], settings) as movie:
        assert movie.shape == (10, 96, 128)
        corrections = load_corrections(movie, settings)
        raw = sum(movie.frame(i).astype(float) for i in range(10))
    assert np.array_equal(corrections.defects, phantom.gain == 0)
    assert abs(raw.ravel()[list(phantom.hot)]).min() > 100 > raw[phantom.gain > 0].mean()
    seen = (phantom.gain > 0) & (np.arange(raw.size).reshape(raw.shape)[..., None] != phantom.hot).all(-1)
    pattern = phantom.gain[seen]
    # Noise of independent pixels correlates by about 0.01 with anything; the gain's pattern by about 0.2.
    assert abs(np.corrcoef(raw[seen], pattern)[0, 1]) > 0.1
    assert abs(np.corrcoef((raw * corrections.gain)[seen], pattern)[0, 1]) < 0.04
    # 20 hardware frames of 1.25 / 20 electrons: coincidences cost 3 %.
    lost = 0.03 if movie_format == "eer" else 0.0
    electrons = sum(phantom.expected(float(t)) for t in range(10))[seen].mean()
    assert (raw * corrections.gain)[seen].mean() == pytest.approx(electrons * (1 - lost), rel=0.015)


@pytest.mark.parametrize("movie_format, n_calls", [("mrc", 3), ("tiff", 3), ("eer", 6)])
def test_progress_is_reported_for_every_frame(tmp_path, movie_format, n_calls):
    calls = []
    phantom = particle_phantom((3, 64, 64), drift_px=1, local_px=0)
    write_phantom(
        phantom, str(tmp_path), "p", movie_format, hardware_per_frame=2, progress=lambda: calls.append(len(calls))
    )
    assert len(calls) == n_calls


@pytest.mark.parametrize("movie_format", ["mrc", "tiff", "eer"])
def test_a_failure_leaves_no_file(tmp_path, movie_format):
    """A movie that fails in its second frame, and a file whose name is taken by a folder."""
    phantom = particle_phantom((3, 64, 64), drift_px=1, local_px=0)

    def fail():
        raise ValueError("stopped")

    with pytest.raises(ValueError, match="stopped"):
        write_phantom(phantom, str(tmp_path / "new"), "p", movie_format, hardware_per_frame=1, progress=fail)
    assert os.listdir(tmp_path / "new") == []
    (tmp_path / "p_truth.json").mkdir()
    with pytest.raises(OutputError, match="p_truth.json: can't be written because there is a folder of this name"):
        phantom.truth.save(tmp_path / "p_truth.json")
    assert sorted(os.listdir(tmp_path)) == ["new", "p_truth.json"]


def test_hardware_frames_move_within_a_frame_and_average_to_its_position():
    phantom = particle_phantom((3, 64, 64), drift_px=4, local_px=0, seed=2)
    t = (np.arange(9) + 0.5) / 3 - 0.5
    assert t[1] == 0 and t[7] == 2
    events = list(hardware_frames(phantom, 3))
    assert len(events) == 9
    for frame in events:
        y, x, sub_y, sub_x = frame.T
        assert len(np.unique(y * 64 + x)) == len(frame)
        assert 0 <= sub_y.min() and sub_x.max() <= 3
