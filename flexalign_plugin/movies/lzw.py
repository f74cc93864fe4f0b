"""TIFF's LZW, decoded here because imagecodecs crashes the process on some damaged strips."""

from __future__ import annotations

import numpy as np

from ..jit import njit

CLEAR, END, FIRST_FREE = 256, 257, 258
MIN_BITS, MAX_BITS = 9, 12


@njit(nogil=True)
def lzw_decode(data, out):  # type: ignore[no-untyped-def]
    """Decode a strip until `out` is full.

    A code stands for a byte or for a string in the table. Each code adds one string to the table: the previous string
    followed by the first byte of the current one. These are adjacent in `out`, so that the table needs only positions
    and lengths. Codes grow from 9 to 12 bits, highest bit first, one code earlier than necessary, as TIFF demands.

    Parameters
    ----------
    data : (n,) uint8, the strip.
    out : (m,) uint8, written to.

    Returns
    -------
    Bytes written; fewer than m if the strip ends early or has a code that is not in the table yet.
    """
    place, length = np.empty(1 << MAX_BITS, np.int64), np.empty(1 << MAX_BITS, np.int64)
    buffer, held, at, n = np.uint64(0), 0, 0, 0
    bits, free, before = MIN_BITS, FIRST_FREE, 0  # `before`: length of the previous string, 0 if there is none
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
