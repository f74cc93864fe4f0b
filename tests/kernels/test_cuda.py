"""The CUDA backend against the CPU backend, and what only it does: memory, batches, launches.

No GPU is needed;
where FLEXALIGN_TEST_DEVICE names one, the comparisons with the CPU run on it.
"""

from __future__ import annotations

from typing import Any, List

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from flexalign_plugin.aligner import align
from flexalign_plugin.backend import FrameSource, Mix
from flexalign_plugin.band import Band
from flexalign_plugin.correction.resampling import plain_mix
from flexalign_plugin.errors import FlexAlignError
from flexalign_plugin.kernels import select_backend
from flexalign_plugin.motion.lowpass import lowpass
from flexalign_plugin.motion.model import MotionModel
from flexalign_plugin.motion.pairwise import all_pairs
from flexalign_plugin.movies import Corrections, neighbour_table
from flexalign_plugin.phantoms.phantom import particle_phantom
from flexalign_plugin.settings import Settings

from ..emulation import cuda_backend, emulated_backend
from ..in_memory import Stack

NY, NX, N = 100, 140, 4
BAND = Band((96, 128), (60, 80))


def corrected_source(seed: int = 0) -> FrameSource:
    """Frames with dark, gain and defects at the rim, in a cluster and along a row."""
    rng = np.random.default_rng(seed)
    bad = np.zeros((NY, NX), bool)
    bad[0, 0] = bad[40:43, 50:53] = bad[:, 77] = bad[-1, 3] = True
    dark, gain = rng.random((2, NY, NX), np.float32)
    return FrameSource(Stack(rng.poisson(20.0, (N, NY, NX)).astype("u2")), dark, gain + 0.5, neighbour_table(bad))


def local_model(slope_px: float = 0.3, n: int = N) -> MotionModel:
    rng = np.random.default_rng(7)
    coefficients = rng.uniform(-slope_px, slope_px, (2, 3, 5, 4))
    return MotionModel((NY, NX), n, 0, rng.uniform(-6, 6, (n, 2)), coefficients, 1.0)


