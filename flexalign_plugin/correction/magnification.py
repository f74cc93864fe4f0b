"""Magnification distortion, corrected in the same resampling as the motion.

The magnification of a microscope can differ between two perpendicular axes. The corrected image is the frame stretched
about its centre c: position p of the corrected image corresponds to q = c + M^-1 (p - c) in a frame without motion,
with M = R diag(major, minor) R^T. Motion is measured in the distorted frames, so the value at p is taken from
q - shift(t, q). This is the same as a shift of p - q + shift(t, q), so that it can be written as a motion model.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from ..motion.bspline import basis
from ..motion.model import MotionModel
from ..settings import Settings

SAMPLES = 6  # samples of the field for each control point


def resampling_model(model: MotionModel, settings: Settings) -> MotionModel:
    """The model for resampling the frames: the motion, with the magnification distortion if it is to be corrected.

    The new spline is fitted to the field over the whole frame and has more control points than the motion's. It differs
    from the motion by at most a few hundredths of a pixel (for 10 px of local motion and 2 % of distortion). The
    distortion itself is linear and represented exactly.
    """
    if not settings.do_mag_cor:
        return model
    inverse = np.linalg.inv(stretch(settings.scale_maj, settings.scale_min, settings.ang_dist))
    lengths = [n - 1 for n in model.frame_shape]
    old = np.zeros((2, 1, 3, 3)) if model.coefficients_px is None else model.coefficients_px
    points = [3 * k + 3 for k in old.shape[2:]]
    y, x = (np.linspace(0, length, SAMPLES * k) for length, k in zip(lengths, points))
    from_centre = np.stack(np.meshgrid(y - lengths[0] / 2, x - lengths[1] / 2, indexing="ij"))
    undistorted = np.einsum("ab,byx->ayx", inverse, from_centre)
    by, bx = (basis(k, n, q.ravel() + n / 2) for k, n, q in zip(old.shape[2:], lengths, undistorted))
    local = np.einsum("alij,pi,pj->alp", old, by, bx, optimize=True).reshape(*old.shape[:2], len(y), len(x))
    field = local + (from_centre - undistorted)[:, None]
    fit_y, fit_x = (np.linalg.pinv(basis(k, n, at)) for k, n, at in zip(points, lengths, (y, x)))
    coefficients = np.einsum("iy,alyx,jx->alij", fit_y, field, fit_x, optimize=True)
    return dataclasses.replace(model, coefficients_px=coefficients)


def stretch(major: float, minor: float, angle_deg: float) -> np.ndarray:
    """(2, 2) matrix on (y, x) that stretches by `major` along the axis at this angle, by `minor` across it.

    The angle runs from the x axis (along a row) towards higher rows.
    """
    angle = np.deg2rad(angle_deg)
    along, across = np.array([np.sin(angle), np.cos(angle)]), np.array([np.cos(angle), -np.sin(angle)])
    return major * np.outer(along, along) + minor * np.outer(across, across)
