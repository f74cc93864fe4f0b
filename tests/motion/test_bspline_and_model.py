"""The basis reproduces polynomials, and all ways of evaluating the model agree."""

from __future__ import annotations

import json

import numpy as np
import pytest

from flexalign_plugin.motion import MotionModel
from flexalign_plugin.motion.bspline import basis, gram, places


@pytest.mark.parametrize("n_points", range(1, 12))
def test_partition_of_unity(n_points):
    values = basis(n_points, 99.0, np.linspace(-5, 104, 200))
    assert values.min() >= 0
    np.testing.assert_allclose(values.sum(axis=1), 1.0, atol=1e-12)


@pytest.mark.parametrize("n_points", range(2, 12))
@pytest.mark.parametrize("power", [1, 2, 3])
def test_polynomials_are_reproduced_up_to_the_degree(n_points, power):
    at = np.linspace(0, 50, 101)
    values = basis(n_points, 50.0, at)
    wanted = (at / 50) ** power
    error = np.abs(values @ np.linalg.lstsq(values, wanted, rcond=None)[0] - wanted).max()
    if power <= min(3, n_points - 1):
        assert error < 1e-10
    else:  # one piece of degree power - 1 or less: of all such polynomials the best is 2 / 4^power off
        assert error > 0.99 * 2 / 4**power


@pytest.mark.parametrize("n_points", range(2, 12))
def test_coefficients_equal_to_the_positions_give_the_identity(n_points):
    at = np.linspace(0, 50, 101)
    np.testing.assert_allclose(basis(n_points, 50.0, at) @ places(n_points, 50.0), at, atol=1e-12)


@pytest.mark.parametrize("n_points", [2, 3, 4, 7, 10])
def test_roughness_is_the_integral_of_the_squared_second_derivative(n_points):
    spans = n_points - min(3, n_points - 1)
    at = np.linspace(0, spans, 50)
    values = basis(n_points, spans, at)
    line, parabola = (np.linalg.lstsq(values, f, rcond=None)[0] for f in (3 - 2 * at, 1.5 * at**2))
    assert abs(line @ gram(n_points, 2) @ line) < 1e-9
    if n_points >= 3:
        np.testing.assert_allclose(parabola @ gram(n_points, 2) @ parabola, 9 * spans, rtol=1e-9)
        np.testing.assert_allclose(parabola @ gram(n_points, 1) @ parabola, 3 * spans**3, rtol=1e-9)
    np.testing.assert_allclose(line @ gram(n_points) @ line, 9 * spans - 6 * spans**2 + 4 / 3 * spans**3, rtol=1e-9)


@pytest.fixture
def model():
    rng = np.random.default_rng(0)
    return MotionModel((100, 140), 12, 2, rng.normal(size=(8, 2)), rng.normal(size=(2, 4, 5, 6)), 1.5)


def test_mesh_and_scattered_points_agree(model):
    t, y, x = np.arange(2, 10), np.linspace(0, 99, 7), np.linspace(0, 139, 9)
    mesh = np.stack(model.shift(t[:, None, None], y[:, None], x))
    for k in range(8):
        np.testing.assert_allclose(model.frame_field(t[k], y, x), mesh[:, k], atol=1e-12)
    scattered = np.stack(model.shift(t, y[np.arange(8) % 7], x[np.arange(8)]))
    np.testing.assert_allclose(scattered, mesh[:, np.arange(8), np.arange(8) % 7, np.arange(8)], atol=1e-12)


def test_constant_coefficients_add_a_constant(model):
    constant = MotionModel((100, 140), 12, 2, model.global_shifts_px, np.full((2, 4, 5, 6), 0.75), 1.5)
    sy, sx = constant.shift(np.arange(2, 10), 31.4, 120.0)
    np.testing.assert_allclose(np.stack([sy, sx], 1), model.global_shifts_px + 0.75, atol=1e-12)


def test_outside_the_aligned_frames_there_is_no_shift(model):
    sy, sx = model.shift(np.arange(12), 10.0, 10.0)
    expected = [True, True] + [False] * 8 + [True, True]
    assert np.isnan(sy).tolist() == expected == np.isnan(sx).tolist()


def test_between_frames_the_shift_is_interpolated(model):
    plain = MotionModel((100, 140), 12, 2, model.global_shifts_px, None, 1.5)
    sy, _ = plain.shift(4.25, 0, 0)
    np.testing.assert_allclose(sy, 0.75 * model.global_shifts_px[2, 0] + 0.25 * model.global_shifts_px[3, 0])


def test_a_saved_model_is_the_same_model(model, tmp_path):
    for name, content in (("bare.json", model.to_dict()), ("x_motion.json", {"model": model.to_dict()})):
        (tmp_path / name).write_text(json.dumps(content))
        loaded = MotionModel.load(tmp_path / name)
        at = (np.arange(2, 10)[:, None], np.linspace(0, 99, 20), np.linspace(0, 139, 20))
        np.testing.assert_array_equal(np.stack(loaded.shift(*at)), np.stack(model.shift(*at)))


def test_a_foreign_file_is_refused(tmp_path):
    (tmp_path / "x.json").write_text('{"format": "something else"}')
    with pytest.raises(ValueError, match="something else"):
        MotionModel.load(tmp_path / "x.json")
