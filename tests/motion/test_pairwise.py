from __future__ import annotations

import numpy as np

from flexalign_plugin.motion.pairwise import all_pairs, middle_most, solve_pairs

RNG = np.random.default_rng(0)


def differences(shifts, pairs):
    return shifts[:, pairs[:, 1]] - shifts[:, pairs[:, 0]]


def test_exact_pairs_give_exact_shifts():
    shifts = RNG.normal(size=(3, 9, 2))
    pairs = all_pairs(9)
    solved = solve_pairs(9, pairs, differences(shifts, pairs), np.ones((3, len(pairs))))
    np.testing.assert_allclose(solved.shifts, shifts - shifts.mean(axis=1, keepdims=True), atol=1e-3)
    assert solved.rejected.max() == 0


def test_noise_averages_down_as_the_theory_says():
    """Unit noise on all pairs of n frames: the shifts have variance 1/n (1 - 1/n), tested to 10 % with 400 systems."""
    n, pairs = 20, all_pairs(20)
    noise = RNG.normal(size=(400, len(pairs), 2))
    solved = solve_pairs(n, pairs, noise, np.ones((400, len(pairs))))
    assert abs(solved.shifts.var() / ((1 - 1 / n) / n) - 1) < 0.1


def test_outliers_are_rejected():
    shifts = RNG.normal(size=(1, 15, 2)) * 5
    pairs = all_pairs(15)
    measured = differences(shifts, pairs) + RNG.normal(size=(1, len(pairs), 2)) * 0.05
    bad = RNG.choice(len(pairs), 10, replace=False)
    measured[0, bad] += RNG.uniform(10, 40, (10, 2))
    solved = solve_pairs(15, pairs, measured, np.ones((1, len(pairs))))
    assert not solved.weights[0, bad].any()
    assert abs(solved.rejected[0] * len(pairs) - 10) <= 6  # 3 sd in either of two axes: half a percent of good ones
    # 5 sd of the theory of the test above.
    assert np.abs(solved.shifts[0] - shifts[0] + shifts[0].mean(axis=0)).max() < 5 * 0.05 / np.sqrt(15 - 2)


def test_a_frame_without_equations_is_bridged():
    shifts = np.arange(7.0)[None, :, None] * np.array([1.0, -2.0])
    pairs = all_pairs(7)
    weights = np.where((pairs == 3).any(axis=1), 0.0, 1.0)[None]
    solved = solve_pairs(7, pairs, differences(shifts, pairs), weights)
    np.testing.assert_allclose(np.diff(solved.shifts[0], axis=0), np.tile([1.0, -2.0], (6, 1)), atol=1e-2)


def test_without_any_weight_the_shifts_are_zero():
    pairs = all_pairs(4)
    solved = solve_pairs(4, pairs, RNG.normal(size=(1, 6, 2)), np.zeros((1, 6)))
    np.testing.assert_allclose(solved.shifts, 0, atol=1e-9)
    assert solved.rejected[0] == 1


def test_reference_is_the_frame_in_the_middle_of_the_path_in_two_dimensions():
    path = np.array([[0.0, 0], [0, 10], [0, 11], [0, 20], [9, 20]])
    assert middle_most(path) == 2  # from frame 1 the end is 13.5 away, from frame 2 12.7; by x alone 1 and 2 tie
