"""RELION's motion polynomial seen from another origin: another frame in which it is zero, another corner of the frame.

The terms 1, x, x^2, y, y^2, xy and the powers z, z^2, z^3 are closed under a change of origin, so that the result is
exact. It is zero in the new origin's frame: what is left out there is the same field in all frames.
"""

from __future__ import annotations

from math import comb

import numpy as np

_POWERS = 3


def moved_origin(coefficients: np.ndarray, frames: float = 0.0, y: float = 0.0, x: float = 0.0) -> np.ndarray:
    """Coefficients of P(z + frames, x + this x, y + this y) - P(frames, x + this x, y + this y).

    Parameters
    ----------
    coefficients : (..., 18) float64, index 3 * term + (power - 1), as `relion_polynomial.PolynomialFit` has them.
    frames : new origin in time, in frames after the old one.
    y, x : new origin in space, in units of the frame's height and width.
    """
    # Rows: old terms, columns: new ones.
    space = np.eye(6)
    space[1, 0] = x
    space[2, :2] = x**2, 2 * x
    space[3, 0] = y
    space[4, [0, 3]] = y**2, 2 * y
    space[5, [0, 1, 3]] = x * y, y, x
    time = np.zeros((_POWERS, _POWERS))
    for old in range(1, _POWERS + 1):
        for new in range(1, old + 1):
            time[old - 1, new - 1] = comb(old, new) * frames ** (old - new)
    by_term = np.asarray(coefficients, float).reshape(*np.shape(coefficients)[:-1], 6, _POWERS)
    moved = np.einsum("...tp,ts,pq->...sq", by_term, space, time)
    return moved.reshape(np.shape(coefficients))
