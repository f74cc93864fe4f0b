"""RELION's per-movie STAR: read back by another program's reader; the polynomial against a spline that is one."""

from __future__ import annotations

import numpy as np
import pytest
from emtable import Table

from flexalign_plugin.cli import build_parser
from flexalign_plugin.commands.phantom import made_phantom
from flexalign_plugin.correction.motion_correction import Images
from flexalign_plugin.motion.bspline import basis
from flexalign_plugin.motion.model import MotionModel
from flexalign_plugin.motion.relion_polynomial import fit_polynomial, residual_warnings
from flexalign_plugin.output.star import star_text
from flexalign_plugin.result import MovieResult
from flexalign_plugin.settings import Settings

from ..relion_motion import RelionMotion
from .relion_reader import Micrograph
from .synthetic import motion_model


def text_of(model, settings, movie="a.mrc", **more):
    """The file of a movie with this motion; its images do not matter."""
    image = np.zeros(model.frame_shape, np.float32)
    fit = fit_polynomial(model) if model.is_local else None
    images = Images(full=image, micrograph=image)
    result = MovieResult(movie, settings, model, model.aligned_frames, images, 1.0, polynomial=fit, **more)
    return star_text(result, "test")


def relion_shift(c, z, x, y):
    """The polynomial written out, term by term."""
    powers = np.array([z, z**2, z**3])
    terms = [1.0, x, x**2, y, y**2, x * y]
    return sum(terms[i] * (c[3 * i : 3 * i + 3] @ powers) for i in range(6))


def polynomial_model(coefficients, ny, nx, n_frames, first_frame, n_aligned):
    """A MotionModel whose spline is RELION's polynomial: cubic B-splines contain it."""
    t, y, x = np.arange(n_aligned), np.linspace(0, ny - 1, 12), np.linspace(0, nx - 1, 12)
    inverse = [
        np.linalg.pinv(basis(k, length, at))
        for k, length, at in ((5, n_aligned - 1, t), (4, ny - 1, y), (6, nx - 1, x))
    ]
    spline = []
    for c in (coefficients[1], coefficients[0]):
        values = np.array([[[relion_shift(c, z, b / nx - 0.5, a / ny - 0.5) for b in x] for a in y] for z in t])
        spline.append(np.einsum("lt,my,nx,tyx->lmn", *inverse, values))
    drift = np.random.default_rng(5).normal(0, 3, (n_aligned, 2))
    return MotionModel((ny, nx), n_frames, first_frame, drift, np.array(spline), 0.9)


def test_polynomial_of_a_polynomial_is_exact(tmp_path):
    rng = np.random.default_rng(2)
    scale = np.tile([1.0, 1 / 15, 1 / 15**2], 6) * 0.3
    coefficients = rng.normal(0, 1, (2, 18)) * scale
    model = polynomial_model(coefficients, 371, 540, n_frames=20, first_frame=3, n_aligned=16)
    fit = fit_polynomial(model)
    assert fit.max_px < 1e-9
    np.testing.assert_allclose(fit.coefficients, coefficients, atol=1e-10)

    # The file alone gives the model's shifts: X from the first 18, Y from the last.
    path = tmp_path / "a_shifts.star"
    path.write_text(text_of(model, Settings(pixel_size=0.9)))
    table = Table(fileName=str(path), tableName="local_motion_model")
    c = np.array([row.rlnMotionModelCoeff for row in table])
    assert [row.rlnMotionModelCoeffsIdx for row in table] == list(range(36))
    shifts = {row.rlnMicrographFrameNumber: row for row in Table(fileName=str(path), tableName="global_shift")}
    start = Table(fileName=str(path), tableName="general")[0].rlnMicrographStartFrame
    for frame, y, x in ((4, 10, 20), (9, 300, 411), (19, 0, 539)):
        z, u, v = frame - start, x / 540 - 0.5, y / 371 - 0.5
        sy, sx = model.shift(frame - 1, y, x)
        assert shifts[frame].rlnMicrographShiftX + relion_shift(c[:18], z, u, v) == pytest.approx(sx, abs=2e-6)
        assert shifts[frame].rlnMicrographShiftY + relion_shift(c[18:], z, u, v) == pytest.approx(sy, abs=2e-6)


