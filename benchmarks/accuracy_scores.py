"""The figures of the accuracy benchmark: errors of a motion model, and correlations of the sums."""

from __future__ import annotations

from typing import Any, Dict, List, Sequence, Tuple

import numpy as np

import benchmark_movies  # noqa: F401  makes the package importable from a checkout
from flexalign_plugin.backend import FrameSource
from flexalign_plugin.correction.resampling import plain_mix
from flexalign_plugin.motion import MotionModel
from flexalign_plugin.phantoms.phantom import Phantom, Truth, field_rms_error
from flexalign_plugin.quality.frc import RINGS, ring_correlation

MESH = 41
BANDS = ((0.05, 0.1), (0.1, 0.2))  # cycles per pixel
LEAST_CORRELATION = 0.05  # smallest correlation of the sum made with the true motion for which a ratio is given
BORDER_PX = 64  # excluded from the correlation, because not every frame covers it


def best_global(truth: Truth) -> MotionModel:
    """The mean of the true motion over the mesh, which has the smallest error of all motions without local motion."""
    y, x = (np.linspace(0, n - 1, MESH) for n in truth.frame_shape)
    t = np.arange(truth.n_frames, dtype=float)
    shifts = np.stack(truth.shift(t[:, None, None], y[:, None], x)).mean(axis=(2, 3)).T
    return MotionModel(truth.frame_shape, truth.n_frames, 0, shifts, None, truth.pixel_size_A)


def errors(truth: Truth, models: Sequence[Any], central: float = 1.0) -> List[float]:
    """RMS error of the uncorrected frames, of the best global shifts and of each model, in pixels."""
    all_errors = [field_rms_error(model, truth, mesh=MESH, central=central) for model in [best_global(truth), *models]]
    return [all_errors[0].uncorrected_px, *(error.rms_px for error in all_errors)]


def early_error(truth: Truth, model: Any, frames: int) -> float:
    """RMS error of the first frames in pixels, after subtracting the mean over all frames at each position."""
    y, x = (np.linspace(0, n - 1, MESH) for n in truth.frame_shape)
    at = np.arange(truth.n_frames, dtype=float)[:, None, None], y[:, None], x
    error = np.stack(model.shift(*at)) - np.stack(truth.shift(*at))
    error -= error.mean(axis=1, keepdims=True)
    return float(np.sqrt((error[:, :frames] ** 2).sum(axis=0).mean()))


class _Registered:
    """A motion model whose mean over the frames is replaced by the true one at every position.

    This mean only moves the whole sum, which is no error, but it must be the same for all sums that are compared.
    """

    def __init__(self, truth: Truth, model: Any):
        self.truth, self.model = truth, model
        self.frame_shape, self.n_frames = truth.frame_shape, truth.n_frames

    def fields(self, frames: Sequence[int], y: np.ndarray, x: np.ndarray) -> np.ndarray:
        at = np.arange(self.n_frames, dtype=float)[:, None, None], np.asarray(y)[:, None], np.asarray(x)
        true, shifts = np.stack(self.truth.shift(*at)), np.stack(self.model.shift(*at))
        shifts += (true - shifts).mean(axis=1, keepdims=True)
        return shifts.transpose(1, 0, 2, 3)[np.asarray(frames, int)]

    def frame_field(self, frame: int, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        return self.fields([frame], y, x)[0]


def sum_correlations(
    backend: Any, phantom: Phantom, movie: Any, models: Dict[str, Any]
) -> Dict[str, Tuple[float, ...]]:
    """FRC between each sum of the phantom's movie and the noiseless image, divided by that of the sum made with the
    true motion, for each of BANDS; NaN where the phantom has no signal."""
    noiseless = phantom.expected(0.0)
    inner = tuple(slice(BORDER_PX, n - BORDER_PX) for n in noiseless.shape)
    frames = range(phantom.shape[0])
    source = FrameSource(movie, None, None, None)
    ring = (np.arange(RINGS) + 0.5) / (2 * RINGS)

    def correlations(model: Any) -> np.ndarray:
        moved: Any = _Registered(phantom.truth, model)
        weights = np.full((1, len(frames)), 1.0 / len(frames))
        total = backend.warp_sum(source, moved, frames, weights, np.full(len(frames), phantom.dose))
        (image,) = backend.mix(total, [plain_mix(moved, frames)])
        curve = ring_correlation(image[inner], noiseless[inner])
        return np.array([curve[(ring >= low) & (ring < high)].mean() for low, high in BANDS])

    true = correlations(phantom.truth)
    true[true < LEAST_CORRELATION] = np.nan
    return {name: tuple(correlations(model) / true) for name, model in models.items()}
