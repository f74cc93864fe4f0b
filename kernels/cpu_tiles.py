"""Power spectra of overlapping tiles of an image, added up, on the CPU (`Backend.tile_power`)."""

from __future__ import annotations

from typing import Any, Callable, Iterable

import numpy as np
import scipy.fft

Run = Callable[..., Iterable[Any]]


def tile_power(
    image: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
    window: np.ndarray,
    run: Run = map,
) -> np.ndarray:
    """Sum over the tiles at all `rows` and `columns`; see `Backend.tile_power`.

    run : calls a function for each argument of a list and yields the results in this order, as `map`.
    """
    tile = len(window)
    taper = np.outer(window, window).astype(np.float32)

    def of_row(y: int) -> np.ndarray:
        # Two real tiles share one complex transform Z = A + iB: |Z(k)|^2 + |Z(-k)|^2 = 2 |A(k)|^2 + 2 |B(k)|^2.
        pairs = np.zeros(((len(columns) + 1) // 2, tile, tile), np.complex64)  # an odd tile has no partner
        for i, x in enumerate(columns):
            part = image[y : y + tile, x : x + tile]
            target = pairs.imag if i % 2 else pairs.real
            np.multiply(part - part.mean(), taper, out=target[i // 2])
        parts = scipy.fft.fft2(pairs, overwrite_x=True).view(np.float32)
        total: np.ndarray = np.square(parts, out=parts).sum(axis=0)
        return total

    total = np.zeros((tile, 2 * tile))  # real and imaginary parts alternate along x
    for of_one in run(of_row, rows):
        total += of_one
    both = total[:, ::2] + total[:, 1::2]
    return 0.5 * (both + np.roll(both[::-1, ::-1], 1, axis=(0, 1)))
