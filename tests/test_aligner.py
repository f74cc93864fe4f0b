"""`align()` as a whole, on small phantoms."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import tifffile

from flexalign_plugin.aligner import align
from flexalign_plugin.correction.magnification import stretch
from flexalign_plugin.errors import MovieError, SettingsError
from flexalign_plugin.kernels import select_backend
from flexalign_plugin.movies import Corrections, load_corrections, open_movie
from flexalign_plugin.phantoms.files import with_detector, write_phantom
from flexalign_plugin.phantoms.movie_writers import write_mrc_movie, write_tiff_movie
from flexalign_plugin.phantoms.phantom import field_rms_error, particle_phantom
from flexalign_plugin.settings import Settings

from .in_memory import Stack

PIXEL_A = 2.5


def settings(**values):
    return Settings(**{"pixel_size": PIXEL_A, "do_plots": False, **values})


def run(frames, corrections=None, threads=2, **values):
    return align(
        Stack(frames),
        settings(**values),
        select_backend("cpu", threads),
        corrections or Corrections(None, None, None, []),
    )


@pytest.fixture(scope="module")
def phantom():
    return particle_phantom((16, 640, 768), pixel_size_A=PIXEL_A, local_px=4.0, seed=8)


@pytest.fixture(scope="module")
def frames(phantom):
    return np.stack(list(phantom.frames()))


@pytest.fixture(scope="module")
def aligned(frames):
    return run(frames)


def test_motion(phantom, aligned):
    found, nothing = field_rms_error(aligned.model, phantom.truth, central=0.9)
    assert nothing > 2
    assert found < 0.35
    # Its field is rougher than the polynomial of RELION, which is the only thing to say.
    assert [warning[:17] for warning in aligned.warnings] == ["RELION's motion p"]


def test_reference_frame_stands_still(aligned):
    reference = aligned.figures.reference_frame - 1
    field = aligned.model.frame_field(reference, np.linspace(0, 639, 9), np.linspace(0, 767, 9))
    np.testing.assert_allclose(field, 0, atol=1e-9)


def test_micrograph_shows_the_truth(phantom, frames, aligned):
    """Correlation with the noiseless image where it belongs: as good as the mean of unmoved frames would give.

    Signal variance 0.0225, noise 1/16 of a count per pixel: sqrt(0.0225 / (0.0225 + 1/16)) = 0.51 for all frequencies.
    """
    reference = aligned.figures.reference_frame - 1
    truth = phantom.expected(float(reference))
    inside = np.s_[30:-30, 30:-30]

    def correlation(image):
        return np.corrcoef(image[inside].ravel(), truth[inside].ravel())[0, 1]

    limit = np.sqrt(0.0225 / (0.0225 + 1 / 16))
    assert correlation(aligned.images.micrograph) > 0.95 * limit
    assert correlation(aligned.images.micrograph) > correlation(frames.mean(axis=0)) + 0.1


def test_micrograph_is_the_mean_of_the_frames(frames, aligned):
    assert abs(aligned.images.micrograph.mean() / frames.mean() - 1) < 0.005


def test_same_input_same_bytes_whatever_the_threads(frames, aligned):
    again = run(frames, threads=3)
    assert again.images.micrograph.tobytes() == aligned.images.micrograph.tobytes()
    assert again.model.to_dict() == aligned.model.to_dict()


def test_frame_range(phantom, frames, aligned):
    part = run(frames, align_frame0=4, align_frame_n=13, use_align_to_sum=False, sum_frame0=5, sum_frame_n=6)
    assert part.model.aligned_frames == range(3, 13)
    assert part.summed_frames == range(4, 6)
    assert field_rms_error(part.model, phantom.truth, frames=range(3, 13), central=0.9).rms_px < 0.45


def test_binning_and_cropping(aligned, frames):
    out = run(frames, bin_factor=2.0, crop_offset_x=100, crop_dim_x=300, crop_offset_y=40, crop_dim_y=500)
    assert out.images.micrograph.shape == (250, 150)
    assert out.micrograph_pixel_size_A == 2 * PIXEL_A
    assert out.model.to_dict() == aligned.model.to_dict()
    assert out.images.full.shape == (640, 768)


def test_aligned_movie_has_one_slot_for_each_aligned_frame(frames):
    out = run(frames[:8], align_frame0=2, use_align_to_sum=False, sum_frame0=4, do_save_movie=True, bin_factor=2.0)
    assert out.images.movie.shape == (7, 320, 384)
    assert (np.abs(out.images.movie.mean(axis=(1, 2)) / frames[1:8].mean(axis=(1, 2)) - 1) < 0.01).all()
    summed = out.images.movie[2:].mean(axis=0)
    inside = np.s_[15:-15, 15:-15]
    assert np.corrcoef(summed[inside].ravel(), out.images.micrograph[inside].ravel())[0, 1] > 0.98


def test_a_gain_is_undone(phantom, frames):
    gain = (1 + 0.3 * np.random.default_rng(0).standard_normal(frames.shape[1:])).clip(0.3).astype(np.float32)
    spoiled = (frames / gain).astype(np.float32)
    corrected = run(spoiled, Corrections(None, gain, None, []))
    assert field_rms_error(corrected.model, phantom.truth, central=0.9).rms_px < 0.35


def test_hot_pixels_are_replaced(frames):
    rng = np.random.default_rng(1)
    hot = frames.copy()
    rows, columns = rng.integers(0, 640, 30), rng.integers(0, 768, 30)
    hot[:, rows, columns] = 200
    out = run(hot)
    assert out.figures.pixels_replaced >= 30
    assert out.images.micrograph.max() < 10
    # Without the replacement they tie every pair to shift zero.
    assert out.figures.pairs_rejected < 0.1


def test_frames_too_small_for_patches_are_aligned_globally_with_a_note(frames):
    out = run(frames[:, :240, :240])
    assert not out.model.is_local
    assert any("No local alignment" in note for note in out.notes)


@pytest.mark.parametrize("n", [2, 3, 7])
def test_few_frames(n):
    ph = particle_phantom((n, 640, 640), pixel_size_A=PIXEL_A, local_px=3.0, drift_px=4.0, seed=9)
    out = run(np.stack(list(ph.frames())))
    error, uncorrected = field_rms_error(out.model, ph.truth, central=0.9)
    assert error < 0.5 * uncorrected


@pytest.mark.parametrize("ny,nx", [(371, 383), (410, 576)])
def test_sizes_of_real_cameras(ny, nx):
    """The 3838 x 3710 and 5760 x 4092 cameras at a tenth of their size: sizes with large prime factors."""
    ph = particle_phantom((8, ny, nx), pixel_size_A=5.0, band_limit_A=12.0, local_px=1e-9, seed=10)
    out = run(np.stack(list(ph.frames())), pixel_size=5.0)
    assert out.images.micrograph.shape == (ny, nx)
    assert field_rms_error(out.model, ph.truth).rms_px < 0.1


def test_pure_noise_stays_uncorrected_with_a_warning():
    out = run(np.random.default_rng(0).poisson(1.0, (10, 400, 400)).astype("u1"))
    assert np.abs(out.model.global_shifts_px).max() == 0
    assert any("No motion could be measured" in w for w in out.warnings)


def test_bad_frames_are_named():
    frames = np.random.default_rng(0).poisson(1.0, (6, 200, 200)).astype("f4")
    empty, nan = frames.copy(), frames.copy()
    empty[[1, 4]] = 0
    nan[2, 5, 5] = np.nan
    with pytest.raises(MovieError, match=r"memory.mrc: frame 2, 5 is empty"):
        run(empty)
    with pytest.raises(MovieError, match=r"memory.mrc: frame 3 holds pixels that are not numbers"):
        run(nan)


def test_one_frame_can_not_be_aligned():
    with pytest.raises(SettingsError, match=r"memory.mrc: only 1 frame"):
        run(np.ones((1, 200, 200), "u1"))


def test_frames_too_small_for_the_control_points_are_refused():
    with pytest.raises(SettingsError, match=r"memory.mrc: 9 x 9 control points need at least 8 x 8 patches"):
        run(np.ones((4, 600, 600), "u1"), auto_control_points=False, control_point_x=9, control_point_y=9)


def test_progress_reports_the_stages_in_order(frames):
    reported = []
    align(
        Stack(frames[:4, :300, :300]),
        settings(),
        select_backend("cpu", 1),
        Corrections(),
        lambda s, f: reported.append((s, f)),
    )
    assert [s for s, _ in reported][:2] == ["gain, dark and defects", "read and sum"]
    assert all(a[1] < b[1] for a, b in zip(reported, reported[1:]))


def test_tiff_turned_upside_down_gives_what_the_mrc_movie_gives(tmp_path):
    """The same picture as RELION reads it from either file: bytes, shifts and replaced pixels are the same."""
    frames = np.random.default_rng(5).poisson(4.0, (5, 128, 160)).astype(np.uint8)
    frames[:, 10, 20] = 200
    write_mrc_movie(str(tmp_path / "a.mrc"), frames)
    write_tiff_movie(str(tmp_path / "a.tif"), frames[:, ::-1])
    wanted = settings(flip_tiff=True, do_local_alignment=False)
    results = []
    for name in ("a.mrc", "a.tif"):
        with open_movie(str(tmp_path / name), wanted) as movie:
            results.append(align(movie, wanted, select_backend("cpu", threads=1)))
    a, b = results
    np.testing.assert_array_equal(a.images.micrograph, b.images.micrograph)
    np.testing.assert_array_equal(a.model.global_shifts_px, b.model.global_shifts_px)
    assert [10, 20] in a.defects_px.tolist() and a.figures.defects == {"hot_or_dead": len(a.defects_px)}
    np.testing.assert_array_equal(a.defects_px, b.defects_px)


def test_magnification_distortion_is_taken_out_with_the_motion():
    """Spots on a stretched, drifting picture come out where the stretch about the centre puts them."""
    shape, n, rng = (256, 320), 6, np.random.default_rng(3)
    places = 30 + rng.uniform(0, 1, (60, 2)) * (np.array(shape) - 60)
    drift = np.cumsum(rng.normal(0, 1.2, (n, 2)), axis=0)
    y, x = np.mgrid[: shape[0], : shape[1]]
    frames = np.full((n, *shape), 5.0, np.float32)
    for t in range(n):
        for a, b in places - drift[t]:
            frames[t] += 20 * np.exp(-((y - a) ** 2 + (x - b) ** 2) / 18)
    out = run(
        frames,
        do_local_alignment=False,
        remove_hot_pixels=False,
        do_mag_cor=True,
        scale_maj=1.03,
        scale_min=0.98,
        ang_dist=25,
    )
    reference = out.figures.reference_frame - 1
    centre = (np.array(shape) - 1) / 2
    matrix = stretch(1.03, 0.98, 25)
    moved = []
    for place in places - drift[reference]:
        a, b = centre + matrix @ (place - centre)
        alone = np.sort(np.hypot(*(places - drift[reference] - place).T))[1] > 26
        if alone and 12 < a < shape[0] - 12 and 12 < b < shape[1] - 12:
            near = np.where((y - a) ** 2 + (x - b) ** 2 < 100, out.images.micrograph - 5, 0).astype(float)
            moved.append(((near * y).sum() / near.sum() - a, (near * x).sum() / near.sum() - b))
    assert len(moved) >= 4 and np.abs(moved).max() < 0.02
    np.testing.assert_allclose(out.model.global_shifts_px, drift - drift[reference], atol=0.1)
    assert not out.model.is_local


@pytest.fixture(scope="module")
def eer(tmp_path_factory):
    """An EER movie that moves by 3 pixels, with a gain; true counts per physical pixel and frame."""
    moving = particle_phantom((6, 256, 256), pixel_size_A=PIXEL_A, dose=2.0, drift_px=3.0, local_px=0.0, seed=3)
    folder = str(tmp_path_factory.mktemp("eer"))
    files = write_phantom(with_detector(moving, seed=2), folder, "m", "eer", hardware_per_frame=8)
    with open_movie(files["movie"], Settings(n_frames=6)) as movie:
        corrections = load_corrections(movie, Settings(gain=files["gain"]))
        frames = np.stack([movie.frame(i) for i in range(6)]) * corrections.gain
    return moving.truth, files, float(frames.mean())


@pytest.mark.parametrize("with_gain", [True, False])
def test_intensity_and_motion_do_not_depend_on_the_eer_rendering(eer, with_gain):
    """Counts per physical pixel and frame in every image at 4K, 8K and 16K; the same path on the specimen.

    The means agree but for what moves across the borders. On the common grid the noise differs a little, because the
    sub-pixel positions move some counts into a neighbour.
    """
    truth, files, counts = eer
    found = []
    for sampling in (1, 2, 4):
        given = settings(
            n_frames=6,
            eer_sampling=sampling,
            bin_factor=float(sampling),
            gain=files["gain"] if with_gain else None,
            total_dose=12.0,
            split_even_odd=True,
            do_save_movie=True,
            do_local_alignment=False,
        )
        with open_movie(files["movie"], given) as movie:
            result = align(movie, given, select_backend("cpu", 2))
        images = result.images
        assert images.full.shape == (256 * sampling, 256 * sampling) and images.micrograph.shape == (256, 256)
        assert result.settings.pixel_size == PIXEL_A / sampling and result.micrograph_pixel_size_A == PIXEL_A
        for image in (images.full, images.micrograph, images.weighted, images.even, images.odd, images.movie):
            assert image.mean() == pytest.approx(counts, rel=0.005 if with_gain else 0.03)
        shifts_A = result.model.global_shifts_px * PIXEL_A / sampling
        found.append((images.micrograph, shifts_A - shifts_A.mean(axis=0), result.figures.accumulated_motion_total_A))
    (first, shifts, moved), *others = found
    for micrograph, finer_shifts, finer_moved in others:
        assert micrograph.mean() == pytest.approx(first.mean(), rel=1e-3)
        assert micrograph.std() == pytest.approx(first.std(), rel=0.1)
        assert np.abs(finer_shifts - shifts).max() < 0.3 * PIXEL_A
        assert finer_moved == pytest.approx(moved, rel=0.15)
    true = np.stack(truth.shift(np.arange(6), 128.0, 128.0), axis=1) * PIXEL_A
    assert np.abs(shifts - (true - true.mean(axis=0))).max() < 0.3 * PIXEL_A


def test_a_damaged_hardware_frame_is_noted_and_leaves_dose_and_groups_as_they_are(eer, tmp_path):
    path = str(tmp_path / "m.eer")
    shutil.copy(eer[1]["movie"], path)
    with tifffile.TiffFile(path) as tiff:
        start, n = tiff.pages[20].dataoffsets[0], tiff.pages[20].databytecounts[0]
    with open(path, "r+b") as file:
        file.seek(start)
        file.write(bytes(n))
    given = settings(n_frames=6, total_dose=12.0, do_local_alignment=False)
    results = {}
    for name in (path, eer[1]["movie"]):
        with open_movie(name, given) as movie:
            results[name] = align(movie, given, select_backend("cpu", 2))
    damaged, whole = results.values()
    assert "1 of 48 hardware frames (2.1 % of the dose) are damaged and were left out: 21." in damaged.notes
    assert not any("damaged" in note for note in whole.notes)
    assert damaged.settings.dose_per_frame == whole.settings.dose_per_frame == 2.0
    assert damaged.hardware_frames == whole.hardware_frames == 8 and damaged.model.n_frames == 6
    assert damaged.images.micrograph.mean() == pytest.approx(whole.images.micrograph.mean() * 47 / 48, rel=0.005)
