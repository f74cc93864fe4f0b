"""The backend for CUDA devices: the operations as launches of `*.cu` kernels and transforms of a `Device`.

Frames, spectra and windows stay on the device; only sums, powers, peaks and gradients are copied back. Whole frames are
processed in batches that fit into memory: an operation that runs out of memory is repeated with smaller batches.

As on the CPU, correlations are transformed back only near their centre (kernels/cpu.py). In contrast to the CPU, the
warp is one two-dimensional interpolation with the field evaluated at every pixel, and all arithmetic except that of the
objective is float32.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any, Callable, Iterator, List, Optional, Sequence, Tuple, TypeVar, cast

import numpy as np

from ..backend import Backend, FrameSource, Mix, OnDevice, ShiftField, select_band
from ..band import Band
from ..motion.bspline import basis
from .block_sizes import (
    LANES,
    OFFSET_THREADS,
    PIXEL_THREADS,
    SUM_PIXELS,
    THREADS,
    WARP_ROWS,
    WARP_SUMS,
    WINDOW_ROW_THREADS,
    WINDOW_ROWS,
)
from .cuda_aligned_power import CudaAlignedPower
from .cuda_frames import PIXEL_NAMES, FrameStore, native
from .cuda_mix import Sums, crop_image, mix_images, whole_spectrum
from .cuda_windows import CudaWindows
from .device import BATCH_BYTES, Device, DeviceArray, DeviceOutOfMemory, DeviceTooSmall
from .tuning import Tuner

BATCH_SHARE = 0.4  # of the free memory, because an operation may hold two batches at once
MOST_BLOCKS = 65535  # of a grid along y and z
TILES = 16  # of an image, which are transformed at once
_Operation = TypeVar("_Operation", bound=Callable[..., Any])
_Result = TypeVar("_Result")


def _fitting(operation: _Operation) -> _Operation:
    """Decorator of methods that `CudaBackend._fit` repeats with smaller batches."""

    @functools.wraps(operation)
    def run(self: CudaBackend, *arguments: Any, **options: Any) -> Any:
        return self._fit(lambda: operation(self, *arguments, **options))

    return cast(_Operation, run)


class CudaBackend(Backend):
    """Operations on one CUDA device.

    Parameters
    ----------
    device : where to compute; closed with the backend.
    threads : number of threads that read frames ahead of the device.
    tuner : searches the fastest size of the frames' transforms; the default size is used when None.
    """

    def __init__(self, device: Device, threads: int = 4, tuner: Optional[Tuner] = None):
        self.device = device
        self._tuner = tuner
        self.name = device.name
        self.threads = max(1, threads)
        self._frames = FrameStore(device, self.threads)
        self._halvings, self._divisible = 0, False

    def close(self) -> None:
        self._frames.close()
        self.device.close()

    # Batches

    def _fit(self, operation: Callable[[], _Result]) -> _Result:
        """Run an operation. If memory runs out, repeat it without cached frames, then with batches of half the size."""
        self._halvings = 0
        while True:
            self._divisible = False
            try:
                return operation()
            except DeviceOutOfMemory as error:
                needed, free = error.needed_bytes, error.free_bytes
            self._frames.forget_free_bytes()
            # Here, outside the except block, the arrays of the failed attempt are released.
            if self._frames.release():
                continue
            if not self._divisible:
                raise DeviceTooSmall(
                    f"{self.name}: not enough memory for this movie. {needed / 2**20:.0f} MiB more are needed at once "
                    f"and {free / 2**20:.0f} of {self.device.total_bytes / 2**20:.0f} MiB are free: end other programs "
                    "on this device, choose a larger one, or compute on the CPU."
                )
            self._halvings += 1

    def _batches(
        self, count: int, bytes_each: int, work_bytes: int = 0, most: int = MOST_BLOCKS, multiple: int = 1
    ) -> Iterator[Tuple[int, int]]:
        """(start, stop) of batches of `count` items.

        Parameters
        ----------
        bytes_each, work_bytes : memory that each item and the whole batch need while they are processed.
        most : items in a batch. multiple : of which the sizes of all batches but the last are multiples.
        """
        room = min(BATCH_SHARE * max(self._frames.free_bytes() - work_bytes, 0), BATCH_BYTES)
        size = min(int(room) // max(bytes_each, 1) >> self._halvings, most) // multiple * multiple
        size = min(max(size, multiple), count)
        self._divisible = self._divisible or size > multiple
        for start in range(0, count, max(size, 1)):
            yield start, min(start + size, count)

    def _part(self, array: DeviceArray, start: int, stop: int) -> DeviceArray:
        """Items start .. stop of an array's first axis."""
        inner = array.shape[1:]
        return self.device.view(array, start * int(np.prod(inner, dtype=np.int64)), (stop - start, *inner))

    # Frames

    def frame_fft_size(self, ny: int, nx: int, n_frames: int) -> Tuple[int, int]:
        if self._tuner is None:
            return super().frame_fft_size(ny, nx, n_frames)
        return self._tuner.frame_size(ny, nx, n_frames)

    @_fitting
    def sum_raw(self, source: FrameSource, frames: range) -> Tuple[np.ndarray, np.ndarray]:
        _, ny, nx = source.movie.shape
        blocks = -(-ny * nx // SUM_PIXELS)
        total = self.device.zeros((ny, nx), np.float32)
        partial = None
        for k, raw in enumerate(self._frames.frames(source, frames)):
            name = PIXEL_NAMES[np.dtype(raw.dtype).str[1:]]
            if partial is None:
                partial = self.device.empty((len(frames), blocks), np.float32 if name[0] == "f" else np.int32)
            of_frame = self._part(partial, k, k + 1)
            self.device.launch(
                "sum_raw", f"sum_raw_{name}", (blocks,), (PIXEL_THREADS,), raw, np.int64(ny * nx), total, of_frame
            )
        sums = np.zeros((0, 1)) if partial is None else self.device.download(partial)  # None without frames
        return self.device.download(total), sums.sum(axis=1, dtype=np.float64) / (ny * nx)

    @_fitting
    def correct(self, source: FrameSource, raw: np.ndarray) -> np.ndarray:
        out = self.device.empty((1, *raw.shape), np.float32)
        self._frames.correct([self.device.upload(native(raw))], self._frames.corrections(source), out)
        return self.device.download(out)[0]

    @_fitting
    def spectra(self, source: FrameSource, frames: range, band: Band) -> DeviceArray:
        _, ny, nx = source.movie.shape
        (fy, fx), (by, bxh) = band.full, band.spectrum_shape
        fxh = fx // 2 + 1
        out = self.device.empty((1, len(frames), by, bxh), np.complex64)
        flat = self.device.view(out, 0, (len(frames), by, bxh))
        corrections = self._frames.corrections(source)
        raw = self._frames.frames(source, frames)
        work = self.device.fft_work_bytes("r2c", fy, fx, 1)
        each = source.movie.dtype.itemsize * ny * nx + 4 * fy * fx + 8 * fy * fxh
        for a, b in self._batches(len(frames), each, work):
            images = self.device.empty((b - a, fy, fx), np.float32)
            full = self.device.empty((b - a, fy, fxh), np.complex64)
            batch = list(itertools.islice(raw, b - a))
            self._frames.correct(batch, corrections, images, (ny - fy) // 2, (nx - fx) // 2)
            del batch
            self.device.rfft2(images, full)
            sizes = (np.int32(v) for v in (fy, fxh, by, bxh))
            self.device.launch(
                "crop", "crop", (-(-bxh // THREADS), by, b - a), (THREADS,), full, *sizes, self._part(flat, a, b)
            )
        return out

    # Spectra

    def _on_device(self, data: OnDevice) -> DeviceArray:
        """Device array of data from this backend; NumPy arrays are uploaded."""
        if isinstance(data, np.ndarray):
            return self.device.upload(np.ascontiguousarray(data))
        assert isinstance(data, DeviceArray)
        return data

    def _phases(self, shifts: np.ndarray, ky: np.ndarray, kx: np.ndarray) -> Tuple[DeviceArray, DeviceArray]:
        """Factors exp(-2 pi i k s) of shifts (..., 2): (m, len(ky)) and (m, len(kx)); k in cycles per band pixel."""
        flat = np.ascontiguousarray(shifts.reshape(-1, 2), np.float32)
        on_device, *frequencies = self.device.upload_together(flat, *(k.astype(np.float32) for k in (ky, kx)))
        tables = []
        for axis, k in enumerate(frequencies):
            table = self.device.empty((len(flat), k.size), np.complex64)
            self.device.launch(
                "phases", "phase_table", (len(flat), -(-k.size // THREADS)), (THREADS,),
                self.device.view(on_device, axis, (2 * len(flat) - axis,)), np.int32(2), k, np.int32(k.size), table,
            )  # fmt: skip
            tables.append(table)
        return tables[0], tables[1]

    @_fitting
    def patch_spectra(
        self, spectra: OnDevice, band: Band, shifts: np.ndarray, corners: np.ndarray, patch: Tuple[int, int]
    ) -> DeviceArray:
        (by, bx), (py, px) = band.size, patch
        bxh, pxh = bx // 2 + 1, px // 2 + 1
        n, p = spectra.shape[1], len(corners)
        frames = self.device.view(self._on_device(spectra), 0, (n, by, bxh))
        phase_y, phase_x = self._phases(shifts, np.fft.fftfreq(by), np.arange(bxh) / bx)
        images = self.device.empty((n, by, bx), np.float32)
        for a, b in self._batches(n, 8 * by * bxh, self.device.fft_work_bytes("c2r", by, bx, 1)):
            moved = self.device.empty((b - a, by, bxh), np.complex64)
            self.device.launch(
                "patches", "shift_spectra", (-(-bxh // THREADS), by, b - a), (THREADS,),
                *(self._part(v, a, b) for v in (frames, phase_y, phase_x)),
                np.int32(by), np.int32(bx), np.float32(1.0 / (by * bx)), moved,
            )  # fmt: skip
            self.device.irfft2(moved, self._part(images, a, b))
        all_corners = self.device.upload(np.ascontiguousarray(corners, np.int32))
        out = self.device.empty((p, n, py, pxh), np.complex64)
        flat = self.device.view(out, 0, (p * n, py, pxh))
        for a, b in self._batches(p, n * 4 * py * px, self.device.fft_work_bytes("r2c", py, px, n)):
            tiles = self.device.empty(((b - a) * n, py, px), np.float32)
            batch_corners = self._part(all_corners, a, b)
            sizes = (np.int32(v) for v in (n, by, bx))
            self.device.launch(
                "patches", "cut", ((b - a) * n, py), (THREADS,), images, *sizes, batch_corners, np.int32(px), tiles
            )
            transformed = self._part(flat, a * n, b * n)
            self.device.rfft2(tiles, transformed, batch=n)
            count = (b - a) * n
            self.device.launch(
                "patches",
                "clear_mean",
                (-(-count // THREADS),),
                (THREADS,),
                transformed,
                np.int32(count),
                np.int64(py * pxh),
            )
        return out

    @_fitting
    def power(self, spectra: OnDevice, size: Tuple[int, int], shifts: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        (sy, sx), (batch, n) = size, spectra.shape[:2]
        sxh = sx // 2 + 1
        phases = self._phases(shifts, np.fft.fftfreq(sy), np.arange(sxh) / sx)
        partial = self.device.empty((batch, 2, sy, sxh), np.float32)
        mean = self.device.empty((2, sy, sxh), np.float32)
        self.device.launch(
            "power", "power", (-(-sxh // THREADS), sy, batch), (THREADS,),
            self._on_device(spectra), *phases, np.int32(n), np.int32(sy), np.int32(sxh), partial,
        )  # fmt: skip
        count = 2 * sy * sxh
        self.device.launch(
            "power",
            "mean_of_batch",
            (-(-count // THREADS),),
            (THREADS,),
            partial,
            np.int32(batch),
            np.int64(count),
            mean,
        )
        of_sum, of_each = self.device.download(mean).astype(np.float64)
        return of_sum, of_each

    @_fitting
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
    ) -> CudaWindows:
        (sy, sx), (batch, n) = size, spectra.shape[:2]
        if shifts is None:
            shifts = np.zeros((batch, n, 2))
        selected = select_band(size, weight)
        rows, cols, ky, kx = selected.rows, selected.cols, selected.ky, selected.kx
        half = int(np.ceil(radius / step))
        width = 2 * half + 1
        if not len(rows):
            zeros = self.device.zeros((batch, len(pairs), width, width), np.float32)
            return CudaWindows(self.device, self._fit, zeros, pairs, shifts, step)
        out = self.device.empty((batch, len(pairs), width, width), np.float32)
        source = self.device.view(self._on_device(spectra), 0, (batch, n, sy, sx // 2 + 1))
        # Factors of the real part of the inverse transform.
        offsets = step * np.arange(half + 1)
        along_y = np.exp(2j * np.pi * np.outer(ky, offsets)).astype(np.complex64)
        along_x = selected.column_factor[:, None] * np.exp(2j * np.pi * np.outer(kx, offsets))
        root_weight, waves_y, waves_x, *on_device = self.device.upload_together(
            selected.root_weight,
            along_y,
            along_x.astype(np.complex64),
            *(a.astype(np.int32) for a in (rows, cols, pairs)),
        )
        each = 8 * n * len(rows) * len(cols) * (1 if group == 1 else 2)
        for a, b in self._batches(batch, each):
            members = self.device.empty((b - a, n, len(rows), len(cols)), np.complex64)
            phases = self._phases(shifts[a:b], ky, kx)
            self.device.launch(
                "correlate", "weight_members", ((b - a) * n, len(rows)), (THREADS,),
                self._part(source, a, b), np.int32(sy), np.int32(sx // 2 + 1), *on_device[:2], np.int32(len(cols)),
                root_weight, *phases, members,
            )  # fmt: skip
            groups = members if group == 1 else self._sum_groups(members, group)
            self._transform(
                groups, members, on_device[2], len(pairs), group, waves_y, waves_x, half, self._part(out, a, b)
            )
        return CudaWindows(self.device, self._fit, out, pairs, shifts, step)

    def _sum_groups(self, members: DeviceArray, group: int) -> DeviceArray:
        groups = self.device.empty(members.shape, np.complex64)
        batch, n, rows, cols = members.shape
        size = rows * cols
        self.device.launch(
            "correlate",
            "sum_groups",
            (-(-size // THREADS), n, batch),
            (THREADS,),
            members,
            np.int64(size),
            np.int32(group),
            groups,
        )
        return groups

    def _transform(
        self,
        groups: DeviceArray,
        members: DeviceArray,
        pairs: DeviceArray,
        n_pairs: int,
        group: int,
        waves_y: DeviceArray,
        waves_x: DeviceArray,
        half_width: int,
        out: DeviceArray,
    ) -> None:
        """Fill `out` (batch, n_pairs, width, width) with the windows of all pairs (correlate.cu)."""
        batch, n, rows, cols = members.shape
        width = 2 * half_width + 1
        per_thread = next((k for k in (1, 2) if half_width < OFFSET_THREADS * k), 4)
        wide = 1 if cols <= LANES else 2  # columns of a thread
        columns, offsets = LANES * wide, OFFSET_THREADS * per_thread  # of a block
        for a, b in self._batches(batch * n_pairs, 8 * width * cols, most=1 << 30):
            half = self.device.empty((b - a, width, cols), np.complex64)
            self.device.launch(
                "correlate", f"transform_rows_{per_thread}_{wide}",
                (b - a, -(-cols // columns), -(-(half_width + 1) // offsets)), (LANES, OFFSET_THREADS),
                groups, members, pairs, np.int32(n_pairs), np.int64(a), *(np.int32(v) for v in (n, group, rows, cols)),
                waves_y, np.int32(half_width), half,
            )  # fmt: skip
            self.device.launch(
                "correlate", "transform_columns",
                (b - a, -(-width // WINDOW_ROWS), -(-(half_width + 1) // LANES)), (LANES, WINDOW_ROW_THREADS),
                half, np.int32(cols), waves_x, np.int32(half_width), np.int64(a), out,
            )  # fmt: skip

    @_fitting
    def aligned_power(self, spectra: OnDevice, size: Tuple[int, int], weight: np.ndarray) -> CudaAlignedPower:
        return CudaAlignedPower(self.device, self._fit, self._batches, self._on_device(spectra), size, weight)

    # Motion correction

    @_fitting
    def warp_sum(
        self, source: FrameSource, model: ShiftField, frames: Sequence[int], weights: np.ndarray, fill: np.ndarray
    ) -> Sums:
        _, ny, nx = source.movie.shape
        weights = np.atleast_2d(weights).astype(np.float32)
        sums = Sums(self.device, (len(weights), ny, nx))
        control, along_y, along_x = self._field(model, frames)
        corrections = self._frames.corrections(source)
        raw = self._frames.frames(source, frames)
        sizes = [np.int32(v) for v in (ny, nx, *control.shape[2:])]
        for a, b in self._batches(len(frames), (source.movie.dtype.itemsize + 4) * ny * nx):
            images = self.device.empty((b - a, ny, nx), np.float32)
            batch = list(itertools.islice(raw, b - a))
            self._frames.correct(batch, corrections, images)
            del batch
            parts = [weights[s : s + WARP_SUMS, a:b] for s in range(0, len(weights), WARP_SUMS)]
            shared_control, shared_fill, *of_parts = self.device.upload_together(
                control[a:b], np.asarray(fill[a:b], np.float32), *parts
            )
            for s, part in zip(range(0, len(weights), WARP_SUMS), of_parts):
                self.device.launch(
                    "warp", "warp_sum", (-(-nx // LANES), -(-ny // WARP_ROWS)), (LANES, WARP_ROWS),
                    images, np.int32(b - a), *sizes[:2], shared_control, *sizes[2:], *along_y, *along_x,
                    part, shared_fill, np.int32(part.shape[0]), np.uint32(sums.stride),
                    self._part(sums.memory, s, s + part.shape[0]), shared=8 * WARP_ROWS * control.shape[3],
                )  # fmt: skip
        return sums

    @_fitting
    def mix(self, sums: OnDevice, mixes: Sequence[Mix]) -> List[np.ndarray]:
        _, ny, nx = sums.shape
        images: List[np.ndarray] = []
        assert isinstance(sums, Sums)
        for a, b in self._batches(len(mixes), 8 * ny * (nx // 2 + 1)):
            images += mix_images(self.device, sums, mixes[a:b])
        return images

    @_fitting
    def fourier_crop(self, image: np.ndarray, size: Tuple[int, int]) -> np.ndarray:
        return crop_image(self.device, image, size)

    @_fitting
    def tile_power(self, image: np.ndarray, rows: np.ndarray, columns: np.ndarray, window: np.ndarray) -> np.ndarray:
        tile = len(window)
        half = (tile, tile // 2 + 1)
        corners = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2).astype(np.int32)
        on_device = self.device.upload(np.ascontiguousarray(image, np.float32))
        taper, all_corners = self.device.upload_together(window.astype(np.float32), corners)
        total = self.device.zeros(half, np.float32)
        each, work = 4 * tile * tile + 8 * half[0] * half[1], self.device.fft_work_bytes("r2c", tile, tile, TILES)
        for a, b in self._batches(len(corners), each, work, multiple=TILES):
            room = -(-(b - a) // TILES) * TILES  # what is beyond b - a is transformed and left out
            tiles = self.device.empty((room, tile, tile), np.float32)
            spectra = self.device.empty((room, *half), np.complex64)
            batch_corners, nx = self._part(all_corners, a, b), np.int32(image.shape[1])
            self.device.launch(
                "tiles", "taper", (b - a,), (PIXEL_THREADS,), on_device, nx, batch_corners, np.int32(tile), taper, tiles
            )
            self.device.rfft2(tiles, spectra, batch=TILES)
            size = half[0] * half[1]
            self.device.launch(
                "tiles",
                "add_powers",
                (-(-size // THREADS),),
                (THREADS,),
                spectra,
                np.int32(b - a),
                np.int32(size),
                total,
            )
        return whole_spectrum(self.device.download(total).astype(np.float64), tile)

    def _field(
        self, model: ShiftField, frames: Sequence[int]
    ) -> Tuple[np.ndarray, List[DeviceArray], List[DeviceArray]]:
        """Control points of each frame's field (n, 2, ky, kx) float32, and the tables of the basis along y and x."""
        points = model.control_points(frames)
        # The kernel uses four points on each axis; missing ones are 0 and have no weight.
        ky, kx = points.shape[2:]
        padded = np.zeros((len(frames), 2, max(ky, 4), max(kx, 4)), np.float32)
        padded[:, :, :ky, :kx] = points
        host = [v for k, length in zip((ky, kx), model.frame_shape) for v in _basis_table(k, length)]
        tables = self.device.upload_together(*host)
        return padded, tables[:2], tables[2:]


@functools.lru_cache(maxsize=16)
def _basis_table(n_points: int, length: int) -> Tuple[np.ndarray, np.ndarray]:
    """Four values of the basis at each pixel, (length, 4) float32, and the first control point, (length,) int32."""
    values = basis(n_points, length - 1, np.arange(length))
    values = np.pad(values, ((0, 0), (0, max(4 - n_points, 0))))
    first = np.minimum((values != 0).argmax(axis=1), values.shape[1] - 4)
    picked = np.take_along_axis(values, first[:, None] + np.arange(4), axis=1)
    return picked.astype(np.float32), first.astype(np.int32)
