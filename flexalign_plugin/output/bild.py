"""The distribution of views in 3-D: cones around the map, as ChimeraX opens them (BILD format)."""

from __future__ import annotations

from typing import Optional

import numpy as np

from ..files import atomic_path
from ..particles.views import view_density

INNER, LONGEST, WIDTH = 1.1, 0.6, 0.035  # of the cones, in units of the particle's radius
FEWEST = 0.05  # densities below this share of the largest are left out


def write_directions(path: str, poses: np.ndarray, radius_A: float, group: Optional[np.ndarray] = None) -> None:
    """Write a cone for each direction that is seen: its length and its colour (blue to red) are the density.

    Parameters
    ----------
    poses : (n, 3, 3). radius_A : of the particle, around the origin of the map's coordinates.
    group : (g, 3, 3) symmetry of the volume.
    """
    sphere, density = view_density(poses, group)
    share = density / density.max()
    lines = [".comment directions of view of particles, in the coordinates of the map"]
    for direction, part in zip(sphere, share):
        if part < FEWEST:
            continue
        base, tip = direction * radius_A * INNER, direction * radius_A * (INNER + LONGEST * part)
        lines.append(f".color {part:.3f} 0 {1 - part:.3f}")
        numbers = " ".join(f"{value:.2f}" for value in (*base, *tip, WIDTH * radius_A))
        lines.append(f".cone {numbers}")
    with atomic_path(path) as temporary, open(temporary, "w", encoding="ascii") as file:
        file.write("\n".join(lines) + "\n")
