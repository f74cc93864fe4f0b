"""The modes of the field, and posterior and evidence for data of known field, noise and prior."""

from __future__ import annotations

import numpy as np
import pytest

from flexalign_plugin.motion.evidence import (
    FieldModes,
    field_variance,
    most_probable,
    space_modes,
    spaces_to_try,
    time_modes,
    times_to_try,
)
from flexalign_plugin.motion.spline_fit import field_basis

SHAPE, N = (4000, 4600), 20


def centres(per_axis: int = 12) -> np.ndarray:
    at = [np.linspace(150, size - 150, per_axis) for size in SHAPE]
    return np.stack(np.meshgrid(*at, indexing="ij"), -1).reshape(-1, 2)


def modes_at(points, at=None, weights=None) -> FieldModes:
    at = centres() if at is None else at
    weights = np.ones(len(at)) if weights is None else weights
    return FieldModes(time_modes(points[0], N), space_modes(points[1:], SHAPE, at, weights), weights)


def measure(rng, field: np.ndarray, sd: float) -> np.ndarray:
    """Measured shifts of patches: the field with noise, without the means over frames and over patches."""
    measured = field + sd * rng.standard_normal(field.shape)
    measured = measured - measured.mean(axis=1, keepdims=True)
    return measured - measured.mean(axis=0)


def data(sd: float) -> np.ndarray:
    return np.full(2, sd**-2)


def weigh(candidates, measured: np.ndarray, sd: float):
    """The posterior from measured shifts, given as the slope of their likelihood at zero shift."""
    slope = measured * sd**-2
    spaces = [modes.space for modes in candidates]
    return most_probable([candidates[0].time], spaces, candidates[0].weights, 0 * measured, slope, data(sd))


@pytest.mark.parametrize("points", [(5, 6, 6), (3, 3, 4), (2, 5, 5), (20, 9, 8)])
def test_modes_are_orthonormal_and_fields_of_the_spline(points):
    at = centres()
    modes = modes_at(points, at)
    assert modes.time.values.shape == (N, points[0] - 1)
    assert modes.space.values.shape == (len(at), points[1] * points[2] - 1)
    for columns in (modes.time.values, modes.space.values):
        np.testing.assert_allclose(columns.T @ columns, np.eye(columns.shape[1]), atol=1e-6)
        np.testing.assert_allclose(columns.mean(axis=0), 0, atol=1e-9)
    amplitudes = np.random.default_rng(0).standard_normal((2, points[0] - 1, points[1] * points[2] - 1))
    spline = field_basis(points, N, SHAPE, at).field(modes.coefficients(amplitudes))
    np.testing.assert_allclose(modes.field(amplitudes), spline, atol=1e-9)
    np.testing.assert_allclose(modes.amplitudes(spline), amplitudes, atol=1e-6)


def test_patches_are_weighted_by_their_information():
    """One half of the frame has no signal: its measured shifts have no influence, and sigma is larger there."""
    rng = np.random.default_rng(5)
    at = centres()
    weights = np.where(at[:, 1] < SHAPE[1] / 2, 2.0, 1e-4)
    modes = modes_at((5, 6, 6), weights=weights / weights.mean())
    np.testing.assert_allclose(
        modes.space.values.T @ (modes.weights[:, None] * modes.space.values), np.eye(35), atol=1e-4
    )
    true = rng.standard_normal((2, 4, 35)) / (1 + 10 * modes.space.roughness / np.median(modes.space.roughness))
    field = modes.field(true)
    wild = field + np.where(weights < 1, 5.0, 0.0)[:, None, None] * rng.standard_normal(field.shape)
    seen = weights > 1
    assert np.abs(modes.field(modes.amplitudes(wild)) - field)[seen].std() < 0.1 * field[seen].std()
    variance = field_variance(weigh([modes], field, 0.1), data(0.1), SHAPE, 8)
    assert variance[:, :, -2].min() > 3 * variance[:, :, 1].max()


def test_straight_lines_have_no_roughness():
    modes = modes_at((5, 6, 6))
    assert (np.sort(modes.time.roughness)[:1] < 1e-6 * np.median(modes.time.roughness)).all()
    assert (np.sort(modes.space.roughness)[:2] < 1e-6 * np.median(modes.space.roughness)).all()
    assert np.sort(modes.space.roughness)[2] > 1e-4 * np.median(modes.space.roughness)


def test_more_control_points_than_patches_stay_smooth_between_the_patches():
    """Four patches, a plane through them: the spline of 6 x 6 control points continues it as a plane."""
    at = np.array([[y, x] for y in (500.0, 3500.0) for x in (500.0, 4100.0)])
    modes = modes_at((4, 6, 6), at)
    slopes = np.array([1e-3, -5e-4])
    time = np.linspace(-1, 1, N)
    plane = ((at - at.mean(axis=0)) @ slopes)[:, None, None] * time[:, None] * np.ones(2)
    coefficients = modes.coefficients(modes.amplitudes(plane))
    corners = np.array([[0.0, 0.0], [3999.0, 0.0], [2000.0, 4599.0]])
    found = field_basis((4, 6, 6), N, SHAPE, corners).field(coefficients)
    wanted = ((corners - at.mean(axis=0)) @ slopes)[:, None] * time
    np.testing.assert_allclose(found[..., 0], wanted, atol=0.02)


