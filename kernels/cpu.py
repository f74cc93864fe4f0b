"""The backend for CPUs: numba for operations on pixels, scipy.fft for transforms, BLAS for correlation windows.

Two costs of a direct implementation are avoided:

- A frame's transform is computed along x only for blocks of rows, and along y only for the columns inside the band.
- A correlation is needed only near its centre. There the inverse transform is a product with two small matrices
  (a discrete Fourier transform of a few rows and columns), which is cheaper than a full inverse FFT.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, List, Optional, Sequence, Tuple

import numpy as np
import scipy.fft

from ..backend import Backend, CorrelationWindows, FrameSource, Mix, OnDevice, Peaks, ShiftField, select_band
from ..band import Band
from . import cpu_correlation, cpu_frames, cpu_mix, cpu_warp
from .cpu_aligned_power import CpuAlignedPower
from .cpu_tiles import tile_power

ROWS_PER_BLOCK = 128  # 2 MB of float32 for 4k frames, which fits into a core's cache
PRODUCT_BYTES = 1 << 20  # of products of spectra that are formed at once: they stay in the cache of a core
MESH_SPACING_PX = 32
_EMPTY = np.zeros((0, 0), np.float32)


class CpuWindows(CorrelationWindows):
    """Correlation windows (batch, n_pairs, h, w) float32 in memory."""

    def __init__(self, values: np.ndarray, pairs: np.ndarray, shifts: np.ndarray, step: float, run: Callable[..., Any]):
        self.values = values
        self._pairs = pairs
        self._shifts = shifts
        self._step = step
        self._run = run
        self._coefficients: Optional[np.ndarray] = None

    def peaks(self, around: Optional[np.ndarray] = None, radius: Optional[float] = None) -> Peaks:
        batch, n_pairs, h, w = self.values.shape
        offset = self._shifts[:, self._pairs[:, 1]] - self._shifts[:, self._pairs[:, 0]]
        local = np.zeros((batch, n_pairs, 2)) if around is None else (around - offset) / self._step
        local = np.ascontiguousarray(local + h // 2)
        reach = float(h // 2 if radius is None else radius / self._step)
        peaks = self._run(lambda b: cpu_correlation.find_peaks(self.values[b], local[b], reach), range(batch))
        position, height, noise, on_rim = (np.stack(f) for f in zip(*peaks))
        return Peaks((position - h // 2) * self._step + offset, height, noise, on_rim)

    def objective(self, shifts: np.ndarray, weights: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        batch = len(self.values)
        if self._coefficients is None:
            self._coefficients = self.values.copy()
            self._run(cpu_correlation.spline_coefficients, self._coefficients)
        coefficients = self._coefficients
        local = np.ascontiguousarray((shifts - self._shifts) / self._step)
        gradient = np.empty_like(local)

        def evaluate(b: int) -> float:
            return cpu_correlation.pair_objective(coefficients[b], self._pairs, local[b], weights[b], gradient[b])

        return np.array(self._run(evaluate, range(batch))), gradient / self._step


class CpuBackend(Backend):
    """Backend that uses `threads` threads of this process; results do not depend on their number."""

    name = "cpu"

    def __init__(self, threads: int):
        self.threads = max(1, threads)
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="flexalign-cpu")

    def close(self) -> None:
        self._pool.shutdown()

    def _run(self, function: Callable[..., Any], *arguments: Any) -> List[Any]:
        """Results of the function for each argument, in order, computed by the threads."""
        if self.threads == 1:  # a movie has thousands of small tasks: passing each to another thread takes CPU time
            return list(map(function, *arguments))
        return list(self._pool.map(function, *arguments))

    def _row_blocks(self, ny: int) -> Tuple[np.ndarray, np.ndarray]:
        starts = np.arange(0, ny, ROWS_PER_BLOCK)
        return starts, np.minimum(starts + ROWS_PER_BLOCK, ny)

    def sum_raw(self, source: FrameSource, frames: range) -> Tuple[np.ndarray, np.ndarray]:
        _, ny, nx = source.movie.shape
        total = np.zeros((ny, nx), np.float32)
        starts, ends = self._row_blocks(ny)
        means = []
        for t in frames:
            raw = cpu_frames.native(source.movie.frame(t))
            sums = self._run(lambda a, b, raw=raw: cpu_frames.add_rows(raw, a, b, total), starts, ends)
            means.append(float(np.sum(sums)) / (ny * nx))
        return total, np.array(means)

    def correct(self, source: FrameSource, raw: np.ndarray) -> np.ndarray:
        out = np.empty(raw.shape, np.float32)
        raw = cpu_frames.native(raw)
        self._run(lambda a, b: _correct_block(source, raw, a, b, out, a, 0), *self._row_blocks(len(raw)))
        return out

    def spectra(self, source: FrameSource, frames: range, band: Band) -> np.ndarray:
        _, ny, nx = source.movie.shape
        (fy, fx), (by, bxh) = band.full, band.spectrum_shape
        top, left = (ny - fy) // 2, (nx - fx) // 2
        out = np.empty((1, len(frames), by, bxh), np.complex64)

        def transform(k: int) -> None:
            raw = cpu_frames.native(source.movie.frame(frames[k]))
            columns = np.empty((fy, bxh), np.complex64)
            block = np.empty((ROWS_PER_BLOCK, nx), np.float32)
            for a in range(0, fy, ROWS_PER_BLOCK):
                b = min(a + ROWS_PER_BLOCK, fy)
                _correct_block(source, raw, top + a, top + b, block, 0, 0)
                columns[a:b] = scipy.fft.rfft(block[: b - a, left : left + fx], axis=1)[:, :bxh]
            rows = scipy.fft.fft(columns, axis=0, overwrite_x=True)
            out[0, k, : by // 2] = rows[: by // 2]
            out[0, k, by // 2 :] = rows[fy - by // 2 :]

        self._run(transform, range(len(frames)))
        return out

    def patch_spectra(
        self, spectra: OnDevice, band: Band, shifts: np.ndarray, corners: np.ndarray, patch: Tuple[int, int]
    ) -> np.ndarray:
        frames = _in_memory(spectra)[0]
        (by, bx), (py, px) = band.size, patch
        n = len(frames)
        out = np.empty((len(corners), n, py, px // 2 + 1), np.complex64)
        ky = np.fft.fftfreq(by)
        kx = np.arange(bx // 2 + 1) / bx

        def cut(t: int) -> None:
            phase_y = np.exp(-2j * np.pi * ky * shifts[t, 0]).astype(np.complex64)
            phase_x = np.exp(-2j * np.pi * kx * shifts[t, 1]).astype(np.complex64)
            moved = frames[t] * phase_y[:, None] * phase_x
            moved[0, 0] = 0
            image = scipy.fft.irfft2(moved, s=(by, bx), overwrite_x=True)
            tiles = np.stack([image[y : y + py, x : x + px] for y, x in corners])
            tiles -= tiles.mean(axis=(1, 2), keepdims=True)
            out[:, t] = scipy.fft.rfft2(tiles, overwrite_x=True)

        self._run(cut, range(n))
        return out

    def power(self, spectra: OnDevice, size: Tuple[int, int], shifts: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        images = _in_memory(spectra)
        sy, sx = size
        ky = np.fft.fftfreq(sy)
        kx = np.arange(sx // 2 + 1) / sx

        def one(b: int) -> Tuple[np.ndarray, np.ndarray]:
            phase_y = np.exp(-2j * np.pi * shifts[b, :, 0, None] * ky).astype(np.complex64)
            phase_x = np.exp(-2j * np.pi * shifts[b, :, 1, None] * kx).astype(np.complex64)
            total = np.zeros(images.shape[2:], np.complex64)
            single = np.zeros(images.shape[2:], np.float32)
            for t, frame in enumerate(images[b]):
                total += frame * phase_y[t][:, None] * phase_x[t]
                single += frame.real**2 + frame.imag**2
            return total.real**2 + total.imag**2, single

        of_sum, of_each = np.zeros(images.shape[2:]), np.zeros(images.shape[2:])
        for s, e in self._pool.map(one, range(len(images))):
            of_sum += s
            of_each += e
        return of_sum / len(images), of_each / len(images)

    def correlate(
        self,
        spectra: OnDevice,
        size: Tuple[int, int],
        weight: np.ndarray,
        pairs: np.ndarray,
        radius: float,
        step: float = 1.0,
        shifts: Optional[np.ndarray] = None,
        group: int = 1,
    ) -> CpuWindows:
        images = _in_memory(spectra)
        selected = select_band(size, weight)
        rows, cols, ky, kx = selected.rows, selected.cols, selected.ky, selected.kx
        half_width = int(np.ceil(radius / step))
        inverse = cpu_correlation.CentralTransform(ky, kx, selected.column_factor, half_width, step)
        pairs = np.ascontiguousarray(pairs, np.int64)
        (batch, n), width = images.shape[:2], 2 * half_width + 1
        values = np.empty((batch, len(pairs), width, width), np.float32)
        applied = np.zeros((batch, n, 2)) if shifts is None else shifts
        if not len(rows):
            values.fill(0)
            return CpuWindows(values, pairs, applied, step, self._run)
        chunk = max(1, min(len(pairs), PRODUCT_BYTES // (8 * len(rows) * len(cols))))

        def prepare(b: int) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
            members = images[b][:, rows[:, None], cols] * selected.root_weight
            if shifts is not None:
                members *= np.exp(-2j * np.pi * shifts[b, :, 0, None] * ky).astype(np.complex64)[:, :, None]
                members *= np.exp(-2j * np.pi * shifts[b, :, 1, None] * kx).astype(np.complex64)[:, None, :]
            return (members, *_group_sums(members, group))

        def transform(b: int, p0: int, members: np.ndarray, groups: np.ndarray, sizes: np.ndarray) -> None:
            chosen = pairs[p0 : p0 + chunk]
            inverse.windows(groups, members, sizes, chosen, group, values[b, p0 : p0 + chunk])

        def one_of_many(b: int) -> None:
            prepared = prepare(b)
            for p0 in range(0, len(pairs), chunk):
                transform(b, p0, *prepared)

        if batch > 1:
            self._run(one_of_many, range(batch))
        else:
            prepared = prepare(0)
            self._run(lambda p0: transform(0, p0, *prepared), range(0, len(pairs), chunk))
        return CpuWindows(values, pairs, applied, step, self._run)

    def aligned_power(self, spectra: OnDevice, size: Tuple[int, int], weight: np.ndarray) -> CpuAlignedPower:
        return CpuAlignedPower(_in_memory(spectra), size, weight, self._run)

    def warp_sum(
        self, source: FrameSource, model: ShiftField, frames: Sequence[int], weights: np.ndarray, fill: np.ndarray
    ) -> np.ndarray:
        _, ny, nx = source.movie.shape
        weights = np.ascontiguousarray(np.atleast_2d(weights), np.float32)
        sums = np.zeros((len(weights), ny, nx), np.float32)
        for k, t in enumerate(frames):
            raw = cpu_frames.native(source.movie.frame(t))
            mesh = _field_mesh(model, t)

            def add(y0: int, y1: int, raw: np.ndarray = raw, mesh: np.ndarray = mesh, k: int = k) -> None:
                _warp_block(source, raw, mesh, y0, y1, weights[:, k], fill[k], sums)

            self._run(add, *self._row_blocks(ny))
        return sums

    def fourier_crop(self, image: np.ndarray, size: Tuple[int, int]) -> np.ndarray:
        return cpu_mix.fourier_crop(image, size, self.threads)

    def tile_power(self, image: np.ndarray, rows: np.ndarray, columns: np.ndarray, window: np.ndarray) -> np.ndarray:
        return tile_power(image, rows, columns, window, self._pool.map)

    def mix(self, sums: OnDevice, mixes: Sequence[Mix]) -> List[np.ndarray]:
        return [cpu_mix.mix_one(_in_memory(sums), mix, self.threads, self._run) for mix in mixes]


def _in_memory(data: OnDevice) -> np.ndarray:
    """Data from this backend as the NumPy array that it is."""
    assert isinstance(data, np.ndarray)
    return data


def _correct_block(
    source: FrameSource, raw: np.ndarray, y0: int, y1: int, out: np.ndarray, row: int, column: int
) -> None:
    """Write the corrected rows y0..y1 to out[row:, column:]."""
    dark = _EMPTY if source.dark is None else source.dark
    gain = _EMPTY if source.gain is None else source.gain
    cpu_frames.correct_rows(raw, dark, gain, y0, y1, out, row, column)
    d = source.defects
    if d is not None and len(d.rows):
        cpu_frames.replace_defects(
            raw, dark, gain, d.rows, d.cols, d.indptr, d.neighbours_flat_index, y0, y1, out, row, column
        )


def _field_mesh(model: ShiftField, frame: int) -> np.ndarray:
    """Shifts (2, my, mx) float64 at multiples of MESH_SPACING_PX that cover the frame.

    The last nodes lie beyond the frame, where the model is constant. Their values are extrapolated with the slope
    inside the frame, so that the linear interpolation is correct up to the edge.
    """
    nodes = [np.arange(0, n + MESH_SPACING_PX, MESH_SPACING_PX) for n in model.frame_shape]
    mesh = model.frame_field(frame, *nodes)
    for axis, (positions, n) in enumerate(zip(nodes, model.frame_shape), 1):
        inside = n - 1 - positions[-2]
        if inside > 0:
            last, before = (np.take(mesh, [k], axis=axis) for k in (-1, -2))
            continued = before + (last - before) * (MESH_SPACING_PX / inside)
            mesh = np.concatenate([np.delete(mesh, -1, axis=axis), continued], axis=axis)
    return np.ascontiguousarray(mesh)


def _warp_block(
    source: FrameSource,
    raw: np.ndarray,
    mesh: np.ndarray,
    y0: int,
    y1: int,
    scales: np.ndarray,
    fill: float,
    sums: np.ndarray,
) -> None:
    ny, nx = raw.shape
    nodes = slice(y0 // MESH_SPACING_PX, -(-y1 // MESH_SPACING_PX) + 1)
    sy = mesh[0, nodes]
    first = int(np.floor(y0 - sy.max())) - 4
    last = int(np.ceil(y1 - sy.min())) + 5
    pad = int(np.ceil(np.abs(mesh[1]).max())) + 5
    rows = np.full((last - first, nx + 2 * pad), fill, np.float32)
    a, b = min(max(first, 0), ny), max(min(last, ny), 0)
    if b > a:
        _correct_block(source, raw, a, b, rows, a - first, pad)
    buffer = np.empty((last - first, nx), np.float32)
    cpu_warp.warp_rows(rows, first, pad, mesh, MESH_SPACING_PX, y0, y1, scales, buffer, sums)


def _group_sums(members: np.ndarray, group: int) -> Tuple[np.ndarray, np.ndarray]:
    """Sums of frames t - (group-1)//2 .. t + group//2 along axis 0, and the number of frames in each sum."""
    n = len(members)
    if group == 1:
        return members, np.ones(n)
    start = np.maximum(np.arange(n) - (group - 1) // 2, 0)
    stop = np.minimum(np.arange(n) + group // 2 + 1, n)
    return np.stack([members[a:b].sum(axis=0) for a, b in zip(start, stop)]), (stop - start).astype(float)
