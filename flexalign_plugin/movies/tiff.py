"""TIFF movies: tifffile reads the pages' tags once; strips and tiles are decoded here, in any thread."""

from __future__ import annotations

import dataclasses
import logging
import os
import struct
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Callable, Dict, List, Optional, Tuple

import imagecodecs
import numpy as np
import tifffile

from ..errors import MovieError
from .eer_metadata import EerMetadata, metadata_of_page
from .lzw import lzw_decode
from .movie import Movie, read_into
from .mrc import is_packed_super_resolution, unpack_4bit

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
NO_COMPRESSION, LZW = 1, 5
DECODERS: Dict[int, Callable[..., Any]] = {
    8: imagecodecs.zlib_decode,
    32946: imagecodecs.zlib_decode,
    50000: imagecodecs.zstd_decode,
    34926: imagecodecs.zstd_decode,
}
SAMPLE_FORMATS = {1: "u", 2: "i", 3: "f"}
DTYPES = ("u1", "u2", "u4", "i1", "i2", "i4", "f2", "f4", "f8")
MAX_PAGES = 50_000  # ten times the hardware frames of a long EER movie; each takes some kB of memory
MAX_TILE_EXCESS = 1 << 16  # pixels by which a tile may be larger than the frame
NO_PREDICTOR, DIFFERENCES, FLOAT_DIFFERENCES = 1, 2, 3
EER_COMPRESSIONS = (65000, 65001, 65002)
EER_BIT_TAGS = (65007, 65008, 65009)

# tifffile logs problems of damaged files; here they become errors.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


