"""Raw frames and corrections on the device: uploaded once per movie, corrected there."""

from __future__ import annotations

import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from ..backend import FrameSource
from .block_sizes import PIXEL_THREADS, THREADS
from .device import Device, DeviceArray

NULL = np.uintp(0)
# NumPy types and the names in raw.cuh. Other types are converted to float32 on the host.
PIXEL_NAMES = {"u1": "u8", "i1": "i8", "u2": "u16", "i2": "i16", "f2": "f16", "f4": "f32"}
# Memory that cached raw frames leave free, in float32 frames: for a batch of frames and their transforms; and per frame
# of the movie for its cropped spectrum, patches and windows.
SPARE_FRAMES, SPARE_OF_EACH_FRAME = 12, 0.25
AHEAD_BYTES = 2 << 30  # of host memory for frames that are read in advance
# If more than this is free beside the cached frames, it is enough for all batches of a movie: nobody asks again.
PLENTY_BYTES = 16 << 30


class DefectTable(NamedTuple):
    """`backend.NeighbourTable` on the device as int32: `defects` and `neighbours` are y * nx + x.

    The neighbours of defect i are neighbours[first[i]:first[i + 1]].
    """

    n: int
    defects: DeviceArray
    first: DeviceArray
    neighbours: DeviceArray


class Corrections(NamedTuple):
    """Dark and gain (ny, nx) float32, or a null pointer, and defects."""

    dark: Any
    gain: Any
    defects: Optional[DefectTable]


