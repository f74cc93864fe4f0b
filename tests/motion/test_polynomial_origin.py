"""RELION's polynomial from another origin has the same values, written out term by term."""

from __future__ import annotations

import numpy as np
import pytest

from flexalign_plugin.motion.polynomial_origin import moved_origin


def value(c, z, y, x):
    terms = [1.0, x, x**2, y, y**2, x * y]
    return sum(c[3 * i + p] * term * z ** (p + 1) for i, term in enumerate(terms) for p in range(3))


@pytest.mark.parametrize("frames, y, x", [(0, 0.3, 0), (0, 0, 0.2), (4, 0, 0), (-7, 0.11, 0.47)])
def test_the_same_field_from_another_origin(frames, y, x):
    coefficients = np.random.default_rng(1).normal(size=(2, 18))
    moved = moved_origin(coefficients, frames, y, x)
    for axis in (0, 1):
        for z, v, u in ((0, 0.1, -0.4), (3, -0.5, 0.5), (11, 0.5, 0.25)):
            old = value(coefficients[axis], z + frames, v + y, u + x) - value(coefficients[axis], frames, v + y, u + x)
            assert value(moved[axis], z, v, u) == pytest.approx(old, rel=1e-12)
    np.testing.assert_array_equal(moved_origin(coefficients), coefficients)
