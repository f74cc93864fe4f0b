"""TIFF's LZW, decoded here since imagecodecs crashes the process on some damaged strips instead of raising an error."""

from __future__ import annotations

import numba
import numpy as np

CLEAR, END, FIRST_FREE = 256, 257, 258
MIN_BITS, MAX_BITS = 9, 12


@numba.njit(cache=True, nogil=True)
def lzw_decode(data, out):  # type: ignore[no-untyped-def]
    """Decode a strip until `out` is full.

    A code is a byte, or a string that was written before; reading a code makes the string before it, with the first
    byte of its own, the next one in the table. Both lie one behind the other in `out`, so that the table holds places
    and lengths only. Codes grow from 9 to 12 bits, the highest bit first, one code earlier than they would have to.

    Parameters
    ----------
    data : (n,) uint8, the strip.
    out : (m,) uint8, written to.

    Returns
    -------
    Bytes written; fewer than m if the strip ends early or has a code that stands for nothing yet.
    """
    place, length = np.empty(1 << MAX_BITS, np.int64), np.empty(1 << MAX_BITS, np.int64)
    buffer, held, at, n = np.uint64(0), 0, 0, 0
    bits, free, before = MIN_BITS, FIRST_FREE, 0  # `before`: length of the string before, 0 if there is none
    while n < len(out):
        while held < bits:
            if at == len(data):
                return n
            buffer = buffer << np.uint64(8) | np.uint64(data[at])
            at += 1
            held += 8
        held -= bits
        code = np.int64(buffer >> np.uint64(held) & np.uint64((1 << bits) - 1))
        if code == CLEAR:
            bits, free, before = MIN_BITS, FIRST_FREE, 0
            continue
        if before and free < 1 << MAX_BITS:
            place[free], length[free] = n - before, before + 1
            free += 1
            if free + 1 >= 1 << bits and bits < MAX_BITS:
                bits += 1
        if code < CLEAR:
            out[n] = code
            before = 1
        elif code == END or code >= free:
            return n
        else:
            before = min(length[code], len(out) - n)
            start = place[code]
            for k in range(before):
                out[n + k] = out[start + k]
        n += before
    return n
