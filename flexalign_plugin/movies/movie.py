"""`Movie`, the interface of all readers: the shape, and frames in their native dtype, decoded on request."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO, List, Optional, Tuple

import numpy as np

from ..errors import MovieError
from ..inputs import State, file_state
from ..memory import available_bytes

UNKNOWN_MEMORY_BYTES = 3e9  # for decoded frames, if the system does not tell how much memory is free
TRUNCATED_ADVICE = (
    "copy the file again, or align its complete frames (Use complete frames of truncated movies? in the form, "
    "--use-whole-frames)."
)


class Movie:
    """A stack of frames in a file, read lazily; a context manager.

    Frames keep the row order of the file: row 0 is the first stored row (MRC: the bottom row; TIFF and EER: the top
    row), unless a TIFF movie is opened with `flip_tiff`.

    Attributes
    ----------
    path : the file.
    kind : "MRC", "TIFF" or "EER".
    top_row_first : whether row 0 of the frames is the top row of the picture.
    shape : (n_frames, ny, nx). For EER, n_frames is the number of groups of hardware frames.
    dtype : of the arrays that `frame` returns, in native byte order.
    memory_mapped : whether frames are read from the page cache, so that `prefetch` need not copy them.
    notes, warnings : sentences for the user about how the file was read.
    n_recorded : frames of the whole exposure, of which a truncated file has fewer; for EER hardware frames.
    read_in_order : whether a frame can only be read after all frames before it.
    hardware_frames_per_frame : size of a group of an EER movie; None for other movies.
    upsampling : pixels of a frame along each side of a recorded pixel: 2 or 4 for EER rendered at 8K or 16K, else 1.
    state : of the file when it was opened, see `inputs.file_state`; None if the movie is not from a file.
    """

    kind = ""
    top_row_first = False
    memory_mapped = False
    read_in_order = False
    hardware_frames_per_frame: Optional[int] = None
    upsampling = 1
    state: State = None

    def __init__(self, path: str, shape: Tuple[int, int, int], dtype: Any, notes: Optional[List[str]] = None) -> None:
        self.path = path
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self.notes: List[str] = list(notes or [])
        self.warnings: List[str] = []
        self.n_recorded = shape[0]
        self._kept: List[Optional[np.ndarray]] = [None] * shape[0]
        self.decoded_bytes = 0  # memory of the frames that `prefetch` keeps, or is about to

    @property
    def n_frames(self) -> int:
        return self.shape[0]

    @property
    def n_bytes(self) -> int:
        """Memory that all decoded frames take."""
        return self.shape[0] * self.shape[1] * self.shape[2] * self.dtype.itemsize

    def frame(self, i: int) -> np.ndarray:
        """Frame `i` (0-based) as (ny, nx), native dtype, C-contiguous, perhaps read-only. Thread-safe.

        Raises MovieError if the data of this frame is truncated or corrupt.
        """
        if not 0 <= i < self.shape[0]:
            raise IndexError(f"frame {i} of {self.shape[0]}")
        kept = self._kept[i]
        return self._read(i) if kept is None else kept

    def damage(self) -> List[str]:
        """Sentences on parts of the file that can't be read and were left out. Complete when all frames were read."""
        return []

    def prefetch(
        self, max_bytes: Optional[float] = None, threads: Optional[int] = None, frames: Optional[range] = None
    ) -> None:
        """Decode frames into memory in parallel threads, so that each is decoded once.

        Parameters
        ----------
        max_bytes : of memory for all frames that are kept; None: half of what is free. If some of the frames don't fit,
            these are decoded whenever they are read.
        frames : None: all.
        """
        frames = range(self.shape[0]) if frames is None else frames
        if self.memory_mapped:
            return
        each = self.n_bytes // self.shape[0]
        n_kept = sum(frame is not None for frame in self._kept)
        room = max(int(bytes_to_keep(max_bytes) // each) - n_kept, 0)
        missing = [i for i in frames if self._kept[i] is None][:room]
        self.decoded_bytes = each * (n_kept + len(missing))
        with ThreadPoolExecutor(threads or len(os.sched_getaffinity(0))) as pool:
            for i, frame in zip(missing, pool.map(self._read, missing)):
                self._kept[i] = frame

    def check_unchanged(self) -> None:
        """MovieError if the file has been changed since it was opened, so that frames of two movies may be mixed."""
        if self.state is not None and file_state(self.path) != self.state:
            raise MovieError(
                f"{self.path}: was changed while it was read: wait until it is complete, then align it again."
            )

    def close(self) -> None:
        """Close the file and release the frames kept by `prefetch`."""
        self._kept = [None] * self.shape[0]
        self.decoded_bytes = 0

    def __enter__(self) -> Movie:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _read(self, i: int) -> np.ndarray:
        raise NotImplementedError


def bytes_to_keep(max_bytes: Optional[float]) -> float:
    """`max_bytes`, or half of the free memory."""
    if max_bytes is not None:
        return max_bytes
    free = available_bytes()
    return UNKNOWN_MEMORY_BYTES if free is None else free / 2


def read_into(file: BinaryIO, path: str, offset: int, out: np.ndarray) -> None:
    """Fill the bytes of the contiguous array `out` from `offset` on; several threads may share one file."""
    view = out.data.cast("B")
    done = 0
    while done < len(view):
        try:
            got = os.preadv(file.fileno(), [view[done:]], offset + done)
        except OSError as error:
            raise MovieError(
                f"{path}: reading failed ({error.strerror}): check the disk or the network mount."
            ) from error
        if got == 0:
            raise MovieError(f"{path}: truncated: it ends at byte {offset + done}: copy the file again.")
        done += got
