"""The form of ProtSwiftAlign: every field changes the result, and wrong values are named before the run."""

from __future__ import annotations

import numpy as np
import pytest

from flexalign_plugin.particles import poses
from flexalign_plugin.particles.settings import FIELDS_OF_FORM, WITHOUT_EFFECT
from flexalign_plugin.protocols import help_text

from .. import particle_data as data
from ..scipion_project import run

N = 40
FLIPPED = {
    "maximumResolution": 25.0,
    "maskDiameter": 100.0,
    "maxParticleShift": 4.0,
    "symmetryGroup": "C2",
    "maxPsi": 20.0,
    "initialResolution": 30.0,
    "considerInputAlignment": True,
    "memory": 1.0,
    "numberOfThreads": 1,
}


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    return data.make(str(tmp_path_factory.mktemp("form")), N)


@pytest.fixture(scope="module")
def inputs(simulated, tmp_path_factory):
    """(project, particles with poses that are 60 degrees wrong, volume, particles without poses)."""
    from .. import scipion_project

    project = scipion_project.new_project("swift_form")
    wrong = poses.turned(simulated.truth.poses, np.tile([0, 0, np.radians(60)], (N, 1)))
    aligned = data.aligned_particles_of(project, simulated, range(N), wrong, simulated.truth.positions, None)
    return (
        project,
        aligned,
        data.volumes_of(project, simulated.volumes),
        data.particles_of(project, simulated, range(N)),
    )


@pytest.fixture
def no_report(monkeypatch):
    """Drawing the report takes longer than aligning these few particles."""
    from flexalign_plugin.protocols import ProtSwiftAlign

    monkeypatch.setattr(ProtSwiftAlign, "_report", lambda *_: None)


@pytest.fixture(scope="module")
def plain(inputs):
    project, particles, volumes, _ = inputs
    return found_by(run(project, data.new_swift_align(project, particles, volumes)))


def found_by(protocol):
    assert protocol.isFinished(), protocol.getErrorMessage()
    ids, a, t = data.poses_of(protocol.outputParticles)
    score = np.array([p._swift_score.get() for p in protocol.outputParticles.iterItems()])
    return np.concatenate([a.reshape(len(ids), -1), t, score[:, None]], axis=1)


def test_all_fields_are_flipped_here():
    from flexalign_plugin.protocols import ProtSwiftAlign

    assert set(FIELDS_OF_FORM) | {"numberOfThreads"} == set(FLIPPED)
    others = {"inputParticles", "inputVolumes", "inputMask", "hostName", "runName", "runMode"}
    assert {name for name, _ in ProtSwiftAlign().getDefinition().iterParams()} == set(FLIPPED) | others


def test_every_field_is_explained_in_the_docs():
    from flexalign_plugin.protocols import ProtSwiftConsensus

    page = (help_text.DOCS / "parameters.md").read_text(encoding="utf-8")
    page = page[page.index("## Particles: SwiftAlign") :]
    consensus = {"symmetryGroup", "maxAngle", "maxShiftDifference", "compareClasses"}
    assert consensus <= {name for name, _ in ProtSwiftConsensus().getDefinition().iterParams()}
    missing = [name for name in {"inputMask", *FLIPPED, *consensus} if f"| *{name}* |" not in page]
    assert not missing


@pytest.mark.parametrize("name", FLIPPED)
def test_every_field_changes_the_result(inputs, plain, simulated, no_report, name):
    project, particles, volumes, _ = inputs
    protocol = data.new_swift_align(project, particles, volumes, **{name: FLIPPED[name]})
    assert protocol.validate() == []
    found = found_by(run(project, protocol))
    if name in ("numberOfThreads", *WITHOUT_EFFECT):  # they change time and memory only
        np.testing.assert_allclose(found, plain, atol=1e-9)
        return
    assert found.shape == plain.shape and np.abs(found - plain).max() > 1e-4
    a = found[:, :9].reshape(-1, 3, 3)
    if name == "considerInputAlignment":  # the search stays near the wrong poses
        assert (poses.distances(a, simulated.truth.poses) > 13.4).mean() > 0.5
    if name == "maxParticleShift":
        assert np.linalg.norm(found[:, 9:11], axis=1).max() <= 4.0 / data.PIXEL_A + 0.01
    if name == "maxPsi":
        psi = np.degrees(np.arctan2(a[:, 1, 2], -a[:, 0, 2]))
        # Without a limit, 17 % would be within 30 degrees. The others don't fit within it, and half of them leave it.
        assert (np.abs(psi) < 30).mean() > 0.4
    if name == "symmetryGroup":  # the particle has none: some orientations are now those of a mate
        assert (poses.distances(a, simulated.truth.poses) > 13.4).mean() > 0.15


