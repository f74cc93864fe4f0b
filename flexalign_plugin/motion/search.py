"""Whole-frame shifts when single pairs have too little signal: a search for the drift of largest total correlation.

The correlation of one pair may be below the noise while the sum over several hundred pairs, at the correct shifts, is
above it. The sum is first searched over straight and decaying drifts. The best few are then optimised with an
increasing number of control points in time, until every frame has a free shift.
"""

from __future__ import annotations

from typing import Callable, List, Tuple

import numpy as np
from scipy.optimize import minimize

from ..backend import CorrelationWindows
from .bspline import basis

STEP = 2.0  # band pixels; the correlation peak of the low-pass is about 4 wide
BEST = 4
GROWTH = 1.6
DECAYS = (np.inf, 0.2)  # decay times of the drift, relative to the number of frames

# Total correlation and its gradient (n, 2) for shifts (n, 2).
Objective = Callable[[np.ndarray], Tuple[float, np.ndarray]]


def search_drift(windows: CorrelationWindows, n: int, reach: float) -> List[np.ndarray]:
    """Shifts that maximise the sum of the correlations of all pairs.

    Parameters
    ----------
    windows : one batch of correlation windows of all pairs.
    n : number of frames.
    reach : largest drift from the first to the last frame, band pixels.

    Returns
    -------
    Shifts (n, 2) in band pixels, mean zero, with an increasing number of control points in time; the last one has a
    free shift for every frame.
    """

    def value(shifts: np.ndarray) -> Tuple[float, np.ndarray]:
        v, gradient = windows.objective(shifts[None], np.ones((1, n * (n - 1) // 2)))
        return float(v[0]), gradient[0]

    steps = np.arange(-np.floor(reach / STEP), np.floor(reach / STEP) + 1) * STEP
    tries: List[Tuple[float, np.ndarray]] = []
    for decay in DECAYS:
        t = np.linspace(0, 1, n)
        shape = t if np.isinf(decay) else -np.expm1(-t / decay) / -np.expm1(-1 / decay)
        for y in steps:
            for x in steps:
                if y * y + x * x <= reach * reach:
                    drift = shape[:, None] * np.array([y, x])
                    tries.append((value(drift)[0], drift))
    tries.sort(key=lambda one: -one[0])
    refined = [_bend(value, drift, n) for _, drift in tries[:BEST]]
    best = max(refined, key=lambda stages: value(stages[-1])[0])
    return [shifts - shifts.mean(axis=0) for shifts in best]


def _bend(value: Objective, shifts: np.ndarray, n: int) -> List[np.ndarray]:
    """Shifts of every stage of a maximisation with an increasing number of control points, from a start (n, 2)."""
    points = 3
    stages: List[np.ndarray] = []
    while True:
        design = np.eye(n) if points >= n else basis(points, n - 1, np.arange(n))

        def negative(
            v: np.ndarray, design: np.ndarray = design, start: np.ndarray = shifts
        ) -> Tuple[float, np.ndarray]:
            total, gradient = value(start + design @ v.reshape(-1, 2))
            return -total, -(design.T @ gradient).ravel()

        result = minimize(negative, np.zeros(2 * design.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 60})
        shifts = shifts + design @ result.x.reshape(-1, 2)
        stages.append(shifts)
        if points >= n:
            return stages
        points = int(np.ceil(points * GROWTH))
