"""Whole-frame shifts when single pairs say too little: a search for the smooth drift that all pairs together favour.

A pair's correlation may be buried in noise while the sum over several hundred pairs, at the right shifts, is not.
The sum is searched over straight and over decaying drifts, and the best few are bent step by step with ever more
control points in time, until every frame is free.
"""

from __future__ import annotations

from typing import Any, List, Tuple

import numpy as np
from scipy.optimize import minimize

from .bspline import basis

STEP = 2.0  # band pixels; the correlation peak of the low-pass is about 4 wide
BEST = 4
GROWTH = 1.6
DECAYS = (np.inf, 0.2)  # of the number of frames


def search_drift(windows: Any, n: int, reach: float) -> List[np.ndarray]:
    """Shifts (n, 2) in band pixels, mean zero, with the largest sum of correlations found: from stiff to free in time.

    Parameters
    ----------
    windows : one batch of correlation windows of all pairs.
    reach : largest drift from the first to the last frame, band pixels.
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
    found = [_bend(value, drift, n) for _, drift in tries[:BEST]]
    best = max(found, key=lambda stages: value(stages[-1])[0])
    return [shifts - shifts.mean(axis=0) for shifts in best]


def _bend(value: Any, shifts: np.ndarray, n: int) -> List[np.ndarray]:
    """Climb from a start with a growing number of control points in time; the outcome of each stage."""
    points = 3
    stages: List[np.ndarray] = []
    while True:
        design = np.eye(n) if points >= n else basis(points, n - 1, np.arange(n))

        def negative(
            v: np.ndarray, design: np.ndarray = design, start: np.ndarray = shifts
        ) -> Tuple[float, np.ndarray]:
            total, gradient = value(start + design @ v.reshape(-1, 2))
            return -total, -(design.T @ gradient).ravel()

        found = minimize(negative, np.zeros(2 * design.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 60})
        shifts = shifts + design @ found.x.reshape(-1, 2)
        stages.append(shifts)
        if points >= n:
            return stages
        points = int(np.ceil(points * GROWTH))