def test_prior_and_uncertainty_of_fields_drawn_from_a_known_prior():
    """Both strengths are right within a factor of 2 (about 100 modes determine each). The posterior variance is that of
    the error: the mean of (error / sigma)^2 over 10 fields of 700 amplitudes is 1 within 5 sigma, sqrt(2 / 7000)."""
    rng = np.random.default_rng(1)
    modes = modes_at((6, 8, 8))
    sd, strengths, ratios = 0.3, None, []
    for _ in range(10):
        prior = 5.0 * modes.time.roughness[:, None] / np.median(modes.time.roughness)
        prior = prior + 20.0 * modes.space.roughness / np.median(modes.space.roughness) + 0.05
        true = rng.standard_normal((2, *prior.shape)) / np.sqrt(prior)
        posterior = weigh([modes], measure(rng, modes.field(true), sd), sd)
        strengths = np.array(posterior.prior) * [np.median(modes.time.roughness), np.median(modes.space.roughness)]
        assert (np.abs(np.log(strengths / [5.0, 20.0])) < np.log(2)).all()
        found = modes.amplitudes(measure(rng, modes.field(true), sd)) * sd**-2 / (sd**-2 + posterior.precision)
        ratios.append((found - true) ** 2 * (sd**-2 + posterior.precision))
    assert abs(np.mean(ratios) - 1) < 5 * np.sqrt(2 / np.size(ratios))


def test_variance_on_a_mesh_is_that_of_the_error():
    rng = np.random.default_rng(2)
    modes = modes_at((5, 6, 6))
    sd, mesh, squares = 0.5, 9, []
    at = np.stack(np.meshgrid(*(np.linspace(0, size - 1, mesh) for size in SHAPE), indexing="ij"), -1).reshape(-1, 2)
    on_mesh = field_basis((5, 6, 6), N, SHAPE, at)
    prior = modes.roughness((5 / np.median(modes.time.roughness), 20 / np.median(modes.space.roughness)), 0.05)
    for _ in range(40):
        true = rng.standard_normal((2, *prior.shape)) / np.sqrt(prior)
        measured = measure(rng, modes.field(true), sd)
        posterior = weigh([modes], measured, sd)
        found = modes.amplitudes(measured) * sd**-2 / (sd**-2 + posterior.precision)
        error = on_mesh.field(modes.coefficients(found - true))
        squares.append([(error**2).mean(), field_variance(posterior, data(sd), SHAPE, mesh).mean()])
    seen, expected = np.mean(squares, axis=0)
    # The corners count most, where few modes decide: some 5 times in each of 80 fields, so that 3 sds are 0.15.
    assert abs(seen / expected - 1) < 0.15


def test_more_control_points_only_where_the_field_needs_them():
    rng = np.random.default_rng(3)
    candidates = [modes_at((5, k, k)) for k in (6, 8, 10)]
    for which in range(3):
        modes = candidates[which]
        true = rng.standard_normal((2, *modes.roughness((0, 0), 1.0).shape))
        posterior = weigh(candidates, measure(rng, modes.field(true), 0.1), 0.1)
        assert posterior.modes.space is modes.space
        assert posterior.log_evidence > 100


def test_pure_noise_gives_no_evidence_for_a_field():
    """The logarithm of the evidence is below -3 in all of 20 cases of pure noise."""
    rng = np.random.default_rng(4)
    candidates = [modes_at((5, k, k)) for k in (6, 8)]
    for _ in range(20):
        assert weigh(candidates, measure(rng, np.zeros((144, N, 2)), 0.4), 0.4).log_evidence < -3


def test_candidates_start_at_the_published_rule_and_stay_below_what_can_be_determined():
    assert [modes.control_points for modes in times_to_try(7, 30)[::2]] == [(7,), (9,), (11,), (15,)]
    assert [modes.control_points for modes in times_to_try(3, 4)[::2]] == [(3,), (4,)]
    at, weights = centres(), np.ones(144)
    wide = spaces_to_try((6, 6), (12, 12), SHAPE, at, weights)
    assert [m.control_points for m in wide][:3] == [
        (6, 6),
        (8, 8),
        (9, 9),
    ]
    assert [m.control_points for m in spaces_to_try((6, 6), (4, 4), SHAPE, at, weights)] == [(6, 6)]


def test_fast_early_motion_selects_roughness_in_early_time():
    """A field that decays within 3 of 30 frames is more probable with roughness in early time, and its first frames
    come out better; one that oscillates evenly is not."""
    rng = np.random.default_rng(6)
    n, sd, at = 30, 0.5, centres()
    space = space_modes((6, 6), SHAPE, at, np.ones(len(at)))
    even, early = times_to_try(15, n)[:2]
    shape = rng.standard_normal(36 - 1) / (1 + 20 * space.roughness / np.median(space.roughness))
    where = space.values @ shape * 12
    t = np.arange(n)
    for course, best in ((np.exp(-t / 3), early), (np.sin(2 * np.pi * t / 10), even)):
        true = where[:, None, None] * (course - course.mean())[:, None] * np.ones(2)
        slope = (true + sd * rng.standard_normal(true.shape)) * sd**-2
        posterior = most_probable([even, early], [space], np.ones(len(at)), 0 * true, slope, data(sd))
        assert posterior.modes.time is best
        errors = []
        for time in (even, early):
            one = most_probable([time], [space], np.ones(len(at)), 0 * true, slope, data(sd))
            found = one.modes.adjoint(slope) / (sd**-2 + one.precision)
            errors.append(np.std((one.modes.field(found) - true)[:, :4]))
        if best is early:
            assert errors[1] < errors[0]
