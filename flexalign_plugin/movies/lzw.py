"""TIFF's LZW, decoded here because imagecodecs crashes the process on some damaged strips."""

from __future__ import annotations

import numpy as np

from ..jit import njit

CLEAR, END, FIRST_FREE = 256, 257, 258
MIN_BITS, MAX_BITS = 9, 12
COPIED = 8  # bytes of a string that are copied without asking for its length each time


@njit(nogil=True)
def lzw_decode(data, out):  # type: ignore[no-untyped-def]
    """Decode a strip until `out` is full.

    A code stands for a byte or for a string in the table. Each code adds one string to the table: the previous string
    followed by the first byte of the current one. These are adjacent in `out`, so that the table needs only positions
    and lengths. Codes grow from 9 to 12 bits, highest bit first, one code earlier than necessary, as TIFF demands.

    Most strings of a movie are a few pixels long. A loop over each string's own length would cost more than the
    copying, because the processor can't foresee where it ends. So COPIED bytes are copied at a time; what is too much
    is overwritten by the next string.

    Parameters
    ----------
    data : (n,) uint8, the strip.
    out : (m,) uint8, written to.

    Returns
    -------
    Bytes decoded; fewer than m if the strip ends early or has a code that is not in the table yet. The bytes of `out`
    behind them are undefined then.
    """
    # All numbers are unsigned, because numba checks whether signed indices are negative.
    zero, one, two, three, seven = np.uint64(0), np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(7)
    clear, end, first_free, full = np.uint64(CLEAR), np.uint64(END), np.uint64(FIRST_FREE), np.uint64(1 << MAX_BITS)
    min_bits, max_bits, copied = np.uint64(MIN_BITS), np.uint64(MAX_BITS), np.uint64(COPIED)
    half, low_half = np.uint64(16), np.uint64(0xFFFF)
    n_data, size = np.uint64(len(data)), np.uint64(len(out))
    table = np.empty(1 << MAX_BITS, np.uint64)  # position << 16 | length, which is below 1 << MAX_BITS
    at, n = zero, zero  # next bit of `data`, next byte of `out`
    bits, free, before = min_bits, first_free, zero  # `before`: length of the previous string, 0 if there is none
    while n < size:
        if at + bits > n_data << three:
            break
        k = at >> three
        word = np.uint64(data[k]) << half  # with the next two bytes it holds the code
        if k + one < n_data:
            word |= np.uint64(data[k + one]) << np.uint64(8)
        if k + two < n_data:
            word |= np.uint64(data[k + two])
        code = word >> (np.uint64(24) - bits - (at & seven)) & ((one << bits) - one)
        at += bits
        if code == clear:
            bits, free, before = min_bits, first_free, zero
            continue
        if before and free < full:
            table[free] = (n - before) << half | (before + one)
            free += one
            if free + one >= one << bits and bits < max_bits:
                bits += one
        if code < clear:
            out[n] = code
            before = one
        elif code == end or code >= free:
            break
        else:
            start, before = table[code] >> half, table[code] & low_half
            if n + before + copied <= size:
                for block in range(zero, before, copied):
                    for j in range(COPIED):
                        out[n + block + np.uint64(j)] = out[start + block + np.uint64(j)]
            else:
                before = min(before, size - n)
                for j in range(before):
                    out[n + np.uint64(j)] = out[start + np.uint64(j)]
        n += before
    return np.int64(n)
