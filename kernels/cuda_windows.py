"""Correlation windows on a CUDA device: their peaks and the refinement's objective."""

from __future__ import annotations

from typing import Any, Callable, Optional, Tuple

import numpy as np

from ..backend import PEAK_RADIUS_PX, CorrelationWindows, Peaks
from .block_sizes import REFINE_THREADS, TERM_THREADS, THREADS
from .device import Device, DeviceArray, Launch


class CudaWindows(CorrelationWindows):
    """Windows on the device.

    Parameters
    ----------
    fit : runs a function, and again with less memory in use if memory runs out.
    windows : (batch, n_pairs, width, width) float32.
    shifts : (batch, n, 2), applied before the correlation, band pixels.
    """

    def __init__(
        self,
        device: Device,
        fit: Callable[[Callable[[], Any]], Any],
        windows: DeviceArray,
        pairs: np.ndarray,
        shifts: np.ndarray,
        step: float,
    ):
        self._device = device
        self._fit = fit
        self._windows = windows
        self._pairs = pairs
        self._shifts = shifts
        self._step = step
        self._objective: Optional[_Objective] = None

    @property
    def values(self) -> np.ndarray:
        """The windows on the host."""
        return self._device.download(self._windows)

    def peaks(self, around: Optional[np.ndarray] = None, radius: Optional[float] = None) -> Peaks:
        peaks: Peaks = self._fit(lambda: self._peaks(around, radius))
        return peaks

    def _peaks(self, around: Optional[np.ndarray], radius: Optional[float]) -> Peaks:
        batch, n_pairs, h, w = self._windows.shape
        offset = self._shifts[:, self._pairs[:, 1]] - self._shifts[:, self._pairs[:, 0]]
        local = np.zeros((batch, n_pairs, 2)) if around is None else (around - offset) / self._step
        centres = self._device.upload(np.ascontiguousarray(local + h // 2, np.float32))
        reach = np.float32(h // 2 if radius is None else radius / self._step)
        count, size = batch * n_pairs, (np.int32(h), np.int32(w))
        out = self._device.empty((batch, n_pairs, 7), np.float32)
        self._device.launch(
            "peaks",
            "find_peaks",
            (count,),
            (THREADS,),
            self._windows,
            *size,
            centres,
            reach,
            np.float32(PEAK_RADIUS_PX),
            out,
        )
        self._device.launch(
            "peaks",
            "refine_peaks",
            (-(-count // REFINE_THREADS),),
            (REFINE_THREADS,),
            self._windows,
            np.int32(count),
            *size,
            out,
        )
        values = self._device.download(out).astype(np.float64)  # as peaks.cu defines them
        position = values[..., 0:2] + values[..., 2:4] - h // 2
        return Peaks(position * self._step + offset, values[..., 4], values[..., 5], values[..., 6] != 0)

    def objective(self, shifts: np.ndarray, weights: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        if self._objective is None:
            n = self._shifts.shape[1]
            self._objective = self._fit(lambda: _Objective(self._device, self._windows, self._pairs, n))
        objective = self._objective
        value, gradient = self._fit(lambda: objective.evaluate((shifts - self._shifts) / self._step, weights))
        return value, gradient / self._step


class _Objective:
    """Data shared by all evaluations of an objective: B-spline coefficients, the pairs of each frame, the weights."""

    def __init__(self, device: Device, windows: DeviceArray, pairs: np.ndarray, frames: int):
        self._device = device
        batch, n_pairs, h, w = windows.shape
        self._coefficients = device.empty(windows.shape, np.float32)
        for source, lines, n, line_stride, stride in ((windows, h, w, w, 1), (self._coefficients, w, h, 1, w)):
            all_lines = batch * n_pairs * lines
            device.launch(
                "objective", "prefilter", (-(-all_lines // THREADS),), (THREADS,),
                source, np.int64(all_lines), np.int32(lines), np.int32(n), np.int32(line_stride), np.int32(stride),
                self._coefficients,
            )  # fmt: skip
        self._pairs = device.upload(np.ascontiguousarray(pairs, np.int32))
        # Sorted by frame; the pairs of a frame keep their order.
        members = np.ascontiguousarray(pairs).ravel()
        order = np.argsort(members, kind="stable")
        self._entries = device.upload(order.astype(np.int32))
        self._first = device.upload(np.searchsorted(members[order], np.arange(frames + 1)).astype(np.int32))
        self._result_shape = batch, frames, 2
        self._known_weights: Optional[np.ndarray] = None
        self._weights = device.empty((batch, n_pairs), np.float64)
        shifts = device.empty((batch, frames, 2), np.float64)
        terms = device.empty((batch, n_pairs, 4), np.float64)
        result = device.empty((batch, 1 + 2 * frames), np.float64)
        sizes = np.int32(n_pairs), np.int32(frames)
        of_pairs = (self._coefficients, np.int32(h), np.int32(w), self._pairs, *sizes, shifts, self._weights, terms)
        of_frames = (terms, *sizes, self._first, self._entries, result)
        launches = [
            Launch("objective", "pair_terms", (-(-n_pairs // THREADS), batch), (THREADS,), of_pairs),
            Launch("objective", "sum_terms", (frames + 1, batch), (TERM_THREADS,), of_frames),
        ]
        self._run = device.sequence(shifts, launches, result)

    def evaluate(self, shifts: np.ndarray, weights: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """Values (batch,) and gradients (batch, frames, 2) at shifts in window samples."""
        if self._known_weights is None or not np.array_equal(self._known_weights, weights):
            self._known_weights = np.array(weights, np.float64)
            self._device.upload(self._known_weights, out=self._weights)
        result = self._run(np.ascontiguousarray(shifts, np.float64))
        return result[:, 0], result[:, 1:].reshape(self._result_shape)
