"""Rotation groups of symmetric volumes, in the frames of Scipion and RELION."""

from __future__ import annotations

import re

import numpy as np
from scipy.spatial.transform import Rotation

from ..errors import SettingsError

HIGHEST_ORDER = 100  # of C and D
ADVICE = "give C1, C2, ..., D2, D3, ..., T, O, I1, I2, I3 or I4"
# From the frame with 2-fold axes along x, y and z, this turn about y brings a 5-fold axis to z.
FIVEFOLD_DEG = float(np.degrees(np.arctan((1 + np.sqrt(5)) / 2)))


def rotations(name: str) -> np.ndarray:
    """Rotations of a symmetry: the volume is the same after each of them.

    Parameters
    ----------
    name : Cn, Dn (a 2-fold axis along x; `Dny`: along y), T, O, I1 to I4 (I is I1), in capitals or not. In Scipion's
        terms I1 to I4 are I222, I222r, In25 and In25r: 2-fold axes along x, y and z, the same turned by 90 degrees
        about z, and two frames with a 5-fold axis along z.

    Returns
    -------
    (order, 3, 3) float64; the first is the identity.

    Raises
    ------
    SettingsError : if there is no such symmetry.
    """
    text = str(name).strip().upper()
    match = re.fullmatch(r"([CD])([1-9]\d*)(Y?)", text)
    if match and int(match[2]) <= HIGHEST_ORDER and not (match[1] == "C" and match[3]):
        group = Rotation.create_group(match[1] + match[2]).as_matrix()
        return _first_identity(_seen_from(group, "z", 90.0) if match[3] else group)
    if text in ("T", "O"):
        return _first_identity(Rotation.create_group(text).as_matrix())
    if text in ("I", "I1", "I2", "I3", "I4"):
        axis, degrees = {"I2": ("z", 90.0), "I3": ("y", FIVEFOLD_DEG), "I4": ("y", -FIVEFOLD_DEG)}.get(text, ("z", 0.0))
        return _first_identity(_seen_from(Rotation.create_group("I").as_matrix(), axis, degrees))
    raise SettingsError(f"Symmetry {name!r} is not known: {ADVICE}.")


def _seen_from(group: np.ndarray, axis: str, degrees: float) -> np.ndarray:
    turn = Rotation.from_euler(axis, degrees, degrees=True).as_matrix()
    return turn @ group @ turn.T


def _first_identity(group: np.ndarray) -> np.ndarray:
    order = np.argsort(-np.trace(group, axis1=1, axis2=2), kind="stable")
    return np.ascontiguousarray(group[order])
