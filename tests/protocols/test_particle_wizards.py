"""What the wizards of ProtSwiftAlign propose."""

from __future__ import annotations

import numpy as np
import pytest

from .. import particle_data as data
from .test_wizards import Form


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    return data.make(str(tmp_path_factory.mktemp("wizards")), 4)


@pytest.fixture
def wizards(monkeypatch):
    from flexalign_plugin import wizards_of_particles as module

    module.said = []
    for name in ("showError", "offer"):
        monkeypatch.setattr(module, name, lambda title, text, root: module.said.append(" ".join(text.split())) or True)
    monkeypatch.setattr(module.Plotter, "show", lambda plotter: module.said.append(plotter))
    return module


def protocol_on(project, simulated, **parameters):
    return data.new_swift_align(
        project,
        data.particles_of(project, simulated, range(4)),
        data.volumes_of(project, simulated.volumes),
        **parameters,
    )


def test_scipion_finds_the_wizards(wizards):
    import pwem

    from flexalign_plugin.protocols import ProtSwiftAlign

    found = pwem.Domain.findWizards(ProtSwiftAlign(), "tkinter")
    assert found == {"maskDiameter": wizards.MaskDiameterWizard, "maximumResolution": wizards.ResolutionWizard}


def test_the_diameter_is_measured_and_drawn(wizards, project, simulated):
    form = Form(protocol_on(project, simulated, maskDiameter=0))
    wizards.MaskDiameterWizard().show(form)
    said, plotter = wizards.said
    # The phantom's residues are within 0.97 of its radius.
    assert form.values["maskDiameter"] == pytest.approx(data.DIAMETER_A, rel=0.2)
    assert f"{form.values['maskDiameter']:.0f} A in diameter" in said
    (circle,) = plotter.getFigure().axes[0].patches
    assert circle.radius == pytest.approx(form.values["maskDiameter"] / 2, abs=1)


def test_without_half_maps_a_usual_resolution_is_proposed(wizards, project, simulated):
    form = Form(protocol_on(project, simulated))
    wizards.ResolutionWizard().show(form)
    assert form.values["maximumResolution"] == 12.0  # three pixels of 4 A
    assert "no half maps" in wizards.said[0]


def test_half_maps_give_the_resolution(wizards, project, simulated, tmp_path):
    """Noise of the same power as the signal in all shells above 1/20 A: the FSC is 1/2 there at most."""
    import mrcfile

    values = mrcfile.read(simulated.volumes[0])
    n, rng = len(values), np.random.default_rng(0)
    f = np.fft.fftfreq(n, data.PIXEL_A)
    radius = np.sqrt(f[:, None, None] ** 2 + f[None, :, None] ** 2 + f[None, None, :] ** 2)
    halves = []
    for i in (1, 2):
        noise = np.fft.fftn(rng.normal(size=values.shape))
        spectrum = np.fft.fftn(values)
        spectrum = np.where(radius > 1 / 20, 3 * np.abs(spectrum).mean() * noise / np.abs(noise).mean(), spectrum)
        halves.append(data.write_map(str(tmp_path / f"half{i}.mrc"), np.real(np.fft.ifftn(spectrum))))
    protocol = protocol_on(project, simulated)
    protocol.inputVolumes.get().setHalfMaps(halves)
    value, why = wizards.proposed_resolution(protocol)
    assert value == pytest.approx(20, abs=1.5) and "half maps" in why


def test_what_is_missing_is_asked_for(wizards):
    from flexalign_plugin.protocols import ProtSwiftAlign

    wizards.MaskDiameterWizard().show(Form(ProtSwiftAlign()))
    assert wizards.said == ["Choose the volumes first."]