def test_a_mask_changes_the_volume(inputs, plain, simulated, no_report, tmp_path):
    import pwem.objects as emobj

    project, particles, volumes, _ = inputs
    axis = np.arange(data.BOX) - data.BOX // 2
    half = np.broadcast_to(axis[None, None, :] < 0, (data.BOX,) * 3)
    mask = emobj.VolumeMask()
    mask.setFileName(data.write_map(str(tmp_path / "mask.mrc"), half))
    mask.setSamplingRate(data.PIXEL_A)
    holder = data.volumes_of(project, simulated.volumes)
    holder._defineOutputs(outputMask=mask)
    project._storeProtocol(holder)
    protocol = data.new_swift_align(project, particles, volumes)
    protocol.inputMask.set(holder)
    protocol.inputMask.setExtended("outputMask")
    assert protocol.validate() == []
    (masked,) = protocol._volumes()
    assert not masked.values[:, :, data.BOX // 2 :].any() and masked.values[:, :, : data.BOX // 2].any()
    assert np.abs(found_by(run(project, protocol)) - plain).max() > 1e-3


@pytest.mark.parametrize(
    "parameters, sentence",
    [
        ({"maximumResolution": 5.0}, "finer than pixels of 4 A can show"),
        ({"maximumResolution": 90.0, "maskDiameter": 130.0}, "too coarse for a particle of 130 A"),
        ({"maxParticleShift": 120.0}, "from the centre of the images to their edge it is 96 A"),
        ({"maskDiameter": 500.0}, "the images are 192 A wide"),
        ({"symmetryGroup": "Q7"}, "Symmetry 'Q7' is not known"),
        ({"maxPsi": 0.0}, "Maximum in-plane angle is 0"),
        ({"initialResolution": 10.0}, "finer than the maximum resolution"),
        ({"memory": -1.0}, "Memory is -1"),
        ({"numberOfThreads": 0}, "at least 1 CPU core"),
        ({"considerInputAlignment": True}, "has no previous alignment"),
    ],
)
def test_wrong_values_are_named_before_the_run(inputs, parameters, sentence):
    project, _, volumes, without = inputs
    errors = data.new_swift_align(project, without, volumes, **parameters).validate()
    assert any(sentence in error for error in errors), errors


def test_wrong_input_is_named_before_the_run(inputs, simulated, tmp_path):
    project, _, volumes, _ = inputs

    def errors_with(**changed):
        imported = data.particles_of(project, simulated, range(3))
        particles = imported.outputParticles
        particles.enableAppend()
        for name, value in changed.items():
            getattr(particles, name)(value)
        particles.write()
        particles.close()
        return " ".join(data.new_swift_align(project, imported, volumes).validate())

    assert errors_with() == ""
    assert "have no CTF" in errors_with(setHasCTF=False)
    assert "amplitudes were corrected" in errors_with(setIsAmplitudeCorrected=True)
    import pwem.objects as emobj

    assert "voltage is not known" in errors_with(setAcquisition=emobj.Acquisition())
    for values, sentence in (
        (np.zeros((48, 48, 48)), "is empty"),
        (np.full((48, 48, 48), np.nan), "not numbers"),
        (np.ones((1, 48, 48)) * np.arange(48), "not a volume"),
    ):
        path = data.write_map(str(tmp_path / "bad.mrc"), values)
        imported = data.particles_of(project, simulated, range(3))
        protocol = data.new_swift_align(project, imported, data.volumes_of(project, [path]))
        assert any(sentence in error and "bad.mrc" in error for error in protocol.validate())


def test_bad_particles_are_listed_and_the_run_goes_on(inputs, simulated, tmp_path):
    project, _, volumes, _ = inputs
    imported = data.particles_of(project, simulated, range(25))
    particles = imported.outputParticles
    particles.enableAppend()
    images = np.zeros((2, data.BOX, data.BOX))
    images[1] = np.nan
    stack = data.write_stack(str(tmp_path / "bad.mrcs"), images)
    for number, place in ((101, (1, stack)), (102, (2, stack)), (103, (9, stack)), (104, (1, "gone.mrcs"))):
        item = data.particle(simulated, 0)
        item.setObjId(number)
        item.setLocation(*place)
        particles.append(item)
    item = data.particle(simulated, 0)
    item.setObjId(105)
    item.getCTF()._defocusU.set(None)
    particles.append(item)
    particles.write()
    particles.close()
    protocol = run(project, data.new_swift_align(project, imported, volumes))
    assert protocol.isFinished(), protocol.getErrorMessage()
    assert protocol.outputParticles.getSize() == 25
    lines = [line.split("\t") for line in open(protocol._getExtraPath("failed.tsv")).read().splitlines()[1:]]
    reasons = {int(line[0]): line[2] for line in lines}
    assert set(reasons) == {101, 102, 103, 104, 105}
    for number, reason in ((101, "empty"), (102, "not numbers"), (103, "holds 2 images"), (104, "can't be read")):
        assert reason in reasons[number]
    assert "defocus" in reasons[105]
    assert "*5 could not be aligned*" in protocol.summaryVar.get()
    page = open(protocol._getExtraPath("report.html")).read()
    assert "5 particles failed" in page and "bad.mrcs" in page
