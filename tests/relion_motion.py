"""The motion that RELION 5.0.1 takes from a movie's STAR file, written down from its reader's rules.

A frame with a shift moves by this shift plus the polynomial of z = frame - rlnMicrographStartFrame. A frame without one
(-9999) moves by the global shift of the last frame before it that has one, or not at all if there is none; the
polynomial is left out.
"""

from __future__ import annotations

from typing import Tuple

import numpy as np
from emtable import Table

NOT_OBSERVED = -9999


class RelionMotion:
    """Motion of one movie as RELION reads it; frames count from 1, positions are unbinned pixels from 0."""

    def __init__(self, path: str):
        (general,) = Table(fileName=path, tableName="general")
        self.width, self.height = general.rlnImageSizeX, general.rlnImageSizeY
        self.start = general.rlnMicrographStartFrame
        rows = {row.rlnMicrographFrameNumber: row for row in Table(fileName=path, tableName="global_shift")}
        self.global_shift = {
            i: (row.rlnMicrographShiftY, row.rlnMicrographShiftX)
            for i, row in rows.items()
            if row.rlnMicrographShiftX != NOT_OBSERVED
        }
        assert sorted(rows) == list(range(1, general.rlnImageSizeZ + 1))
        self.coefficients = np.zeros(36)
        if general.rlnMotionModelVersion:
            for row in Table(fileName=path, tableName="local_motion_model"):
                self.coefficients[row.rlnMotionModelCoeffsIdx] = row.rlnMotionModelCoeff

    def shift(self, frame: int, y: np.ndarray, x: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """(sy, sx) of a frame at positions (y, x) of the micrograph."""
        if frame not in self.global_shift:
            before = [i for i in self.global_shift if i < frame]
            sy, sx = self.global_shift[max(before)] if before else (0.0, 0.0)
            return sy + 0 * y, sx + 0 * x
        sy, sx = self.global_shift[frame]
        z, u, v = frame - self.start, x / self.width - 0.5, y / self.height - 0.5
        terms = np.stack([np.ones_like(u), u, u**2, v, v**2, u * v])
        local_x, local_y = (
            np.einsum("ap,a...,p->...", c.reshape(6, 3), terms, z ** np.arange(1.0, 4.0))
            for c in (self.coefficients[:18], self.coefficients[18:])
        )
        return sy + local_y, sx + local_x