def test_residual_is_the_length_of_the_difference():
    model = motion_model((400, 500), n_frames=12)
    fit = fit_polynomial(model)
    # Half a box of 150 px is more than an eighth of this small frame.
    y, x = np.linspace(50, 349, 16), np.linspace(62.5, 436.5, 16)
    error = []
    for t in model.aligned_frames:
        sy, sx = model.shift(t, y[:, None], x[None, :])
        sy0, sx0 = model.shift(0, y[:, None], x[None, :])
        drift = model.global_shifts_px[t] - model.global_shifts_px[0]
        u, v = x[None, :] / 500 - 0.5, y[:, None] / 400 - 0.5
        dx = relion_shift(fit.coefficients[0], t, u, v) - (sx - sx0 - drift[1])
        dy = relion_shift(fit.coefficients[1], t, u, v) - (sy - sy0 - drift[0])
        error.append(np.hypot(dx, dy))
    assert fit.rms_px == pytest.approx(np.sqrt(np.mean(np.square(error))))
    assert fit.max_px == pytest.approx(np.max(error))
    assert 0 < fit.rms_px < 0.15 * 6  # the dome has cubic terms that RELION's polynomial lacks


def test_global_model(tmp_path):
    model = motion_model((512, 640), n_frames=10, first_frame=2, n_aligned=7, local_px=0)
    settings = Settings(pixel_size=1.05, dose_per_frame=1.1, pre_exposure=2, gain="my gains/gain 1.mrc", bin_factor=2)
    path = tmp_path / "a_shifts.star"
    path.write_text(text_of(model, settings, "movies/a b.mrc"))
    general = Table(fileName=str(path), tableName="general")[0]
    assert general.rlnImageSizeX == 640
    assert general.rlnImageSizeY == 512
    assert general.rlnImageSizeZ == 10
    assert general.rlnMicrographMovieName == "movies/a b.mrc"
    assert general.rlnMicrographGainName == "my gains/gain 1.mrc"
    assert general.rlnMicrographBinning == 2
    assert general.rlnMicrographOriginalPixelSize == pytest.approx(1.05)
    assert general.rlnMicrographDoseRate == pytest.approx(1.1)
    assert general.rlnMicrographPreExposure == 2
    assert general.rlnVoltage == 300
    assert general.rlnMicrographStartFrame == 3
    assert general.rlnMotionModelVersion == 0
    rows = list(Table(fileName=str(path), tableName="global_shift"))
    assert [row.rlnMicrographFrameNumber for row in rows] == list(range(1, 11))
    shifts = np.array([(row.rlnMicrographShiftY, row.rlnMicrographShiftX) for row in rows])
    np.testing.assert_allclose(shifts[2:9], model.global_shifts_px, atol=1e-6)
    # RELION would take the frames before the first aligned one as unmoved, and the one after the last as the last.
    np.testing.assert_allclose(shifts[:2], model.global_shifts_px[[0, 0]], atol=1e-6)
    assert np.all(shifts[9] == -9999)
    assert "local_motion_model" not in path.read_text()


