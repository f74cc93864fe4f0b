"""What an alignment finds for each particle, as rows of numbers that are saved and put together again."""

from __future__ import annotations

import numpy as np

from . import poses
from .posterior import Best

# row : of the particle in its `Table`'s `row`. aligned : False if it could not be; the other numbers are then 0.
# rot, tilt, psi : degrees. x_A, y_A : shift to be added to the content of the image, in Angstrom.
# volume : number of the volume, from 1. score : nats above "no particle". angle_sd : predicted rms error in degrees,
# shift_sd : in pixels of the image. posterior : of the pose, class_posterior : of the volume, 0 to 1.
FIELDS = [
    ("row", "<i8"),
    ("rot", "<f8"),
    ("tilt", "<f8"),
    ("psi", "<f8"),
    ("x_A", "<f4"),
    ("y_A", "<f4"),
    ("volume", "<i4"),
    ("score", "<f4"),
    ("angle_sd", "<f4"),
    ("shift_sd", "<f4"),
    ("posterior", "<f4"),
    ("class_posterior", "<f4"),
    ("aligned", "?"),
]
DTYPE = np.dtype(FIELDS)


def results_of(best: Best, row: np.ndarray, pixel_A: float) -> np.ndarray:
    """(n,) `DTYPE` of what was found for particles with these `row` numbers and pixel size."""
    found = np.zeros(len(row), DTYPE)
    found["row"] = row
    found["rot"], found["tilt"], found["psi"] = poses.euler_angles(best.poses)
    found["x_A"], found["y_A"] = -best.positions.T * pixel_A
    found["volume"] = best.volume + 1
    found["score"], found["angle_sd"], found["shift_sd"] = best.score, best.angle_sd_deg, best.shift_sd_px
    found["posterior"], found["class_posterior"] = best.posterior, best.class_posterior
    found["aligned"] = True
    return found


def angles_of(found: np.ndarray) -> np.ndarray:
    """(n, 3) float64 rot, tilt, psi in degrees."""
    return np.stack([found["rot"], found["tilt"], found["psi"]], axis=1)


def matrices_of(found: np.ndarray) -> np.ndarray:
    """(n, 3, 3) matrices A of the poses, see `poses`."""
    return poses.matrices(found["rot"], found["tilt"], found["psi"])


def shifts_A_of(found: np.ndarray) -> np.ndarray:
    """(n, 2) float32 shifts (x, y) in Angstrom."""
    return np.stack([found["x_A"], found["y_A"]], axis=1)
