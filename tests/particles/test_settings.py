"""The settings of an alignment of particles: every number is in range or refused with one sentence."""

from __future__ import annotations

import dataclasses
import math

import pytest

from flexalign_plugin.errors import SettingsError
from flexalign_plugin.particles.settings import ParticleSettings

NUMBERS = [f.name for f in dataclasses.fields(ParticleSettings) if f.type in ("int", "float")]


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1, 10**400, True, "8", None])
def test_every_number_is_finite_and_in_range_or_refused(name, value):
    with pytest.raises(SettingsError) as caught:
        ParticleSettings(**{name: value})
    label = ParticleSettings.__dataclass_fields__[name].metadata["label"]
    assert str(caught.value).startswith(label) and str(caught.value).endswith(".")


@pytest.mark.parametrize("name", NUMBERS)
def test_the_ends_of_every_range_are_allowed(name):
    bounds = ParticleSettings.__dataclass_fields__[name].metadata["bounds"]
    whole = ParticleSettings.__dataclass_fields__[name].type == "int"
    others = {} if name == "max_resolution" else {"max_resolution": 0.5}
    ends = [bounds.high] if bounds.above else [bounds.low, bounds.high]
    for value in ends:
        if value in (0.5, 500) and name == "coarse_resolution":
            value = 500
        assert getattr(ParticleSettings(**{**others, name: int(value) if whole else float(value)}), name) == value


@pytest.mark.parametrize("symmetry", ["", "C", "C0", "C101", "X3", "D", "I5", "c 3", "Cx", 4, None, "C3; rm"])
def test_symmetries_that_do_not_exist_are_refused(symmetry):
    with pytest.raises(SettingsError, match=r"^Symmetry .* is not known: give C1"):
        ParticleSettings(symmetry=symmetry)


@pytest.mark.parametrize("symmetry", ["C1", "c4", "D2", "T", "O", "I1", "I2", "I3", "I4"])
def test_symmetries_of_relion_and_scipion_are_known(symmetry):
    assert ParticleSettings(symmetry=symmetry).symmetry == symmetry


def test_resolutions_that_contradict_each_other_are_refused():
    with pytest.raises(SettingsError, match="Coarse resolution is 7 A, finer than the maximum resolution of 8 A"):
        ParticleSettings(coarse_resolution=7.0)
    with pytest.raises(SettingsError, match="Coarse resolution is 60 A, too coarse for a particle of 100 A.*50 A"):
        ParticleSettings(coarse_resolution=60.0, mask_diameter=100.0)
    with pytest.raises(SettingsError, match="Maximum resolution is 30 A, too coarse for a particle of 40 A"):
        ParticleSettings(max_resolution=30.0, mask_diameter=40.0)


def test_settings_that_do_not_fit_the_images_are_named_with_the_allowed_range():
    settings = ParticleSettings(max_resolution=7.0, max_shift=60.0, mask_diameter=120.0)
    assert settings.problems_with_images(40, 3.0, "x") == []  # exactly what fits
    sentences = settings.problems_with_images(25, 4.0, "p.star")
    assert [s.split(": ")[0] for s in sentences] == ["p.star"] * 3
    assert "give at least 8 A" in sentences[0]
    assert "to their edge it is 50 A" in sentences[1]
    assert "images are 100 A wide" in sentences[2]
    # A pixel size that was rounded is no mistake.
    assert not ParticleSettings(max_resolution=8.0).problems_with_images(64, 4.0003, "x")


def test_settings_come_back_from_their_saved_form():
    settings = ParticleSettings(max_resolution=9.5, symmetry="D3", local_only=True)
    assert ParticleSettings.from_dict(settings.to_dict()) == settings
    with pytest.raises(SettingsError, match="Unknown settings: max_resolutoin"):
        ParticleSettings.from_dict({"max_resolutoin": 8.0})
    with pytest.raises(SettingsError, match="local_only is 'yes': give yes or no"):
        ParticleSettings.from_dict({"local_only": "yes"})