@pytest.mark.parametrize("skipped", [2, 30])
@pytest.mark.parametrize("reference", [0, 6])
def test_skipped_first_frames_start_where_the_first_aligned_one_is(tmp_path, reference, skipped):
    """By RELION's rule for them if the first aligned frame is the reference; otherwise nearer than by its rule."""
    rng, scale = np.random.default_rng(6), np.tile([1.0, 1 / 12, 1 / 12**2], 6) * 0.2
    model = polynomial_model(rng.normal(0, 1, (2, 18)) * scale, 400, 500, 13 + skipped, skipped, 13)
    still = np.einsum("l,alyx->ayx", basis(5, 12, np.array([reference]))[0], model.coefficients_px)
    drift = model.global_shifts_px - model.global_shifts_px[reference]
    model = MotionModel((400, 500), model.n_frames, skipped, drift, model.coefficients_px - still[:, None], 0.9)
    path = tmp_path / "a_shifts.star"
    path.write_text(text_of(model, Settings(pixel_size=0.9)))
    relion = RelionMotion(str(path))
    assert relion.start == skipped + reference + 1
    y, x = (a.astype(float) for a in np.mgrid[50:350:20, 63:437:20])
    wanted = np.stack(model.shift(skipped, y, x))
    by_rule = np.sqrt((wanted**2).sum(axis=0).mean())
    away = [
        np.sqrt(((np.stack(relion.shift(frame + 1, y, x)) - wanted) ** 2).sum(axis=0).mean())
        for frame in range(skipped)
    ]
    written = [frame + 1 in relion.global_shift for frame in range(skipped)]
    if reference == 0:
        assert not any(written) and max(away) < 1e-9
    else:
        assert by_rule > 2 and max(away) < by_rule + 1e-6
        assert away[-1] < 0.25 * by_rule  # the polynomial is extrapolated by one frame only
        assert written == sorted(written) and written[-1]  # RELION takes the shift of a frame before, if there is one
        assert all(written) == (skipped == 2)  # far back the extrapolated polynomial is worse


@pytest.mark.parametrize("n_aligned", [2, 3, 4])
def test_few_frames(n_aligned):
    model = motion_model((300, 300), n_frames=n_aligned)
    fit = fit_polynomial(model)
    assert np.isfinite(fit.coefficients).all()


@pytest.mark.parametrize("sampling, upsampling", [(1, 1), (2, 2), (4, 3)])
def test_eer_says_its_sampling_and_grouping(tmp_path, sampling, upsampling):
    """RELION numbers its renderings 1, 2, 3 for 4K, 8K, 16K."""
    general = written(tmp_path, Settings(eer_sampling=sampling), movie="a.eer", hardware_frames=27)["general"]
    assert (general["rlnEERUpsampling"], general["rlnEERGrouping"]) == (upsampling, 27)
    assert "rlnEERUpsampling" not in written(tmp_path, Settings(eer_sampling=2), movie="a.tif")["general"]


def written(tmp_path, settings, movie="a.mrc", **more):
    """The file of a movie with a global motion, read with the starfile package."""
    starfile = pytest.importorskip("starfile")
    path = tmp_path / "a_shifts.star"
    model = motion_model((300, 400), n_frames=4, local_px=0)
    path.write_text(text_of(model, settings, movie, **more))
    return starfile.read(path)


def test_replaced_pixels_are_listed_as_hot_pixels(tmp_path):
    defects = np.array([[0, 5], [7, 399], [299, 0]])
    blocks = written(tmp_path, Settings(defect_file="defects.txt"), defects_px=defects)
    np.testing.assert_array_equal(blocks["hot_pixels"][["rlnCoordinateY", "rlnCoordinateX"]], defects)
    # RELION would read some kinds of defect files once more, in its own way.
    assert "rlnMicrographDefectFile" not in blocks["general"]
    assert "hot_pixels" not in written(tmp_path, Settings(), defects_px=defects[:0])


