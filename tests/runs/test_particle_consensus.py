"""The consensus of alignments in STAR files, with a known truth."""

from __future__ import annotations

import os

import numpy as np
import pytest

from flexalign_plugin.errors import ParticleError, SettingsError
from flexalign_plugin.particles import poses, symmetry
from flexalign_plugin.particles.io_star import read_star
from flexalign_plugin.runs import particle_consensus
from flexalign_plugin.runs.particle_consensus import agree_stars
from flexalign_plugin.star_format import star_loop

N, PIXEL_A = 300, 2.0
OPTICS = ("rlnOpticsGroup", "rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast", "rlnImagePixelSize")
COLUMNS = (
    *("rlnImageName", "rlnOpticsGroup", "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnAngleRot", "rlnAngleTilt"),
    *("rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst", "rlnClassNumber", "myColumn"),
)


def write(path, a, shifts_A, images=None, volume=None):
    images = range(1, len(a) + 1) if images is None else images
    volume = np.ones(len(a), int) if volume is None else volume
    angles = np.stack(poses.euler_angles(a), axis=1)
    rows = [
        (
            f"{k}@s.mrcs",
            "1",
            "10000",
            "9000",
            "0",
            *(f"{v:.6f}" for v in (*angles[i], *shifts_A[i])),
            volume[i],
            f"c{k}",
        )
        for i, k in enumerate(images)
    ]
    text = star_loop("optics", OPTICS, [("1", "300", "2.7", "0.1", PIXEL_A)]) + "\n"
    with open(str(path), "w") as file:
        file.write(text + star_loop("particles", COLUMNS, rows) + "\n")
    return str(path)


@pytest.fixture()
def truth():
    rng = np.random.default_rng(1)
    angles = rng.uniform((-180, 0, -180), (180, 180, 180), (N, 3))
    return poses.matrices(*angles.T), rng.normal(scale=5, size=(N, 2)), rng


def runs_of(truth, folder, n_runs=3, sd_deg=2.0, wrong=0.1, group=None):
    """Runs with errors of `sd_deg` along each axis, of which a share is far off."""
    a, shifts, rng = truth
    paths, bad = [], []
    for number in range(n_runs):
        turns = np.radians(rng.normal(scale=sd_deg, size=(N, 3)))
        off = rng.uniform(size=N) < wrong
        turns[off] *= 40
        moved = poses.turned(a, turns)
        if group is not None:
            moved = moved @ group[rng.integers(0, len(group), N)]
        paths.append(write(folder / f"run{number}.star", moved, shifts + rng.normal(scale=0.5, size=(N, 2))))
        bad.append(off)
    return paths, np.array(bad)


@pytest.mark.parametrize("name", ["C1", "D3"])
def test_the_mean_of_those_that_agree_is_nearer_to_the_truth(truth, tmp_path, monkeypatch, name):
    monkeypatch.setattr(particle_consensus, "BLOCK", 70)
    group = symmetry.rotations(name)
    paths, bad = runs_of(truth, tmp_path, group=group)
    found = agree_stars(paths, str(tmp_path / "out"), 12.0, 5.0, name)
    kept, _ = read_star(str(tmp_path / "out" / "particles.star"))
    rejected, _ = read_star(str(tmp_path / "out" / "rejected.star"))
    assert len(kept) + len(rejected) == N and len(kept) == found.agrees.sum()
    assert found.agrees[bad.sum(axis=0) <= 1].mean() > 0.97  # two of three are right
    assert not found.agrees[bad.sum(axis=0) == 3].any()
    errors = poses.distances(poses.matrices(*kept.known.angles.T), truth[0][kept.index], group)
    single = poses.distances(poses.matrices(*read_star(paths[0])[0].known.angles.T), truth[0], group)[~bad[0]]
    # The mean of three is sqrt(3) times nearer, that of two sqrt(2).
    assert np.sqrt((errors**2).mean()) < np.sqrt((single**2).mean()) / np.sqrt(2)
    assert np.abs(kept.known.shifts_A - truth[1][kept.index]).mean() < 0.4
    # Those that are rejected have the pose of the first file.
    first, _ = read_star(paths[0])
    a, b = (poses.matrices(*t.T) for t in (rejected.known.angles, first.known.angles[rejected.index]))
    assert poses.distances(a, b).max() < 1e-4
    text = open(str(tmp_path / "out" / "particles.star")).read()
    assert "_swiftAngleSpread" in text and "_swiftRuns" in text and "_myColumn" in text
    lines = open(str(tmp_path / "out" / "spreads.tsv")).read().split("\n")
    assert len([line for line in lines if line and line[0].isdigit()]) == N
    assert os.path.getsize(str(tmp_path / "out" / "agreement.png")) > 1000


def test_particles_are_matched_by_their_images(truth, tmp_path):
    """In another order, with particles missing here and there, and one that is twice in a file."""
    a, shifts, rng = truth
    first = write(tmp_path / "a.star", a[:200], shifts[:200])
    order = rng.permutation(np.arange(100, N))
    second = write(tmp_path / "b.star", a[order], shifts[order], images=order + 1)
    twice = np.r_[150, 150]
    third = write(tmp_path / "c.star", a[twice], shifts[twice], images=twice + 1)
    found = agree_stars([first, second, third], str(tmp_path / "out"), 5.0, 5.0)
    assert found.left_out == 100 and found.agrees.all() and len(found.agrees) == 100
    assert np.isfinite(found.off_deg).sum(axis=1).tolist() == [100, 100, 1]
    assert np.nanmax(found.off_deg) < 1e-3
    kept, _ = read_star(str(tmp_path / "out" / "particles.star"))
    np.testing.assert_array_equal(kept.index, np.arange(100, 200))


def test_classes_count_if_asked_for(truth, tmp_path):
    a, shifts, _ = truth
    classes = np.arange(N) % 2 + 1
    paths = [write(tmp_path / "a.star", a, shifts, volume=classes), write(tmp_path / "b.star", a, shifts)]
    assert agree_stars(paths, str(tmp_path / "out"), 5.0, 5.0).agrees.all()
    found = agree_stars(paths, str(tmp_path / "out2"), 5.0, 5.0, compare_classes=True)
    np.testing.assert_array_equal(found.agrees, classes == 1)


def test_what_can_not_be_compared_is_refused(truth, tmp_path):
    a, shifts, _ = truth
    one = write(tmp_path / "a.star", a, shifts)
    other = write(tmp_path / "b.star", a, shifts, images=np.arange(N) + 1000)
    none = str(tmp_path / "none.star")
    with open(none, "w") as file:
        file.write(open(one).read().replace("_rlnAngleRot", "_rlnOther"))
    out = str(tmp_path / "out")
    with pytest.raises(SettingsError, match="needs at least two alignments"):
        agree_stars([one], out, 5, 5)
    with pytest.raises(ParticleError, match="none of its particles is in another"):
        agree_stars([one, other], out, 5, 5)
    with pytest.raises(ParticleError, match="none.star: its particles have no orientations"):
        agree_stars([one, none], out, 5, 5)
    with pytest.raises(SettingsError, match="Symmetry 'X' is not known"):
        agree_stars([one, one], out, 5, 5, "X")
    os.rename(one, str(tmp_path / "rejected.star"))
    with pytest.raises(SettingsError, match="would be replaced"):
        agree_stars([str(tmp_path / "rejected.star"), other], str(tmp_path), 5, 5)
