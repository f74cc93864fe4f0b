"""Clamped uniform B-splines on an interval: the basis functions of equation 4 of Strelak 2020, the motion model.

The paper uses a cardinal cubic spline whose outer control points lie outside the frame. The clamped knot vector spans
the same functions on the frame and is better conditioned. Its basis functions sum to 1 for every number of control
points. With fewer than four control points the degree is lower (3 points: quadratic, 2: linear, 1: constant).
"""

from __future__ import annotations

import functools

import numpy as np
from scipy.interpolate import BSpline

DEGREE = 3


def knot_vector(n_points: int, length: float) -> np.ndarray:
    """Clamped uniform knots for `n_points` control points on [0, length]: (n_points + degree + 1,) float64."""
    degree = min(DEGREE, n_points - 1)
    inner = np.linspace(0.0, length, n_points - degree + 1)
    return np.concatenate([np.zeros(degree), inner, np.full(degree, length)])


def basis(n_points: int, length: float, at: np.ndarray) -> np.ndarray:
    """Values of all basis functions.

    Parameters
    ----------
    n_points : number of control points.
    length : the basis is defined on [0, length]; positions outside are evaluated at the nearer end.
    at : (m,) positions.

    Returns
    -------
    (m, n_points) float64, rows sum to 1.
    """
    at = np.clip(np.asarray(at, float).ravel(), 0.0, length)
    if n_points == 1 or length == 0:
        first = np.zeros((len(at), n_points))
        first[:, 0] = 1.0
        return first
    degree = min(DEGREE, n_points - 1)
    return BSpline.design_matrix(at, knot_vector(n_points, length), degree).toarray()


def places(n_points: int, length: float) -> np.ndarray:
    """(n_points,) float64, the position on [0, length] of each control point (Greville abscissa).

    It is the mean of the inner knots of the control point's basis function. A spline with these coefficients is the
    identity: its value at each position is the position.
    """
    degree = min(DEGREE, n_points - 1)
    if degree < 1:
        return np.full(n_points, length / 2)
    return np.lib.stride_tricks.sliding_window_view(knot_vector(n_points, length)[1:-1], degree).mean(axis=1)


@functools.lru_cache(maxsize=None)
def gram(n_points: int, derivative: int = 0) -> np.ndarray:
    """Integrals of the products of all basis functions' derivatives, (n_points, n_points) float64, read-only.

    The unit of length is the distance between inner knots. `c @ gram(n, 2) @ c` is the integrated squared second
    derivative of the spline with coefficients c. It is zero only for straight lines.
    """
    degree = min(DEGREE, n_points - 1)
    spans = n_points - degree
    if derivative > degree:
        nothing = np.zeros((n_points, n_points))
        nothing.flags.writeable = False
        return nothing
    nodes, weights = np.polynomial.legendre.leggauss(degree + 1)  # exact for products of these polynomials
    at = (np.arange(spans)[:, None] + 0.5 + 0.5 * nodes).ravel()
    spline = BSpline(knot_vector(n_points, spans), np.eye(n_points), degree)
    values = spline(at, nu=derivative)
    products: np.ndarray = values.T @ (np.tile(0.5 * weights, spans)[:, None] * values)
    products.flags.writeable = False
    return products