@pytest.mark.parametrize("n_frames, first", [(24, 0), (40, 3)])
def test_polynomial_against_the_spline_on_a_dense_mesh(tmp_path, n_frames, first):
    """A bending that is quadratic in space and smooth in time, as ice does: the file alone gives it back everywhere."""
    starfile = pytest.importorskip("starfile")
    n, shape = n_frames - first, (1000, 1200)
    coefficients = np.zeros((2, 5, 6, 6))
    greville = np.array([0, 1, 3, 5, 7, 8]) / 8 * 2 - 1
    y, x = np.meshgrid(greville, greville, indexing="ij")
    coefficients[0], coefficients[1] = 4 * (x - 0.7 * y), 3 * (x + 0.5 * y)
    coefficients *= np.array([0, 0.3, 0.6, 0.9, 1.0])[:, None, None]
    model = MotionModel(shape, n_frames, first, np.random.default_rng(0).normal(0, 3, (n, 2)), coefficients, 0.9)
    fit = fit_polynomial(model)
    path = tmp_path / "dense_shifts.star"
    path.write_text(text_of(model, Settings(pixel_size=0.9)))
    blocks = starfile.read(path)
    c = blocks["local_motion_model"]["rlnMotionModelCoeff"].to_numpy()
    shifts = blocks["global_shift"]
    y, x = (np.linspace(0.125 * n, 0.875 * n - 1, m) for n, m in zip(shape, (61, 73)))  # where particles can be
    y, x = y[:, None], x[None, :]
    still = np.array(model.shift(first, y, x)) - model.global_shifts_px[0][:, None, None]
    worst = 0.0
    for frame in range(first + 1, n_frames + 1):
        z, u, v = frame - blocks["general"]["rlnMicrographStartFrame"], x / shape[1] - 0.5, y / shape[0] - 0.5
        sy, sx = model.shift(frame - 1, y, x)
        ty = shifts["rlnMicrographShiftY"][frame - 1] + relion_shift(c[18:], z, u, v)
        tx = shifts["rlnMicrographShiftX"][frame - 1] + relion_shift(c[:18], z, u, v)
        worst = max(worst, np.hypot(ty + still[0] - sy, tx + still[1] - sx).max())
    assert worst == pytest.approx(fit.max_px, rel=0.15)
    assert fit.rms_px < 0.1 and worst < 0.5
    assert residual_warnings(fit, 0.9) == []


@pytest.mark.parametrize("hardware_frames", [None, 5])
@pytest.mark.parametrize("local_px", [0, 4])
@pytest.mark.parametrize("n_defects", [0, 3])
def test_relion_reads_every_combination_of_blocks(n_defects, local_px, hardware_frames):
    """Its reader fails on the block after the last one if that has no empty line at its end."""
    model = motion_model((300, 400), n_frames=6, local_px=local_px)
    defects = np.array([[0, 5], [7, 399], [299, 0]])[:n_defects]
    settings = Settings(pixel_size=0.9, gain="my gain.mrc")
    text = text_of(model, settings, "a b.eer", defects_px=defects, hardware_frames=hardware_frames)
    read = Micrograph(text)
    np.testing.assert_allclose(read.shifts[:, ::-1], model.global_shifts_px, atol=1e-6)
    assert read.hot_pixels == [(x, y) for y, x in defects.tolist()]
    assert (read.coefficients is not None) == bool(local_px)
    if local_px:
        fit = fit_polynomial(model)
        np.testing.assert_allclose(read.coefficients, fit.coefficients.ravel(), rtol=1e-10)
    assert read.general["rlnMicrographMovieName"] == "a b.eer"
    assert read.general["rlnMicrographGainName"] == "my gain.mrc"
    assert read.general.get("rlnEERGrouping") == (str(hardware_frames) if hardware_frames else None)
    if local_px and not n_defects:  # the reader is as strict as RELION's: without the empty line it finds no shifts
        assert (Micrograph(text.rstrip("\n") + "\n").shifts == -9999).all()


@pytest.mark.parametrize("binning", [1, 2])
@pytest.mark.parametrize("local_px", [0, 4])
def test_relion_finds_a_particle_of_a_cropped_micrograph(local_px, binning):
    model = motion_model((400, 500), n_frames=12, local_px=local_px)
    crop = {"crop_offset_x": 120, "crop_offset_y": 48, "crop_dim_x": 300, "crop_dim_y": 320}
    settings = Settings(pixel_size=0.9, bin_factor=binning, **crop)
    whole, cropped = (Micrograph(text_of(model, s)) for s in (Settings(pixel_size=0.9), settings))
    for y, x in ((0, 0), (100, 250), (319, 299)):
        for frame in range(1, 13):
            # RELION looks at the particle's coordinates in the micrograph, less the shift.
            sy, sx = cropped.shift(frame, y, x)
            ty, tx = whole.shift(frame, y + 48, x + 120)
            assert y - sy == pytest.approx(y + 48 - ty, abs=3e-6)
            assert x - sx == pytest.approx(x + 120 - tx, abs=3e-6)