def every_operation(backend: Any, source: FrameSource) -> List[np.ndarray]:
    """Results of all operations on one small movie."""
    rng = np.random.default_rng(3)
    shifts = rng.uniform(-2, 2, (1, N, 2))
    total, means = backend.sum_raw(source, range(N))
    mean = backend.correct(source, total / N)
    spectra = backend.spectra(source, range(N), BAND)
    corners = np.array([[3, 5], [20, 31], [11, 40]])
    patches = backend.patch_spectra(spectra, BAND, shifts[0], corners, (32, 36))
    patch_band = Band((52, 58), (32, 36))
    of_patches = np.repeat(shifts, 3, axis=0)
    power = backend.power(patches, (32, 36), of_patches)
    pairs = all_pairs(N)
    windows = backend.correlate(patches, (32, 36), lowpass(patch_band, 1.0, 4.0) ** 2, pairs, 5.0, 0.5, of_patches, 2)
    whole = backend.correlate(spectra, BAND.size, lowpass(BAND, 1.0, 4.0) ** 2, pairs, 36.0)
    peaks = [windows.peaks(), windows.peaks(rng.uniform(-3, 3, (3, 6, 2)), 2.0), whole.peaks()]
    weights = rng.random((3, 6))
    weights[1, 2] = 0
    value, gradient = windows.objective(of_patches + rng.uniform(-4, 4, (3, N, 2)), weights)
    in_memory = windows.values, whole.values
    aligned = backend.aligned_power(patches, (32, 36), lowpass(patch_band, 1.0, 4.0) ** 2)
    derivatives = [*aligned.slopes(of_patches), aligned.curvature(of_patches, rng.random(3))]
    del aligned, spectra, patches, windows, whole
    sums = backend.warp_sum(source, local_model(), range(N), rng.random((6, N)), means)
    factors = rng.random((3, 9, 6), np.float32)
    factors[1:, :, :5] = factors[2] = 0
    mixed = backend.mix(sums, [Mix(f, plain_mix(local_model(), range(N)).power) for f in factors])
    mixed.append(backend.fourier_crop(mean, (NY // 2, NX // 3)))
    power_of_tiles = backend.tile_power(mean, np.arange(0, 61, 12), np.arange(0, 101, 20), np.hanning(40))
    found = [a for p in peaks for a in (p.position, p.height, p.noise, p.on_rim)]
    return [total, means, mean, power_of_tiles, *power, *in_memory, *found, value, gradient, *derivatives, *mixed]


@pytest.fixture(scope="module")
def on_cuda():
    return every_operation(emulated_backend(), corrected_source())


def test_every_operation_agrees_with_the_cpu():
    """To float32 rounding, except the sums, whose resampling differs (`test_warp_is_exact`)."""
    on_cpu = every_operation(select_backend("cpu", threads=2), corrected_source())
    for k, (a, b) in enumerate(zip(on_cpu[:-4], every_operation(cuda_backend(), corrected_source()))):
        if a.dtype == bool:
            np.testing.assert_array_equal(a, b)
            continue
        difference = np.abs(a.astype(float) - b).max() / np.abs(a).max()
        assert difference < 1e-4, k


@pytest.mark.parametrize("mode", [1, 2, 3])
def test_bytes_do_not_depend_on_the_order_of_threads_and_blocks(on_cuda, mode):
    """Detects missing barriers and reads of unwritten memory, which is filled with NaN."""
    for a, b in zip(on_cuda, every_operation(emulated_backend(mode=mode), corrected_source())):
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("honest", [True, False])
def test_bytes_do_not_depend_on_memory(on_cuda, honest):
    """Little memory means more batches and no cached frames; the device may also have less memory than it reported."""
    roomy = emulated_backend()
    every_operation(roomy, corrected_source())
    tight = emulated_backend(total_bytes=int(0.65 * roomy.device.peak_bytes))
    if not honest:
        tight.device.free_bytes = lambda: 1 << 40
    for a, b in zip(on_cuda, every_operation(tight, corrected_source())):
        assert a.tobytes() == b.tobytes()
    assert tight.device.uploaded_bytes > roomy.device.uploaded_bytes
    assert honest or tight.device.failures > 1


@pytest.mark.parametrize("nx, radius", [(62, 3.0), (62, 9.0), (62, 17.0), (64, 9.0), (66, 3.0), (66, 17.0), (130, 9.0)])
def test_windows_of_narrow_and_wide_spectra(nx, radius):
    """32 to 66 columns, and up to 9, 19 and 35 offsets: each variant of the kernel, with and without a rest."""
    rng = np.random.default_rng(nx)
    spectra = np.fft.rfft2(rng.standard_normal((1, 3, 40, nx))).astype(np.complex64)
    weight = rng.uniform(0.5, 1, (40, nx // 2 + 1)).astype(np.float32)
    arguments = (spectra, (40, nx), weight, all_pairs(3), radius, 1.0)
    cpu, gpu = (b.correlate(*arguments).values for b in (select_backend("cpu", 1), cuda_backend()))
    np.testing.assert_allclose(gpu, cpu, atol=1e-5 * np.abs(cpu).max())


def test_too_little_memory_is_reported():
    backend = emulated_backend(total_bytes=3 << 20)
    frames = np.zeros((2, 1024, 1024), np.uint8)
    with pytest.raises(
        FlexAlignError, match="emulated: not enough memory .* 4 MiB more are needed .* of 3 MiB are free"
    ):
        backend.sum_raw(FrameSource(Stack(frames), None, None, None), range(2))


def test_half_precision_pixels():
    values = np.array([[0.0, -0.0, 1.0, -1.5, 65504.0, 6e-8, -6.1e-5, np.inf, -np.inf, np.nan]], np.float16)
    backend = emulated_backend()
    out = backend.correct(FrameSource(Stack(values[None]), None, None, None), values)
    np.testing.assert_array_equal(out, values.astype(np.float32))
    np.testing.assert_array_equal(np.signbit(out[:, :9]), np.signbit(values[:, :9]))


def test_frames_are_uploaded_once_and_memory_is_given_back():
    backend, source = emulated_backend(), corrected_source()
    frame = source.movie.frame(0).nbytes
    backend.sum_raw(source, range(N))
    assert backend.device.uploaded_bytes == N * frame
    backend.spectra(source, range(N), BAND)
    backend.warp_sum(source, local_model(), range(N), np.ones((1, N)), np.zeros(N))
    assert backend.device.uploaded_bytes < N * frame + 12 * frame  # dark, gain, defects, tables
    other = FrameSource(Stack(source.movie.frames + 1), None, None, None)
    np.testing.assert_array_equal(backend.sum_raw(other, range(N))[0], other.movie.frames.sum(axis=0))
    del source
    backend.close()
    assert backend.device.used_bytes == 0


@pytest.mark.parametrize("points", [(3, 5, 4), (4, 1, 2), (1, 3, 1)])
def test_warp_is_exact(points):
    """The B-spline in two dimensions at every pixel, through the field at every pixel; fewer than four points too."""
    source, rng = corrected_source(), np.random.default_rng(9)
    backend = emulated_backend()
    coefficients = rng.uniform(-1, 1, (2, *points))
    model = MotionModel((NY, NX), N, 0, rng.uniform(-6, 6, (N, 2)), coefficients, 1.0)
    weights, fill = rng.random((2, N)), rng.random(N) * 20
    y, x = np.mgrid[:NY, :NX]
    expected = np.zeros((2, NY, NX))
    for t in range(N):
        frame = np.pad(backend.correct(source, source.movie.frame(t)), 16, constant_values=fill[t])
        sy, sx = model.shift(t, y, x)
        moved = map_coordinates(frame.astype(float), [y - sy + 16, x - sx + 16], order=5, prefilter=False)
        expected += weights[:, t, None, None] * moved
    out = backend.warp_sum(source, model, range(N), weights, fill).values
    np.testing.assert_allclose(out, expected, atol=2e-5 * expected.max())


def test_whole_alignment_agrees_with_the_cpu():
    """Shifts to 0.02 px (found: 1e-5) and the micrograph to 1e-3 of its contrast.

    The field is as steep as strong motion makes it, up to 2 px over 1000: the steeper, the more the CPU differs, which
    takes a field that is linear over 32 px and resamples along one axis after the other.
    """
    phantom = particle_phantom((6, 1024, 768), pixel_size_A=2.5, local_px=0.7, seed=8)
    frames = np.stack(list(phantom.frames()))
    rng = np.random.default_rng(0)
    bad = np.zeros(frames.shape[1:], bool)
    bad[100] = bad[5:8, 40] = True
    gain = (1 + 0.1 * rng.random(bad.shape)).astype(np.float32)
    results = [
        align(Stack(frames), Settings(pixel_size=2.5, do_plots=False), backend, Corrections(None, gain, bad, []))
        for backend in (select_backend("cpu", threads=2), cuda_backend())
    ]
    a, b = results
    assert a.model.is_local and b.model.is_local
    y, x = np.linspace(0, 1023, 9), np.linspace(0, 767, 9)
    for t in range(6):
        np.testing.assert_allclose(a.model.frame_field(t, y, x), b.model.frame_field(t, y, x), atol=1e-3)
    assert np.sqrt(np.mean((a.images.micrograph - b.images.micrograph) ** 2)) < 1e-3 * a.images.micrograph.std()
