"""bzip2 in several threads: its blocks are independent, and the standard library decompresses each as a small file.

A block starts with a mark of 48 bits, which can begin at any bit of the file. bzip2recover splits files there, too.
"""

from __future__ import annotations

import bz2
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Iterator, Optional, Tuple

import numpy as np

from ..jit import njit

BLOCK_MARK, END_MARK = 0x314159265359, 0x177245385090  # pi, and the square root of pi
FILE_START = b"BZh9"


def decompress(path: str, threads: Optional[int] = None) -> Iterator[np.ndarray]:
    """Contents of a bzip2 file, block by block, as uint8 arrays.

    Raises
    ------
    OSError, ValueError : a block is corrupt, or the mark of a block occurs in the data by chance (once in a million
        files). Sequential decompression can tell the two cases apart.
    """
    data = np.fromfile(path, np.uint8)
    starts, ends = find_blocks(data)
    if len(starts) == 0 or starts[0] != 8 * len(FILE_START):
        raise ValueError("no block where the first one should be")
    with ThreadPoolExecutor(threads or len(os.sched_getaffinity(0))) as pool:
        yield from pool.map(lambda bits: _decompress_block(data, *bits), zip(starts.tolist(), ends.tolist()))


def find_blocks(data: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """First bit of each block and the bit after its last one, (n_blocks,) int64 each."""
    marks = _find_marks(data, BLOCK_MARK, END_MARK)
    bits, is_block = marks >> 1, (marks & 1).astype(bool)
    following = np.append(bits[1:], 8 * len(data))
    return bits[is_block], following[is_block]


@njit(nogil=True)
def _find_marks(data, block_mark, end_mark):  # type: ignore[no-untyped-def]
    """For each mark, twice the bit at which it starts, plus 1 if it starts a block."""
    marks = [np.int64(0) for _ in range(0)]
    mask, window = np.uint64((1 << 48) - 1), np.uint64(0)
    for i in range(len(data)):
        window = window << np.uint64(8) | np.uint64(data[i])
        for back in range(7, -1, -1):
            bits = window >> np.uint64(back) & mask
            if bits == np.uint64(block_mark) or bits == np.uint64(end_mark):
                start = 8 * (i + 1) - back - 48
                if start >= 0:
                    marks.append(2 * start + (bits == np.uint64(block_mark)))
    return np.array(marks)


def _decompress_block(data: np.ndarray, start: int, end: int) -> np.ndarray:
    """Decompress the bits from `start` to `end` as a file of their own: with a header before and an end after them."""
    shift, n_bits = start % 8, end - start
    # One byte more than the bits need, for the shift below, also at the end of the file.
    raw = np.append(data[start // 8 : (end + 7) // 8 + 1].astype(np.uint16), np.zeros(2, np.uint16))
    block = ((raw[:-1] << shift | raw[1:] >> (8 - shift)) & 255).astype(np.uint8).tobytes()
    checksum = int.from_bytes(block[6:10], "big")
    whole, rest = divmod(n_bits, 8)
    # The file's checksum equals that of its only block.
    tail = (block[whole] >> (8 - rest) << 80) | END_MARK << 32 | checksum
    tail_bytes = (rest + 80 + 7) // 8
    closing = (tail << (8 * tail_bytes - rest - 80)).to_bytes(tail_bytes, "big")
    return np.frombuffer(bz2.decompress(FILE_START + block[:whole] + closing), np.uint8)
