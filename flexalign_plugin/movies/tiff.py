"""TIFF movies: tifffile reads the pages' tags once, imagecodecs decodes the raw strips or tiles, in any thread."""

from __future__ import annotations

import logging
import os
import struct
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Callable, Dict, List, Optional, Tuple

import imagecodecs
import numpy as np
import tifffile

from ..errors import MovieError
from .movie import Movie, read_into
from .mrc import is_packed_super_resolution, unpack_4bit

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
NO_COMPRESSION = 1
DECODERS: Dict[int, Callable[..., Any]] = {
    5: imagecodecs.lzw_decode,
    8: imagecodecs.zlib_decode,
    32946: imagecodecs.zlib_decode,
    50000: imagecodecs.zstd_decode,
    34926: imagecodecs.zstd_decode,
    32773: imagecodecs.packbits_decode,
}
NO_PREDICTOR, DIFFERENCES, FLOAT_DIFFERENCES = 1, 2, 3
PRIVATE_TAGS = range(65001, 65010)  # EER's

# What tifffile logs about damaged files is raised here as an error.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


@dataclass(frozen=True)
class TiffPageInfo:
    """What decoding a page needs. `shape` is (ny, nx), `segment` the (rows, columns) of a strip or tile."""

    shape: Tuple[int, int]
    dtype: np.dtype
    bits: int
    compression: int
    predictor: int
    reversed_bits: bool
    samples: int
    segment: Tuple[int, int]
    segments: Tuple[Tuple[int, int], ...]  # (offset, bytes) in the file, row by row
    tags: Dict[int, Any] = field(default_factory=dict)


def read_pages(path: str) -> List[TiffPageInfo]:
    """All pages of a TIFF file, checked against the file's size."""
    size = os.path.getsize(path)
    try:
        with tifffile.TiffFile(path) as tiff:
            order = tiff.byteorder
            pages = [_page_info(page, order) for page in tiff.pages]
            last = tiff.pages[-1].offset if pages else 0
            file, form = tiff.filehandle, tiff.tiff
            file.seek(last)
            n_tags = struct.unpack(form.tagnoformat, file.read(form.tagnosize))[0]
            file.seek(last + form.tagnosize + n_tags * form.tagsize)
            following = struct.unpack(form.offsetformat, file.read(form.offsetsize))[0]
    except (tifffile.TiffFileError, struct.error, ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        raise MovieError(
            f"{path}: truncated or damaged: its TIFF pages can't be read ({error}): copy the file again."
        ) from error
    if following != 0:  # tifffile stops silently at a page that lies outside the file
        raise MovieError(
            f"{path}: truncated: its TIFF pages end after {len(pages)}, but more follow: copy the file again."
        )
    for number, page in enumerate(pages, 1):
        end = max((start + n for start, n in page.segments), default=0)
        if end > size or any(start <= 0 or n <= 0 for start, n in page.segments) or not page.segments:
            raise MovieError(
                f"{path}: truncated or damaged: frame {number} of {len(pages)} needs data up to byte {end}, but the "
                f"file has {size}: copy the file again."
            )
    return pages


def _page_info(page: Any, order: str) -> TiffPageInfo:
    rows = page.tilelength if page.is_tiled else min(page.rowsperstrip, page.imagelength)
    kind = {1: "u", 2: "i", 3: "f"}.get(page.sampleformat, "?")
    item_bytes = max(page.bitspersample // 8, 1) if kind != "?" else 0
    dtype = np.dtype(f"{order}{kind}{item_bytes}") if item_bytes in (1, 2, 4, 8) else np.dtype("V1")
    if dtype == np.dtype("V1") or (kind == "f" and item_bytes == 1):
        dtype = np.dtype("V1")
    return TiffPageInfo(
        shape=(page.imagelength, page.imagewidth),
        dtype=dtype,
        bits=page.bitspersample,
        compression=int(page.compression),
        predictor=int(page.predictor),
        reversed_bits=int(page.fillorder) == 2,
        samples=page.samplesperpixel,
        segment=(rows, page.tilewidth if page.is_tiled else page.imagewidth),
        segments=tuple(zip(page.dataoffsets, page.databytecounts)),
        tags={code: page.tags[code].value for code in PRIVATE_TAGS if code in page.tags},
    )


class TiffMovie(Movie):
    """A TIFF file whose pages are the frames."""

    kind = "TIFF"

    def __init__(self, path: str, file: BinaryIO, pages: List[TiffPageInfo], notes: List[str]) -> None:
        first = pages[0]
        for number, page in enumerate(pages, 1):
            problem = _unsupported(page)
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
        page = self._pages[i]
        ny, nx = page.shape
        columns = (nx + 1) // 2 if page.bits == 4 else nx
        rows, width = page.segment[0], (page.segment[1] + 1) // 2 if page.bits == 4 else page.segment[1]
        across = -(-columns // width)
        tiled = width != columns
        stored = np.empty((ny, columns), page.dtype)
        for k, (offset, n_bytes) in enumerate(page.segments[: across * -(-ny // rows)]):
            y, x = k // across * rows, k % across * width
            if tiled:
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
                decoded = raw if page.compression == NO_COMPRESSION else DECODERS[page.compression](raw, out=target)
            except (RuntimeError, ValueError) as error:  # every codec's own error is a RuntimeError
                raise self._corrupt(i, str(error)) from error
            if len(decoded) < target.size:
                raise self._corrupt(i, f"{len(decoded)} bytes instead of {target.size}")
            if page.compression == NO_COMPRESSION:
                target[:] = decoded[: target.size]
        if page.predictor == DIFFERENCES:
            np.cumsum(out, axis=1, dtype=out.dtype, out=out)
        elif page.predictor == FLOAT_DIFFERENCES:
            out[:] = imagecodecs.floatpred_decode(out.copy(), axis=1)

    def _corrupt(self, i: int, what: str) -> MovieError:
        return MovieError(f"{self.path}: corrupt: frame {i + 1} can't be decoded ({what}): copy the file again.")


def _unsupported(page: TiffPageInfo) -> str:
    """What this reader can't do with a page, or nothing."""
    if page.compression != NO_COMPRESSION and page.compression not in DECODERS:
        try:
            name = f" ({tifffile.COMPRESSION(page.compression).name})"
        except ValueError:
            name = ""
        return f"TIFF compression {page.compression}{name} is not supported"
    if page.samples != 1:
        return f"it has {page.samples} values a pixel (colour), a movie has one"
    if page.dtype.kind == "V" or (page.bits not in (8, 16, 32, 64) and not (page.bits == 4 and page.dtype.kind == "u")):
        return f"TIFF pixels of {page.bits} bits in this sample format are not supported"
    if page.predictor not in (NO_PREDICTOR, DIFFERENCES, FLOAT_DIFFERENCES):
        return f"TIFF predictor {page.predictor} is not supported"
    return ""


def _describe(page: TiffPageInfo) -> str:
    return f"{page.shape[1]} x {page.shape[0]} {page.dtype.newbyteorder('=').name}"
