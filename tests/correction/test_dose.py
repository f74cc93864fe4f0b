"""Critical dose and weights against the published formula, written out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from flexalign_plugin.correction.dose import accumulated_dose, critical_dose, dose_weights


@pytest.mark.parametrize("voltage,factor", [(300, 1), (200, 0.8), (100, 0.64), (250, 0.9), (80, 0.64), (1000, 1)])
def test_critical_dose(voltage, factor):
    """At 0.1 / A: 0.245 * 10^1.665 + 2.81 = 0.245 * 46.238 + 2.81 = 14.138."""
    assert critical_dose(np.array([0.1]), voltage)[0] == pytest.approx(14.138 * factor, rel=1e-4)


def test_weights_decay_with_the_dose_at_the_end_of_each_frame():
    dose = accumulated_dose(np.array([0, 1, 5]), 1.5, 2.0)
    np.testing.assert_allclose(dose, [3.5, 5.0, 11.0])
    weights = dose_weights(np.array([0.0, 0.1]), dose, 300)
    np.testing.assert_array_equal(weights[0], 1.0)
    np.testing.assert_allclose(weights[1], np.exp(-dose / (2 * 14.138)), rtol=1e-4)
