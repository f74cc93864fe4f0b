"""An array of frames as a movie, for tests that need no file."""

from __future__ import annotations

import numpy as np


class Stack:
    """Frames (n, ny, nx) in memory with what the aligner asks of a movie."""

    path, kind, notes, warnings, hardware_frames_per_frame, upsampling = "memory.mrc", "MRC", (), (), None, 1

    def damage(self):
        return []

    def __init__(self, frames: np.ndarray):
        self.frames, self.shape, self.dtype = frames, frames.shape, frames.dtype

    def frame(self, i: int) -> np.ndarray:
        return self.frames[i]
