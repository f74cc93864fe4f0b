"""EER movies: electron events as run-length codes in a TIFF container, rendered and grouped here.

tifffile reads only the pages' tags. Its own decoder is not used, because the version that Scipion pins fails on EER
with a recent imagecodecs.
"""

from __future__ import annotations

from typing import Any, List, Tuple

import numpy as np

from ..errors import MovieError
from ..jit import njit
from ..settings import Settings
from .movie import Movie, read_into
from .tiff import EER_BIT_TAGS, TiffPageInfo

# TIFF compression -> bits of a code: skip, horizontal and vertical sub-pixel position. For 65002 the file's tags
# can define others.
SKIP_AND_SUBPIXEL_BITS = {65000: (8, 2, 2), 65001: (7, 2, 2), 65002: (7, 2, 2)}
CACHED_BYTES = 1 << 18  # of `counts` that are filled at a time
DECODED_AT_ONCE = 64  # hardware frames; limits the memory for their streams


@njit(nogil=True)
def add_events(words, first_word, n_bits, counts, nx, ny, skip_bits, h_bits, v_bits, up):  # type: ignore[no-untyped-def]
    """Add the events of several hardware frames to `counts`.

    A code, least significant bit first, is the number of empty pixels before the event, then the horizontal and the
    vertical position inside the pixel, whose highest bits are stored inverted. If all bits of the first number are
    ones, the code is no event: it only skips pixels and has no position. A stream is corrupt unless its codes end
    exactly at the end of the frame.

    All frames are decoded together, a few rows at a time, so that these rows of `counts` stay in the cache.

    Parameters
    ----------
    words : uint64, the streams, little-endian, each followed by at least one more word.
    first_word, n_bits : (n,) int64, where each stream starts and how long it is.
    counts : ((ny << up) * (nx << up),) unsigned, added to.

    Returns
    -------
    Index of the first corrupt stream, or -1 if there is none.
    """
    one, six, word_bits = np.uint64(1), np.uint64(6), np.uint64(63)
    top = (one << np.uint64(skip_bits)) - one
    h_mask, v_mask = (one << np.uint64(h_bits)) - one, (one << np.uint64(v_bits)) - one
    h_flip, v_flip = one << np.uint64(h_bits - 1), one << np.uint64(v_bits - 1)
    h_at, v_at = np.uint64(skip_bits), np.uint64(skip_bits + h_bits)
    h_drop, v_drop = np.uint64(h_bits - up), np.uint64(v_bits - up)
    skip_step, code_step = np.uint64(skip_bits), np.uint64(skip_bits + h_bits + v_bits)
    zoom, width, row_length = np.uint64(up), np.uint64(nx << up), np.uint64(nx)
    n_pixels = np.uint64(nx) * np.uint64(ny)
    rows_at_once = max(CACHED_BYTES // ((nx << 2 * up) * counts.itemsize), 1)
    at = first_word.astype(np.uint64) << six  # next bit of each stream in `words`
    end = at + n_bits.astype(np.uint64)
    reached = np.zeros(len(at), np.uint64)  # next pixel of each stream
    for first_row in range(0, ny, rows_at_once):
        stop = np.uint64(min(first_row + rows_at_once, ny)) * row_length
        for k in range(len(at)):
            here, position, last = at[k], reached[k], end[k]
            row = np.uint64(first_row)
            next_row = (row + one) * row_length
            while position < stop:
                if here + skip_step > last:
                    return k
                word, shift = here >> six, here & word_bits
                # Two shifts for the upper word, because a shift by 64 is undefined.
                code = words[word] >> shift | (words[word + one] << one) << (word_bits - shift)
                skip = code & top
                if skip == top:
                    position += skip
                    here += skip_step
                    continue
                pixel = position + skip
                if pixel >= stop:
                    # An event of a later block of rows, or the end mark.
                    if pixel >= n_pixels:
                        position = pixel
                    break
                if up == 0:
                    counts[pixel] += 1
                else:
                    while pixel >= next_row:
                        row += one
                        next_row += row_length
                    h = ((code >> h_at) & h_mask ^ h_flip) >> h_drop
                    v = ((code >> v_at) & v_mask ^ v_flip) >> v_drop
                    column = pixel + row_length - next_row
                    counts[((row << zoom) + v) * width + (column << zoom) + h] += 1
                position = pixel + one
                here += code_step
            at[k], reached[k] = here, position
    for k in range(len(at)):
        if reached[k] != n_pixels:
            return k
    return -1


class EerMovie(Movie):
    """An EER file whose hardware frames are summed in equal groups into `settings.n_frames` frames of counts.

    Of N hardware frames, each group has N // n_frames. The last N % n_frames are left out, so that every frame has the
    same exposure, as dose weighting assumes. `hardware_frames_per_frame` and a note contain the group size.
    """

    kind = "EER"
    top_row_first = True
    hardware_frames_per_frame: int

    def __init__(self, path: str, file: Any, pages: List[TiffPageInfo], settings: Settings, notes: List[str]) -> None:
        n_groups = settings.n_frames  # frames of this movie
        hardware_frames = [page for page in pages if page.compression in SKIP_AND_SUBPIXEL_BITS]
        n_hardware = len(hardware_frames)
        if n_hardware < len(pages):
            notes.append(f"{len(pages) - n_hardware} pages that hold no electron events are not read.")
        if n_hardware < n_groups:
            raise MovieError(
                f"{path}: {n_hardware} hardware frames can't be grouped into {n_groups} frames: ask for at most "
                f"{n_hardware} EER frames (Number of EER frames in the form, --n-frames)."
            )
        self._zoom = {1: 0, 2: 1, 4: 2}[settings.eer_sampling]
        group_size = self.hardware_frames_per_frame = n_hardware // n_groups
        n_left_out = n_hardware - group_size * n_groups
        notes.append(
            f"{n_hardware} hardware frames summed by {group_size} into {n_groups} frames"
            + (f"; the last {n_left_out} are left out, so that all have the same exposure." if n_left_out else ".")
        )
        if n_left_out > 0.1 * n_hardware:
            fewer = n_hardware // (group_size + 1)
            notes.append(
                f"{n_left_out} of {n_hardware} hardware frames are left out: "
                f"{fewer} EER frames would use {fewer * (group_size + 1)} of them."
            )
        codes = {self._code_bits(path, page) for page in hardware_frames}
        if len(codes) > 1 or len({page.shape for page in hardware_frames}) > 1:
            raise MovieError(f"{path}: its hardware frames differ in size or coding: copy the file again.")
        self._bits = codes.pop()
        self._pages = hardware_frames[: group_size * n_groups]
        self._file = file
        self._sensor = ny, nx = hardware_frames[0].shape
        # A pixel has at most one event in a hardware frame.
        dtype = np.uint8 if group_size <= 255 else np.uint16
        super().__init__(path, (n_groups, ny << self._zoom, nx << self._zoom), dtype, notes)

    def _code_bits(self, path: str, page: TiffPageInfo) -> Tuple[int, int, int]:
        skip, horizontal, vertical = SKIP_AND_SUBPIXEL_BITS[page.compression]
        if page.compression == 65002:
            skip, horizontal, vertical = (
                page.tags.get(tag, default) for tag, default in zip(EER_BIT_TAGS, (skip, horizontal, vertical))
            )
        fewest = min(horizontal, vertical)
        if not (1 <= skip <= 16 and fewest >= 1 and max(horizontal, vertical) <= 8):
            raise MovieError(
                f"{path}: EER codes of {skip}, {horizontal} and {vertical} bits are not supported: save it as EER "
                "with 7, 2 and 2 bits."
            )
        if self._zoom > fewest:
            raise MovieError(
                f"{path}: its events have {fewest} sub-pixel bits, too few for EER sampling {1 << self._zoom}: use "
                f"{1 << fewest} or less."
            )
        return skip, horizontal, vertical

    def close(self) -> None:
        super().close()
        self._file.close()

    def _read(self, i: int) -> np.ndarray:
        ny, nx = self._sensor
        counts = np.zeros(self.shape[1:], self.dtype)
        first, n = i * self.hardware_frames_per_frame, self.hardware_frames_per_frame
        for start in range(first, first + n, DECODED_AT_ONCE):
            streams = self._streams(self._pages[start : min(start + DECODED_AT_ONCE, first + n)])
            corrupt = add_events(*streams, counts.reshape(-1), nx, ny, *self._bits, self._zoom)
            if corrupt >= 0:
                raise MovieError(
                    f"{self.path}: corrupt: the events of hardware frame {start + corrupt + 1} don't fill the frame "
                    "exactly: copy the file again."
                )
        return counts

    def _streams(self, pages: List[TiffPageInfo]) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The pages' streams as uint64 words, the index of each stream's first word, and its length in bits."""
        n_bytes = np.array([sum(n for _, n in page.segments) for page in pages])
        n_words = n_bytes // 8 + 2
        first_word = np.cumsum(n_words) - n_words
        data = np.zeros(8 * n_words.sum(), np.uint8)
        for page, word in zip(pages, first_word):
            at = 8 * int(word)
            for start, n in page.segments:
                read_into(self._file, self.path, start, data[at : at + n])
                at += n
        return data.view(np.uint64), first_word, 8 * n_bytes
