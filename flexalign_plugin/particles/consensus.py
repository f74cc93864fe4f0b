"""Which of several alignments of the same particles agree, and their mean: for alignments by different programs, whose
likelihoods can't be compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Tuple

import numpy as np
from scipy.spatial.transform import Rotation

from .poses import distances, nearest_mates, quaternions


@dataclass(frozen=True)
class Consensus:
    """Of n particles.

    Attributes
    ----------
    poses : (n, 3, 3), positions : (n, 2) px, volume : (n,), means of the runs that agree with each other.
    agrees : (n,) bool, whether these are more than half of the runs that have the particle, and at least two.
    runs : (R, n) bool, which runs they are.
    spread_deg, spread_px : (n,) rms distance of these runs from their mean. Where no two runs agree, the rms distance
        of all runs from the first.
    """

    poses: np.ndarray
    positions: np.ndarray
    volume: np.ndarray
    agrees: np.ndarray
    runs: np.ndarray
    spread_deg: np.ndarray
    spread_px: np.ndarray


def consensus(
    poses: np.ndarray,
    positions: np.ndarray,
    volume: np.ndarray,
    max_deg: float,
    max_px: float,
    group: Optional[np.ndarray] = None,
    present: Optional[np.ndarray] = None,
) -> Consensus:
    """Compare R alignments of n particles.

    Around each run, those are counted that show the same volume and are within the two limits; the run with the most
    is the centre, of several the one that the others are nearest to. So a run that is far off does not move the mean.

    Parameters
    ----------
    poses : (R, n, 3, 3). positions : (R, n, 2) px. volume : (R, n). max_deg, max_px : largest distances of runs that
        agree. group : (g, 3, 3) symmetry of the volumes. present : (R, n) bool, whether a run has the particle;
        None: all have.

    Raises
    ------
    ValueError : with fewer than two runs.
    """
    n_runs, n = volume.shape
    if n_runs < 2:
        raise ValueError("a consensus needs at least two alignments")
    there = np.ones((n_runs, n), bool) if present is None else present
    mates = np.eye(3)[None] if group is None else group
    angle, shift = _pairs(poses, positions, mates)
    close = (angle <= max_deg) & (shift <= max_px) & (volume[:, None] == volume[None])
    close &= there[:, None] & there[None]
    votes = close.sum(axis=1)  # (R, n); a run agrees with itself
    apart = np.where(close, angle / max_deg + shift / max_px, 0).sum(axis=1)
    rank = np.where(there, votes - apart / (2 * n_runs + 1), -1.0)  # apart is below 2 R
    centre, rows = rank.argmax(axis=0), np.arange(n)
    runs = close[centre, :, rows].T
    count = runs.sum(axis=0)
    agrees = (count >= 2) & (2 * count > there.sum(axis=0))
    middle = poses[centre, rows]
    near = np.stack([nearest_mates(run, middle, mates) for run in poses])
    mean, mean_position = _mean(near, positions, runs)
    first = there.argmax(axis=0)
    mean[count < 2], mean_position[count < 2] = poses[first, rows][count < 2], positions[first, rows][count < 2]
    used = np.where(count < 2, there, runs)
    off = np.stack([distances(run, mean, group) for run in poses])
    off_px = np.linalg.norm(positions - mean_position, axis=2)
    spread_deg, spread_px = (
        np.sqrt((used * d**2).sum(axis=0) / np.maximum(used.sum(axis=0), 1)) for d in (off, off_px)
    )
    shown = np.where(count < 2, volume[first, rows], volume[centre, rows])
    return Consensus(mean, mean_position, shown, agrees, runs, spread_deg, spread_px)


def _pairs(poses: np.ndarray, positions: np.ndarray, mates: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """(R, R, n) angles in degrees and distances in px between the runs."""
    n_runs, n = poses.shape[:2]
    angle, shift = np.zeros((n_runs, n_runs, n)), np.zeros((n_runs, n_runs, n))
    for i in range(n_runs):
        for j in range(i + 1, n_runs):
            angle[i, j] = angle[j, i] = distances(poses[i], poses[j], mates)
            shift[i, j] = shift[j, i] = np.linalg.norm(positions[i] - positions[j], axis=1)
    return angle, shift


def _mean(poses: np.ndarray, positions: np.ndarray, used: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Chordal mean poses (the main eigenvector of the sum of q q^T), and mean positions, of the runs `used` (R, n)."""
    q = np.stack([quaternions(run) for run in poses])
    moment = np.einsum("rn,rni,rnj->nij", used.astype(float), q, q)
    _, vectors = np.linalg.eigh(moment)
    position = (used[..., None] * positions).sum(axis=0) / np.maximum(used.sum(axis=0), 1)[:, None]
    return Rotation.from_quat(vectors[:, :, -1]).as_matrix().reshape(-1, 3, 3), position
