"""Power of sums of shifted images on a CUDA device and its derivatives for the shifts (aligned.cu)."""

from __future__ import annotations

from typing import Any, Callable, Iterator, Tuple

import numpy as np

from ..backend import AlignedPower, curvature_of_products, weighted_columns
from .block_sizes import PRODUCT_FRAMES, SLOPE_ROWS, THREADS
from .device import Device, DeviceArray


class CudaAlignedPower(AlignedPower):
    """
    Parameters
    ----------
    fit : runs a function, and again with less memory in use if memory runs out.
    batches : (start, stop) of batches of a number of images that need a number of bytes each.
    spectra : (batch, n, sy, sx // 2 + 1). size, weight : as in `Backend.aligned_power`.
    """

    def __init__(
        self,
        device: Device,
        fit: Callable[[Callable[[], Any]], Any],
        batches: Callable[[int, int], Iterator[Tuple[int, int]]],
        spectra: DeviceArray,
        size: Tuple[int, int],
        weight: np.ndarray,
    ):
        self._device, self._fit, self._batches, self._spectra = device, fit, batches, spectra
        rows, self._first, used, ky, kx = weighted_columns(size, weight)
        self._sizes = used.shape
        self._row_blocks = -(-len(rows) // SLOPE_ROWS)
        if not len(rows):
            return
        tables = (rows.astype(np.int32), used, ky.astype(np.float32), kx.astype(np.float32))
        self._rows, self._weight, self._ky, self._kx = device.upload_together(*tables)

    def slopes(self, shifts: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        if not self._row_blocks:
            return np.zeros(len(shifts)), np.zeros(shifts.shape)
        terms = self._fit(lambda: self._terms(shifts)).astype(np.float64).sum(axis=1)
        return 0.5 * (terms[:, -1, 2] - terms[:, :-1, 2].sum(axis=1)), 2 * np.pi * terms[:, :-1, :2]

    def _terms(self, shifts: np.ndarray) -> np.ndarray:
        """(batch, blocks of rows, n + 1, 4) as `slopes` of aligned.cu defines them."""
        device, (batch, n, sy, sxh), (n_rows, n_cols) = self._device, self._spectra.shape, self._sizes
        moved = device.upload(np.ascontiguousarray(shifts, np.float32))
        sums = device.empty((batch, n_rows, n_cols), np.complex64)
        terms = device.empty((batch, self._row_blocks, n + 1, 4), np.float32)
        images = self._spectra, *(np.int32(v) for v in (n, sy, sxh))
        device.launch(
            "aligned", "sum_aligned", (-(-n_cols // THREADS), n_rows, batch), (THREADS,),
            *images, self._rows, np.int32(self._first), np.int32(n_cols), self._ky, self._kx, moved, sums,
        )  # fmt: skip
        device.launch(
            "aligned", "slopes", (n + 1, self._row_blocks, batch), (THREADS,),
            *images, self._rows, *(np.int32(v) for v in (n_rows, self._first, n_cols)),
            self._weight, self._ky, self._kx, moved, sums, terms,
        )  # fmt: skip
        return device.download(terms)

    def curvature(self, shifts: np.ndarray, factors: np.ndarray) -> np.ndarray:
        n = shifts.shape[1]
        if not self._row_blocks:
            return np.zeros((2, n, 2, n))
        yy, yx, xx = np.moveaxis(self._fit(lambda: self._products(shifts, factors)).astype(np.float64), -1, 0)[:3]
        products = (2 * np.pi) ** 2 * np.block([[yy, yx], [yx, xx]])
        return curvature_of_products(products)

    def _products(self, shifts: np.ndarray, factors: np.ndarray) -> np.ndarray:
        """(n, n, 4) sums over the images, as `products` of aligned.cu defines them."""
        device, (batch, n, sy, sxh), (n_rows, n_cols) = self._device, self._spectra.shape, self._sizes
        moved, of_images = device.upload_together(*(np.asarray(v, np.float32) for v in (shifts, factors)))
        total = device.empty((n, n, 4), np.float32)
        tiles = -(-n // PRODUCT_FRAMES)
        for a, b in self._batches(batch, 16 * n * n * self._row_blocks):
            partial = device.empty((b - a, self._row_blocks, n, n, 4), np.float32)
            device.launch(
                "aligned", "products", (tiles**2, self._row_blocks, b - a), (PRODUCT_FRAMES, PRODUCT_FRAMES),
                self._spectra, *(np.int32(v) for v in (a, n, sy, sxh)), self._rows,
                *(np.int32(v) for v in (n_rows, self._first, n_cols)), self._weight, self._ky, self._kx, moved,
                partial,
            )  # fmt: skip
            device.launch(
                "aligned", "add_products", (-(-total.size // THREADS),), (THREADS,),
                partial, device.view(of_images, a, (b - a,)), np.int32(b - a), np.int32(self._row_blocks),
                np.int64(total.size), np.int32(a > 0), total,
            )  # fmt: skip
        return device.download(total)
