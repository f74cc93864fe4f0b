"""ProtSwiftConsensus on alignments with known errors."""

from __future__ import annotations

import numpy as np
import pytest

from flexalign_plugin.particles import poses

from .. import particle_data as data
from ..scipion_project import run

N = 50
WRONG = 5  # in each alignment other particles


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    return data.make(str(tmp_path_factory.mktemp("consensus")), N)


def alignment(project, simulated, wrong, seed, sd_deg=2.0, sd_px=0.3, classes=None, rows=None):
    """A protocol whose particles have the true poses with errors of `sd_deg`; those of `wrong` point anywhere."""
    rng = np.random.default_rng(seed)
    a = poses.turned(simulated.truth.poses, np.radians(rng.normal(0, sd_deg / np.sqrt(3), (N, 3))))
    if len(wrong):
        a[wrong] = poses.turned(a[wrong], np.radians(90) * np.eye(3)[rng.integers(0, 3, len(wrong))])
    t = simulated.truth.positions + rng.normal(0, sd_px / np.sqrt(2), (N, 2))
    return data.aligned_particles_of(project, simulated, range(N) if rows is None else rows, a, t, classes)


def new_consensus(project, alignments, **parameters):
    from flexalign_plugin.protocols import ProtSwiftConsensus

    protocol = project.newProtocol(ProtSwiftConsensus, **parameters)
    for one in alignments:
        data.add_pointer(protocol.inputAlignments, one, "outputParticles")
    return protocol


def test_the_mean_of_those_that_agree_is_better_and_no_wrong_pose_is_kept(project, simulated):
    wrong = [np.arange(WRONG) + WRONG * i for i in range(3)]
    runs = [alignment(project, simulated, wrong[i], seed=i) for i in range(3)]
    protocol = new_consensus(project, runs)
    assert protocol.validate() == []
    run(project, protocol)
    assert protocol.isFinished(), protocol.getErrorMessage()
    ids, a, t = data.poses_of(protocol.outputParticles)
    assert len(ids) == N  # each wrong pose is outvoted by two right ones
    single = [data.poses_of(one.outputParticles) for one in runs]
    errors = poses.distances(a, simulated.truth.poses)
    assert errors.max() < 8
    right = np.arange(3 * WRONG, N)  # all three agree: the error falls with the square root of 3
    before = np.mean([poses.distances(b[right], simulated.truth.poses[right]).mean() for _, b, _ in single])
    assert errors[right].mean() < 0.75 * before
    off = np.linalg.norm(t - simulated.truth.positions, axis=1)[right]
    assert off.mean() < 0.75 * np.mean(
        [np.linalg.norm(u - simulated.truth.positions, axis=1)[right] for *_, u in single]
    )
    counts = {p.getObjId(): p._swift_runs.get() for p in protocol.outputParticles.iterItems()}
    assert [counts[i + 1] for i in range(N)] == [2] * (3 * WRONG) + [3] * (N - 3 * WRONG)
    lines = open(protocol._getExtraPath("spreads.tsv")).read().splitlines()
    assert len([line for line in lines if not line.startswith("#")]) == N + 1


def test_of_two_alignments_both_must_agree(project, simulated):
    runs = [alignment(project, simulated, np.arange(WRONG), 0), alignment(project, simulated, np.array([], int), 1)]
    protocol = run(project, new_consensus(project, runs))
    assert protocol.outputParticles.getSize() == N - WRONG
    assert [p.getObjId() for p in protocol.outputRejected.iterItems()] == list(range(1, WRONG + 1))
    before = data.poses_of(runs[0].outputParticles)[1][:WRONG]
    np.testing.assert_allclose(data.poses_of(protocol.outputRejected)[1], before, atol=1e-6)


@pytest.mark.parametrize(
    "parameters, kept",
    [
        ({}, N),
        ({"maxAngle": 1.0}, None),
        ({"maxShiftDifference": 0.5}, None),
        ({"compareClasses": True}, N - 10),
    ],
)
def test_every_field_changes_what_is_kept(project, simulated, parameters, kept):
    classes = [np.ones(N, int), np.where(np.arange(N) < 10, 2, 1)]
    runs = [alignment(project, simulated, np.array([], int), i, classes=classes[i]) for i in range(2)]
    protocol = run(project, new_consensus(project, runs, **parameters))
    n = protocol.outputParticles.getSize() if hasattr(protocol, "outputParticles") else 0
    assert n == kept if kept is not None else n < 0.9 * N
    # Continue with other values makes the outputs again.
    protocol.consensusStep("C1", 180.0, 1000.0, False)
    assert protocol.outputParticles.getSize() == N and not hasattr(protocol, "outputRejected")


def test_orientations_that_differ_by_the_symmetry_are_the_same(project, simulated):
    from flexalign_plugin.particles import symmetry

    mate = symmetry.rotations("C4")[1]
    turned = data.aligned_particles_of(
        project, simulated, range(N), simulated.truth.poses @ mate, simulated.truth.positions, None
    )
    runs = [alignment(project, simulated, np.array([], int), 0), turned]
    assert not hasattr(run(project, new_consensus(project, runs)), "outputParticles")
    assert run(project, new_consensus(project, runs, symmetryGroup="C4")).outputParticles.getSize() == N


def test_particles_are_matched_by_their_images(project, simulated):
    """The second alignment has half of the particles, with other ids."""
    half = list(range(0, N, 2))
    first = alignment(project, simulated, np.array([], int), 0)
    second = data.aligned_particles_of(
        project, simulated, half, simulated.truth.poses, simulated.truth.positions, None, first_id=1000
    )
    protocol = run(project, new_consensus(project, [first, second]))
    assert [p.getObjId() - 1 for p in protocol.outputParticles.iterItems()] == half


def test_bad_input_is_named(project, simulated):
    runs = [alignment(project, simulated, np.array([], int), 0), data.particles_of(project, simulated, range(N))]
    (error,) = new_consensus(project, runs).validate()
    assert "have no orientations" in error
    growing = data.aligned_particles_of(
        project, simulated, range(N), simulated.truth.poses, simulated.truth.positions, None
    )
    growing.outputParticles.setStreamState(growing.outputParticles.STREAM_OPEN)
    (warning,) = new_consensus(project, [runs[0], growing])._warnings()
    assert "is still growing" in warning
    (error,) = new_consensus(project, runs[:1] * 2, symmetryGroup="X9").validate()
    assert "Symmetry 'X9'" in error
    (error,) = new_consensus(project, runs[:1] * 2, maxAngle=0).validate()
    assert "Maximum angle is 0" in error
    (error,) = new_consensus(project, runs[:1] * 2, maxShiftDifference=-1).validate()
    assert "Maximum shift difference" in error
