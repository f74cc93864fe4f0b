"""The coarse search through FAISS against scoring every reference, and each trap that FAISS holds."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from flexalign_plugin.particles import align, poses, simulate
from flexalign_plugin.particles.band import Band
from flexalign_plugin.particles.ctf import Optics, ctf
from flexalign_plugin.particles.gallery import Gallery, shift_grid
from flexalign_plugin.particles.search import Search
from flexalign_plugin.particles.slices import Spectrum

faiss = pytest.importorskip("faiss", reason="faiss-cpu (the extra `search`) is not installed")

from flexalign_plugin.particles import index as index_module  # noqa: E402

BOX, PIXEL_A, DIAMETER_A = 48, 4.0, 130.0
OPTICS = Optics(PIXEL_A, 300.0, 2.7, 0.1)
N = 60


@pytest.fixture(scope="module")
def volume():
    return simulate.chains(BOX, PIXEL_A, DIAMETER_A, 2500, seed=21)


@pytest.fixture(scope="module")
def data(volume):
    return simulate.simulate(volume[None], N, OPTICS, 10**-0.8, 1.0, seed=22, max_shift_px=3.0)


@pytest.fixture(scope="module")
def searched(volume, data):
    """(exact search, index, queries' products and weights)."""
    band = Band.of(BOX, BOX * PIXEL_A / 22)
    f, c = band.coefficients(data.images), ctf(band.kx, band.ky, BOX, OPTICS, data.defocus)
    inverse = np.full(c.shape, 2 / (data.noise_sd**2 * BOX**2), np.float32)
    spectrum = Spectrum.of(volume, band.radius)
    gallery = Gallery.of([spectrum], band, 1.15 * 22 / DIAMETER_A, (c**2 * inverse).mean(axis=0))
    shifts = shift_grid(3.0, 22 / (2 * PIXEL_A))
    return Search(gallery, shifts), index_module.Index(gallery, shifts), (f * c * inverse, c**2 * inverse, np.arange(N))


def good(search, found, data):
    return (poses.distances(search.gallery.poses[found.reference[:, 0]], data.poses) < 13.4).mean()


def test_the_index_proposes_what_the_exact_search_finds(searched, data):
    search, index, queries = searched
    exact, proposed = search.candidates(*queries), index.candidates(*queries)
    same = exact.reference[:, 0] == proposed.reference[:, 0]
    assert same.mean() > 0.8
    np.testing.assert_allclose(exact.score[same, 0], proposed.score[same, 0], rtol=1e-3)
    assert good(index, proposed, data) > good(search, exact, data) - 0.05


def test_vectors_are_of_length_one(searched):
    """Cells of an inverted file are poor for scalar products of vectors of unequal length."""
    _, index, _ = searched
    stored = index.index.reconstruct_n(0, 50) if index.index.make_direct_map() is None else None
    np.testing.assert_allclose(np.linalg.norm(stored, axis=1), 1, atol=1e-5)
    lengths = np.linalg.norm(index.gallery.vectors[:, :64], axis=1)
    assert lengths.max() > 1.2 * lengths.min()  # of the gallery itself they are not


def test_nothing_is_left_to_a_centred_analysis(searched):
    """FAISS subtracts the mean before a principal component analysis, and not from queries' scalar products."""
    _, index, queries = searched
    assert isinstance(index.index, faiss.IndexIVFFlat) and index.index.d == index.gallery.axes.shape[1]
    # The gallery's vectors are those of the uncentred analysis: scalar products are kept.
    gallery = index.gallery
    whole = Gallery.of(
        [Spectrum.of(simulate.chains(BOX, PIXEL_A, DIAMETER_A, 2500, seed=21), gallery.band.radius)],
        gallery.band,
        gallery.step_rad,
        gallery.weight[::2] ** 2,
        n_axes=2 * len(gallery.band),
    )
    short, long = (g.vectors[::97, : g.axes.shape[1]] for g in (gallery, whole))
    products, kept = long @ long.T, short @ short.T
    assert np.abs(kept - products).max() < 0.1 * np.abs(products).max()


def test_no_half_precision(searched):
    """16 bits end at 65504, below the power of the rings."""
    _, index, _ = searched
    rings = index.gallery.vectors[:, index.gallery.axes.shape[1] :]
    assert np.abs(rings).max() > 65504 and index.gallery.vectors.dtype == np.float32
    assert index.index.code_size == 4 * index.index.d


def test_more_than_one_cell_is_searched(searched):
    _, index, _ = searched
    assert faiss.extract_index_ivf(index.index).nprobe == min(index_module.CELLS_SEARCHED, index.index.nlist) > 1


def test_one_thread_also_in_threads_of_ours(searched, monkeypatch):
    _, index, queries = searched
    faiss.omp_set_num_threads(4)

    def of(_):
        index.candidates(*(q[:2] for q in queries))
        return faiss.omp_get_max_threads()

    with ThreadPoolExecutor(3) as pool:
        assert set(pool.map(of, range(3))) == {1}


def test_a_whole_alignment_with_the_index(volume, data):
    particles = align.Particles(BOX, PIXEL_A, [OPTICS], np.zeros(N, int), data.defocus, lambda rows: data.images[rows])
    options = align.Options(15.0, DIAMETER_A, 3.0 * PIXEL_A, approximate=True)
    one = align.Alignment(particles, [volume], options).align(np.arange(N))
    errors = poses.distances(one.poses, data.poses)
    assert (errors < 13.4).mean() > 0.93
    again = align.Alignment(particles, [volume], options).align(np.arange(20, 31))
    np.testing.assert_array_equal(again.poses, one.poses[20:31])


def test_a_small_gallery_has_fewer_cells(volume):
    band = Band.of(BOX, 6.0)
    gallery = Gallery.of([Spectrum.of(volume, 6.0)], band, np.radians(60), np.ones(len(band)), n_axes=16)
    index = index_module.Index(gallery, np.zeros((1, 2)))
    assert index.index.ntotal == len(gallery.poses)
    assert Rotation.from_matrix(gallery.poses).magnitude().max() > 0
