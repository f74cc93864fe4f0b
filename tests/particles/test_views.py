"""The distribution of views, and particles beside their projections."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from flexalign_plugin.particles import align, compare, simulate, symmetry
from flexalign_plugin.particles.ctf import Optics
from flexalign_plugin.particles.poses import matrices
from flexalign_plugin.particles.views import view_density


def test_even_views_have_density_one():
    sphere, density = view_density(Rotation.random(20000, random_state=0).as_matrix())
    np.testing.assert_allclose(np.linalg.norm(sphere, axis=1), 1)
    assert density.mean() == pytest.approx(1)
    assert density.std() < 0.2  # caps hold about 38 of 20,000 particles: 16 % by chance


def test_a_cap_of_views_has_the_density_of_its_area():
    rng = np.random.default_rng(0)
    tilt = np.degrees(np.arccos(rng.uniform(np.cos(np.radians(40)), 1, 20000)))
    poses = matrices(rng.uniform(0, 360, 20000), tilt, rng.uniform(0, 360, 20000))
    sphere, density = view_density(poses)
    angle = np.degrees(np.arccos(sphere[:, 2]))
    expected = 2 / (1 - np.cos(np.radians(40)))
    assert density[angle < 34].mean() == pytest.approx(expected, rel=0.03)
    assert density[angle > 46].max() == 0


def test_views_count_for_their_symmetry_mates():
    rng = np.random.default_rng(1)
    group = symmetry.rotations("D2")
    poses = matrices(30 + rng.normal(0, 3, 2000), 50 + rng.normal(0, 3, 2000), np.zeros(2000))
    sphere, density = view_density(poses, group)
    centres = np.array([matrices(30, 50, 0)[0] @ g for g in group])[:, 2]
    assert len(np.unique(centres.round(6), axis=0)) == 4
    at = [density[np.argmax(sphere @ centre)] for centre in centres]
    np.testing.assert_allclose(at, at[0], rtol=0.15)
    assert min(at) > 0.5 * density.max()


def test_a_particle_lies_on_its_projection():
    """Without noise both pictures are the same, also with inverted contrast."""
    optics = Optics(4.0, 300.0, 2.7, 0.1)
    volumes = [simulate.chains(48, 4.0, 120.0, 1500, seed) for seed in (1, 2)]
    data = simulate.simulate(np.stack(volumes), 6, optics, 1e6, 2.0, 3)
    particles = align.Particles(48, 4.0, [optics], np.zeros(6, int), data.defocus, lambda rows: -data.images[rows])
    rows = np.array([4, 1, 2])
    images, projections = compare.side_by_side(
        particles, volumes, rows, data.poses[rows], data.positions[rows], data.volume[rows], [-1.0], 15.0
    )
    assert images.shape == projections.shape == (3, 48, 48)
    assert np.abs(images - projections).max() < 0.01 * np.abs(images).max()
