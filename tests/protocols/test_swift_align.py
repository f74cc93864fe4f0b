"""ProtSwiftAlign on particles whose poses are known."""

from __future__ import annotations

import glob
import importlib
import os
import signal

import numpy as np
import pwem.objects as emobj
import pytest
from pyworkflow.protocol.protocol import getProtocolFromDb

from flexalign_plugin.particles import poses

from .. import particle_data as data
from ..scipion_project import run
from .killing import start, wait

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


def test_several_volumes_give_classes(project, two_states):
    protocol = data.new_swift_align(
        project, data.particles_of(project, two_states, range(N)), data.volumes_of(project, two_states.volumes)
    )
    assert protocol.validate() == []
    run(project, protocol)
    assert protocol.isFinished(), protocol.getErrorMessage()
    assert protocol.outputClasses.getSize() == 2
    right = n = 0
    for one in protocol.outputClasses.iterItems():
        assert one.getRepresentative().getFileName() == two_states.volumes[one.getObjId() - 1]
        assert one.hasAlignmentProj()
        for particle in one.iterItems():
            right += two_states.truth.volume[particle.getObjId() - 1] == one.getObjId() - 1
            assert particle._swift_class_posterior.get() > 0.4
            n += 1
    assert n == N and right >= 0.95 * N
    assert "Shares of the volumes" in protocol.summaryVar.get()


def test_a_growing_set_is_followed(project, simulated, monkeypatch):
    """The set grows each time that the run waits, and is closed at last; each particle is in the output once."""
    from flexalign_plugin.protocols import ProtSwiftAlign, protocol_swift_align

    monkeypatch.setattr(protocol_swift_align, "FIRST", 20)
    imported = data.particles_of(project, simulated, range(10), state=1)
    stream = imported.outputParticles
    batches = [range(10, 25), range(25, 25), range(25, 50), range(50, N)]
    protocol = data.new_swift_align(project, imported, data.volumes_of(project, simulated.volumes))
    sizes = []

    def grow(_):
        sizes.append(protocol.outputParticles.getSize() if hasattr(protocol, "outputParticles") else 0)
        rows = batches.pop(0)
        data.append(stream, simulated, rows, is_closed=not batches)

    monkeypatch.setattr(ProtSwiftAlign, "_wait", grow)
    run(project, protocol)
    assert protocol.isFinished(), protocol.getErrorMessage()
    # Noise and contrast are measured on the first 20 particles: the run waits for them.
    assert sizes == [0, 25, 25, 50]
    ids, a, _ = data.poses_of(protocol.outputParticles)
    np.testing.assert_array_equal(ids, np.arange(1, N + 1))
    assert not protocol.outputParticles.isStreamOpen()
    assert (poses.distances(a, simulated.truth.poses) < 13.4).mean() >= 0.95


# Where a run dies: of the first checkpoint, in the output set, and at the end.
POINTS = {
    "first particles saved, none in the output": ("flexalign_plugin.runs.particle_parts:Parts", "add", 1, "after"),
    "in the middle of the output set": ("pwem.objects:SetOfParticles", "append", 20, "after"),
    "output written, not registered": ("pwem.objects:SetOfParticles", "write", 1, "after"),
    "output registered, its origin not": ("flexalign_plugin.protocols:ProtSwiftAlign", "_relate", 1, "before"),
    "while it waits for more particles": ("flexalign_plugin.protocols:ProtSwiftAlign", "_wait", 2, "before"),
    "at the end": ("flexalign_plugin.protocols:ProtSwiftAlign", "createOutputStep", 1, "after"),
}


FAST = ("output written, not registered", "while it waits for more particles")


@pytest.fixture
def stopped(project, simulated, monkeypatch):
    """A run on a growing set with 40 particles: path of the project, number of the run, its folder, the set."""
    from flexalign_plugin.protocols import protocol_swift_align
    from flexalign_plugin.runs import particles

    monkeypatch.setattr(protocol_swift_align, "FIRST", 20)
    monkeypatch.setattr(particles, "CHUNKS", 1)
    imported = data.particles_of(project, simulated, range(40), state=1)
    protocol = data.new_swift_align(project, imported, data.volumes_of(project, simulated.volumes))
    project._setupProtocol(protocol)
    protocol.makePathsAndClean()
    project._storeProtocol(protocol)
    return os.path.abspath("."), protocol.getObjId(), protocol.workingDir.get(), imported.outputParticles


@pytest.mark.parametrize(
    "point",
    [pytest.param(point, id=name, marks=[] if name in FAST else [pytest.mark.slow]) for name, point in POINTS.items()],
)
def test_continue_completes_what_was_killed(stopped, simulated, point):
    where, number, folder, stream = stopped
    holder, *rest = point
    module, name = holder.split(":")
    if point[1] == "createOutputStep":
        data.append(stream, simulated, range(40, N), is_closed=True)
    process = start(where, number, True, (lambda: getattr(importlib.import_module(module), name), *rest))
    assert wait(process, 180) == signal.SIGKILL
    saved = sorted(os.listdir(f"{folder}/extra/parts"))
    if point[1] != "createOutputStep":
        data.append(stream, simulated, range(40, N), is_closed=True)
    assert wait(start(where, number, restart=False), 180) == 0
    output = emobj.SetOfParticles(filename=f"{folder}/particles.sqlite")
    output.loadAllProperties()
    assert output.getSize() == N and not output.isStreamOpen()
    ids, a, _ = data.poses_of(output)
    np.testing.assert_array_equal(ids, np.arange(1, N + 1))
    assert (poses.distances(a, simulated.truth.poses) < 13.4).mean() >= 0.95
    # What was saved is used again.
    assert set(saved) <= set(os.listdir(f"{folder}/extra/parts"))
    rows = np.concatenate([np.load(path)["row"] for path in glob.glob(f"{folder}/extra/parts/*.npy")])
    np.testing.assert_array_equal(np.unique(rows), ids)


def test_continue_with_a_changed_form_starts_again(stopped, simulated):
    where, number, folder, stream = stopped
    data.append(stream, simulated, range(40, N), is_closed=True)
    assert wait(start(where, number, restart=True), 180) == 0
    before = data.poses_of(emobj.SetOfParticles(filename=f"{folder}/particles.sqlite"))[1]
    protocol = getProtocolFromDb(where, "project.sqlite", number)
    protocol.maximumResolution.set(25.0)
    protocol._store(protocol.maximumResolution)
    protocol.getMapper().commit()
    assert wait(start(where, number, restart=False), 180) == 0
    ids, after, _ = data.poses_of(emobj.SetOfParticles(filename=f"{folder}/particles.sqlite"))
    np.testing.assert_array_equal(ids, np.arange(1, N + 1))
    assert poses.distances(before, after).mean() > 0.3
