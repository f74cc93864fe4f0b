"""Counts of electrons are told from charge. The truth is that of simulated cameras.

A counting camera stores Poisson counts, less coincidences. An integrating one adds to each pixel the charge of every
electron: a Landau-like number of units, spread over the neighbours, plus readout noise.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from flexalign_plugin.movies import open_movie
from flexalign_plugin.movies.counting import input_facts, typical_gain, unit_of_counts, unit_of_pair
from flexalign_plugin.phantoms.files import with_detector, write_phantom
from flexalign_plugin.phantoms.movie_writers import write_mrc_movie
from flexalign_plugin.phantoms.phantom import particle_phantom
from flexalign_plugin.settings import Settings

from ..in_memory import Stack

ROWS, COLUMNS = 64, 2048
RATES = (0.05, 0.3, 1.0, 3.0, 6.0)  # electrons per pixel and frame


def structure(seed=0, contrast=0.2):
    """A smooth image of mean 1, e.g. ice, particles and carbon."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.standard_normal((ROWS, COLUMNS)), 4)
    return np.clip(1 + contrast * smooth / smooth.std(), 0.05, None)


def uneven(seed=5, spread=0.08):
    return np.random.default_rng(seed).normal(1, spread, (ROWS, COLUMNS)).clip(0.6, 1.5)


def counted(rate, coincidences=0.0, seed=1, gain=None):
    """Two frames; each is a sum of 20 sensor frames in which at most one electron counts, if there are coincidences."""
    rng = np.random.default_rng(seed)
    mean = rate * structure() * (1 if gain is None else 1 / gain)
    if not coincidences:
        return [rng.poisson(mean).astype(np.float64) for _ in range(2)]
    return [rng.binomial(20, 1 - np.exp(-mean / 20)).astype(np.float64) for _ in range(2)]


def integrated(rate, units=30.0, spread=0.6, readout=4.0, offset=0.0, seed=1):
    """Two frames of an integrating camera with `units` per electron."""
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(2):
        electrons = rng.poisson(rate * structure())
        charge = units * rng.gamma(np.maximum(3.0 * electrons, 1e-9)) / 3.0
        frames.append(ndimage.gaussian_filter(charge, spread) + rng.normal(offset, readout, charge.shape))
    return frames


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("coincidences", [0.0, 1.0])
def test_counts_are_recognised(rate, coincidences):
    assert unit_of_pair(*counted(rate, coincidences)) == 1.0


@pytest.mark.parametrize("rate", RATES[:4])
@pytest.mark.parametrize("unit", [0.01, 0.25, 16.0, 100.0])
def test_counts_times_a_constant_give_its_value(rate, unit):
    """A gain of another scale that was applied, counts stored times 16 or 100, the mean of 2 x 2 pixels."""
    a, b = (np.float32(unit) * frame.astype(np.float32) for frame in counted(rate))
    assert unit_of_pair(a.astype(float), b.astype(float)) == pytest.approx(unit, rel=1e-5)


@pytest.mark.parametrize("rate", RATES[:4])
def test_counts_with_their_gain_applied(rate):
    """Floats that are no multiples of one unit, but 0 where no electron was counted."""
    gain = uneven()
    a, b = (frame * gain for frame in counted(rate, gain=gain))
    assert unit_of_pair(a, b) == 1.0


def test_hot_and_dead_pixels_do_not_hide_counts():
    a, b = counted(0.5)
    rng = np.random.default_rng(2)
    hot, dead = rng.random(a.shape) < 2e-4, rng.random(a.shape) < 1e-3
    for frame in (a, b):
        frame[hot] = rng.poisson(200, hot.sum())
        frame[dead] = 0
    assert unit_of_pair(a, b) == 1.0


CAMERAS = {
    "float": lambda frames: frames,
    "integers": lambda frames: [np.rint(frame) for frame in frames],
    "integers clipped at 0": lambda frames: [np.rint(frame).clip(0) for frame in frames],
    "floats clipped at 0": lambda frames: [frame.clip(0) for frame in frames],
    "multiples of 2": lambda frames: [2 * np.rint(frame / 2).clip(0) for frame in frames],
}


