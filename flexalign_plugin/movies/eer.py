"""EER movies: electron events as run-length codes in a TIFF container, rendered and grouped here.

tifffile reads only the pages' tags. Its own decoder is not used, because the version that Scipion pins fails on EER
with a recent imagecodecs.
"""

from __future__ import annotations

import threading
from typing import Any, List, Optional, Set, Tuple

import numpy as np

from ..errors import MovieError
from ..jit import njit
from ..settings import Settings
from .eer_metadata import EerMetadata
from .movie import Movie, read_into
from .tiff import EER_BIT_TAGS, Pages, TiffPageInfo

# TIFF compression -> bits of a code: skip, horizontal and vertical sub-pixel position. For 65002 the file's tags
# can define others.
SKIP_AND_SUBPIXEL_BITS = {65000: (8, 2, 2), 65001: (7, 2, 2), 65002: (7, 2, 2)}
CACHED_BYTES = 1 << 18  # of `counts` that are filled at a time
DECODED_AT_ONCE = 64  # hardware frames; limits the memory for their streams
MAX_DAMAGED = 0.1  # share of the hardware frames that may be damaged
NAMED_FRAMES = 5  # damaged hardware frames listed in a note; further ones are only counted


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
    """An EER file whose hardware frames are summed in equal groups into frames of counts.

    The size of a group follows from the number of frames, or is given, or follows from the dose (`eer_group`,
    `eer_dose` of the settings). Hardware frames at the end that don't fill a group are left out, so that every frame
    has the same exposure, as dose weighting assumes; a note states them.

    A hardware frame that can't be decoded is left out of its group. The groups stay the same, since the specimen
    received its dose too. `damage` lists such frames. The movie can't be read if they are more than `MAX_DAMAGED`.

    Attributes
    ----------
    metadata : pixel size and dose according to the file itself.
    """

    kind = "EER"
    top_row_first = True
    hardware_frames_per_frame: int

    def __init__(self, path: str, file: Any, pages: Pages, settings: Settings, notes: List[str]) -> None:
        hardware_frames = [page for page in pages.pages if page.compression in SKIP_AND_SUBPIXEL_BITS]
        n_hardware = len(hardware_frames)
        if n_hardware < len(pages.pages):
            notes.append(f"{len(pages.pages) - n_hardware} pages that hold no electron events are not read.")
        self.metadata = pages.eer
        n_recorded = max(n_hardware, pages.eer.n_hardware_frames or 0) if pages.cut else n_hardware
        group, n_groups = _grouping(path, n_hardware, n_recorded, pages.eer, settings)
        self.upsampling = settings.eer_sampling
        self._zoom = {1: 0, 2: 1, 4: 2}[settings.eer_sampling]
        self.hardware_frames_per_frame = group
        if n_hardware < n_recorded:
            lost = n_recorded - n_hardware
            notes.append(
                f"{lost} of {n_recorded} hardware frames are missing at the end "
                f"({_percent(lost, n_recorded)} of the dose)."
            )
        n_left_out = n_hardware - group * n_groups
        notes.append(
            f"{n_hardware} hardware frames summed by {group} into {n_groups} frames"
            + (
                f"; the last {n_left_out} are left out, so that all have the same exposure "
                f"({_percent(n_left_out, n_hardware)} of the dose)."
                if n_left_out
                else "."
            )
        )
        if n_left_out > 0.1 * n_hardware and not (settings.eer_group or settings.eer_dose):
            fewer = n_hardware // (group + 1)
            notes.append(
                f"{n_left_out} of {n_hardware} hardware frames are left out: "
                f"{fewer} EER frames would use {fewer * (group + 1)} of them."
            )
        if settings.eer_dose and not settings.dose_is_known:
            notes.append("The size of the groups follows from the dose in the movie's own metadata.")
        whole = [page for page in hardware_frames if page.segments]
        if not whole:
            raise MovieError(f"{path}: damaged: it has no hardware frame that can be read: copy the file again.")
        codes = {self._code_bits(path, page) for page in whole}
        if len(codes) > 1 or len({page.shape for page in whole}) > 1:
            raise MovieError(f"{path}: its hardware frames differ in size or coding: copy the file again.")
        self._bits = codes.pop()
        self._pages = hardware_frames[: group * n_groups]
        self._file = file
        self._sensor = ny, nx = whole[0].shape
        self._damaged: Set[int] = set()
        self._lock = threading.Lock()
        # A pixel has at most one event in a hardware frame.
        dtype = np.uint8 if group <= 255 else np.uint16
        super().__init__(path, (n_groups, ny << self._zoom, nx << self._zoom), dtype, notes)
        self.n_recorded = n_recorded

    def damage(self) -> List[str]:
        if not self._damaged:
            return []
        numbers = sorted(i + 1 for i in self._damaged)
        shown = ", ".join(map(str, numbers[:NAMED_FRAMES]))
        more = f" and {len(numbers) - NAMED_FRAMES} more" if len(numbers) > NAMED_FRAMES else ""
        return [
            f"{len(numbers)} of {len(self._pages)} hardware frames ({_percent(len(numbers), len(self._pages))} of the "
            f"dose) are damaged and were left out: {shown}{more}."
        ]

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
        first, n = i * self.hardware_frames_per_frame, self.hardware_frames_per_frame
        usable = [k for k in range(first, first + n) if self._pages[k].segments and k not in self._damaged]
        self._leave_out({k for k in range(first, first + n) if not self._pages[k].segments})
        while True:
            counts = np.zeros(self.shape[1:], self.dtype)
            corrupt = self._add(usable, counts)
            if corrupt is None:
                return counts
            # Some of its events are in the counts already, so the group is decoded again without it.
            self._leave_out({corrupt})
            usable.remove(corrupt)

    def _add(self, numbers: List[int], counts: np.ndarray) -> Optional[int]:
        """Add the events of hardware frames to `counts`; returns the number of the first corrupt one, if there is
        one."""
        ny, nx = self._sensor
        for start in range(0, len(numbers), DECODED_AT_ONCE):
            part = numbers[start : start + DECODED_AT_ONCE]
            streams = self._streams([self._pages[k] for k in part])
            corrupt = add_events(*streams, counts.reshape(-1), nx, ny, *self._bits, self._zoom)
            if corrupt >= 0:
                return part[corrupt]
        return None

    def _leave_out(self, damaged: Set[int]) -> None:
        if not damaged:
            return
        with self._lock:
            self._damaged |= damaged
            n = len(self._damaged)
        if n > MAX_DAMAGED * len(self._pages):
            raise MovieError(
                f"{self.path}: corrupt: the events of hardware frame {min(damaged) + 1} don't fill the frame exactly, "
                f"and at least {n} of {len(self._pages)} hardware frames are damaged (up to "
                f"{_percent(MAX_DAMAGED, 1)} are left out): copy the file again."
            )

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


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.2g} %"


