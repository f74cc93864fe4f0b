"""Writers of MRC, TIFF and EER movies, for phantoms and tests.

A file appears under its name when it is complete. If it can't be written, OutputError is raised and nothing remains.
"""

from __future__ import annotations

import struct
from typing import BinaryIO, Iterable, List, Literal, Optional, Sequence, Tuple

import mrcfile.dtypes
import numpy as np
import tifffile

from ..files import atomic_path
from ..jit import njit
from ..movies.eer import SKIP_AND_SUBPIXEL_BITS
from ..movies.mrc import HEADER_BYTES, IMOD_FLAGS_AT, IMOD_STAMP, IMOD_STAMP_AT, MODE_PACKED, MODES

ByteOrder = Literal["<", ">"]
TIFF_COMPRESSIONS = {None: None, "lzw": "lzw", "deflate": "adobe_deflate", "zstd": "zstd"}


def write_mrc_movie(
    path: str,
    frames: Iterable[np.ndarray],
    pixel_size_A: float = 1.0,
    mode: Optional[int] = None,
    byte_order: ByteOrder = "<",
) -> None:
    """Write `frames`, each (ny, nx), as an MRC stack; they may come from a generator.

    Parameters
    ----------
    pixel_size_A : written to the header.
    mode : MRC mode 0, 1, 2, 6, 12 or 101 (4-bit, values 0 to 15); by default the one of the frames' dtype. Unsigned
        bytes are mode 0 with IMOD's flag for unsigned bytes.
    byte_order : "<" little-endian or ">" big-endian.
    """
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(b"\0" * HEADER_BYTES)
        n_frames, low, high, total, dtype, ny, nx = 0, np.inf, -np.inf, 0.0, np.dtype("f4"), 0, 0
        for frame in frames:
            frame = np.asarray(frame)
            if n_frames == 0:
                (ny, nx), mode = frame.shape, _mode_of(frame.dtype) if mode is None else mode
                unsigned = mode == 0 and frame.dtype.kind == "u"
                dtype = np.dtype("u1" if unsigned else MODES[mode]).newbyteorder(byte_order)
            elif frame.shape != (ny, nx):
                raise ValueError(f"frame {n_frames} is {frame.shape}, the first one {(ny, nx)}")
            stored = pack_4bit(frame) if mode == MODE_PACKED else frame.astype(dtype, copy=False)
            file.write(np.ascontiguousarray(stored).data)
            low, high, total = min(low, float(frame.min())), max(high, float(frame.max())), total + float(frame.mean())
            n_frames += 1
        if mode is None:
            raise ValueError("no frames to write")
        header = np.zeros(1, mrcfile.dtypes.HEADER_DTYPE.newbyteorder(byte_order))
        size = {"x": nx, "y": ny, "z": n_frames}
        for axis, n in size.items():
            header["n" + axis] = n
            header["m" + axis] = n
            header["cella"][axis] = n * pixel_size_A
        header["mode"], header["cellb"] = mode, (90, 90, 90)
        header["mapc"], header["mapr"], header["maps"] = 1, 2, 3
        header["dmin"], header["dmax"], header["dmean"] = low, high, total / n_frames
        header["rms"], header["nversion"], header["map"] = -1, 20141, b"MAP "
        header["machst"] = (0x44, 0x44, 0, 0) if byte_order == "<" else (0x11, 0x11, 0, 0)
        data = bytearray(header.tobytes())
        if dtype == np.uint8 and mode == 0:
            data[IMOD_STAMP_AT : IMOD_FLAGS_AT + 4] = struct.pack(byte_order + "ii", IMOD_STAMP, 0)
        file.seek(0)
        file.write(data)


def _mode_of(dtype: np.dtype) -> int:
    modes = {np.dtype(name): mode for mode, name in MODES.items() if mode != MODE_PACKED}
    modes[np.dtype("u1")] = 0
    if dtype.newbyteorder("=") not in modes:
        raise ValueError(f"no MRC mode for {dtype}: convert the frames to {', '.join(map(str, modes))}")
    return modes[dtype.newbyteorder("=")]


def pack_4bit(frame: np.ndarray) -> np.ndarray:
    """(ny, nx) values 0 to 15 as (ny, (nx + 1) // 2) uint8, two pixels in a byte, the first one in the low 4 bits."""
    even = np.zeros((frame.shape[0], frame.shape[1] + frame.shape[1] % 2), np.uint8)
    even[:, : frame.shape[1]] = frame
    if even.max(initial=0) > 15:
        raise ValueError("4-bit pixels can't be above 15")
    return even[:, 0::2] | even[:, 1::2] << 4


def write_tiff_movie(
    path: str,
    frames: Iterable[np.ndarray],
    compression: Optional[str] = None,
    rows_per_strip: Optional[int] = None,
    predictor: bool = False,
    tile: Optional[Tuple[int, int]] = None,
    byte_order: ByteOrder = "<",
    bigtiff: bool = False,
) -> None:
    """Write `frames`, each (ny, nx), as the pages of a TIFF file.

    Parameters
    ----------
    compression : None, "lzw", "deflate" or "zstd".
    rows_per_strip : rows in a strip; one strip for each frame by default.
    tile : (rows, columns) of tiles instead of strips, multiples of 16.
    """
    with atomic_path(path) as temporary, tifffile.TiffWriter(temporary, bigtiff=bigtiff, byteorder=byte_order) as tiff:
        for frame in frames:
            frame = np.asarray(frame)
            tiff.write(
                frame.astype(frame.dtype.newbyteorder(byte_order), copy=False),
                compression=TIFF_COMPRESSIONS[compression],
                rowsperstrip=None if tile else rows_per_strip or frame.shape[0],
                predictor=predictor,
                tile=tile,
                photometric="minisblack",
                metadata=None,
                contiguous=False,
            )