@pytest.mark.parametrize("stored", CAMERAS)
@pytest.mark.parametrize("units", [8.0, 30.0, 100.0, 700.0])
@pytest.mark.parametrize("rate", [0.1, 0.3, 1.0, 5.0, 30.0])
def test_charge_is_never_taken_for_counts(rate, units, stored):
    """Falcon II and III, DE and K2 in linear mode: 8 to 700 units for each electron; sharp and blurred signals."""
    for spread in (0.4, 0.8):
        frames = CAMERAS[stored](integrated(rate, units, spread, readout=0.15 * units))
        assert unit_of_pair(*frames) is None, (spread, rate, units)


@pytest.mark.parametrize("name", ["fourier cropped", "with background", "negative", "empty", "not finite"])
def test_processed_and_broken_frames_are_not_known(name):
    a, b = counted(1.0)
    if name == "fourier cropped":
        a, b = (ndimage.zoom(frame, 0.5, order=3) for frame in (a, b))
    elif name == "with background":
        a, b = a + 37.5, b + 37.5
    elif name == "negative":
        a, b = a - 1, b - 1
    elif name == "empty":
        a, b = 0 * a, 0 * b
    else:
        a[3, 4] = np.nan
    assert unit_of_pair(a, b) is None


@pytest.mark.parametrize("kind", ["mrc", "tiff", "eer"])
def test_the_dose_of_phantom_files(tmp_path, kind):
    """0.8 electrons per pixel and frame at 2 A: 0.2 e/A^2 in each frame, also with an uneven gain and hot pixels."""
    phantom = with_detector(particle_phantom((2, 300, 360), pixel_size_A=2.0, dose=0.8, seed=4), 4)
    per_frame = 10 if kind == "eer" else 1
    files = write_phantom(phantom, str(tmp_path), "m", kind, "none", "mrc", per_frame, lambda *_: None)
    settings = Settings(pixel_size=2.0, dose_per_frame=0.2, n_frames=2)
    with open_movie(files["movie"], settings) as movie:
        facts = input_facts(movie, settings, gain=phantom.gain)
    # Defects and gain change it by a few percent; an EER frame has at most one electron in a pixel.
    assert facts.counted_A2 == pytest.approx(2 * 0.2, rel=0.08)
    assert facts.doubts == [] and facts.hardware_frames == (10 if kind == "eer" else None)


def test_super_resolution_and_an_image_of_charge_in_files(tmp_path):
    """Super-resolution frames typed with the pixel size of the sensor, and frames of a Falcon II."""
    fine, _ = counted(0.3)
    path = str(tmp_path / "fine.mrc")
    write_mrc_movie(path, [frame.astype(np.uint8) for frame in counted(0.3) + counted(0.3, seed=2)], 0.5)
    settings = Settings(pixel_size=1.0, dose_per_frame=1.2)
    with open_movie(path, settings) as movie:
        (doubt,) = input_facts(movie, settings).doubts
    assert "a pixel size of 0.5 A (super-resolution or 8K?)" in doubt
    path = str(tmp_path / "charge.mrc")
    write_mrc_movie(path, [frame.astype(np.float32) for frame in integrated(2.0, offset=50)], 1.0)
    with open_movie(path, settings) as movie:
        facts = input_facts(movie, settings)
    assert facts.counted is None and facts.doubts == []


@pytest.mark.parametrize("scale", [1.0, 0.01, 100.0])
def test_the_scale_of_the_gain(scale):
    gain = (scale * uneven()).astype(np.float32)
    assert typical_gain(gain) == pytest.approx(scale, rel=0.05)
    facts = input_facts(Stack(np.array(counted(1.0), np.uint8)), Settings(dose_per_frame=1.0), gain)
    assert bool(facts.doubts) == (scale != 1)


def test_a_single_frame_can_not_be_known():
    assert unit_of_counts(Stack(np.array(counted(1.0)[:1], np.uint8)), range(1)) is None
