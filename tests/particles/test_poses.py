"""Conventions of poses, distances, grids and symmetries, against scipy, textbook matrices and pwem."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from flexalign_plugin.errors import SettingsError
from flexalign_plugin.particles import poses, sphere, symmetry


def random_poses(n, seed=0):
    return Rotation.random(n, random_state=seed).as_matrix()


def textbook(rot, tilt, psi):
    """RELION's Euler matrix, element by element (degrees)."""
    a, b, g = np.radians([rot, tilt, psi])
    ca, cb, cg, sa, sb, sg = np.cos(a), np.cos(b), np.cos(g), np.sin(a), np.sin(b), np.sin(g)
    return np.array(
        [
            [cg * cb * ca - sg * sa, cg * cb * sa + sg * ca, -cg * sb],
            [-sg * cb * ca - cg * sa, -sg * cb * sa + cg * ca, sg * sb],
            [sb * ca, sb * sa, cb],
        ]
    )


def test_matrices_are_those_of_relion():
    rng = np.random.default_rng(1)
    angles = rng.uniform(-180, 180, (50, 3))
    expected = np.array([textbook(*a) for a in angles])
    np.testing.assert_allclose(poses.matrices(*angles.T), expected, atol=1e-12)


def test_angles_come_back_also_at_the_poles():
    rng = np.random.default_rng(2)
    rot, tilt, psi = rng.uniform(-180, 180, 60), rng.uniform(0, 180, 60), rng.uniform(-180, 180, 60)
    tilt[:10], tilt[10:20] = 0, 180
    a = poses.matrices(rot, tilt, psi)
    back = poses.euler_angles(a)
    np.testing.assert_allclose(poses.matrices(*back), a, atol=1e-9)
    np.testing.assert_allclose(back[0][:20], 0)
    np.testing.assert_allclose(np.array(back)[:, 20:], np.array([rot, tilt, psi])[:, 20:], atol=1e-6)


def test_distances_are_exact_for_small_and_large_angles():
    a = random_poses(40)
    np.testing.assert_allclose(poses.distances(a, a), 0, atol=1e-6)
    axes = np.random.default_rng(3).normal(size=(40, 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    for angle in (1e-3, 1.0, 90.0, 179.9):
        b = poses.turned(a, np.radians(angle) * axes)
        np.testing.assert_allclose(poses.distances(a, b), angle, atol=1e-6)


def test_distance_to_the_nearest_symmetry_mate():
    a, group = random_poses(20), symmetry.rotations("D3")
    small = poses.turned(a, np.full((20, 3), np.radians(1) / np.sqrt(3)))
    for g in group:
        np.testing.assert_allclose(poses.distances(small @ g, a, group), 1.0, atol=1e-6)
        np.testing.assert_allclose(poses.nearest_mates(small @ g, a, group), small, atol=1e-9)


def test_mean_of_scattered_poses():
    a = random_poses(1)[0]
    rng = np.random.default_rng(4)
    scattered = poses.turned(np.repeat(a[None], 400, 0), rng.normal(scale=0.05, size=(400, 3)))
    # 0.05 rad on each axis: the mean of 400 has an error of 0.05 * sqrt(3 / 400) = 0.25 degrees.
    assert poses.distances(poses.mean_pose(scattered)[None], a[None])[0] < 3 * 0.25


@pytest.mark.parametrize(
    "step, n, in_plane",
    [(15, 184, 24), (10.8, 354, 34), (10, 413, 36), (7.5, 734, 48), (6.72, 914, 54), (5, 1651, 72)],
)
def test_grids_have_one_view_for_each_step_squared(step, n, in_plane):
    views = sphere.directions(np.radians(step))
    assert len(views) == n
    np.testing.assert_allclose(np.linalg.norm(views, axis=1), 1)
    if step > 9:
        assert len(sphere.pose_grid(np.radians(step))) == n * in_plane


@pytest.mark.parametrize("seed", [None, 5])
def test_every_pose_has_a_grid_point_nearby(seed):
    step = 15.0
    grid = sphere.pose_grid(np.radians(step), seed=seed)
    nearest = np.array([poses.distances(grid, a).min() for a in random_poses(300, 6)]) / step
    assert abs(nearest.mean() - 0.475) < 0.02 and nearest.max() < 0.83


@pytest.mark.parametrize("name", ["C4", "D2", "D3Y", "T", "O", "I1", "I2", "I3", "I4"])
def test_a_symmetric_grid_is_a_part_and_covers_all(name):
    group, step = symmetry.rotations(name), 12.0
    part, whole = sphere.pose_grid(np.radians(step), group), sphere.pose_grid(np.radians(step))
    assert len(part) <= 1.1 * len(whole) / len(group)
    nearest = np.array([poses.distances(part, a, group).min() for a in random_poses(60, 7)]) / step
    assert nearest.max() < 1.0  # a little more than in the whole grid, at the edges of the asymmetric unit


ORDERS = {"C1": 1, "c7": 7, "D2": 4, "D5y": 10, "T": 12, "O": 24, "I": 60, "I3": 60}


@pytest.mark.parametrize("name", ORDERS)
def test_groups_are_closed(name):
    group = symmetry.rotations(name)
    assert len(group) == ORDERS[name]
    np.testing.assert_allclose(group[0], np.eye(3), atol=1e-9)
    products = np.einsum("aij,bjk->abik", group, group).reshape(-1, 1, 3, 3)
    assert np.abs(products - group[None]).max(axis=(2, 3)).min(axis=1).max() < 1e-9


SCIPION = {
    "C4": ("SYM_CYCLIC", 4),
    "D3": ("SYM_DIHEDRAL_X", 3),
    "D3Y": ("SYM_DIHEDRAL_Y", 3),
    "T": ("SYM_TETRAHEDRAL_222", 1),
    "O": ("SYM_OCTAHEDRAL", 1),
    "I1": ("SYM_I222", 1),
    "I2": ("SYM_I222r", 1),
    "I3": ("SYM_In25", 1),
    "I4": ("SYM_In25r", 1),
}


@pytest.mark.parametrize("name", SCIPION)
def test_groups_are_those_of_scipion(name):
    constants = pytest.importorskip("pwem.constants")
    from pwem.convert.symmetry import getSymmetryMatrices

    constant, order = SCIPION[name]
    theirs = np.array([np.asarray(m)[:3, :3] for m in getSymmetryMatrices(getattr(constants, constant), n=order)])
    ours = symmetry.rotations(name)
    assert len(theirs) == len(ours)
    assert np.abs(theirs[:, None] - ours[None]).max(axis=(2, 3)).min(axis=1).max() < 1e-4


@pytest.mark.parametrize("name", ["C0", "C", "D", "C1Y", "D101", "I5", "", "helix", "C2.5"])
def test_other_names_are_refused(name):
    with pytest.raises(SettingsError, match="is not known: give C1"):
        symmetry.rotations(name)
