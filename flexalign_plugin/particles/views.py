"""How the directions of view are distributed over the sphere."""

from __future__ import annotations

from typing import Optional, Tuple

import numpy as np
from scipy.spatial import cKDTree

from .sphere import directions

CELLS = 4000  # of the sphere, about 3 degrees wide
SMALLEST_CAP_RAD = np.radians(5.0)
BLOCK = 500  # cells at a time
PARTICLES_IN_CAP = 25.0  # of evenly distributed ones: an error of 20 % by chance


def view_density(poses: np.ndarray, group: Optional[np.ndarray] = None) -> Tuple[np.ndarray, np.ndarray]:
    """Density of the directions of view, smoothed over caps that hold some 25 particles.

    Parameters
    ----------
    poses : (n, 3, 3), n >= 1. group : (g, 3, 3) symmetry of the volume: each particle also counts for its mates.

    Returns
    -------
    (m, 3) directions in the volume's coordinates, spread evenly, and (m,) densities relative to an even distribution.
    """
    sphere = directions(np.sqrt(4 * np.pi / CELLS))
    tree = cKDTree(sphere)
    views = np.asarray(poses, float).reshape(-1, 3, 3)[:, 2]
    counts = np.bincount(tree.query(views)[1], minlength=len(sphere)).astype(float)
    share = min(PARTICLES_IN_CAP / len(views), 0.5)  # of the sphere
    cap = max(np.arccos(1 - 2 * share), SMALLEST_CAP_RAD)
    smooth = np.empty(len(sphere))
    for start in range(0, len(sphere), BLOCK):
        near = sphere[start : start + BLOCK] @ sphere.T >= np.cos(cap)
        smooth[start : start + BLOCK] = near @ counts / near.sum(axis=1)
    if group is not None:
        smooth = np.mean([smooth[tree.query(sphere @ g.T)[1]] for g in group], axis=0)
    return sphere, smooth / smooth.mean()
