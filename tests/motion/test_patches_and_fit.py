from __future__ import annotations

import numpy as np
import pytest

from flexalign_plugin.band import fft_size_below
from flexalign_plugin.motion.band_movie import BandMovie
from flexalign_plugin.motion.lowpass import correlation_band
from flexalign_plugin.motion.patches import lay_patches
from flexalign_plugin.motion.spline_fit import automatic_control_points, field_basis, fit_field


def band_movie(ny: int, nx: int, pixel_size_A: float = 1.0) -> BandMovie:
    band = correlation_band((fft_size_below(ny), fft_size_below(nx)), pixel_size_A, 30.0)
    return BandMovie(None, None, band, 10, (ny, nx), pixel_size_A)


@pytest.mark.parametrize("ny,nx", [(4096, 4096), (3710, 3838), (4092, 5760)])
def test_patches_are_flush_with_the_common_area_and_even(ny, nx):
    movie = band_movie(ny, nx)
    shifts = np.array([[0.0, 0.0], [30.0, -55.0], [-12.0, 8.0]])
    layout = lay_patches(movie, shifts, 500.0)
    scale = movie.band.scale
    first, last = layout.corners.min(axis=0), layout.corners.max(axis=0) + layout.size
    # Content moves by +30 and -12 in y: rows 0..29 and the last 12 are not covered by all frames.
    for axis, (low, high) in enumerate(((30, 12), (8, 55))):
        assert 0 <= first[axis] * scale[axis] - low < scale[axis] + 1e-9
        assert 0 <= movie.band.full[axis] - high - last[axis] * scale[axis] < scale[axis] + 1e-9
        assert layout.counts[axis] == int(np.ceil(movie.band.full[axis] / 500))
        gaps = np.diff(np.unique(layout.corners[:, axis]))
        assert np.ptp(gaps) <= 1
        assert layout.size[axis] * scale[axis] >= 500 - 1e-6
    centre = layout.centres_px.mean(axis=0)
    middle = np.array(movie.offset_px) + ((first + last) / 2 - 0.5) * scale
    np.testing.assert_allclose(centre, middle, atol=scale.max())


def test_no_room_for_two_patches():
    assert lay_patches(band_movie(512, 2048), np.zeros((3, 2)), 500.0) is None
    assert lay_patches(band_movie(1024, 1024), np.array([[0.0, 0], [600, 0]]), 500.0) is None
    assert lay_patches(band_movie(1024, 1024), np.zeros((3, 2)), 500.0) is not None


def test_published_rule_for_control_points():
    assert automatic_control_points((4096, 4096), 1.0, 30) == (7, 6, 6)
    assert automatic_control_points((1000, 500), 1.0, 7) == (3, 3, 3)
    assert automatic_control_points((4092, 5760), 1.0, 2) == (2, 6, 7)


def fit_case(n_patches_per_axis: int = 8, n: int = 20, points=(5, 4, 4), seed: int = 0):
    rng = np.random.default_rng(seed)
    at = np.linspace(200, 3800, n_patches_per_axis)
    centres = np.stack(np.meshgrid(at, at, indexing="ij"), -1).reshape(-1, 2)
    field = field_basis(points, n, (4000, 4000), centres)
    true = rng.normal(size=(2, points[0], points[1] * points[2]))
    precision = np.tile(n * np.eye(n) - 1.0, (len(centres), 1, 1))
    return rng, field, field.field(true), precision


def centred(shifts):
    return shifts - shifts.mean(axis=1, keepdims=True)


def test_a_field_in_the_spline_space_is_recovered():
    _, field, shifts, precision = fit_case()
    coefficients, kept = fit_field(field, shifts, precision, 1e-9)
    assert kept.all()
    np.testing.assert_allclose(centred(field.field(coefficients)), centred(shifts), atol=1e-3)


def test_noise_is_averaged_by_the_ratio_of_unknowns_to_equations():
    """sigma of the fitted field = sigma of the noise * sqrt(coefficients / measurements), here sqrt(80 / 1280)."""
    rng, field, shifts, precision = fit_case()
    noise = rng.normal(size=shifts.shape)
    coefficients, _ = fit_field(field, shifts + noise, precision, 1e-9)
    error = centred(field.field(coefficients)) - centred(shifts)
    assert 0.7 < error.std() / np.sqrt(80 / 1280) < 1.2


def test_wild_patch_shifts_are_rejected():
    rng, field, shifts, precision = fit_case()
    measured = shifts + 0.05 * rng.normal(size=shifts.shape)
    wild = rng.choice(measured[..., 0].size, 40, replace=False)
    measured.reshape(-1, 2)[wild] += 30 * rng.choice([-1.0, 1.0], (40, 2))
    coefficients, kept = fit_field(field, measured, precision, 1e-9)
    assert not kept.reshape(-1)[wild].any()
    assert np.abs(centred(field.field(coefficients)) - centred(shifts)).max() < 0.15


def test_more_control_points_than_patches_is_no_failure():
    """The published implementation refuses this. Here the roughness penalty determines what the data do not: a plane is
    recovered as a plane."""
    _, field, _, precision = fit_case(n_patches_per_axis=2, points=(5, 6, 6))
    at = np.array([[y, x] for y in (200.0, 3800.0) for x in (200.0, 3800.0)])
    plane = (at @ np.array([1e-3, -5e-4]))[:, None, None] * np.linspace(0, 1, 20)[:, None] * np.ones(2)
    coefficients, _ = fit_field(field, plane, precision, 1e-4)
    dense = field_basis((5, 6, 6), 20, (4000, 4000), np.array([[2000.0, 2000.0], [1000.0, 3000.0]]))
    got = dense.field(coefficients)
    wanted = (np.array([[2000.0, 2000.0], [1000.0, 3000.0]]) @ np.array([1e-3, -5e-4]))[:, None] * np.linspace(0, 1, 20)
    np.testing.assert_allclose(centred(got)[..., 0], wanted - wanted.mean(axis=1, keepdims=True), atol=0.02)
