"""The consensus of alignments that are right but for noise, or wrong."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from flexalign_plugin.particles import poses, symmetry
from flexalign_plugin.particles.consensus import consensus

N, SD_DEG, SD_PX = 200, 2.0, 0.5


def runs_of(truth, t, n_runs, seed):
    """Alignments with an error of SD_DEG about each axis and SD_PX along each axis."""
    rng = np.random.default_rng(seed)
    shape = n_runs, len(truth), 3
    w = rng.normal(scale=np.radians(SD_DEG), size=shape)
    found = np.stack([poses.turned(truth, wr) for wr in w])
    return found, t + rng.normal(scale=SD_PX, size=(n_runs, len(truth), 2))


@pytest.fixture()
def truth():
    rng = np.random.default_rng(0)
    return Rotation.random(N, random_state=0).as_matrix(), rng.normal(scale=3, size=(N, 2))


def test_the_mean_is_better_than_a_run_and_an_outlier_does_not_move_it(truth):
    a, t = truth
    found, positions = runs_of(a, t, 3, 1)
    found[1, :50] = Rotation.random(50, random_state=2).as_matrix()
    positions[2, 50:100] += 20
    volume = np.zeros((3, N), int)
    volume[0, 100:120] = 1
    result = consensus(found, positions, volume, 12.0, 4.0)
    assert result.agrees.mean() > 0.98
    assert not result.runs[1, :50].any() or poses.distances(found[1, :50], a[:50])[result.runs[1, :50]].max() < 20
    assert not result.runs[2, 50:100].any() and not result.runs[0, 100:120].any()
    assert (result.volume[result.agrees] == 0).all()
    # The rms angle of a run is 2 sqrt(3) degrees; of the mean of n runs it is 1 / sqrt(n) of that.
    whole = result.runs.sum(axis=0) == 3
    for n_used, chosen in ((2, ~whole & result.agrees), (3, whole)):
        errors = poses.distances(result.poses, a)[chosen]
        assert np.sqrt((errors**2).mean()) == pytest.approx(SD_DEG * np.sqrt(3 / n_used), rel=0.2)
        off = np.linalg.norm(result.positions - t, axis=1)[chosen]
        assert np.sqrt((off**2).mean()) == pytest.approx(SD_PX * np.sqrt(2 / n_used), rel=0.2)
        spread = np.sqrt((result.spread_deg[chosen] ** 2).mean())
        assert spread == pytest.approx(SD_DEG * np.sqrt(3 * (n_used - 1) / n_used), rel=0.2)


def test_both_of_two_runs_must_agree(truth):
    a, t = truth
    found, positions = runs_of(a, t, 2, 3)
    found[0, :30] = poses.turned(found[1, :30], np.tile([0, 0, np.radians(40)], (30, 1)))
    result = consensus(found, positions, np.zeros((2, N), int), 15.0, 4.0)
    assert not result.agrees[:30].any() and result.agrees[30:].mean() > 0.98
    np.testing.assert_allclose(result.poses[:30], found[0, :30])
    np.testing.assert_allclose(result.spread_deg[:30], 40 / np.sqrt(2), rtol=1e-6)


def test_symmetry_mates_are_the_same_orientation(truth):
    a, t = truth
    group = symmetry.rotations("D3")
    found, positions = runs_of(a, t, 3, 4)
    rng = np.random.default_rng(5)
    mated = found @ group[rng.integers(0, len(group), (3, N))]
    # Two of three runs have the same of 6 mates by chance for 44 %.
    assert consensus(mated, positions, np.zeros((3, N), int), 12.0, 4.0).agrees.mean() < 0.6
    result = consensus(mated, positions, np.zeros((3, N), int), 12.0, 4.0, group)
    assert result.agrees.mean() > 0.98
    errors = poses.distances(result.poses, a, group)[result.agrees]
    assert np.sqrt((errors**2).mean()) == pytest.approx(SD_DEG, rel=0.2)


def test_a_particle_that_a_run_lacks_needs_two_others(truth):
    a, t = truth
    found, positions = runs_of(a, t, 3, 6)
    present = np.ones((3, N), bool)
    present[0, :40] = False
    present[:2, :20] = False
    found[0, :40] = Rotation.random(40, random_state=7).as_matrix()
    result = consensus(found, positions, np.zeros((3, N), int), 15.0, 4.0, present=present)
    assert not result.agrees[:20].any() and result.agrees[20:].mean() > 0.98
    assert not result.runs[0, :40].any()
    with pytest.raises(ValueError, match="at least two"):
        consensus(found[:1], positions[:1], np.zeros((1, N), int), 15.0, 4.0)
