"""Hot and dead pixels on images of known statistics, and the neighbours that replace defects."""

import numpy as np
import pytest

from flexalign_plugin.movies import find_hot_pixels, neighbour_table, replace_defects


def poisson_mean(total, n_frames=30, shape=(1024, 1024), seed=0):
    """Mean over frames of counts with `total` expected counts a pixel in all."""
    return (np.random.default_rng(seed).poisson(total, shape) / n_frames).astype("f4")


@pytest.mark.parametrize("total", [0.2, 1, 3, 10, 30, 100, 1000])
def test_pure_noise_has_no_defects(total):
    assert np.count_nonzero(find_hot_pixels(poisson_mean(total))) == 0


def test_pure_normal_noise_has_no_defects():
    noise = np.random.default_rng(0).normal(0, 5, (1024, 1024)).astype("f4")
    assert np.count_nonzero(find_hot_pixels(noise)) == 0
    assert np.count_nonzero(find_hot_pixels(noise + 1e6)) == 0


def test_hot_and_dead_pixels_are_found_and_nothing_else():
    image = poisson_mean(30)
    truth = np.zeros(image.shape, bool)
    rng = np.random.default_rng(1)
    spots = rng.integers(4, 1020, (200, 2))
    for i, (y, x) in enumerate(spots):
        image[y, x] = 0 if i % 2 else rng.uniform(3, 1e5)  # the mean is 1, sigma 0.18
        truth[y, x] = True
    image[0, 0] = 50
    truth[0, 0] = True
    np.testing.assert_array_equal(find_hot_pixels(image), truth)


def test_one_per_cent_of_very_hot_pixels_do_not_hide_the_mild_ones():
    image = poisson_mean(30)
    rng = np.random.default_rng(1)
    hot = rng.random(image.shape) < 0.01
    image[hot] = 1e6
    image[500, 500] = 3.0
    found = find_hot_pixels(image)
    assert found[500, 500] and (found | ~hot).all()
    assert np.count_nonzero(found & ~hot) == 1


def test_clusters_and_columns():
    image = poisson_mean(30)
    truth = np.zeros(image.shape, bool)
    truth[100:105, 200:205] = True
    truth[:, 700] = True
    image[truth] = 9
    np.testing.assert_array_equal(find_hot_pixels(image), truth)


def test_a_hole_and_a_bar_are_part_of_the_picture():
    """An empty hole twice as bright and a black bar: thousands of pixels beyond six sigma, none of them a defect."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:1024, :1024]
    expected = np.full((1024, 1024), 30.0)
    hole = (y - 500) ** 2 + (x - 300) ** 2 < 150**2
    expected[hole] = 75
    expected[:, 800:900] = 0.5
    image = (rng.poisson(expected) / 30).astype("f4")
    image[500, 300], image[200, 200] = 10, 10
    found = find_hot_pixels(image)
    assert found[500, 300] and found[200, 200] and np.count_nonzero(found) <= 12


def test_known_defects_and_nan_are_left_out():
    image = poisson_mean(30)
    known = np.zeros(image.shape, bool)
    known[10:60, 10:60] = True
    image[known] = 1e5
    image[300, 300] = 20
    image[400, 400] = np.nan
    np.testing.assert_array_equal(np.argwhere(find_hot_pixels(image, known)), [[300, 300]])


def test_constant_and_tiny_images():
    assert not find_hot_pixels(np.ones((64, 64), "f4")).any()
    assert not find_hot_pixels(np.zeros((4, 4), "f4")).any()


def neighbours(table, i, nx):
    flat = table.neighbours_flat_index[table.indptr[i] : table.indptr[i + 1]]
    return sorted((int(k // nx), int(k % nx)) for k in flat)


def test_neighbours_of_one_pixel_are_the_eight_around_it():
    defects = np.zeros((9, 7), bool)
    defects[4, 3] = True
    table = neighbour_table(defects)
    assert (table.rows.dtype, table.cols.dtype, table.indptr.dtype) == (np.int32, np.int32, np.int64)
    assert table.neighbours_flat_index.dtype == np.int64
    assert neighbours(table, 0, 7) == [(y, x) for y in (3, 4, 5) for x in (2, 3, 4) if (y, x) != (4, 3)]


def test_radius_grows_until_six_are_good():
    rng = np.random.default_rng(0)
    defects = rng.random((40, 60)) < 0.4
    defects[10:25, 10:25] = True
    defects[0, 0] = True
    table = neighbour_table(defects)
    np.testing.assert_array_equal(np.stack([table.rows, table.cols], 1), np.argwhere(defects))
    y, x = np.mgrid[:40, :60]
    for i, (row, col) in enumerate(np.argwhere(defects)):
        distance = np.maximum(abs(y - row), abs(x - col))
        radius = next(r for r in range(1, 60) if np.count_nonzero(~defects & (distance <= r)) >= 6)
        assert neighbours(table, i, 60) == [tuple(p) for p in np.argwhere(~defects & (distance <= radius))]


def test_image_with_too_few_good_pixels_and_none():
    defects = np.ones((5, 5), bool)
    assert len(neighbour_table(defects).neighbours_flat_index) == 0
    defects[0, 0] = False
    assert neighbours(neighbour_table(defects), 0, 5) == [(0, 0)]
    assert len(neighbour_table(np.zeros((5, 5), bool)).rows) == 0


def test_defects_of_an_image_are_replaced_in_place():
    image = np.arange(30, dtype="f4").reshape(5, 6) ** 2
    defects = np.zeros((5, 6), bool)
    defects[2, 3] = defects[0, 0] = defects[2, 4] = True
    table = neighbour_table(defects)
    expected = image.copy()
    for i, at in enumerate(np.argwhere(defects)):
        expected[tuple(at)] = np.mean([image[p] for p in neighbours(table, i, 6)])
    replace_defects(image, table)
    np.testing.assert_allclose(image, expected, rtol=1e-6)
    assert (image == np.arange(30).reshape(5, 6) ** 2)[~defects].all()
