"""ProtSwiftAlign on particles whose poses are known."""

from __future__ import annotations

import numpy as np
import pytest

from flexalign_plugin.particles import poses

from ..scipion_project import run
from . import particle_data as data

N = 60


@pytest.fixture(scope="session")
def simulated(tmp_path_factory):
    return data.make(str(tmp_path_factory.mktemp("particles")), N)


@pytest.fixture(scope="session")
def two_states(tmp_path_factory):
    return data.make(str(tmp_path_factory.mktemp("states")), N, n_volumes=2, seed=8)


def test_poses_and_their_errors_are_in_the_output(project, simulated):
    protocol = data.new_swift_align(
        project, data.particles_of(project, simulated, range(N)), data.volumes_of(project, simulated.volumes)
    )
    assert protocol.validate() == []
    run(project, protocol)
    assert protocol.isFinished(), protocol.getErrorMessage()
    output = protocol.outputParticles
    assert output.getSize() == N and output.hasAlignmentProj() and not output.isStreamOpen()
    ids, a, t = data.poses_of(output)
    np.testing.assert_array_equal(ids, np.arange(1, N + 1))
    errors = poses.distances(a, simulated.truth.poses)
    off = np.linalg.norm(t - simulated.truth.positions, axis=1)
    good = errors < 13.4
    assert good.mean() >= 0.95 and errors[good].mean() < 2.5 and off[good].mean() < 0.25
    first = output.getFirstItem().clone()  # iterating changes the item of a set
    assert first._swift_posterior.get() > 0.9 and first._swift_score.get() > 20
    sds = np.array([[p._swift_angle_sd.get(), p._swift_shift_sd.get()] for p in output.iterItems()])
    assert 0.6 < np.sqrt((errors[good] ** 2).mean() / (sds[good, 0] ** 2).mean()) < 1.6
    assert first.getCTF().getDefocusU() == pytest.approx(float(simulated.truth.defocus.u_A[0]))
