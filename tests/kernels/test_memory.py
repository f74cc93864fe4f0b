"""How much of a GPU's memory a whole alignment takes, counted on a device that computes nothing (tests/emulation).

Movies of full size; nothing is measured here. A context and plans of 600 MB are counted in.
"""

from __future__ import annotations

import numpy as np
import pytest

from flexalign_plugin.aligner import align
from flexalign_plugin.errors import FlexAlignError
from flexalign_plugin.kernels.cuda import CudaBackend
from flexalign_plugin.kernels.tuning import Tuner
from flexalign_plugin.movies import Corrections
from flexalign_plugin.settings import Settings

from ..emulation.accounting import AccountingDevice

GB = 10**9
SHAPE = (20, 8184, 11520)


class SameFrames:
    """A movie of one frame, again and again."""

    path, kind, notes, warnings, hardware_frames_per_frame, upsampling = "memory.mrc", "MRC", (), (), None, 1

    def damage(self):
        return []

    def __init__(self, dtype: str, shape=SHAPE):
        self.shape, self.dtype = shape, np.dtype(dtype)
        self._frame = np.zeros(shape[1:], dtype)

    def frame(self, i: int) -> np.ndarray:
        return self._frame


def peak_gb(dtype: str, limit_gb: float, tmp_path, total_gb: int = 24) -> float:
    """Most memory that is taken of a GPU."""
    limit = None if limit_gb is None else int(limit_gb * GB)
    device = AccountingDevice(total_gb * GB, limit)
    settings = Settings(pixel_size=0.6, dose_per_frame=1.0, remove_hot_pixels=False)
    backend = CudaBackend(device, 2, Tuner(device, tmp_path / "sizes.json"))
    gain = np.broadcast_to(np.float32(1), SHAPE[1:])
    result = align(SameFrames(dtype), settings, backend, Corrections(None, gain, None, []))
    assert result.images.weighted is not None and np.prod(result.figures.patches) > 50
    return device.peak_bytes / GB


@pytest.mark.parametrize("dtype", ["u1", "f4"])
def test_the_largest_movies_fit_16_gb_of_a_gpu_with_24(dtype, tmp_path):
    assert peak_gb(dtype, None, tmp_path) < 16  # counted: 13.4 (8 bits), 14.8 (float)


def test_a_large_gpu_keeps_more_for_reuse(tmp_path):
    """Up to half of its memory, so that a movie of float pixels does not wait for blocks to be freed."""
    # How much depends on the size of the transforms, which the first movies of a process decide.
    assert peak_gb("f4", None, tmp_path) <= peak_gb("f4", None, tmp_path, 141) < 30


@pytest.mark.parametrize("dtype", ["u1", "f4"])
def test_a_limit_of_8_gb_is_kept(dtype, tmp_path):
    assert peak_gb(dtype, 8, tmp_path) <= 8


def test_the_next_movie_takes_no_new_memory_from_the_driver():
    """A new allocation would wait for all operations on the device."""
    device = AccountingDevice(141 * GB)
    backend = CudaBackend(device, 2)
    counts = []
    for _ in range(3):
        movie = SameFrames("u1", (30, 4092, 5760))
        align(movie, Settings(remove_hot_pixels=False), backend, Corrections(None, None, None, []))
        counts.append(device.driver.allocations)
    assert counts[0] > 10 and counts[1] == counts[2] == counts[0]


def test_the_least_memory_that_works_is_reported(tmp_path):
    with pytest.raises(FlexAlignError, match=r"not enough memory .* of 1907 MiB are free"):
        peak_gb("u1", 2, tmp_path)
