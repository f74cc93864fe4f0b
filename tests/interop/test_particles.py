"""What the converters of RELION's and Xmipp's plugins write of our aligned particles: angles and shifts are those that
SwiftAlign has found, to 1e-4; RELION's reader, and ours of STAR files, read them back. pwem's viewers open them."""

from __future__ import annotations

import os

import numpy as np
import pytest

from flexalign_plugin.particles.io_star import read_star
from flexalign_plugin.particles.poses import distances, euler_angles, matrices

from .. import particle_data as data
from .. import scipion_project

N = 30


@pytest.fixture(scope="module")
def aligned(tmp_path_factory):
    """A finished run with two volumes."""
    simulated = data.make(str(tmp_path_factory.mktemp("particles")), N, n_volumes=2)
    project = scipion_project.new_project("interop_particles")
    protocol = data.new_swift_align(
        project, data.particles_of(project, simulated, range(N)), data.volumes_of(project, simulated.volumes)
    )
    scipion_project.run(project, protocol)
    assert protocol.isFinished(), protocol.getErrorMessage()
    return project, protocol


@pytest.fixture(autouse=True)
def _in_project(aligned):
    os.chdir(aligned[0].path)


def found(protocol):
    """(n, 3) angles in degrees and (n, 2) shifts in pixels of the output."""
    _, a, t = data.poses_of(protocol.outputParticles)
    return a, np.stack(euler_angles(a), axis=1), -t


def test_relion_writes_and_reads_our_poses(aligned, tmp_path):
    pytest.importorskip("relion")
    import pwem.objects as emobj
    from pwem.constants import ALIGN_PROJ
    from relion import convert

    _, protocol = aligned
    path = str(tmp_path / "particles.star")
    convert.writeSetOfParticles(protocol.outputParticles, path, alignType=ALIGN_PROJ)
    a, angles, shifts = found(protocol)
    table, _ = read_star(path)
    known = table.known
    assert distances(matrices(*known.angles.T), a).max() < 1e-4
    np.testing.assert_allclose(known.shifts_A, shifts * data.PIXEL_A, atol=1e-4)
    # The angles themselves, where they are defined, whatever turn they are given in.
    turn = (known.angles - angles + 180) % 360 - 180
    general = np.sin(np.radians(angles[:, 1])) > 0.02
    other = (np.stack([angles[:, 0] + 180, -angles[:, 1], angles[:, 2] + 180], 1) - known.angles + 180) % 360 - 180
    assert np.minimum(np.abs(turn).max(axis=1), np.abs(other).max(axis=1))[general].max() < 1e-4
    back = emobj.SetOfParticles(filename=str(tmp_path / "back.sqlite"))
    convert.readSetOfParticles(path, back, alignType=ALIGN_PROJ)
    _, a_back, t_back = data.poses_of(back)
    assert distances(a_back, a).max() < 1e-4
    np.testing.assert_allclose(-t_back, shifts, atol=1e-4)


def test_xmipp_writes_and_reads_our_poses(aligned, tmp_path):
    pytest.importorskip("xmipp3.convert", reason="the converters of xmipp3 can't be imported", exc_type=ImportError)
    import pwem.objects as emobj
    from pwem import emlib
    from pwem.constants import ALIGN_PROJ
    from xmipp3 import convert

    _, protocol = aligned
    path = str(tmp_path / "particles.xmd")
    convert.writeSetOfParticles(protocol.outputParticles, path, alignType=ALIGN_PROJ)
    table = emlib.MetaData(path)
    labels = (emlib.MDL_ANGLE_ROT, emlib.MDL_ANGLE_TILT, emlib.MDL_ANGLE_PSI, emlib.MDL_SHIFT_X, emlib.MDL_SHIFT_Y)
    columns = np.array([table.getColumnValues(label) for label in labels])
    a, _, shifts = found(protocol)
    assert distances(matrices(*columns[:3]), a).max() < 1e-4
    np.testing.assert_allclose(columns[3:].T, shifts, atol=1e-4)
    back = emobj.SetOfParticles(filename=str(tmp_path / "back.sqlite"))
    convert.readSetOfParticles(path, back, alignType=ALIGN_PROJ)
    _, a_back, t_back = data.poses_of(back)
    assert distances(a_back, a).max() < 1e-4
    np.testing.assert_allclose(-t_back, shifts, atol=1e-4)


def test_alignments_of_relion_go_into_the_consensus(aligned, tmp_path):
    """What RELION's plugin has read agrees with what it was written from, whatever the ids."""
    pytest.importorskip("relion")
    from pwem.constants import ALIGN_PROJ
    from relion import convert

    from flexalign_plugin.protocols import ProtSwiftConsensus

    project, protocol = aligned
    path = str(tmp_path / "particles.star")
    convert.writeSetOfParticles(protocol.outputParticles, path, alignType=ALIGN_PROJ)
    imported = data.read_into_protocol(
        project, lambda particles: convert.readSetOfParticles(path, particles, alignType=ALIGN_PROJ)
    )
    consensus = project.newProtocol(ProtSwiftConsensus, maxAngle=0.01, maxShiftDifference=0.01)
    data.add_pointer(consensus.inputAlignments, protocol, "outputParticles")
    data.add_pointer(consensus.inputAlignments, imported, "outputParticles")
    assert consensus.validate() == []
    scipion_project.run(project, consensus)
    assert consensus.outputParticles.getSize() == N


def test_viewers_of_pwem_open_the_output(aligned):
    import pwem
    from pwem.viewers.plotter import PLOT_EULER_ANGLES, PLOT_PROJ_ANGLES, PLOT_PROJ_DIR
    from pwem.viewers.viewer_angular_dist import AngularDistributionViewer

    _, protocol = aligned
    viewers = pwem.Domain.findViewers(protocol.outputParticles, "tkinter")
    assert AngularDistributionViewer in viewers
    from matplotlib import colormaps

    for kind in (PLOT_EULER_ANGLES, PLOT_PROJ_ANGLES, PLOT_PROJ_DIR):
        (plotter,) = AngularDistributionViewer.plotAngularDistribution(
            protocol.outputParticles, colormaps["viridis"], kind
        )
        assert plotter.getFigure().axes
