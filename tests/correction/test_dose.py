"""Critical dose and weights against the published formula, written out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from flexalign_plugin.correction.dose import critical_dose, dose_weights
from flexalign_plugin.correction.sums import _dose_groups
from flexalign_plugin.errors import SettingsError
from flexalign_plugin.settings import Settings


@pytest.mark.parametrize("voltage,factor", [(300, 1), (200, 0.8), (100, 0.64), (250, 0.9), (80, 0.64), (1000, 1)])
def test_critical_dose(voltage, factor):
    """At 0.1 / A: 0.245 * 10^1.665 + 2.81 = 0.245 * 46.238 + 2.81 = 14.138."""
    assert critical_dose(np.array([0.1]), voltage)[0] == pytest.approx(14.138 * factor, rel=1e-4)


def test_weights_decay_with_the_dose_at_the_end_of_each_frame():
    dose = 2.0 + np.array(Settings(dose_per_frame=1.5).dose_after([0, 1, 5]))
    np.testing.assert_allclose(dose, [3.5, 5.0, 11.0])
    weights = dose_weights(np.array([0.0, 0.1]), dose, 300)
    np.testing.assert_array_equal(weights[0], 1.0)
    np.testing.assert_allclose(weights[1], np.exp(-dose / (2 * 14.138)), rtol=1e-4)


def test_frames_of_different_dose():
    """Two frames of 0.5, then three of 2 e/A^2; frames that are not aligned have exposed the specimen too."""
    varying = Settings(frame_doses="0.5 2 2 3", do_save_ps=True)
    assert varying.doses(5) == [0.5, 0.5, 2, 2, 2]
    assert varying.dose_after(range(1, 4)) == [1.0, 3.0, 5.0]
    assert varying.is_dose_weighted and Settings(dose_per_frame=0.0).doses(3) is None
    assert [list(group) for group in _dose_groups(varying, range(5))] == [[0, 1, 2], [3, 4]]  # 3 and 4 e/A^2
    assert [list(group) for group in _dose_groups(varying, range(2, 5))] == [[0, 1], [2]]
    constant = Settings(dose_per_frame=1.3)
    assert [len(group) for group in _dose_groups(constant, range(8))] == [3, 3, 2]


@pytest.mark.parametrize("text", ["", "1", "1 2 3", "a 2", "1 2.5", "-1 3", "nan 3", "1 0", "1 inf", "1 1000000"])
def test_lists_of_doses_that_are_refused(text):
    with pytest.raises(SettingsError, match="a dose in e/A.2 and a number of frames in turn"):
        Settings(frame_doses=text)


def test_doses_of_another_number_of_frames_are_refused():
    varying = Settings(frame_doses="0.5 2, 2 3")
    varying.check_doses(5, "a.mrc")
    with pytest.raises(SettingsError, match="a.mrc: the doses of 5 frames are given, but the movie has 6"):
        varying.check_doses(6, "a.mrc")
    with pytest.raises(SettingsError, match="More than one dose"):
        Settings(frame_doses="0.5 2", dose_per_frame=0.5)