@dataclass(frozen=True)
class TiffPageInfo:
    """Everything that is needed to decode a page.

    `shape` is (ny, nx) in pixels. `stored_shape` and `segment`, the (rows, columns) of a strip or tile, are in items of
    `dtype`.
    """

    shape: Tuple[int, int]
    stored_shape: Tuple[int, int]
    dtype: np.dtype
    bits: int
    compression: int
    predictor: int
    reversed_bits: bool
    samples: int
    segment: Tuple[int, int]
    segments: Tuple[Tuple[int, int], ...]  # (offset, bytes) in the file, row by row
    tags: Dict[int, int] = field(default_factory=dict)

    @property
    def segments_across(self) -> int:
        return -(-self.stored_shape[1] // self.segment[1])

    @property
    def segments_needed(self) -> int:
        return self.segments_across * -(-self.stored_shape[0] // self.segment[0])


@dataclass(frozen=True)
class Pages:
    """The pages of a TIFF file that are complete; `cut` describes why the file has fewer than were written, or is "".

    `eer` : the metadata of an EER file.
    """

    pages: List[TiffPageInfo]
    cut: str
    eer: EerMetadata


def read_pages(path: str) -> Pages:
    """The pages of a TIFF file, checked against the file's size.

    A page of electron events whose data are outside the file, although those of later pages are not, has no segments.

    Raises
    ------
    MovieError : the file is damaged, or has no complete page.
    """
    size = os.path.getsize(path)
    pages: List[TiffPageInfo] = []
    metadata, problem = EerMetadata(), ""
    try:
        with tifffile.TiffFile(path) as tiff:
            order = tiff.byteorder
            last, seen = 0, set()
            for raw_page in tiff.pages:
                last = raw_page.offset
                if last in seen:
                    raise ValueError(f"page {len(pages) + 1} is an earlier one again")
                seen.add(last)
                if len(seen) > MAX_PAGES:
                    raise MovieError(f"{path}: has more than {MAX_PAGES} frames: give a movie.")
                pages.append(_page_info(raw_page, order))
                if len(pages) == 1 and pages[0].compression in EER_COMPRESSIONS:
                    metadata = metadata_of_page(raw_page)
            file, form = tiff.filehandle, tiff.tiff
            file.seek(last)
            n_tags = struct.unpack(form.tagnoformat, file.read(form.tagnosize))[0]
            file.seek(last + form.tagnosize + n_tags * form.tagsize)
            following = struct.unpack(form.offsetformat, file.read(form.offsetsize))[0]
        if following != 0:  # tifffile stops silently at a page that lies outside the file
            problem = f"truncated: its TIFF pages end after {len(pages)}, but more follow"
    except (tifffile.TiffFileError, struct.error, ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        problem = f"truncated or damaged: its TIFF pages can't be read ({error})"
    wrong = [_what_is_wrong(page, size) for page in pages]
    sound = [i for i, what in enumerate(wrong) if not what]
    n_whole = sound[-1] + 1 if sound else 0
    broken = next((i for i, what in enumerate(wrong) if what), None)
    if broken is not None and pages[broken].compression not in EER_COMPRESSIONS:
        n_whole = broken
    if n_whole < len(pages):
        problem = wrong[n_whole].format(frame=f"frame {n_whole + 1} of {len(pages)}")
    whole = [page if not what else dataclasses.replace(page, segments=()) for page, what in zip(pages[:n_whole], wrong)]
    if not whole:
        raise MovieError(f"{path}: {problem or 'has no TIFF page'}: copy the file again.")
    return Pages(whole, problem, metadata)


def _what_is_wrong(page: TiffPageInfo, size: int) -> str:
    """Why a page of a file of this size can't be used, to be filled in with `frame`; empty if nothing is wrong."""
    tile_excess = max(n - m for n, m in zip(page.segment, page.stored_shape))
    if min(page.shape + page.segment) < 1 or tile_excess > MAX_TILE_EXCESS:
        return "damaged: {frame} has an impossible size"
    end = max((start + n for start, n in page.segments), default=0)
    if end > size or any(start <= 0 or n <= 0 for start, n in page.segments) or not page.segments:
        return f"truncated or damaged: {{frame}} needs data up to byte {end}, but the file has {size}"
    return ""


def _page_info(page: Any, order: str) -> TiffPageInfo:
    """A tifffile page's tags; `int` raises TypeError for damaged ones of another type."""
    ny, nx, bits = int(page.imagelength), int(page.imagewidth), int(page.bitspersample)
    rows, columns = (page.tilelength, page.tilewidth) if page.is_tiled else (min(page.rowsperstrip, ny), nx)
    pixels = 2 if bits == 4 else 1  # in an item
    name = f"{order}{SAMPLE_FORMATS.get(page.sampleformat, 'V')}{max(bits // 8, 1)}"
    return TiffPageInfo(
        shape=(ny, nx),
        stored_shape=(ny, -(-nx // pixels)),
        dtype=np.dtype(name if name[1:] in DTYPES else "V1"),
        bits=bits,
        compression=int(page.compression),
        predictor=int(page.predictor),
        reversed_bits=int(page.fillorder) == 2,
        samples=int(page.samplesperpixel),
        segment=(int(rows), -(-int(columns) // pixels)),
        segments=tuple((int(start), int(n)) for start, n in zip(page.dataoffsets, page.databytecounts)),
        tags={code: _number(page.tags[code].value) for code in EER_BIT_TAGS if code in page.tags},
    )


def _number(value: Any) -> int:
    return int.from_bytes(value, "little") if isinstance(value, bytes) else int(value)


class TiffMovie(Movie):
    """A TIFF file whose pages are the frames; `flip` flips them upside down, so that the bottom row comes first."""

    kind = "TIFF"

    def __init__(
        self, path: str, file: BinaryIO, pages: List[TiffPageInfo], notes: List[str], flip: bool = False
    ) -> None:
        self.top_row_first = not flip
        if flip:
            notes.append("Frames are turned upside down, as asked for.")
        first = pages[0]
        for number, page in enumerate(pages, 1):
            problem = _unsupported(page)
            if not problem and len(page.segments) < page.segments_needed:
                raise MovieError(
                    f"{path}: damaged: frame {number} has {len(page.segments)} strips or tiles, but its size needs "
                    f"{page.segments_needed}: copy the file again."
                )
            if problem:
                raise MovieError(
                    f"{path}: {problem}: save it as 8, 16 or 32-bit gray, uncompressed, LZW, deflate or zstd."
                )
            if page.shape != first.shape or page.dtype != first.dtype or page.bits != first.bits:
                raise MovieError(
                    f"{path}: frame {number} is {_describe(page)}, but frame 1 is {_describe(first)}: all frames must "
                    "be alike; remove the odd ones."
                )
        ny, nx = first.shape
        self._halves: Optional[str] = None
        if first.bits == 4:
            self._halves = "high first"
        elif first.bits == 8 and first.dtype.kind == "u" and is_packed_super_resolution(nx, ny):
            self._halves = "low first"
            nx *= 2
            notes.append(f"Bytes taken as two 4-bit pixels each, going by the size: frames are {nx} x {ny}.")
        self._pages, self._file = pages, file
        super().__init__(path, (len(pages), ny, nx), first.dtype.newbyteorder("="), notes)

    def close(self) -> None:
        super().close()
        self._file.close()

    def _read(self, i: int) -> np.ndarray:
        frame = self._stored(i)
        return frame if self.top_row_first else np.ascontiguousarray(frame[::-1])

    def _stored(self, i: int) -> np.ndarray:
        page = self._pages[i]
        (ny, columns), (rows, width) = page.stored_shape, page.segment
        across = page.segments_across
        stored = np.empty((ny, columns), page.dtype)
        for k, (offset, n_bytes) in enumerate(page.segments[: page.segments_needed]):
            y, x = k // across * rows, k % across * width
            if width != columns:
                tile = np.empty((rows, width), page.dtype)
                self._decode(page, i, offset, n_bytes, tile)
                stored[y : y + rows, x : x + width] = tile[: ny - y, : columns - x]
            else:
                self._decode(page, i, offset, n_bytes, stored[y : y + rows])
        if self._halves:
            return unpack_4bit(stored, self.shape[2], self._halves == "high first")
        return stored.astype(self.dtype, copy=False)

    def _decode(self, page: TiffPageInfo, i: int, offset: int, n_bytes: int, out: np.ndarray) -> None:
        """Decode one strip or tile into `out`, which it has to fill exactly."""
        target = out.reshape(-1).view(np.uint8)
        if page.compression == NO_COMPRESSION and not page.reversed_bits:
            if n_bytes < target.size:
                raise self._corrupt(i, f"{n_bytes} bytes instead of {target.size}")
            read_into(self._file, self.path, offset, target)
        else:
            raw = np.empty(n_bytes, np.uint8)
            read_into(self._file, self.path, offset, raw)
            if page.reversed_bits:
                raw = imagecodecs.bitorder_decode(raw)
            try:
                n_decoded = _decompress(page.compression, raw, target)
            except (RuntimeError, ValueError) as error:  # the codecs' own errors are RuntimeErrors
                raise self._corrupt(i, str(error)) from error
            if n_decoded < target.size:
                raise self._corrupt(i, f"{n_decoded} bytes instead of {target.size}")
        if page.predictor == DIFFERENCES:
            np.cumsum(out, axis=1, dtype=out.dtype, out=out)
        elif page.predictor == FLOAT_DIFFERENCES:
            out[:] = imagecodecs.floatpred_decode(out.copy(), axis=1)

    def _corrupt(self, i: int, what: str) -> MovieError:
        return MovieError(f"{self.path}: corrupt: frame {i + 1} can't be decoded ({what}): copy the file again.")


def _decompress(compression: int, raw: np.ndarray, out: np.ndarray) -> int:
    """Decompress into `out`; returns the number of decompressed bytes."""
    if compression == LZW:
        return lzw_decode(raw, out)
    if compression == NO_COMPRESSION:
        out[: len(raw)] = raw[: len(out)]
        return len(raw)
    return len(DECODERS[compression](raw, out=out))


def _unsupported(page: TiffPageInfo) -> str:
    """Why this reader can't decode a page; empty if it can."""
    if page.compression not in (NO_COMPRESSION, LZW, *DECODERS):
        try:
            name = f" ({tifffile.COMPRESSION(page.compression).name})"
        except ValueError:
            name = ""
        return f"TIFF compression {page.compression}{name} is not supported"
    if page.samples != 1:
        return f"it has {page.samples} values per pixel (colour) instead of one"
    if page.dtype.kind == "V" or (page.bits % 8 and not (page.bits == 4 and page.dtype.kind == "u")):
        return f"TIFF pixels of {page.bits} bits in this sample format are not supported"
    if page.predictor not in (NO_PREDICTOR, DIFFERENCES, FLOAT_DIFFERENCES):
        return f"TIFF predictor {page.predictor} is not supported"
    return ""


def _describe(page: TiffPageInfo) -> str:
    return f"{page.shape[1]} x {page.shape[0]} {page.dtype.newbyteorder('=').name}"
