"""EER movies: electron events as run-length codes in a TIFF container, rendered and grouped by a decoder of our own.

tifffile reads the pages, never the events: the version that Scipion pins fails on EER with a recent imagecodecs.
"""

from __future__ import annotations

from typing import Any, List, Tuple

import numba
import numpy as np

from ..errors import MovieError
from ..settings import Settings
from .movie import Movie, read_into
from .tiff import TiffPageInfo

# TIFF compression -> bits of a code: skip, horizontal and vertical sub-pixel position.
SKIP_AND_SUBPIXEL_BITS = {65000: (8, 2, 2), 65001: (7, 2, 2), 65002: (7, 2, 2)}
BIT_TAGS = (65007, 65008, 65009)  # a 65002 file says its own


@numba.njit(cache=True, nogil=True)
def add_events(words, n_bits, counts, nx, ny, skip_bits, h_bits, v_bits, up):  # type: ignore[no-untyped-def]
    """Add the events of one hardware frame to `counts`.

    A code, least significant bit first, is the number of empty pixels before the event, then the horizontal and the
    vertical position inside the pixel, whose highest bits are stored inverted. A number of all ones is no event: it only
    skips, and has no position. The codes lead exactly to the end of the frame; other streams are corrupt.

    Parameters
    ----------
    words : uint64, the stream, little-endian, with at least one more word than its `n_bits` fill.
    counts : ((ny << up) * (nx << up),) unsigned, added to.

    Returns
    -------
    Number of events, or -1 if the stream is corrupt.
    """
    one = np.uint64(1)
    top = (one << np.uint64(skip_bits)) - one
    h_mask, v_mask = (one << np.uint64(h_bits)) - one, (one << np.uint64(v_bits)) - one
    h_flip, v_flip = one << np.uint64(h_bits - 1), one << np.uint64(v_bits - 1)
    h_at, v_at = np.uint64(skip_bits), np.uint64(skip_bits + h_bits)
    h_drop, v_drop = np.uint64(max(h_bits - up, 0)), np.uint64(max(v_bits - up, 0))
    skip_step, event_step = np.uint64(skip_bits), np.uint64(skip_bits + h_bits + v_bits)
    zoom, width = np.uint64(up), np.uint64(nx << up)
    row_length = np.uint64(nx)
    n_pixels = np.uint64(nx) * np.uint64(ny)
    end = np.uint64(n_bits)
    at = position = row = row_start = np.uint64(0)
    n_events = 0
    while position < n_pixels:
        if at + skip_step > end:
            return -1
        word, shift = at >> np.uint64(6), at & np.uint64(63)
        # Two steps for the upper word, since a shift by 64 is undefined.
        code = words[word] >> shift | (words[word + one] << one) << (np.uint64(63) - shift)
        skip = code & top
        position += skip
        if skip == top:
            at += skip_step
            continue
        if position >= n_pixels:
            break
        if up == 0:
            counts[position] += 1
        else:
            while position - row_start >= row_length:
                row_start += row_length
                row += one
            h = ((code >> h_at) & h_mask ^ h_flip) >> h_drop
            v = ((code >> v_at) & v_mask ^ v_flip) >> v_drop
            counts[((row << zoom) + v) * width + (position - row_start << zoom) + h] += 1
        n_events += 1
        position += one
        at += event_step
    return n_events if position == n_pixels else -1


class EerMovie(Movie):
    """An EER file, its hardware frames summed in equal groups into `settings.n_frames` frames of counts.

    A group has n // n_frames hardware frames; the n % n_frames last ones are left out, so that every frame has the same
    exposure, which dose weighting assumes. `hardware_frames_per_frame` and a note say what was done.
    """

    kind = "EER"

    def __init__(self, path: str, file: Any, pages: List[TiffPageInfo], settings: Settings, notes: List[str]) -> None:
        wanted = settings.n_frames
        events = [page for page in pages if page.compression in SKIP_AND_SUBPIXEL_BITS]
        if len(events) < len(pages):
            notes.append(f"{len(pages) - len(events)} pages that hold no electron events are not read.")
        if len(events) < wanted:
            raise MovieError(
                f"{path}: {len(events)} hardware frames can't be grouped into {wanted} frames: ask for at most "
                f"{len(events)} EER frames."
            )
        self._zoom = {1: 0, 2: 1, 4: 2}[settings.eer_sampling]
        self.hardware_frames_per_frame = group = len(events) // wanted
        left = len(events) - group * wanted
        notes.append(
            f"{len(events)} hardware frames summed by {group} into {wanted} frames"
            + (f"; the last {left} are left out, so that all have the same exposure." if left else ".")
        )
        if left > 0.1 * len(events):
            notes.append(
                f"{left} of {len(events)} hardware frames are left out: {len(events) // (group + 1)} EER frames would use "
                f"{len(events) // (group + 1) * (group + 1)} of them."
            )
        self._bits = [self._code_bits(path, page) for page in events[: group * wanted]]
        self._pages = events[: group * wanted]
        self._file = file
        self._sensor = ny, nx = events[0].shape
        # A pixel has at most one event in a hardware frame.
        dtype = np.uint8 if group <= 255 else np.uint16
        super().__init__(path, (wanted, ny << self._zoom, nx << self._zoom), dtype, notes)

    def _code_bits(self, path: str, page: TiffPageInfo) -> Tuple[int, int, int]:
        bits = SKIP_AND_SUBPIXEL_BITS[page.compression]
        if page.compression == 65002:
            bits = tuple(int(page.tags.get(tag, default)) for tag, default in zip(BIT_TAGS, bits))
        if not (1 <= bits[0] <= 16 and 1 <= min(bits[1:]) and max(bits[1:]) <= 8):
            raise MovieError(f"{path}: EER codes of {bits} bits are not supported: save it as EER version 1 (7, 2, 2).")
        if self._zoom > min(bits[1:]):
            raise MovieError(
                f"{path}: its events have {min(bits[1:])} sub-pixel bits, too few for EER sampling {1 << self._zoom}: use "
                f"{1 << min(bits[1:])} or less."
            )
        return bits

    def close(self) -> None:
        super().close()
        self._file.close()

    def _read(self, i: int) -> np.ndarray:
        ny, nx = self._sensor
        counts = np.zeros(self.shape[1:], self.dtype)
        first = i * self.hardware_frames_per_frame
        for k in range(first, first + self.hardware_frames_per_frame):
            words, n_bits = self._stream(self._pages[k])
            if add_events(words, n_bits, counts.reshape(-1), nx, ny, *self._bits[k], self._zoom) < 0:
                raise MovieError(
                    f"{self.path}: corrupt: the events of hardware frame {k + 1} don't fill the frame: copy the file again."
                )
        return counts

    def _stream(self, page: TiffPageInfo) -> Tuple[np.ndarray, int]:
        """The page's strips, one behind the other, as uint64 words, and their length in bits."""
        n_bytes = sum(n for _, n in page.segments)
        data = np.zeros((n_bytes // 8 + 2) * 8, np.uint8)
        at = 0
        for start, n in page.segments:
            read_into(self._file, self.path, start, data[at : at + n])
            at += n
        return data.view(np.uint64), 8 * n_bytes
