"""Every operation of a backend against a float64 NumPy reference.

CUDA kernels run on the CPU (tests/emulation), or on the GPU that FLEXALIGN_TEST_DEVICE names.
"""

from __future__ import annotations

from typing import Any, Tuple

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from flexalign_plugin.backend import LEAST_INTERPOLATION_POWER, NEGLIGIBLE_WEIGHT, FrameSource, Mix, select_band
from flexalign_plugin.band import Band
from flexalign_plugin.correction.resampling import plain_mix
from flexalign_plugin.errors import SettingsError
from flexalign_plugin.kernels import select_backend
from flexalign_plugin.motion.lowpass import correlation_band, lowpass
from flexalign_plugin.motion.model import MotionModel
from flexalign_plugin.motion.pairwise import all_pairs
from flexalign_plugin.movies import neighbour_table

from ..emulation import cuda_backend
from ..in_memory import Stack

NY, NX, N = 150, 210, 5


@pytest.fixture(params=["cpu", "cuda"], scope="module")
def backend(request):
    return select_backend("cpu", threads=3) if request.param == "cpu" else cuda_backend()


def on_host(backend: Any, opaque: Any) -> np.ndarray:
    if isinstance(opaque, np.ndarray):
        return opaque
    return opaque.values if hasattr(opaque, "values") else backend.device.download(opaque)


def source(frames: np.ndarray, dark: Any = None, gain: Any = None, defects: Any = None) -> FrameSource:
    return FrameSource(Stack(frames), dark, gain, defects)


def random_frames(dtype: str = "u1", n: int = N) -> np.ndarray:
    return np.random.default_rng(1).poisson(20.0, (n, NY, NX)).astype(dtype)


def moved(image: np.ndarray, shift: Tuple[float, float]) -> np.ndarray:
    """Image whose content is moved by -shift: shifting it back by `shift` restores it. Periodic, exact."""
    ky, kx = np.fft.fftfreq(image.shape[0])[:, None], np.fft.rfftfreq(image.shape[1])
    spectrum = np.fft.rfft2(image) * np.exp(2j * np.pi * (ky * shift[0] + kx * shift[1]))
    return np.fft.irfft2(spectrum, image.shape)


def smooth_image(ny: int = NY, nx: int = NX, limit: float = 0.1, seed: int = 0) -> np.ndarray:
    """Random image without anything above `limit` cycles/px."""
    spectrum = np.fft.rfft2(np.random.default_rng(seed).standard_normal((ny, nx)))
    k = np.hypot(np.fft.fftfreq(ny)[:, None], np.fft.rfftfreq(nx))
    return np.fft.irfft2(spectrum * (k < limit), (ny, nx))


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "f2", "f4", ">i2"])
def test_sum_and_means_of_raw_frames(backend, dtype):
    frames = random_frames(dtype)
    total, means = backend.sum_raw(source(frames), range(1, 4))
    np.testing.assert_array_equal(total, frames[1:4].astype(float).sum(axis=0))
    np.testing.assert_allclose(means, frames[1:4].astype(float).mean(axis=(1, 2)), rtol=1e-12)


def test_mean_of_a_frame_with_nan_is_not_finite(backend):
    frames = random_frames("f4")
    frames[2, 3, 4] = np.nan
    assert np.isfinite(backend.sum_raw(source(frames), range(N))[1]).tolist() == [True, True, False, True, True]


def test_correction(backend):
    rng = np.random.default_rng(2)
    frames = random_frames("u2")
    dark = rng.random((NY, NX), np.float32)
    gain = rng.random((NY, NX), np.float32) + 0.5
    bad = np.zeros((NY, NX), bool)
    bad[0, 0] = bad[70:73, 100] = bad[:, 37] = True
    out = backend.correct(source(frames, dark, gain, neighbour_table(bad)), frames[3])
    expected = (frames[3].astype(float) - dark) * gain
    np.testing.assert_allclose(out[~bad], expected[~bad], rtol=1e-6)
    around = expected[60:64, 36:39][:, [0, 2]]
    assert around.min() <= out[61, 37] <= around.max()


