"""Plots of particles: what can be checked without eyes. (Their look was judged by eye.)"""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image
from scipy.spatial.transform import Rotation

from flexalign_plugin.output import particle_plots as plots
from flexalign_plugin.particles import symmetry
from flexalign_plugin.particles.poses import matrices


def texts(figure):
    return [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]


def test_pyplot_is_never_imported():
    code = "import sys; from flexalign_plugin.output import particle_plots; print('matplotlib.pyplot' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True, text=True)
    assert run.stdout.strip() == "False"


@pytest.mark.parametrize("rot, tilt, place", [(0, 90, (0.45, 0.5)), (90, 90, (0.64, 0.5)), (0, 20, (0.45, 0.16))])
def test_map_shows_a_direction_where_its_angles_say(tmp_path, rot, tilt, place):
    """place : share of the width and height of the picture; the map is 76 % wide, from 7 %, and fills 74 % in height.
    On a Mollweide map rot 90 at the equator is half way to the right edge, tilt 20 at 0.83 of the height."""
    rng = np.random.default_rng(0)
    poses = matrices(rot + rng.normal(0, 2, 500), tilt + rng.normal(0, 2, 500), rng.uniform(0, 360, 500))
    plots.save(plots.directions(poses), str(tmp_path / "a.png"))
    with Image.open(tmp_path / "a.png") as picture:
        rgb = np.asarray(picture.convert("RGB")).astype(int)
    yellow = (rgb[..., 0] > 200) & (rgb[..., 1] > 200) & (rgb[..., 2] < 120)
    yellow[:, int(0.85 * rgb.shape[1]) :] = False  # the colour bar
    rows, columns = np.nonzero(yellow)
    assert rows.size > 20
    assert columns.mean() / rgb.shape[1] == pytest.approx(place[0], abs=0.02)
    assert rows.mean() / rgb.shape[0] == pytest.approx(place[1], abs=0.04)


def test_pixels_of_the_map_and_places_on_it_agree():
    longitude, latitude = plots._mollweide(64)
    x, y = plots._on_map(longitude, latitude)
    columns, rows = np.meshgrid(2 * plots._centres(128), plots._centres(64))
    inside = (columns / 2) ** 2 + rows**2 < 0.99
    np.testing.assert_allclose(x[inside], columns[inside], atol=1e-3)
    np.testing.assert_allclose(y[inside], rows[inside], atol=1e-3)


def test_symmetric_copies_are_counted():
    poses = Rotation.random(300, random_state=0).as_matrix()
    figure = plots.directions(poses, symmetry.rotations("D2"))
    assert any("300 particles and their 4 symmetric copies" in text for text in texts(figure))


def test_histograms_name_the_medians():
    score, angle, shift = np.arange(101.0), np.full(101, 2.5), np.linspace(0, 1, 101)
    titles = texts(plots.histograms(score, angle, shift, pixel_A=4.0))
    assert {"median 50", "median 2.5", "median 2.00"} <= set(titles)


@pytest.mark.parametrize("n", [1, 40, 20000])
def test_share_of_sure_poses_is_named(n):
    posterior = np.linspace(0, 1, n) if n > 1 else np.ones(1)
    figure = plots.posterior_against_score(100 * posterior, posterior)
    FigureCanvasAgg(figure).draw()
    share = 100 * (posterior >= 0.9).mean()
    assert any(text.startswith(f"{share:.0f} % of the particles") for text in texts(figure))


def test_examples_lie_above_their_projections():
    rng = np.random.default_rng(0)
    images, projections = rng.normal(size=(3, 32, 32)), np.zeros((3, 32, 32))
    projections[:, 10:20, 10:20] = 1
    names = [f"particle {i}" for i in range(3)]
    figure = plots.examples((images, projections, names), (images[:1], projections[:1], ["last"]))
    FigureCanvasAgg(figure).draw()
    assert {*names, "last"} <= set(texts(figure))
    # Rows from the top: particles (noise), projections (a square), twice; three columns and one.
    pictures = sorted((image.get_extent()[3], image) for image in figure.axes[0].images)
    tops = [top for top, _ in pictures]
    assert np.diff(tops)[0] == pytest.approx(1) and np.diff(tops)[2] == pytest.approx(1) and np.diff(tops)[1] > 1.1
    values = [np.asarray(image.get_array()) for _, image in pictures]
    assert [value.shape for value in values] == [(34, 102)] * 2 + [(34, 34)] * 2
    for noise, square in (values[:2], values[2:]):
        assert len(np.unique(noise)) > 50
        np.testing.assert_array_equal(square[1:33, 1:33] > 128, projections[0] > 0.5)
    places = {text.get_text(): text.get_position()[0] for text in figure.axes[0].texts}
    assert [places[name] for name in (*names, "last")] == [0.5, 1.5, 2.5, 0.5]


def test_agreement_names_the_share_within_the_limit():
    distances = np.array([[1.0] * 90 + [50.0] * 10, [2.0] * 50 + [np.nan] * 50])
    found = texts(plots.agreement(distances, ["first", "second"], 10.0))
    assert "first: 90 % within 10°, median 1.0°" in found
    assert "second: 100 % within 10°, median 2.0°" in found
