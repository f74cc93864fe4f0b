"""Directions spread evenly over the sphere, and grids of poses."""

from __future__ import annotations

import math
from typing import Optional

import numpy as np
from scipy.spatial.transform import Rotation

GOLDEN_ANGLE = math.pi * (3 - math.sqrt(5))
# The reference point of the asymmetric unit: on no symmetry axis or mirror plane of the groups.
GENERIC = np.array([0.324, 0.211, 0.922])


def directions(step_rad: float) -> np.ndarray:
    """(n, 3) unit vectors on a golden spiral, one for each `step_rad`^2 of the sphere: n = ceil(4 pi / step^2)."""
    n = math.ceil(4 * math.pi / step_rad**2 - 1e-9)
    i = np.arange(n)
    z = 1 - (2 * i + 1) / n
    radius = np.sqrt(1 - z * z)
    return np.stack([radius * np.cos(i * GOLDEN_ANGLE), radius * np.sin(i * GOLDEN_ANGLE), z], axis=1)


def in_asymmetric_unit(vectors: np.ndarray, group: np.ndarray) -> np.ndarray:
    """(n,) bool: whether a direction (n, 3) is nearer to a fixed general point than all its symmetry mates are."""
    mates = np.einsum("gij,nj->gni", group, vectors) @ (GENERIC / np.linalg.norm(GENERIC))
    own = vectors @ (GENERIC / np.linalg.norm(GENERIC))
    return own >= mates.max(axis=0) - 1e-12


def in_plane_angles(step_rad: float, max_psi_deg: float = 180.0) -> np.ndarray:
    """Angles in degrees, at most `step_rad` apart: of the whole circle, or from -max_psi to max_psi."""
    if max_psi_deg >= 180:
        n = math.ceil(2 * math.pi / step_rad - 1e-9)
        return np.arange(n) * 360 / n
    return np.linspace(-max_psi_deg, max_psi_deg, 2 * math.ceil(math.radians(max_psi_deg) / step_rad - 1e-9) + 1)


def pose_grid(
    step_rad: float, group: Optional[np.ndarray] = None, seed: Optional[int] = None, max_psi_deg: float = 180.0
) -> np.ndarray:
    """Poses spread evenly over all orientations, reduced to the asymmetric unit of a symmetry.

    Parameters
    ----------
    step_rad : distance of neighbouring directions and of neighbouring in-plane angles.
    group : (g, 3, 3) symmetry of the volume. seed : turns the whole grid by one random rotation; None: no turn.
    max_psi_deg : largest in-plane angle, in both senses.

    Returns
    -------
    (n directions * n in-plane, 3, 3) float64; the poses of a direction follow each other.
    """
    views = directions(step_rad)
    if seed is not None:
        views = views @ Rotation.random(random_state=seed).as_matrix().T
    if group is not None:
        views = views[in_asymmetric_unit(views, group)]
    psi = in_plane_angles(step_rad, max_psi_deg)
    tilt = np.degrees(np.arccos(np.clip(views[:, 2], -1, 1)))
    rot = np.degrees(np.arctan2(views[:, 1], views[:, 0]))
    if seed is not None and max_psi_deg >= 180:
        psi = psi + np.random.default_rng(seed).uniform(0, psi[1])
    angles = np.empty((len(views), len(psi), 3))
    angles[..., 0], angles[..., 1], angles[..., 2] = rot[:, None], tilt[:, None], psi[None, :]
    quaternions = Rotation.from_euler("zyz", -angles.reshape(-1, 3), degrees=True).as_quat()
    # numpy's sines differ in their last bit with the address of the array: rounded, the grid is always the same.
    return Rotation.from_quat(np.round(quaternions, 7)).as_matrix()
