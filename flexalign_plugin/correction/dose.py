"""Dose weighting: later frames show a damaged sample, fine details more than coarse ones.

Equations are those of Grant & Grigorieff 2015, eLife 4:e06980.
"""

from __future__ import annotations

import numpy as np

# Factors of the critical dose at these voltages, as in RELION and MotionCor.
VOLTAGES_KV, FACTORS = (100.0, 200.0, 300.0), (0.64, 0.8, 1.0)


def critical_dose(frequency: np.ndarray, voltage_kV: float) -> np.ndarray:
    """Dose after which the signal has fallen to 1 / e (equation 3): 0.245 k^-1.665 + 2.81 at 300 kV.

    Parameters
    ----------
    frequency : spatial frequency k in 1/A; infinite dose at 0.
    voltage_kV : the factor (0.64, 0.8, 1 at 100, 200, 300 kV) is interpolated linearly and constant beyond.

    Returns
    -------
    float64 in e/A^2, shaped as `frequency`.
    """
    frequency = np.asarray(frequency, float)
    with np.errstate(divide="ignore"):
        at_300 = 0.245 * frequency**-1.665 + 2.81
    return at_300 * np.interp(voltage_kV, VOLTAGES_KV, FACTORS)


def dose_weights(frequency: np.ndarray, dose_after: np.ndarray, voltage_kV: float) -> np.ndarray:
    """Remaining amplitude of the signal in each frame: exp(-N / (2 Nc(k))) (equation 5).

    Parameters
    ----------
    frequency : (m,) in 1/A. dose_after : (n,) accumulated dose N at each frame's end, pre-exposure included, in e/A^2.

    Returns
    -------
    (m, n) float64 between 0 and 1.
    """
    return np.exp(-np.asarray(dose_after, float) / (2 * critical_dose(frequency, voltage_kV)[:, None]))