def test_relion_finds_a_particle_where_the_micrograph_has_it(tmp_path):
    """The field is zero in the reference frame, the 5th: RELION's shifts, from the file alone, are the model's own."""
    starfile = pytest.importorskip("starfile")
    first, n, shape = 2, 9, (400, 500)
    z = np.arange(n) - 4.0
    coefficients = np.random.default_rng(0).normal(0, 1, (2, 18)) * np.tile([0.3, 0.03, 0.004], 6)
    from_first = polynomial_model(coefficients, *shape, n_frames=12, first_frame=first, n_aligned=n)
    at_fifth = basis(5, n - 1, np.array([4.0]))[0]
    still = np.einsum("l,alyx->ayx", at_fifth, from_first.coefficients_px)
    spline = from_first.coefficients_px - still[:, None]
    model = MotionModel(shape, 12, first, from_first.global_shifts_px, spline, 0.9)
    fit = fit_polynomial(model)
    assert fit.reference == 4 and fit.max_px < 1e-9
    path = tmp_path / "a_shifts.star"
    path.write_text(text_of(model, Settings(pixel_size=0.9)))
    blocks = starfile.read(path)
    assert blocks["general"]["rlnMicrographStartFrame"] == first + 5
    c, shifts = blocks["local_motion_model"]["rlnMotionModelCoeff"].to_numpy(), blocks["global_shift"]
    for k in range(n):
        frame = first + 1 + k
        assert frame - blocks["general"]["rlnMicrographStartFrame"] == z[k]
        for y, x in ((0, 0), (123, 456), (399, 499)):
            sy, sx = model.shift(frame - 1, y, x)
            u, v = x / shape[1] - 0.5, y / shape[0] - 0.5
            assert shifts["rlnMicrographShiftX"][frame - 1] + relion_shift(c[:18], z[k], u, v) == pytest.approx(
                sx, abs=2e-6
            )
            assert shifts["rlnMicrographShiftY"][frame - 1] + relion_shift(c[18:], z[k], u, v) == pytest.approx(
                sy, abs=2e-6
            )


def test_a_polynomial_that_cannot_follow_is_told():
    model = motion_model((400, 500), n_frames=12, local_px=60)
    fit = fit_polynomial(model)
    (warning,) = residual_warnings(fit, 1.5)
    assert f"it is {fit.rms_px * 1.5:.1f} A rms away" in warning and "The micrograph is not affected" in warning
    assert residual_warnings(fit, 0.99 / fit.rms_px) == []


@pytest.mark.parametrize("words, warns", [("", False), ("--local 6 --local-points 4", True)])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_motion_as_smooth_as_in_real_movies_gives_no_warning(words, warns, seed):
    """The phantoms of the command at 1 A: those it makes unless told otherwise, and rougher ones."""
    args = build_parser().parse_args(["phantom", "--output", "o", "--size", "256", "256", *words.split()])
    truth = made_phantom(args, seed).truth
    n, (ny, nx) = truth.n_frames, truth.frame_shape
    t, y, x = np.arange(n), np.linspace(0, ny - 1, 40), np.linspace(0, nx - 1, 40)
    shift = np.stack(truth.shift(t[:, None, None], y[:, None], x[None, :]))
    drift = shift.mean(axis=(2, 3))
    inverses = [np.linalg.pinv(basis(9, length, at)) for length, at in ((n - 1, t), (ny - 1, y), (nx - 1, x))]
    coefficients = np.einsum("atyx,lt,my,nx->almn", shift - drift[:, :, None, None], *inverses)
    model = MotionModel((ny, nx), n, 0, drift.T, coefficients, truth.pixel_size_A)
    assert bool(residual_warnings(fit_polynomial(model), 1.0)) is warns
