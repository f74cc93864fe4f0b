"""Poses in Scipion's matrices, and tables of Scipion's sets."""

from __future__ import annotations

import numpy as np
import pwem.objects as emobj
from scipy.spatial.transform import Rotation

from flexalign_plugin.particles.poses import matrices

OPTICS = """
data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnVoltage #3
_rlnSphericalAberration #4
_rlnAmplitudeContrast #5
first 1 300.0 2.7 0.1
second 4 200.0 1.4 0.07
"""


def test_scipions_matrix_is_the_inverse_of_ours():
    from flexalign_plugin.protocols.particle_sets import from_scipion, to_scipion

    a, s = Rotation.random(20, random_state=0).as_matrix(), np.random.default_rng(0).normal(size=(20, 2))
    written = to_scipion(a, s)
    direct = np.tile(np.eye(4), (20, 1, 1))
    direct[:, :3, :3], direct[:, :2, 3] = a, -s
    np.testing.assert_allclose(written @ direct, np.tile(np.eye(4), (20, 1, 1)), atol=1e-12)
    back = from_scipion(written)
    np.testing.assert_allclose(back[0], a, atol=1e-12)
    np.testing.assert_allclose(back[1], s, atol=1e-12)


def test_angles_are_those_that_pwem_reads():
    """pwem's own function gives the angles of the inverse matrix with the opposite sign."""
    from pwem.convert.transformations import euler_from_matrix

    from flexalign_plugin.protocols.particle_sets import to_scipion

    (written,) = to_scipion(matrices(35.0, 70.0, -120.0), np.zeros((1, 2)))
    angles = -np.degrees(euler_from_matrix(np.linalg.inv(written), axes="szyz"))
    np.testing.assert_allclose(angles, [35, 70, -120], atol=1e-9)


def test_optics_groups_of_relion_are_read(tmp_path):
    import pyworkflow.object as pwobj

    from flexalign_plugin.protocols.particle_sets import GrowingTable

    particles = emobj.SetOfParticles(filename=str(tmp_path / "p.sqlite"))
    particles.setSamplingRate(1.5)
    acquisition = emobj.Acquisition(voltage=300, sphericalAberration=2.7, amplitudeContrast=0.1, magnification=1)
    acquisition.opticsGroupInfo.set(OPTICS)
    particles.setAcquisition(acquisition)
    particles.setIsPhaseFlipped(True)
    particles._setFirstDim = lambda _: None  # there are no images
    for i, group in enumerate((1, 4, 1, 4, 4), 1):
        item = emobj.Particle()
        item.setLocation(i, "a.mrcs")
        item.setObjId(10 * i)
        item._rlnOpticsGroup = pwobj.Integer(group)
        item._rlnRandomSubset = pwobj.Integer(1 + i % 2)
        ctf = emobj.CTFModel()
        ctf.setStandardDefocus(10000.0 * i, 9000.0, 30.0)
        ctf.setPhaseShift(5.0)
        item.setCTF(ctf)
        particles.append(item)
    particles.write()
    growing = GrowingTable("set")
    assert growing.read(particles) == 5 and growing.read(particles) == 0
    table = growing.table()
    assert [(g.optics.voltage_kV, g.optics.cs_mm, g.optics.amplitude_contrast) for g in table.groups] == [
        (300.0, 2.7, 0.1),
        (200.0, 1.4, 0.07),
    ]
    assert all(g.optics.phase_flipped and g.optics.pixel_A == 1.5 for g in table.groups)
    np.testing.assert_array_equal(table.group, [0, 1, 0, 1, 1])
    np.testing.assert_array_equal(table.row, [10, 20, 30, 40, 50])
    np.testing.assert_array_equal(table.index, np.arange(5))
    np.testing.assert_array_equal(table.known.half, [2, 1, 2, 1, 2])
    np.testing.assert_allclose(table.defocus.u_A, 10000.0 * np.arange(1, 6))
    np.testing.assert_allclose(table.defocus.phase_deg, 5)
