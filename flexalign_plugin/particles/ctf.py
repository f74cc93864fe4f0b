"""The contrast transfer function of single particles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


def wavelength_A(voltage_kV: float) -> float:
    """Relativistic wavelength of the electrons in Angstrom."""
    volts = voltage_kV * 1e3
    return float(12.2643 / np.sqrt(volts * (1 + 0.978476e-6 * volts)))


@dataclass(frozen=True)
class Optics:
    """What all particles of an optics group share.

    Attributes
    ----------
    pixel_A : pixel size. voltage_kV, cs_mm : voltage and spherical aberration.
    amplitude_contrast : 0 to 1. phase_flipped : whether the images were multiplied by the sign of the CTF.
    """

    pixel_A: float
    voltage_kV: float
    cs_mm: float
    amplitude_contrast: float
    phase_flipped: bool = False


@dataclass(frozen=True)
class Defocus:
    """Of n particles: (n,) defocus u and v in Angstrom (positive: underfocus), the angle of u from x in degrees, and
    the phase shift of a phase plate in degrees."""

    u_A: np.ndarray
    v_A: np.ndarray
    angle_deg: np.ndarray
    phase_deg: np.ndarray

    def __len__(self) -> int:
        return len(self.u_A)

    def __getitem__(self, rows: np.ndarray) -> Defocus:
        return Defocus(self.u_A[rows], self.v_A[rows], self.angle_deg[rows], self.phase_deg[rows])


def ctf(kx: np.ndarray, ky: np.ndarray, box: int, optics: Optics, defocus: Defocus) -> np.ndarray:
    """The CTF at Fourier pixels (kx, ky) of images of `box` pixels.

    C = sin(pi L z s^2 - pi/2 Cs L^3 s^4 + asin(w) + phase), with z the defocus in the direction of the frequency s, L
    the wavelength and w the amplitude contrast: RELION's sign, positive at low resolution. |C| for images with flipped
    phases.

    Parameters
    ----------
    kx, ky : (m,) Fourier pixels.

    Returns
    -------
    (n, m) float32.
    """
    s2 = (kx.astype(float) ** 2 + ky.astype(float) ** 2) / (box * optics.pixel_A) ** 2
    angle = np.arctan2(ky, kx)
    length = wavelength_A(optics.voltage_kV)
    mean, half = (defocus.u_A + defocus.v_A) / 2, (defocus.u_A - defocus.v_A) / 2
    z = mean[:, None] + half[:, None] * np.cos(2 * (angle[None, :] - np.radians(defocus.angle_deg)[:, None]))
    z *= np.pi * length * s2
    z -= np.pi / 2 * optics.cs_mm * 1e7 * length**3 * s2**2
    z += np.arcsin(optics.amplitude_contrast) + np.radians(defocus.phase_deg)[:, None]
    values = np.sin(z)
    return (np.abs(values) if optics.phase_flipped else values).astype(np.float32)
