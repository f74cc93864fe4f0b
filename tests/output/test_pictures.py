"""Thumbnails and PNG files."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from flexalign_plugin.output.pictures import spectra, thumbnail, to_grey, write_png


@pytest.mark.parametrize(
    ("shape", "expected"), [((1024, 2048), (256, 512)), ((3000, 2000), (512, 341)), ((100, 60), (100, 60))]
)
def test_size(shape, expected):
    picture = thumbnail(np.random.default_rng(0).normal(size=shape).astype(np.float32))
    assert picture.shape == expected
    assert picture.dtype == np.uint8


def test_first_row_is_at_the_top_of_the_picture(tmp_path):
    image = np.zeros((800, 1200), np.float32)
    image[:100, :300] = 1.0  # bright at the start of the first rows
    write_png(str(tmp_path / "a.png"), thumbnail(image))
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.getpixel((20, 10)) > 200
        assert picture.getpixel((20, picture.height - 10)) < 50
        assert picture.getpixel((picture.width - 20, 10)) < 50


def test_particles_show_in_noise_and_an_outlier_does_not_spoil_the_contrast():
    rng = np.random.default_rng(0)
    image = rng.normal(1.0, 0.2, (2048, 2048)).astype(np.float32)
    image[1000:1100, 1000:1100] -= 0.1
    image[5, 5] = 1e6
    picture = thumbnail(image).astype(float)
    inside, outside = picture[252:273, 252:273], picture[300:, 300:]
    assert outside.mean() - inside.mean() > 1.5 * outside.std()
    assert 60 < outside.mean() < 200


def test_flat_image_is_grey():
    assert np.all(thumbnail(np.full((300, 300), 5.0, np.float32)) == 128)


def test_to_grey_is_linear_between_its_limits():
    np.testing.assert_array_equal(to_grey(np.array([-1.0, 0, 1, 2, 3]), 0, 2), [0, 0, 128, 255, 255])


def test_both_sides_of_the_spectra_share_a_scale():
    rng = np.random.default_rng(0)
    strong, weak = rng.normal(0, 1, (384, 384)), rng.normal(0, 0.2, (384, 384))
    picture = spectra(strong, weak)
    assert picture.dtype == np.uint8
    assert picture[:, :180].std() > 4 * picture[:, 204:].std()