def test_spectra_are_crops_of_the_corrected_frames_transform(backend):
    frames = random_frames("u1")
    gain = np.random.default_rng(3).random((NY, NX), np.float32) + 0.5
    band = Band(full=(144, 200), size=(60, 50))
    spectra = on_host(backend, backend.spectra(source(frames, gain=gain), range(1, 4), band))
    part = (frames[1:4].astype(float) * gain)[:, 3:147, 5:205]
    full = np.fft.rfft2(part)
    expected = np.concatenate([full[:, :30, :26], full[:, -30:, :26]], axis=1)
    assert spectra.shape == (1, 3, 60, 26)
    np.testing.assert_allclose(spectra[0], expected, atol=1e-6 * np.abs(full).max())


def spectra_of(images: np.ndarray) -> np.ndarray:
    """(1, n, ny, nx // 2 + 1) as the CPU backend holds them."""
    return np.fft.rfft2(images)[None].astype(np.complex64)


def test_patch_spectra_apply_the_exact_shift(backend):
    image = smooth_image(limit=0.4)
    shifts = np.array([[0.0, 0.0], [3.3, -2.7], [-6.5, 8.25]])
    spectra = spectra_of(np.stack([moved(image, s) for s in shifts]))
    corners = np.array([[10, 20], [40, 111]])
    band = Band((NY, NX), (NY, NX))
    patches = on_host(backend, backend.patch_spectra(spectra, band, shifts, corners, (64, 80)))
    image = image - image.mean()
    for p, (y, x) in enumerate(corners):
        cut = image[y : y + 64, x : x + 80]
        expected = np.fft.rfft2(cut - cut.mean())
        for t in range(3):  # all three frames show the same content there
            np.testing.assert_allclose(patches[p, t], expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("group", [1, 2, 3, 4])
def test_correlation_windows_leave_out_what_groups_share(backend, group):
    rng = np.random.default_rng(4)
    images = rng.standard_normal((N, 48, 60))
    weight = rng.random((48, 31)).astype(np.float32)
    weight[24] = weight[:, -1] = 0  # Nyquist, as always
    weight[weight < 0.01] = 0
    pairs = all_pairs(N)
    shifts = rng.uniform(-3, 3, (1, N, 2))
    windows = backend.correlate(spectra_of(images), (48, 60), weight, pairs, 3.0, 0.5, shifts, group)
    ky, kx = np.fft.fftfreq(48)[:, None], np.fft.rfftfreq(60)
    f = np.fft.rfft2(images) * np.exp(
        -2j * np.pi * (ky * shifts[0, :, 0, None, None] + kx * shifts[0, :, 1, None, None])
    )
    members = [[m for m in range(t - (group - 1) // 2, t + group // 2 + 1) if 0 <= m < N] for t in range(N)]
    offsets = np.arange(-3, 3.01, 0.5)
    double = np.where((np.arange(31) == 0) | (np.arange(31) == 30), 1, 2)
    for p, (i, j) in enumerate(pairs):
        product = sum(f[a] * f[b].conj() for a in members[i] for b in members[j] if a != b)
        product = product * weight * double / (len(members[i]) * len(members[j]))
        wave_y, wave_x = (np.exp(2j * np.pi * np.outer(offsets, k)) for k in (ky.ravel(), kx))
        expected = (wave_y @ product @ wave_x.T).real / (48 * 60)
        np.testing.assert_allclose(windows.values[0, p], expected, atol=2e-5 * np.abs(expected).max())


def test_windows_without_any_weight_are_zero_and_their_peaks_are_on_the_rim(backend):
    images = np.random.default_rng(4).standard_normal((2, 3, 48, 60))
    spectra = np.fft.rfft2(images).astype(np.complex64)
    pairs = all_pairs(3)
    windows = backend.correlate(spectra, (48, 60), np.zeros((48, 31), np.float32), pairs, 3.0, 0.5)
    assert windows.values.shape == (2, len(pairs), 13, 13)
    assert not windows.values.any()
    peaks = windows.peaks()
    assert peaks.on_rim.shape == (2, len(pairs)) and peaks.on_rim.all()
    assert not peaks.height.any() and not peaks.noise.any()


def test_band_selection_leaves_out_weights_up_to_the_negligible_one():
    """Rows and columns count if they have a weight above NEGLIGIBLE_WEIGHT times the largest, not if it is equal."""
    limit = 2.0 * NEGLIGIBLE_WEIGHT
    weight = np.zeros((6, 5))
    weight[1, 0], weight[1, 2] = 2.0, 0.5
    weight[2, 1] = limit
    weight[5, 4] = np.nextafter(limit, 1)
    selected = select_band((6, 8), weight)
    assert selected.rows.tolist() == [1, 5] and selected.cols.tolist() == [0, 2, 4]
    np.testing.assert_array_equal(selected.root_weight, np.sqrt([[2.0, 0.5, 0], [0, 0, limit]]).astype(np.float32))
    assert selected.root_weight.dtype == np.float32
    np.testing.assert_allclose(selected.ky, [1 / 6, -1 / 6], rtol=1e-15)
    np.testing.assert_allclose(selected.kx, [0, 2 / 8, 4 / 8], rtol=1e-15)


@pytest.mark.parametrize("sx, expected", [(8, [1, 2, 2, 2, 1]), (7, [1, 2, 2, 2])])
def test_columns_that_stand_for_two_count_twice(sx, expected):
    """All but the first column and, for an even width, the Nyquist column."""
    selected = select_band((6, sx), np.ones((6, sx // 2 + 1), np.float32))
    np.testing.assert_allclose(selected.column_factor, np.array(expected) / (6 * sx), rtol=1e-15)
    np.testing.assert_allclose(selected.ky, np.fft.fftfreq(6), rtol=1e-15)
    np.testing.assert_allclose(selected.kx, np.fft.rfftfreq(sx), rtol=1e-15)


def test_no_band_is_selected_where_every_weight_is_zero():
    selected = select_band((6, 8), np.zeros((6, 5), np.float32))
    assert selected.rows.size == selected.cols.size == selected.root_weight.size == 0


def test_peaks_find_the_shift(backend):
    """The correlation of a low-passed image is found to 5e-3 of the pixel of the correlation image."""
    shifts = np.array([[0.0, 0.0], [4.31, -7.77], [-2.5, 1.04], [0.35, 9.6]])
    image = smooth_image(192, 192, 0.45)
    band = correlation_band((192, 192), 4.4, 30.0)
    assert band.size == (192, 192)
    weight = lowpass(band, 4.4, 30.0) ** 2
    pairs = all_pairs(4)
    windows = backend.correlate(spectra_of(np.stack([moved(image, s) for s in shifts])), band.size, weight, pairs, 20)
    peaks = windows.peaks()
    true = shifts[pairs[:, 1]] - shifts[pairs[:, 0]]
    assert not peaks.on_rim.any()
    np.testing.assert_allclose(peaks.position[0], true, atol=5e-3)
    assert (peaks.height > 5 * peaks.noise).all()


def test_peaks_on_the_rim_are_marked(backend):
    image = smooth_image(96, 96, 0.1)
    windows = backend.correlate(
        spectra_of(np.stack([image, moved(image, (12.0, 0.0))])),
        (96, 96),
        lowpass(Band((96, 96), (96, 96)), 4.4, 30.0) ** 2,
        all_pairs(2),
        16,
    )
    assert windows.peaks(radius=8.0).on_rim.all()
    found = windows.peaks(around=np.array([[[10.0, 1.0]]]), radius=8.0)
    assert not found.on_rim.any()
    np.testing.assert_allclose(found.position[0, 0], [12, 0], atol=0.02)


def test_objective_is_the_power_of_the_sum(backend):
    """Sum over pairs at trial shifts = (|sum F|^2 - sum |F|^2) / 2; gradient = finite differences."""
    rng = np.random.default_rng(5)
    images = np.stack([smooth_image(64, 72, 0.12, seed=s) for s in range(4)])
    f = spectra_of(images)
    weight = lowpass(Band((64, 72), (64, 72)), 1.0, 9.0)
    pairs = all_pairs(4)
    windows = backend.correlate(f, (64, 72), weight, pairs, 4.0, 0.5)
    ones = np.ones((1, len(pairs)))
    shifts = rng.uniform(-0.9, 0.9, (1, 4, 2))
    value, gradient = windows.objective(shifts, ones)
    of_sum, of_each = backend.power(f, (64, 72), shifts)
    double = np.where((np.arange(37) == 0) | (np.arange(37) == 36), 1, 2)
    expected = 0.5 * (weight * double * (of_sum - of_each)).sum() / (64 * 72)
    scale = (weight * double * of_each).sum() / (64 * 72)
    assert abs(value[0] - expected) < 1e-3 * scale
    for t in range(4):
        for axis in range(2):
            h = np.zeros((1, 4, 2))
            h[0, t, axis] = 1e-4
            slope = (windows.objective(shifts + h, ones)[0] - windows.objective(shifts - h, ones)[0]) / 2e-4
            assert abs(gradient[0, t, axis] - slope[0]) < 1e-6 * scale


@pytest.mark.parametrize("n, size", [(4, (64, 72)), (19, (150, 36))])
def test_aligned_power(backend, n, size):
    """Value, slopes and curvature are those of sums over all coefficients of the full spectrum, in float64."""
    (sy, sx), rng = size, np.random.default_rng(5)
    images = rng.standard_normal((3, n, sy, sx))
    spectra = np.fft.rfft2(images).astype(np.complex64)
    weight = lowpass(Band(size, size), 1.0, 6.0) ** 2
    used = weight > NEGLIGIBLE_WEIGHT * weight.max()
    weight[~used.any(axis=1)] = weight[:, ~used.any(axis=0)] = 0
    shifts, factors = rng.uniform(-3, 3, (3, n, 2)), np.array([1.0, 0.5, 2.0])
    power = backend.aligned_power(spectra, size, weight)
    value, slopes = power.slopes(shifts)

    ky, kx = (v.ravel() for v in np.meshgrid(np.fft.fftfreq(sy), np.fft.rfftfreq(sx), indexing="ij"))
    k = 2 * np.pi * np.stack([ky, kx])
    double = np.where((kx == 0) | (kx == 0.5), 1, 2) * weight.ravel()
    moved = spectra.reshape(3, n, -1) * np.exp(-1j * np.tensordot(shifts, k, 1))
    pairs = np.einsum("btk,buk,k->btu", moved, moved.conj(), double)
    own = np.einsum("btt->bt", pairs).real
    np.testing.assert_allclose(value, 0.5 * (pairs.real.sum(axis=(1, 2)) - own.sum(axis=1)), atol=1e-5 * own.sum())
    scale = np.abs(k).max() * own.max() * np.sqrt(n)
    expected = np.einsum("bk,btk,k,ak->bta", moved.sum(axis=1).conj(), moved, double, k, optimize=True).imag
    np.testing.assert_allclose(slopes, expected, atol=1e-5 * scale)

    products = np.einsum("b,btk,buk,k,ak,ck->atcu", factors, moved.conj(), moved, double, k, k, optimize=True).real
    each = np.arange(n)
    products[:, each, :, each] = 0
    bent = -products
    bent[:, each, :, each] = products.sum(axis=3).transpose(1, 0, 2)
    curvature = power.curvature(shifts, factors)
    np.testing.assert_allclose(curvature, bent, atol=1e-5 * np.abs(bent).max())
    step = 1e-3 * rng.standard_normal(shifts.shape[1:])
    change = np.tensordot(factors, power.slopes(shifts + step)[1] - power.slopes(shifts - step)[1], 1)
    np.testing.assert_allclose(np.einsum("atcu,uc->ta", curvature, -2 * step), change, atol=0.02 * np.abs(change).max())


def test_aligned_power_without_weights_is_zero(backend):
    spectra = np.ones((2, 3, 8, 5), np.complex64)
    power = backend.aligned_power(spectra, (8, 8), np.zeros((8, 5), np.float32))
    value, slopes = power.slopes(np.ones((2, 3, 2)))
    assert not value.any() and not slopes.any() and slopes.shape == (2, 3, 2)
    assert not power.curvature(np.ones((2, 3, 2)), np.ones(2)).any()


def test_power(backend):
    rng = np.random.default_rng(6)
    images = rng.standard_normal((2, 3, 32, 40))
    spectra = np.fft.rfft2(images).astype(np.complex64)
    shifts = rng.uniform(-2, 2, (2, 3, 2))
    of_sum, of_each = backend.power(spectra, (32, 40), shifts)
    ky, kx = np.fft.fftfreq(32)[:, None], np.fft.rfftfreq(40)
    f = np.fft.rfft2(images) * np.exp(-2j * np.pi * (ky * shifts[..., 0, None, None] + kx * shifts[..., 1, None, None]))
    np.testing.assert_allclose(of_sum, (np.abs(f.sum(axis=1)) ** 2).mean(axis=0), rtol=1e-3, atol=1e-2)
    np.testing.assert_allclose(of_each, (np.abs(f) ** 2).sum(axis=1).mean(axis=0), rtol=1e-5)


def random_model(seed: int = 7, n: int = N, local: bool = True) -> MotionModel:
    rng = np.random.default_rng(seed)
    coefficients = rng.uniform(-1.5, 1.5, (2, 3, 3, 3)) if local else None
    return MotionModel((NY, NX), n, 0, rng.uniform(-6, 6, (n, 2)), coefficients, 1.0)


def test_warp_against_two_dimensional_interpolation(backend):
    """Two one-dimensional passes and a linear mesh against scipy's quintic spline at every pixel.

    The field bends by up to (3 px) / (50 px)^2, linear over 32 px it is off by 32^2 / 8 of that: 0.15 px at the very
    most here, hundred times more than in a real movie (field over thousands of pixels). Hence the loose bound on a
    smooth image and the tight one on a linear field below.
    """
    frames = (100 * smooth_image(limit=0.06)[None] + np.zeros((N, 1, 1))).astype(np.float32)
    model = random_model()
    weights = np.random.default_rng(8).random((2, N))
    out = on_host(backend, backend.warp_sum(source(frames), model, range(N), weights, np.zeros(N)))
    y, x = np.mgrid[:NY, :NX]
    inside = np.s_[15:-15, 15:-15]
    for w, image in zip(weights, out):
        expected = np.zeros((NY, NX))
        for t in range(N):
            sy, sx = model.shift(t, y, x)
            expected += w[t] * map_coordinates(frames[t].astype(float), [y - sy, x - sx], order=5, prefilter=False)
        assert np.abs(image - expected)[inside].max() < 0.05 * np.abs(expected).max()


def test_warp_through_a_linear_field_is_exact(backend):
    """On a field linear in y and x the mesh is exact: the only error is the separation into two passes.

    The first pass gives each of the four source rows of a pixel its own sx, the two-dimensional kernel all of them the
    same. At 2e-3 px/px (strong motion: 6 px over 3000) rows one and two away are 2e-3 and 4e-3 px off, and pixels of
    this white noise differ by up to 30 from their neighbours: 0.1, 2 % of the noise, at the very most.
    """
    frames = random_frames("f4", 1)
    ramp = np.linspace(-1, 1, 2)
    coefficients = np.zeros((2, 1, 2, 2))
    coefficients[0, 0] = 0.12 * ramp[:, None] + 0.15 * ramp
    coefficients[1, 0] = -0.15 * ramp[:, None] + 0.1 * ramp
    model = MotionModel((NY, NX), 1, 0, np.array([[2.3, -4.6]]), coefficients, 1.0)
    (out,) = on_host(backend, backend.warp_sum(source(frames), model, [0], np.ones((1, 1)), np.zeros(1)))
    y, x = np.mgrid[:NY, :NX]
    sy, sx = model.shift(0, y, x)
    expected = map_coordinates(frames[0].astype(float), [y - sy, x - sx], order=5, prefilter=False)
    np.testing.assert_allclose(out[8:-8, 8:-8], expected[8:-8, 8:-8], atol=0.1)


def test_warp_by_whole_pixels_moves_content_by_the_shift(backend):
    frames = np.zeros((1, NY, NX), np.uint8)
    frames[0, 60, 80] = 100
    model = MotionModel((NY, NX), 1, 0, np.array([[5.0, -7.0]]), None, 1.0)
    (out,) = on_host(backend, backend.warp_sum(source(frames), model, [0], np.ones((1, 1)), np.zeros(1)))
    kernel = np.array([1, 26, 66, 26, 1]) / 120
    np.testing.assert_allclose(out[63:68, 71:76], 100 * np.outer(kernel, kernel), rtol=1e-5)
    assert abs(out.sum() - 100) < 1e-3


def test_warp_fills_what_a_frame_does_not_cover(backend):
    frames = np.full((2, NY, NX), 8, np.uint8)
    for shift in ([200.0, 0.0], [-30.5, 12.25], [0.0, -500.0]):
        model = MotionModel((NY, NX), 2, 0, np.array([[0.0, 0.0], shift]), None, 1.0)
        (out,) = on_host(
            backend, backend.warp_sum(source(frames), model, [0, 1], np.full((1, 2), 0.5), np.full(2, 8.0))
        )
        np.testing.assert_allclose(out, 8.0, rtol=1e-5)


@pytest.mark.parametrize("ny,nx", [(150, 210), (64, 96), (33, 31)])
def test_mix_against_its_definition(backend, ny, nx):
    """Sums filtered by random tables (1 and 5 radial steps) and whitened, against NumPy in double precision.

    Mixes of sums that others use too, of one that no other uses, and of none.
    """
    rng = np.random.default_rng(12)
    frames = rng.standard_normal((4, ny, nx)).astype(np.float32)
    model = MotionModel((ny, nx), 4, 0, np.zeros((4, 2)), None, 1.0)
    sums = backend.warp_sum(source(frames), model, range(4), np.eye(4), np.zeros(4))
    blurred = on_host(backend, sums).astype(np.float64)
    fy, fx = np.fft.fftfreq(ny)[:, None], np.arange(nx // 2 + 1) / nx
    order = np.arange(6)
    mixes, expected = [], []
    for steps, used in ((5, [0, 1, 3]), (1, [0, 3]), (5, [2]), (1, [])):
        factors = np.zeros((steps, 4), np.float32)
        factors[:, used] = rng.uniform(-1, 1, (steps, len(used)))
        power = np.zeros((steps, 6, 6), np.float32)
        power[:, 0, 0], power[:, 1, 0], power[:, 0, 5] = rng.uniform(2, 3, steps), 0.5, rng.uniform(0, 1, steps)
        power[0] = 0  # below the floor
        mixes.append(Mix(factors, power))
        step = np.minimum((np.hypot(fy, fx) * steps * np.sqrt(2)).astype(int), steps - 1)
        cosines = [np.cos(2 * np.pi * f[..., None] * order) for f in (fy, fx[None])]
        mean = np.einsum("yxlm,yal,bxm->yx", power[step].astype(float), *cosines)
        mixed = np.einsum("yxs,syx->yx", factors[step], np.fft.rfft2(blurred)) / np.sqrt(
            np.maximum(mean, LEAST_INTERPOLATION_POWER)
        )
        expected.append(np.fft.irfft2(mixed, (ny, nx)))
    for image, right in zip(backend.mix(sums, mixes), expected):
        assert image.dtype == np.float32
        np.testing.assert_allclose(image, right, atol=2e-5 * np.abs(right).max())


@pytest.mark.parametrize("shape, size", [((90, 120), (45, 60)), ((91, 77), (64, 50)), ((40, 64), (40, 33))])
def test_fourier_crop_keeps_the_low_frequencies(backend, shape, size):
    image = np.random.default_rng(3).standard_normal(shape).astype(np.float32) + 2
    full, out = np.fft.fft2(image), np.zeros(size, complex)
    ky, kx = (np.fft.fftfreq(n, 1 / n).astype(int) for n in size)
    keep = [np.abs(k) * 2 < n if n < m else np.ones(n, bool) for k, n, m in zip((ky, kx), size, shape)]
    out[np.ix_(*keep)] = full[np.ix_(ky[keep[0]], kx[keep[1]])]
    expected = np.fft.ifft2(out).real * (np.prod(size) / np.prod(shape))
    cropped = backend.fourier_crop(image, size)
    assert cropped.dtype == np.float32
    np.testing.assert_allclose(cropped, expected, atol=2e-6)


@pytest.mark.parametrize("tile", [32, 31])
def test_power_of_tiles(backend, tile):
    rng = np.random.default_rng(4)
    image = (1000 + rng.standard_normal((90, 120))).astype(np.float32)
    rows, columns, window = np.array([0, 20, 58]), np.array([0, 17, 40, 60, 88]), np.hanning(tile)
    expected = np.zeros((tile, tile))
    for y in rows:
        for x in columns:
            part = image[y : y + tile, x : x + tile].astype(float)
            expected += np.abs(np.fft.fft2((part - part.mean()) * np.outer(window, window))) ** 2
    found = backend.tile_power(image, rows, columns, window)
    assert (found.shape, found.dtype) == ((tile, tile), np.float64)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * expected.mean())


def test_results_do_not_depend_on_the_number_of_threads():
    frames = random_frames("u1")
    model = random_model()
    band = Band((144, 200), (60, 50))
    bytes_of = []
    for threads in (1, 2, 5):
        backend = select_backend("cpu", threads=threads)
        spectra = backend.spectra(source(frames), range(N), band)
        windows = backend.correlate(spectra, band.size, lowpass(band, 1.0, 10.0), all_pairs(N), 6)
        total = backend.warp_sum(source(frames), model, range(N), np.ones((1, N)), np.zeros(N))
        (image,) = backend.mix(total, [plain_mix(model, range(N))])
        bytes_of.append((spectra.tobytes(), windows.values.tobytes(), total.tobytes(), image.tobytes()))
    assert bytes_of[0] == bytes_of[1] == bytes_of[2]


def test_an_unknown_device_is_refused():
    with pytest.raises(SettingsError, match="GPU cuda:7"):
        select_backend("cuda:7")


@pytest.mark.parametrize("ny,nx", [(150, 210), (128, 129), (33, 31)])
def test_the_cpu_field_is_right_up_to_the_edge(ny, nx):
    """Nodes of the mesh beyond the frame continue a linear field instead of stopping at the edge's value."""
    from flexalign_plugin.kernels.cpu import MESH_SPACING_PX, _field_mesh

    coefficients = np.zeros((2, 1, 2, 2))
    coefficients[0, 0] = [[0, 1], [2, 3]]
    coefficients[1, 0] = [[5, 3], [4, 2]]
    mesh = _field_mesh(MotionModel((ny, nx), 1, 0, np.zeros((1, 2)), coefficients, 1.0), 0)
    y = np.arange(mesh.shape[1])[:, None] * MESH_SPACING_PX / (ny - 1)
    x = np.arange(mesh.shape[2]) * MESH_SPACING_PX / (nx - 1)
    last_y = (ny - 1) % MESH_SPACING_PX == 0  # the node after the edge is not needed then
    last_x = (nx - 1) % MESH_SPACING_PX == 0
    part = np.s_[: mesh.shape[1] - last_y, : mesh.shape[2] - last_x]
    np.testing.assert_allclose(mesh[0][part], (2 * y + x)[part], atol=1e-9)
    np.testing.assert_allclose(mesh[1][part], (5 - y - 2 * x)[part], atol=1e-9)


def test_noise_of_a_peak_leaves_out_four_pixels_around_it(backend):
    """The correlation with a single pixel is the other image itself: 0 but for its peak and half of that at a distance,
    which is noise only where it is more than 4 pixels away. Of the 25 x 25 values of a window 49 are the peak's."""
    for distance in (2, 4, 5, 8):
        images = np.zeros((2, 64, 64))
        images[:, 0, 0] = 1.0
        images[1, 0, distance] = 0.5
        windows = backend.correlate(spectra_of(images), (64, 64), np.ones((64, 33), np.float32), all_pairs(2), 12.0)
        noise = float(windows.peaks().noise[0, 0]) / float(on_host(backend, windows.values).max())
        expected = 0.0 if distance <= 4 else 0.5 * np.sqrt(1 / (625 - 49) - 1 / (625 - 49) ** 2)
        assert noise == pytest.approx(expected, abs=1e-4)


def test_nothing_is_amplified_more_than_a_hundred_times(backend):
    """The mean power of the interpolation is taken as 1e-4 where it is less, here 0 at all frequencies."""
    frames = random_frames("f4", 1)
    model = MotionModel((NY, NX), 1, 0, np.zeros((1, 2)), None, 1.0)
    sums = backend.warp_sum(source(frames), model, [0], np.ones((1, 1)), np.zeros(1))
    blurred = on_host(backend, sums).astype(np.float64)[0]
    (image,) = backend.mix(sums, [Mix(np.ones((1, 1), np.float32), np.zeros((1, 6, 6), np.float32))])
    np.testing.assert_allclose(on_host(backend, image), 100 * blurred, atol=1e-4 * np.abs(blurred).max() * 100)


@pytest.mark.parametrize("part, used", [(2.9e-4, False), (3.1e-4, True)])
def test_weights_that_are_negligible(part, used):
    """A row and a column in which no weight is above 3e-4 of the largest one are left out."""
    weight = np.zeros((32, 17), np.float32)
    weight[:4, :5] = 1.0
    weight[9, 2] = weight[2, 11] = part
    selected = select_band((32, 32), weight)
    assert (9 in selected.rows) == (11 in selected.cols) == used
    assert {0, 1, 2, 3} <= set(selected.rows) and {0, 1, 2, 3, 4} <= set(selected.cols)


def test_the_cpu_field_is_fine_enough_for_a_strongly_bent_movie():
    """Doming by 10 px over 4096 px, a parabola: linear between nodes 32 px apart it is off by its second derivative
    80 / 4096^2 times 32^2 / 8, 6e-4 px."""
    from flexalign_plugin.kernels.cpu import MESH_SPACING_PX, _field_mesh

    n = 4096
    coefficients = np.zeros((2, 1, 3, 1))
    coefficients[0, 0, :, 0] = [10.0, -10.0, 10.0]  # 10 (2 y / n - 1)^2
    model = MotionModel((n, 64), 1, 0, np.zeros((1, 2)), coefficients, 1.0)
    mesh = _field_mesh(model, 0)[0, :, 0]
    y = np.arange(n)
    linear = np.interp(y, np.arange(len(mesh)) * MESH_SPACING_PX, mesh)
    true = 10 * (2 * y / (n - 1) - 1) ** 2
    np.testing.assert_allclose(model.shift(0, y, 0 * y)[0], true, atol=1e-9)
    assert np.abs(linear - true).max() < 1e-3


@pytest.mark.parametrize("axis", [0, 1])
def test_a_pair_beyond_its_window_neither_pushes_nor_pulls(backend, axis):
    """Its window reaches 4 pixels: farther along one axis nothing changes with that, but still with the other."""
    images = np.stack([smooth_image(64, 72, 0.12, seed=s) for s in range(2)])
    windows = backend.correlate(spectra_of(images), (64, 72), np.ones((64, 37), np.float32), all_pairs(2), 4.0, 0.5)
    values, slopes = [], []
    for away in (2.0, 6.0, 9.0, -6.0, -9.0):
        shifts = np.full((1, 2, 2), 0.3)
        shifts[0, 0], shifts[0, 1, axis] = 0.0, away
        value, slope = windows.objective(shifts, np.ones((1, 1)))
        values.append(float(value[0]))
        slopes.append(slope[0])
    assert slopes[0].all()
    for slope in slopes[1:]:
        assert (slope[:, axis] == 0).all() and slope[:, 1 - axis].all()
    assert values[1] == values[2] != values[3] == values[4]
