"""Volumes: what is read, and rescaling to the particles' box and pixel size."""

from __future__ import annotations

import mrcfile
import numpy as np
import pytest

from flexalign_plugin.errors import ParticleError
from flexalign_plugin.particles.simulate import chains
from flexalign_plugin.particles.volumes import Volume, diameter_A, fitted, read_volume

DIAMETER_A = 100.0


def write(path, data, pixel_A=3.0):
    with mrcfile.new(str(path), overwrite=True) as file:
        file.set_data(np.asarray(data, "f4"))
        if pixel_A is not None:
            file.voxel_size = pixel_A
    return str(path)


def blobs(shape, pixel_A, origin):
    """Gaussian balls at known places (A from the origin): the same object on any grid."""
    rng = np.random.default_rng(4)
    z, y, x = ((np.arange(n) - o) * pixel_A for n, o in zip(shape, origin))
    volume = np.zeros(shape)
    for place in rng.uniform(-18, 18, (12, 3)):
        volume += (
            np.exp(-((z - place[2]) ** 2) / 128)[:, None, None]
            * np.exp(-((y - place[1]) ** 2) / 128)[None, :, None]
            * np.exp(-((x - place[0]) ** 2) / 128)[None, None, :]
        )
    return volume.astype(np.float32)


def centred(n, pixel_A):
    return blobs((n,) * 3, pixel_A, (n // 2,) * 3)


@pytest.mark.parametrize("pixel_A, n", [(3.0, 40), (2.17, 64), (3.9, 36), (3.0, 64), (3.0, 30), (1.51, 90)])
def test_a_rescaled_volume_is_the_same_object(pixel_A, n):
    values, notes = fitted(Volume("map.mrc", centred(n, pixel_A), pixel_A), 40, 3.0)
    truth = centred(40, 3.0)
    assert values.shape == truth.shape
    # At the edge of the smallest map the balls have fallen to 1e-3 of their height.
    assert np.abs(values - truth).max() < 2e-3 * truth.max()
    assert any("voxels" in note for note in notes) == (pixel_A != 3.0)


def test_odd_and_oblong_volumes_keep_their_origin(tmp_path):
    for shape in ((35, 35, 35), (36, 40, 38), (33, 42, 36)):
        data = blobs(shape, 3.0, [n // 2 for n in shape])
        volume = read_volume(write(tmp_path / "a.mrc", data))
        values, _ = fitted(volume, 40, 3.0)
        np.testing.assert_allclose(values[6:-6, 6:-6, 6:-6], centred(40, 3.0)[6:-6, 6:-6, 6:-6], atol=0.01)


def test_a_volume_that_does_not_fit_into_the_box_is_named():
    values, notes = fitted(Volume("map.mrc", centred(40, 3.0), 3.0), 16, 3.0)
    assert values.shape == (16, 16, 16)
    assert len(notes) == 1 and notes[0].startswith("map.mrc: is cropped to the particles' box of 16 pixels")


@pytest.mark.parametrize("flatness", [1.0, 0.4])
def test_the_diameter_is_that_of_the_particle_also_in_noise(flatness):
    values = chains(64, 3.0, DIAMETER_A, 2000, seed=5, flatness=flatness)
    points = np.argwhere(values > 0.05 * values.max()) - 32
    truth = 2 * 3.0 * np.linalg.norm(points, axis=1).max()
    for noise in (0.0, 0.02):
        noisy = values + np.random.default_rng(1).normal(scale=noise * values.max(), size=values.shape)
        assert 0.85 * truth < diameter_A(Volume("a", noisy.astype("f4"), 3.0)) < 1.25 * truth


def test_a_map_s_pixel_size_may_be_given(tmp_path):
    path = write(tmp_path / "a.mrc", centred(40, 3.0), None)
    with pytest.raises(ParticleError, match="its pixel size is 0 A, which can't be: give the pixel size"):
        read_volume(path)
    assert read_volume(path, 3.0).pixel_A == 3.0
    oblong = write(tmp_path / "b.mrc", centred(40, 3.0), (3.0, 3.0, 3.5))
    with pytest.raises(ParticleError, match="its pixel size is 0 A"):
        read_volume(oblong)


def test_volumes_that_show_nothing_are_refused(tmp_path):
    good = centred(40, 3.0)
    holes = good.copy()
    holes[3, 3, 3] = np.nan
    (tmp_path / "text.mrc").write_text("hello" * 400)
    for content, sentence in (
        (holes, "has voxels that are not numbers"),
        (np.full((20,) * 3, 4.0), r"is empty \(all voxels are 4\)"),
        (good[0], "is not a volume of at least 8 x 8 x 8"),
    ):
        path = write(tmp_path / "bad.mrc", content)
        with pytest.raises(ParticleError, match=f"^{path}: {sentence}.*\\.$"):
            read_volume(path)
    for name, sentence in (
        ("nowhere.mrc", "can't be read"),
        ("text.mrc", "is not|can't be read"),
        ("", "it is a folder"),
    ):
        with pytest.raises(ParticleError, match=sentence):
            read_volume(str(tmp_path / name))
