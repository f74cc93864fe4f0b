"""Plots: what can be checked without eyes. (Their look was judged by eye.)"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from flexalign_plugin.correction.power_spectra import spectra_of
from flexalign_plugin.kernels.cpu import CpuBackend
from flexalign_plugin.output import plots
from flexalign_plugin.quality.figures import Figures
from flexalign_plugin.settings import Settings

from .synthetic import figures_of, motion_model


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def draw_local_field(path, model, settings, background):
    window = settings.crop_window(*model.frame_shape, "m.mrc")
    plots.local_field(str(path), model, figures_of(model, settings), window, background)


def test_pyplot_is_never_imported():
    code = "import sys; from flexalign_plugin.output import plots; print('matplotlib.pyplot' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True, text=True)
    assert run.stdout.strip() == "False"


@pytest.mark.parametrize("n_frames", [2, 7, 150])
def test_trajectory_marks_the_first_frame_where_it_is(tmp_path, n_frames):
    model = motion_model((300, 300), n_frames=n_frames, local_px=0)
    # Straight right and down in the image: the ring of frame 1 must be at the upper left.
    line = np.linspace(0, 12, n_frames)
    model = dataclasses.replace(model, global_shifts_px=np.column_stack([line, line]))
    plots.global_trajectory(str(tmp_path / "a.png"), model, figures_of(model, Settings()))
    picture = pixels(tmp_path / "a.png")
    colour = np.rint(255 * np.array(to_rgb(plots.FIRST_FRAME)))
    rows, columns = np.nonzero(np.all(picture == colour, axis=2))
    assert rows.size > 50
    assert rows.mean() < 0.45 * len(picture)
    assert columns.mean() < 0.45 * len(picture)


def test_trajectory_without_motion(tmp_path):
    model = motion_model((300, 300), n_frames=5, local_px=0)
    still = dataclasses.replace(model, global_shifts_px=np.zeros((5, 2)))
    plots.global_trajectory(str(tmp_path / "a.png"), still, figures_of(still, Settings()))
    assert pixels(tmp_path / "a.png").shape == (600, 600, 3)


@pytest.mark.parametrize("shape", [(400, 800), (800, 400), (512, 512)])
@pytest.mark.parametrize("local_px", [1e-9, 0.02, 40.0])
def test_local_field_has_the_proportions_of_the_frame(tmp_path, shape, local_px):
    model = motion_model(shape, n_frames=6, local_px=local_px)
    draw_local_field(tmp_path / "a.png", model, Settings(), np.full(shape, 128, np.uint8))
    height, width, _ = pixels(tmp_path / "a.png").shape
    assert (height < width) == (shape[0] <= shape[1])


def test_local_field_draws_the_background_where_the_crop_lies(tmp_path):
    model = motion_model((400, 400), n_frames=6)
    # Black picture in the lower left quarter of the frame (rows grow downwards).
    settings = Settings(crop_offset_x=0, crop_offset_y=200, crop_dim_x=200, crop_dim_y=200)
    draw_local_field(tmp_path / "a.png", model, settings, np.zeros((50, 50), np.uint8))
    picture = pixels(tmp_path / "a.png")
    grey = (np.ptp(picture, axis=2) == 0) & (picture[..., 0] < 250) & (picture[..., 0] > 150)
    rows, columns = np.nonzero(grey)
    assert np.median(rows) > 0.55 * len(picture)
    assert np.median(columns) < 0.45 * len(picture)


def test_threads_draw_the_same_bytes(tmp_path):
    model = motion_model((400, 400), n_frames=10)
    noise = np.random.default_rng(0).normal(size=(500, 500)).astype(np.float32)
    spectra = spectra_of(noise, noise, 1.1, CpuBackend(1))

    def draw(i):
        names = [str(tmp_path / f"{i}_{kind}.png") for kind in ("global", "local", "psd")]
        plots.global_trajectory(names[0], model, figures_of(model, Settings()))
        draw_local_field(names[1], model, Settings(), np.full((40, 40), 99, np.uint8))
        plots.spectra(names[2], spectra, Figures(thon_rings_A=4.0), 1.1)
        return [open(name, "rb").read() for name in names]

    with ThreadPoolExecutor(4) as pool:
        drawn = list(pool.map(draw, range(4)))
    assert all(d == drawn[0] for d in drawn)


@pytest.mark.parametrize("pixel_size", [0.2, 0.83, 1.4, 5.0])
def test_resolution_ticks_are_inside_and_apart(pixel_size):
    frequencies = 1 / np.array(plots._resolution_ticks(pixel_size))
    assert len(frequencies) >= 2
    assert frequencies.max() <= 0.5 / pixel_size * 1.001
    assert np.diff(frequencies).min() > 0.05 * 0.5 / pixel_size


@pytest.mark.parametrize(("value", "expected"), [(1.0, 1), (19.9, 15), (0.37, 0.3), (85, 80), (1e6, 1e6)])
def test_magnification_is_a_round_number(value, expected):
    assert plots._round_down(value) == pytest.approx(expected)