def _grouping(
    path: str, n_hardware: int, n_recorded: int, metadata: EerMetadata, settings: Settings
) -> Tuple[int, int]:
    """Number of hardware frames in a frame, and number of frames.

    Parameters
    ----------
    n_hardware : hardware frames in the file. n_recorded : of the whole exposure.

    Raises
    ------
    MovieError : the file has too few hardware frames, or the dose is needed and not known.
    """
    if not (settings.eer_group or settings.eer_dose):
        if n_hardware < settings.n_frames:
            raise MovieError(
                f"{path}: {n_hardware} hardware frames can't be grouped into {settings.n_frames} frames: ask for at "
                f"most {n_hardware} EER frames (Number of EER frames in the form, --n-frames)."
            )
        # The groups of a truncated file are those of the whole exposure, so that the dose of a frame stays the same.
        group = n_recorded // settings.n_frames
        return group, min(max(n_hardware // group, 1), settings.n_frames)
    group = settings.eer_group
    if settings.eer_dose:
        dose = settings.dose_per_hardware_frame
        if dose is None:
            total = settings.total_dose or metadata.total_dose(settings.pixel_size)
            dose = None if total is None else total / n_recorded
        if not dose:
            raise MovieError(
                f"{path}: frames of {settings.eer_dose:g} e/A^2 need the dose, which is not known: give the dose of "
                "the whole movie or of a hardware frame, or group by number."
            )
        group = max(round(settings.eer_dose / dose), 1)
    if n_hardware < 2 * group:
        raise MovieError(
            f"{path}: {n_hardware} hardware frames make {n_hardware // group} frames of {group}, but at least 2 are "
            f"needed: use groups of at most {max(n_hardware // 2, 1)} hardware frames, or a lower dose per frame."
        )
    return group, n_hardware // group
