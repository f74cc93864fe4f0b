"""MRC and MRCS stacks, read-only; 4-bit data (mode 101 and IMOD's packed bytes) is expanded to uint8."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import BinaryIO, List, Optional, Tuple

import mrcfile.dtypes
import numpy as np

from ..errors import MovieError
from ..jit import njit
from .movie import TRUNCATED_ADVICE, Movie, read_into

HEADER_BYTES = 1024
MODES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2", 101: "u1"}
MODE_PACKED = 101  # two 4-bit pixels a byte, the low half first; each row starts a new byte
MODE_NAMES = {3: "complex 16-bit", 4: "complex 32-bit", 16: "RGB"}
MAX_SIZE = 1_000_000  # pixels along an axis, or frames; larger numbers mean a damaged header or the other byte order

# Header words that IMOD defines (see its mrcHeader documentation): offsets in bytes of a stamp and of flags.
IMOD_STAMP_AT, IMOD_FLAGS_AT = 152, 156
IMOD_STAMP = 1146047817
IMOD_SIGNED_BYTES = 1
IMOD_PACKED_BYTES = 16


def is_packed_super_resolution(nx: int, ny: int) -> bool:
    """Whether byte frames of this size are 4-bit super-resolution frames of a K2 or K3 stored with half their width.

    SerialEM writes such TIFF files without a mark in the header. IMOD, RELION and cisTEM also decide by the size.
    """
    sensors = ((7676, 7420), (7680, 7424), (11520, 8184))
    return any(abs(2 * nx - a) <= 4 and abs(ny - b) <= 2 for x, y in sensors for a, b in ((x, y), (y, x)))


def unpack_4bit(packed: np.ndarray, nx: int, high_first: bool = False) -> np.ndarray:
    """Expand bytes that hold two pixels each: (ny, (nx + 1) // 2) uint8 -> (ny, nx) uint8."""
    frame = np.empty((packed.shape[0], nx), np.uint8)
    _unpack(packed, frame, high_first)
    return frame


@njit(nogil=True)
def _unpack(packed, frame, high_first):  # type: ignore[no-untyped-def]
    nx = frame.shape[1]
    for y in range(frame.shape[0]):
        for x in range(nx // 2):
            low, high = packed[y, x] & 15, packed[y, x] >> 4
            frame[y, 2 * x] = high if high_first else low
            frame[y, 2 * x + 1] = low if high_first else high
        if nx % 2:
            frame[y, nx - 1] = packed[y, nx // 2] >> 4 if high_first else packed[y, nx // 2] & 15


@dataclass(frozen=True)
class MrcLayout:
    """Position and storage of the frames in an MRC file.

    Attributes
    ----------
    shape : (n_frames, ny, nx). dtype : with the file's byte order. packed : two 4-bit pixels per byte.
    offset : bytes before the first frame.
    """

    shape: Tuple[int, int, int]
    dtype: np.dtype
    packed: bool
    offset: int

    @property
    def stored_row(self) -> int:
        """Items in a stored row."""
        return (self.shape[2] + 1) // 2 if self.packed else self.shape[2]

    @property
    def frame_bytes(self) -> int:
        return self.shape[1] * self.stored_row * self.dtype.itemsize

    @property
    def total_bytes(self) -> int:
        return self.offset + self.shape[0] * self.frame_bytes

    def expand(self, stored: np.ndarray) -> np.ndarray:
        """A stored frame (ny, stored_row) as (ny, nx) in native byte order, without a copy where none is needed."""
        if self.packed:
            return unpack_4bit(stored, self.shape[2])
        return stored.astype(self.dtype.newbyteorder("="), copy=False)


def looks_like_mrc(header: bytes) -> bool:
    """Whether the first bytes of a file are an MRC header, by its marks or by plausible numbers."""
    return len(header) >= HEADER_BYTES and _byte_order(header) is not None


def _byte_order(header: bytes) -> Optional[str]:
    """'<' or '>': the machine stamp's byte order if the header is plausible in it, else the other one if it is."""
    stamped = ">" if header[212] == 0x11 else "<"
    for order in (stamped, "<" if stamped == ">" else ">"):
        nx, ny, nz, mode = np.frombuffer(header, order + "i4", 4)
        if all(0 < n < MAX_SIZE for n in (nx, ny, nz)) and 0 <= mode < 256:
            return order
    return None


def mrc_layout(path: str, header: bytes, notes: List[str]) -> MrcLayout:
    """The layout that an MRC header describes; notes are appended to `notes`.

    Raises
    ------
    MovieError : the header is damaged or not that of a movie.
    """
    order = _byte_order(header) if len(header) >= HEADER_BYTES else None
    if order is None:
        raise MovieError(f"{path}: its MRC header is damaged (impossible image size or mode): copy the file again.")
    fields = np.frombuffer(header, mrcfile.dtypes.HEADER_DTYPE.newbyteorder(order), 1)[0]
    nx, ny, nz, mode, extended = (int(fields[name]) for name in ("nx", "ny", "nz", "mode", "nsymbt"))
    if mode not in MODES:
        raise MovieError(
            f"{path}: MRC mode {mode} ({MODE_NAMES.get(mode, 'unknown')}) can't be a movie: use mode "
            f"{', '.join(map(str, MODES))}."
        )
    if extended < 0:
        raise MovieError(
            f"{path}: its MRC header is damaged (extended header of {extended} bytes): copy the file again."
        )
    dtype = np.dtype(order + MODES[mode])
    packed = mode == MODE_PACKED
    if mode == 0:
        stamp = np.frombuffer(header, order + "i4", 1, IMOD_STAMP_AT)[0] == IMOD_STAMP
        flags = int(np.frombuffer(header, order + "i4", 1, IMOD_FLAGS_AT)[0]) if stamp else 0
        labelled = b"4 bits packed" in bytes(fields["label"][0]) and is_packed_super_resolution(nx, ny)
        if flags & IMOD_PACKED_BYTES or labelled:
            packed, nx = True, 2 * nx
            notes.append(f"Bytes hold two 4-bit pixels each (IMOD's mark): frames are {nx} x {ny}.")
        unsigned_range = fields["dmin"] >= 0 and fields["dmax"] > 127
        if packed or (stamp and not flags & IMOD_SIGNED_BYTES) or (not stamp and unsigned_range):
            dtype = np.dtype("u1")
            if not stamp and not packed:
                notes.append(f"Bytes taken as unsigned, since the header's maximum is {fields['dmax']:g}.")
    return MrcLayout((nz, ny, nx), dtype, packed, HEADER_BYTES + extended)


class MrcMovie(Movie):
    """An uncompressed MRC stack.

    A mapped file is fastest, but its pages count as memory of the process, until the system needs them.
    """

    kind = "MRC"

    def __init__(self, path: str, header: bytes, use_whole_frames: bool = False, mapped: bool = True) -> None:
        notes: List[str] = []
        warnings: List[str] = []
        self._layout = layout = mrc_layout(path, header, notes)
        size = os.path.getsize(path)
        n_recorded, ny, nx = layout.shape
        n_frames = n_recorded
        if size < layout.total_bytes:
            whole = max(size - layout.offset, 0) / layout.frame_bytes
            cut = (
                f"truncated: its header specifies {n_frames} frames of {nx} x {ny} ({layout.total_bytes} bytes), but "
                f"the file holds {whole:.1f} ({size} bytes)"
            )
            if not use_whole_frames or whole < 1:
                raise MovieError(f"{path}: {cut}: {TRUNCATED_ADVICE}")
            n_frames = int(whole)
            warnings.append(f"The file is {cut}: its {n_frames} complete frames are used.")
        elif size > layout.total_bytes:
            notes.append(f"{size - layout.total_bytes} bytes after the {n_frames} frames of the header are not read.")
        self._stored: Optional[np.ndarray] = None
        self._file: Optional[BinaryIO] = None
        if mapped:
            stored = np.memmap(path, layout.dtype, "r", layout.offset, (n_frames, ny, layout.stored_row))
            self._stored = stored.view(np.ndarray)
        else:
            self._file = open(path, "rb")
        self.memory_mapped = mapped
        super().__init__(path, (n_frames, ny, nx), layout.dtype.newbyteorder("="), notes)
        self.warnings, self.n_recorded = warnings, n_recorded

    def prefetch(
        self, max_bytes: Optional[float] = None, threads: Optional[int] = None, frames: Optional[range] = None
    ) -> None:
        """Ask the operating system to read the file ahead into the page cache, which serves the frames."""
        if not self.memory_mapped:
            return super().prefetch(max_bytes, threads, frames)
        with open(self.path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)

    def close(self) -> None:
        super().close()
        self._stored = None
        if self._file is not None:
            self._file.close()

    def _read(self, i: int) -> np.ndarray:
        if self._stored is not None:
            return self._layout.expand(self._stored[i])
        if self._file is None:
            raise ValueError("movie is closed")
        stored = np.empty((self.shape[1], self._layout.stored_row), self._layout.dtype)
        read_into(self._file, self.path, self._layout.offset + i * self._layout.frame_bytes, stored)
        return self._layout.expand(stored)
