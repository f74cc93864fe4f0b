"""Magnification distortion: the stretch by hand, the fitted field against the composed one, and a stretched picture."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from flexalign_plugin.backend import FrameSource
from flexalign_plugin.correction.magnification import resampling_model, stretch
from flexalign_plugin.correction.resampling import plain_mix
from flexalign_plugin.kernels import select_backend
from flexalign_plugin.motion.model import MotionModel
from flexalign_plugin.output.tracks import frame_positions
from flexalign_plugin.settings import Settings

from ..emulation import emulated_backend
from ..in_memory import Stack

SETTINGS = Settings(do_mag_cor=True, scale_maj=1.02, scale_min=0.99, ang_dist=30)


def model_of(shape, n=5, local_px=10.0, points=(4, 5, 6)):
    rng = np.random.default_rng(1)
    coefficients = rng.uniform(-local_px / 2, local_px / 2, (2, *points)) if local_px else None
    return MotionModel(shape, n, 0, rng.normal(0, 5, (n, 2)), coefficients, 1.0)


def composed(model, t, y, x):
    """Where the pixel (y, x) of the corrected picture is in frame t, as the formula says."""
    centre = (np.array(model.frame_shape) - 1) / 2
    inverse = np.linalg.inv(stretch(SETTINGS.scale_maj, SETTINGS.scale_min, SETTINGS.ang_dist))
    qy, qx = np.einsum("ab,b...->a...", inverse, np.stack([y - centre[0], x - centre[1]]))
    qy, qx = qy + centre[0], qx + centre[1]
    sy, sx = model.shift(t, qy, qx)
    return qy - sy, qx - sx


def test_stretch_by_hand():
    """Points are (y, x); the major axis turns from x to higher rows."""
    np.testing.assert_allclose(stretch(1.1, 0.9, 0) @ [0, 1], [0, 1.1], atol=1e-12)
    np.testing.assert_allclose(stretch(1.1, 0.9, 0) @ [1, 0], [0.9, 0], atol=1e-12)
    np.testing.assert_allclose(stretch(1.1, 0.9, 90) @ [1, 0], [1.1, 0], atol=1e-12)
    np.testing.assert_allclose(stretch(1.1, 0.9, 45) @ [1, 1], [1.1, 1.1], atol=1e-12)
    np.testing.assert_allclose(stretch(1.1, 0.9, 45) @ [1, -1], [0.9, -0.9], atol=1e-12)
    np.testing.assert_allclose(stretch(1.1, 0.9, 210), stretch(1.1, 0.9, 30), atol=1e-12)


def test_without_it_the_model_is_the_motion():
    model = model_of((200, 300))
    assert resampling_model(model, Settings(scale_maj=1.05)) is model
    nothing = resampling_model(model, Settings(do_mag_cor=True))
    y, x = np.mgrid[0:200:7, 0:300:9]
    for t in range(5):
        np.testing.assert_allclose(nothing.shift(t, y, x), model.shift(t, y, x), atol=5e-3)


@pytest.mark.parametrize("local_px, tolerance", [(0.0, 1e-9), (10.0, 0.02)])
def test_the_fitted_field_is_the_composed_one(local_px, tolerance):
    model = model_of((3000, 4000), local_px=local_px)
    seen = resampling_model(model, SETTINGS)
    y, x = np.meshgrid(np.linspace(0, 2999, 61), np.linspace(0, 3999, 67), indexing="ij")
    for t in range(5):
        wanted_y, wanted_x = composed(model, float(t), y, x)
        sy, sx = seen.shift(float(t), y, x)
        error = np.hypot(y - sy - wanted_y, x - sx - wanted_x)
        # Beyond the frame the motion keeps its edge's value, a kink that no smooth field follows.
        assert error[6:-6, 6:-6].max() < tolerance and error.max() < max(tolerance, 0.3)


def spots(places, shape, sigma=4.0):
    y, x = np.mgrid[: shape[0], : shape[1]]
    return sum(np.exp(-((y - a) ** 2 + (x - b) ** 2) / 2 / sigma**2) for a, b in places).astype(np.float32)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_distorted_moving_picture_comes_out_straight_in_one_resampling(device):
    shape = (300, 400)
    model = model_of(shape, local_px=1.0)
    wanted = [(60.0, 70.0), (150.0, 200.0), (230.0, 330.0), (40.0, 340.0)]
    y, x = np.array(wanted).T
    frames = np.stack([spots(np.transpose(composed(model, float(t), y, x)), shape) for t in range(5)])
    seen = resampling_model(model, SETTINGS)
    backend = select_backend("cpu") if device == "cpu" else emulated_backend()
    for t in range(5) if device == "cpu" else (4,):
        total = backend.warp_sum(FrameSource(Stack(frames), None, None, None), seen, [t], np.ones((1, 1)), np.zeros(1))
        (image,) = backend.mix(total, [plain_mix(seen, [t])])
        rows, cols = np.mgrid[: shape[0], : shape[1]]
        for a, b in wanted:
            near = np.where((rows - a) ** 2 + (cols - b) ** 2 < 20**2, image, 0).astype(float)
            centre = (near * rows).sum() / near.sum(), (near * cols).sum() / near.sum()
            np.testing.assert_allclose(centre, (a, b), atol=0.03)
    # Traced particles go the same way back.
    tracks = frame_positions(model, SETTINGS, y, x)
    for t in range(5):
        np.testing.assert_allclose(tracks[:, t].T, composed(model, float(t), y, x), atol=0.02)


def test_the_motion_itself_is_not_changed():
    model = model_of((300, 400))
    seen = resampling_model(model, SETTINGS)
    assert seen.frame_shape == model.frame_shape and seen is not model
    np.testing.assert_array_equal(seen.global_shifts_px, model.global_shifts_px)
    assert dataclasses.replace(SETTINGS, do_mag_cor=False).problems() == []
