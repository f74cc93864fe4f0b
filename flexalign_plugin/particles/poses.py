"""Poses of particles: conventions, Euler angles, distances and averages.

Conventions, those of RELION and Scipion:

- Images are indexed [y, x] and volumes [z, y, x], with the origin at pixel N // 2 of every axis; vectors are (x, y, z).
- The matrix A of a pose turns the volume's coordinates into the image's: A = Rz(-psi) Ry(-tilt) Rz(-rot). The image is
  the sum along z of the volume turned by A. The third row of A is the direction of view in the volume's coordinates.
- The shift (sx, sy), in pixels, is added to the content of the image to bring the particle onto the projection. The
  particle therefore lies at t = -s from the image's origin.
"""

from __future__ import annotations

from typing import Optional, Tuple

import numpy as np
from scipy.spatial.transform import Rotation


def matrices(rot: np.ndarray, tilt: np.ndarray, psi: np.ndarray) -> np.ndarray:
    """Matrices A of poses.

    Parameters
    ----------
    rot, tilt, psi : (n,) Euler angles about z, y, z, in degrees.

    Returns
    -------
    (n, 3, 3) float64.
    """
    angles = np.broadcast_arrays(*(np.atleast_1d(np.asarray(a, float)) for a in (rot, tilt, psi)))
    return Rotation.from_euler("zyz", -np.stack(angles, axis=1), degrees=True).as_matrix()


def euler_angles(a: np.ndarray) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Angles (rot, tilt, psi) in degrees of matrices (n, 3, 3); tilt is 0 to 180, the others -180 to 180.

    At a tilt of 0 or 180 only rot + psi or rot - psi is defined: rot is then 0.
    """
    a = np.asarray(a, float).reshape(-1, 3, 3)
    sine = np.hypot(a[:, 2, 0], a[:, 2, 1])
    tilt = np.arctan2(sine, a[:, 2, 2])
    polar = sine < 1e-9
    rot = np.where(polar, 0.0, np.arctan2(a[:, 2, 1], a[:, 2, 0]))
    psi = np.where(polar, np.arctan2(a[:, 0, 1], a[:, 1, 1]), np.arctan2(a[:, 1, 2], -a[:, 0, 2]))
    return np.degrees(rot), np.degrees(tilt), np.degrees(psi)


def quaternions(a: np.ndarray) -> np.ndarray:
    """(n, 4) unit quaternions (x, y, z, w) of matrices (n, 3, 3)."""
    return Rotation.from_matrix(np.asarray(a, float).reshape(-1, 3, 3)).as_quat().reshape(-1, 4)


def distances(a: np.ndarray, b: np.ndarray, group: Optional[np.ndarray] = None) -> np.ndarray:
    """Angles between poses: the rotation that turns one into the other.

    Computed as 2 atan2(|v|, |w|) of the quaternion (v, w), which is exact for small angles too, where the arc cosine of
    a scalar product is not.

    Parameters
    ----------
    a, b : (n, 3, 3), or one of them (3, 3). group : (g, 3, 3) symmetry of the volume; the nearest mate counts.

    Returns
    -------
    (n,) degrees.
    """
    a, b = np.broadcast_arrays(*(np.asarray(m, float).reshape(-1, 3, 3) for m in (a, b)))
    nearest = a if group is None else nearest_mates(a, b, group)
    v_w = quaternions(nearest @ np.swapaxes(b, 1, 2))
    return np.degrees(2 * np.arctan2(np.linalg.norm(v_w[:, :3], axis=1), np.abs(v_w[:, 3])))


def nearest_mates(a: np.ndarray, to: np.ndarray, group: np.ndarray) -> np.ndarray:
    """The symmetry mates A g of poses (n, 3, 3) that are nearest to the poses `to` (n, 3, 3)."""
    best, largest = np.array(a, float), np.full(len(a), -np.inf)
    for g in group:
        mate = a @ g
        trace = np.einsum("nij,nij->n", mate, to)  # 1 + 2 cos(angle)
        closer = trace > largest
        best[closer], largest[closer] = mate[closer], trace[closer]
    return best


def mean_pose(a: np.ndarray, weights: Optional[np.ndarray] = None) -> np.ndarray:
    """Chordal mean (3, 3) of poses (n, 3, 3): the main eigenvector of the sum of q q^T over their quaternions q."""
    q = quaternions(a)
    w = np.ones(len(q)) if weights is None else np.asarray(weights, float)
    _, vectors = np.linalg.eigh((q * w[:, None]).T @ q)
    return Rotation.from_quat(vectors[:, -1]).as_matrix()


def turned(a: np.ndarray, w: np.ndarray) -> np.ndarray:
    """exp([w]x) A: poses (n, 3, 3) turned by rotation vectors (n, 3), in radians and image coordinates."""
    return Rotation.from_rotvec(np.asarray(w, float).reshape(-1, 3)).as_matrix() @ a