def eer_metadata_text(pixel_size_A: float, dose_per_pixel: float, n_hardware_frames: int) -> str:
    """The metadata that a camera writes into an EER file: pixel size, dose and exposure at 250 frames per second."""
    items = [
        ("commercialName", "", "phantom"),
        ("exposureTime", "s", n_hardware_frames / 250),
        ("numberOfFrames", "", n_hardware_frames),
        ("sensorPixelSize.height", "m", f"{pixel_size_A * 1e-10:.6g}"),
        ("sensorPixelSize.width", "m", f"{pixel_size_A * 1e-10:.6g}"),
        ("totalDose", "e/pixel", f"{dose_per_pixel:.6g}"),
    ]
    lines = [f'<item name="{name}" unit="{unit}">{value}</item>' for name, unit, value in items]
    return "<metadata>" + "".join(lines) + "</metadata>"


def write_eer_movie(
    path: str,
    frames: Iterable[np.ndarray],
    shape: Tuple[int, int],
    compression: int = 65001,
    bits: Optional[Tuple[int, int, int]] = None,
    metadata: str = "<metadata></metadata>",
) -> None:
    """Write hardware frames of electron events as an EER file (BigTIFF, one strip for each frame).

    Parameters
    ----------
    frames : for each hardware frame an (n, 4) integer array of y, x, sub_y, sub_x: the pixel on the (ny, nx) sensor and
        the position inside it, counted from its lower edge, below 2**(sub-pixel bits). At most one event in a pixel.
    compression : 65000, 65001, or 65002 with `bits` = (skip, horizontal, vertical) bits of a code.
    metadata : XML of the first page, see `eer_metadata_text`.
    """
    bits = bits or SKIP_AND_SUBPIXEL_BITS[compression]
    ny, nx = shape
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 16))
        link = 0
        for i, events in enumerate(frames):
            data = encode_events(np.asarray(events), shape, bits)
            text = metadata.encode() if i == 0 else b""
            link = _write_eer_page(file, nx, ny, compression, bits, data, text)
        if link == 0:
            raise ValueError("no frames to write")
        file.seek(link)  # the link of the last page is 0
        file.write(struct.pack("<Q", 0))


def _write_eer_page(
    file: BinaryIO, nx: int, ny: int, compression: int, bits: Sequence[int], data: bytes, text: bytes
) -> int:
    """Write one TIFF page, linked to the position after it; returns the position of this link in the file."""
    short, long8, undefined = 3, 16, 7
    n_tags = 9 + bool(text) + 3 * (compression == 65002)
    link_at = file.tell() + 8 + 20 * n_tags
    text += b"\0" * (-len(text) % 8)
    data_at = link_at + 8 + len(text)
    tags: List[Tuple[int, int, int, int]] = [
        (256, short, 1, nx),
        (257, short, 1, ny),
        (258, short, 1, 1),
        (259, short, 1, compression),
        (262, short, 1, 1),
        (273, long8, 1, data_at),
        (277, short, 1, 1),
        (278, short, 1, ny),
        (279, long8, 1, len(data)),
    ]
    if text:
        tags.append((65001, undefined, len(text), link_at + 8))
    if compression == 65002:
        tags += [(65007 + k, short, 1, bits[k]) for k in range(3)]
    page = struct.pack("<Q", n_tags) + b"".join(struct.pack("<HHQQ", *tag) for tag in tags)
    padding = b"\0" * (-len(data) % 16)
    file.write(page + struct.pack("<Q", data_at + len(data) + len(padding)) + text + data + padding)
    return link_at


def encode_events(events: np.ndarray, shape: Tuple[int, int], bits: Sequence[int]) -> bytes:
    """Events (n, 4) as an EER bit stream, least significant bit first; see `eer.add_events` for the codes."""
    events = events.reshape(-1, 4).astype(np.int64)
    position = events[:, 0] * shape[1] + events[:, 1]
    order = np.argsort(position, kind="stable")
    position, n_pixels = position[order], shape[0] * shape[1]
    if len(position) and (position[0] < 0 or position[-1] >= n_pixels or (np.diff(position) == 0).any()):
        raise ValueError("events outside the frame, or two in one pixel")
    skip, horizontal, vertical = bits
    sub = (events[:, 3] ^ 1 << horizontal - 1) | (events[:, 2] ^ 1 << vertical - 1) << horizontal
    n_bits = (len(position) + 1) * sum(bits) + n_pixels // ((1 << skip) - 1) * skip
    out = np.zeros(n_bits // 8 + 16, np.uint8)
    return out[: _encode(position, sub[order], n_pixels, skip, horizontal + vertical, out)].tobytes()


@njit(nogil=True)
def _encode(position, sub, n_pixels, skip_bits, sub_bits, out):  # type: ignore[no-untyped-def]
    """Fill `out` with the codes of sorted positions; returns the number of bytes, padded to a multiple of 2."""
    top = (1 << skip_bits) - 1
    buffer, held, at, before = np.uint64(0), 0, 0, -1
    for i in range(len(position) + 1):
        last = i == len(position)
        gap = (n_pixels if last else position[i]) - before - 1
        while gap >= 0:
            code, n = (
                (top, skip_bits) if gap >= top else (gap | (0 if last else sub[i]) << skip_bits, skip_bits + sub_bits)
            )
            buffer |= np.uint64(code) << np.uint64(held)
            held += n
            while held >= 8:
                out[at] = buffer & np.uint64(255)
                buffer >>= np.uint64(8)
                held -= 8
                at += 1
            gap = gap - top if gap >= top else -1
        before = n_pixels if last else position[i]
    out[at] = buffer & np.uint64(255)
    return at + 1 + (at + 1) % 2