class FrameStore:
    """Raw frames of the current movie, kept on the device while there is room, and its corrections.

    Threads read frames in advance, because decoding them takes time. They leave them in memory that is copied fastest,
    if there is any (`Device.host_array`).
    """

    def __init__(self, device: Device, readers: int):
        self._device = device
        self._readers = readers
        self._pool = ThreadPoolExecutor(readers, thread_name_prefix="flexalign-read")
        self._movie: Any = None  # weak reference: a finished movie must not be kept in memory
        self._caching = True
        self._known_free: Optional[int] = None
        self._frames: Dict[int, DeviceArray] = {}
        self._kept: Dict[int, Tuple[Any, Any]] = {}  # host array's id: weak reference to it, device copy

    def close(self) -> None:
        self._pool.shutdown()
        self.release()
        self._kept.clear()

    def release(self) -> bool:
        """Release the cached raw frames and cache no more of this movie; False if there were none."""
        had = bool(self._frames)
        self._frames.clear()
        self._caching = False
        return had

    def frames(self, source: FrameSource, wanted: Iterable[int]) -> Iterator[DeviceArray]:
        """Raw frames (ny, nx) in the order of `wanted`, in a type listed in `PIXEL_NAMES`."""
        movie = source.movie
        if self._movie is None or self._movie() is not movie:
            self.release()
            self._movie, self._caching = weakref.ref(movie), True
            self.forget_free_bytes()
        wanted = list(wanted)
        missing = [t for t in wanted if t not in self._frames]
        at_once = min(self._readers, max(AHEAD_BYTES // (4 * movie.shape[1] * movie.shape[2]), 1))
        ahead: List[Future[np.ndarray]] = [self._submit(movie, t) for t in missing[:at_once]]
        submitted = len(ahead)
        for t in wanted:
            raw = self._frames.get(t)
            if raw is None:
                # A frame that was cached when this began may have been released since.
                host = ahead.pop(0).result() if t in missing else _read(movie, t)
                raw = self._device.upload(host)
                del host  # its memory can be used for the next frame
                if t in missing and submitted < len(missing):
                    ahead.append(self._submit(movie, missing[submitted]))
                    submitted += 1
                if self._caching and self._has_room(movie.shape):
                    self._frames[t] = raw
                    if self._known_free is not None:
                        self._known_free -= raw.nbytes
            yield raw

    def _submit(self, movie: Any, t: int) -> Future[np.ndarray]:
        """Start to read a frame."""
        place = self._device.host_array(movie.shape[1:], native_dtype(np.dtype(movie.dtype)))
        return self._pool.submit(_read, movie, t, place)

    def _has_room(self, shape: Tuple[int, int, int]) -> bool:
        n, ny, nx = shape
        return self.free_bytes() > (SPARE_FRAMES + SPARE_OF_EACH_FRAME * n) * 4 * ny * nx

    def free_bytes(self) -> int:
        """Free memory of the device, or, if there was plenty, what was free when the movie began less its frames."""
        if self._known_free is not None and self._known_free > PLENTY_BYTES:
            return self._known_free
        free = self._device.free_bytes()
        self._known_free = free if free > PLENTY_BYTES else None
        return free

    def forget_free_bytes(self) -> None:
        """Ask the device the next time."""
        self._known_free = None

    def corrections(self, source: FrameSource) -> Corrections:
        """The source's corrections on the device; they stay there as long as the host's arrays exist."""
        table = source.defects
        defects = None
        if table is not None and len(table.rows):
            defects = self._keep(table.rows, lambda rows: self._upload_defects(table, source.movie.shape[2]))
        return Corrections(
            NULL if source.dark is None else self._keep(source.dark, self._upload_float),
            NULL if source.gain is None else self._keep(source.gain, self._upload_float),
            defects,
        )

    def _keep(self, host: np.ndarray, upload: Any) -> Any:
        """Device copy of data that belongs to this host array; it is kept as long as the host array exists."""
        entry = self._kept.get(id(host))
        if entry is None or entry[0]() is not host:
            key, kept = id(host), self._kept
            entry = (weakref.ref(host, lambda _: kept.pop(key, None)), upload(host))
            kept[key] = entry
        return entry[1]

    def _upload_float(self, host: np.ndarray) -> DeviceArray:
        return self._device.upload(np.ascontiguousarray(host, np.float32))

    def _upload_defects(self, table: Any, nx: int) -> DefectTable:
        flat = table.rows.astype(np.int64) * nx + table.cols
        parts = (flat, table.indptr, table.neighbours_flat_index)
        # If all pixels are defects there are no neighbours, but an array on the device can't be empty.
        host = [np.asarray(a if len(a) else [0], np.int32) for a in parts]
        return DefectTable(len(flat), *(self._device.upload(a) for a in host))

    def correct(
        self, frames: Sequence[DeviceArray], corrections: Corrections, out: DeviceArray, top: int = 0, left: int = 0
    ) -> None:
        """Fill `out` (n, h, w) float32 with the corrected parts, from (top, left) on, of n raw frames of one type."""
        (height, width), nx = out.shape[-2:], frames[0].shape[-1]
        name = PIXEL_NAMES[np.dtype(frames[0].dtype).str[1:]]
        raw = self._device.upload(np.array([frame.pointer for frame in frames], np.uint64))
        dark, gain, defects = corrections
        corner = np.int32(top), np.int32(left)
        self._device.launch(
            "correct", f"correct_{name}", (-(-width // PIXEL_THREADS), height, len(frames)), (PIXEL_THREADS,),
            raw, np.int32(nx), dark, gain, *corner, np.int32(width), out,
        )  # fmt: skip
        if defects is not None:
            self._device.launch(
                "correct", f"replace_defects_{name}", (-(-defects.n // THREADS), len(frames)), (THREADS,),
                raw, np.int32(nx), dark, gain, np.int32(defects.n), defects.defects, defects.first,
                defects.neighbours, *corner, np.int32(height), np.int32(width), out,
            )  # fmt: skip


def native_dtype(dtype: np.dtype) -> np.dtype:
    """The type in which the kernels get pixels of this type."""
    return dtype.newbyteorder("=") if dtype.str[1:] in PIXEL_NAMES else np.dtype(np.float32)


def native(raw: np.ndarray) -> np.ndarray:
    """The frame, contiguous and in a type that the kernels support."""
    return np.ascontiguousarray(raw, native_dtype(raw.dtype))


def _read(movie: Any, t: int, place: Optional[np.ndarray] = None) -> np.ndarray:
    """A frame for the device, in `place` if that is of its shape and type."""
    frame: np.ndarray = movie.frame(t)
    if place is None or (place.shape, place.dtype) != (frame.shape, native_dtype(frame.dtype)):
        return native(frame)
    np.copyto(place, frame)
    return place
