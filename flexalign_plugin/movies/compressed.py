"""MRC stacks compressed as a whole with bzip2 or gzip (.mrc.bz2, .mrc.gz)."""

from __future__ import annotations

import bz2
import gzip
import os
import threading
import zlib
from typing import Any, Callable, Dict, List, Optional

import numpy as np

from ..errors import MovieError
from . import bzip2
from .movie import Movie, bytes_to_keep
from .mrc import HEADER_BYTES, looks_like_mrc, mrc_layout

OPENERS: Dict[bytes, Callable[..., Any]] = {b"BZ": bz2.open, b"\x1f\x8b": gzip.open}  # by the first two bytes
# How much smaller a file can become at most: of gzip a limit of the format, of bzip2 that of a file of zeros.
LARGEST_RATIO = {b"BZ": 30_000, b"\x1f\x8b": 1_100}


class CompressedMrcMovie(Movie):
    """A compressed MRC stack.

    Such a file can only be read from its start, so the first request for a frame decodes all frames into memory. If
    they don't fit there, each frame is decoded on request, which is fast only in the file's order.
    """

    kind = "MRC"
    read_in_order = True

    def __init__(self, path: str, magic: bytes) -> None:
        self._open = OPENERS[magic]
        self._lock = threading.Lock()
        self._stream: Any = None
        self._next = 0
        self._fits: Optional[bool] = None  # whether all frames fit into memory; None: not tried yet
        self.path = path
        notes: List[str] = []
        header = bytes(self._bytes(HEADER_BYTES, "its header"))
        if not looks_like_mrc(header):
            raise MovieError(
                f"{path}: holds no readable MRC stack: copy the file again, or decompress it if it is a movie of "
                "another format."
            )
        self._layout = layout = mrc_layout(path, header, notes)
        stored = os.path.getsize(path)
        if layout.total_bytes > LARGEST_RATIO[magic] * stored:
            n_frames, ny, nx = layout.shape
            raise MovieError(
                f"{path}: truncated or damaged: its header specifies {n_frames} frames of {nx} x {ny}, which can't be "
                f"in {stored} compressed bytes: copy the file again."
            )
        super().__init__(path, layout.shape, layout.dtype.newbyteorder("="), notes)
        self.close()

    def prefetch(
        self, max_bytes: Optional[float] = None, threads: Optional[int] = None, frames: Optional[range] = None
    ) -> None:
        """Decode all frames into memory if they fit in `max_bytes`; in parallel threads for bzip2, in one for gzip."""
        with self._lock:
            if all(frame is not None for frame in self._kept):
                return
            self._fits = self.n_bytes <= bytes_to_keep(max_bytes)
            if not self._fits:
                return
            self.decoded_bytes = self.n_bytes
            decoded = self._decode_blocks(threads) if self._open is bz2.open else None
            self._kept = list(decoded or [self._decode(i) for i in range(self.n_frames)])
            self._rewind()

    def close(self) -> None:
        with self._lock:
            super().close()
            self._rewind()

    def _read(self, i: int) -> np.ndarray:
        if self._fits is None:
            self.prefetch()
        with self._lock:
            kept = self._kept[i]
            return self._decode(i) if kept is None else kept

    def _decode_blocks(self, threads: Optional[int]) -> Optional[List[np.ndarray]]:
        """All frames of a bzip2 file, or None if this fails; sequential reading then reports what is wrong."""
        layout, filled = self._layout, 0
        data = np.empty(layout.total_bytes, np.uint8)
        try:
            for block in bzip2.decompress(self.path, threads):
                part = block[: len(data) - filled]
                data[filled : filled + len(part)] = part
                filled += len(part)
        except (OSError, ValueError):
            return None
        if filled < len(data):
            return None
        stored = data[layout.offset :].view(layout.dtype).reshape(self.n_frames, layout.shape[1], layout.stored_row)
        return [layout.expand(frame) for frame in stored]

    def _decode(self, i: int) -> np.ndarray:
        """Frame `i`, decoded from the current position of the stream, or from its start if that is beyond the frame."""
        layout = self._layout
        if self._stream is None or self._next > i:
            self._rewind()
            self._bytes(layout.offset, "its header")
        for k in range(self._next, i + 1):
            stored = self._bytes(layout.frame_bytes, f"frame {k + 1} of {layout.shape[0]}")
            self._next = k + 1
        if self._next == layout.shape[0]:
            self._check_end()
        return layout.expand(stored.view(layout.dtype).reshape(layout.shape[1], layout.stored_row))

    def _bytes(self, n: int, where: str) -> np.ndarray:
        """The next `n` bytes of the decompressed stream; `where` is for the error message."""
        data = np.empty(n, np.uint8)
        view, done = data.data, 0
        try:
            if self._stream is None:
                self._stream = self._open(self.path, "rb")
            while done < n:
                got = self._stream.readinto(view[done:])
                if not got:
                    raise EOFError("the data ends")
                done += got
        except (OSError, EOFError, zlib.error) as error:
            raise self._corrupt(where, error) from error
        return data

    def _check_end(self) -> None:
        """Read the rest of the file after the last frame, so that gzip checks its checksum."""
        try:
            while self._stream is not None and self._stream.read(1 << 20):
                pass
        except (OSError, EOFError, zlib.error) as error:
            raise self._corrupt("its end", error) from error

    def _corrupt(self, where: str, error: Exception) -> MovieError:
        self._rewind()
        return MovieError(f"{self.path}: truncated or corrupt in {where} ({error}): copy or compress the file again.")

    def _rewind(self) -> None:
        if self._stream is not None:
            self._stream.close()
        self._stream, self._next = None, 0
