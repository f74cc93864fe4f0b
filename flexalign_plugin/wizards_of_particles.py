"""Wizards of the form of ProtSwiftAlign: diameter of the particle, and resolution of the comparison."""

from __future__ import annotations

import textwrap
from typing import Any, List, Optional, Tuple

import numpy as np
from matplotlib.patches import Circle
from pyworkflow.gui.dialog import showError
from pyworkflow.gui.plotter import Plotter

from .particles.volumes import Volume, diameter_A, read_volume
from .protocols import ProtSwiftAlign, form_values
from .wizard_dialogs import DIALOG_WIDTH, DialogWizard, offer

USUAL_A, PIXELS = 8.0, 3.0  # without half maps this resolution is proposed, or that of so many pixels
TRUSTED_FSC = 0.5


class _ParticleWizard(DialogWizard):
    """Asks for what is missing in the form."""

    def show(self, form: Any, *params: Any) -> None:
        empty = form_values.empty_numbers(form.protocol)
        if empty:
            showError("SwiftAlign", f"{empty[0]} is empty or not a number: enter a number first.", form.root)
        elif form.protocol.inputVolumes.get() is None:
            showError("SwiftAlign", "Choose the volumes first.", form.root)
        else:
            super().show(form, *params)


class MaskDiameterWizard(_ParticleWizard):
    """Measures the diameter of the particle in the volumes, and draws it over them."""

    _targets = [(ProtSwiftAlign, ["maskDiameter"])]

    def _show(self, form: Any) -> None:
        volumes = form.protocol._volumes()
        measured = max(map(diameter_A, volumes))
        text = f"In the volume the particle is {measured:.0f} A in diameter. Set this diameter in the form?"
        if offer("Mask diameter", textwrap.fill(text, DIALOG_WIDTH), form.root):
            form.setVar("maskDiameter", float(round(measured)))
        shown = form.protocol.maskDiameter.get() or measured
        diameter_window(volumes[0], shown).show()


def diameter_window(volume: Volume, shown_A: float) -> Plotter:
    """The projections of a volume along its axes, with a circle of the diameter."""
    plotter = Plotter(1, 1, figsize=(10.5, 4), windowTitle="SwiftAlign: mask diameter")
    plotter.tightLayoutOn = False
    half = len(volume.values) / 2 * volume.pixel_A
    for column, (axis, names) in enumerate(((0, "xy"), (1, "xz"), (2, "yz"))):
        axes = plotter.getFigure().add_axes((0.07 + 0.32 * column, 0.14, 0.26, 0.72))
        axes.imshow(volume.values.sum(axis=axis), cmap="gray", extent=(-half, half, half, -half))
        axes.add_patch(Circle((0, 0), shown_A / 2, fill=False, edgecolor="#f6c343", linewidth=1.6))
        axes.set_xlabel(f"{names[0]} (Å)")
        axes.set_ylabel(f"{names[1]} (Å)", labelpad=-2)
    title = f"Projections of the volume; circle: {shown_A:.0f} Å. Noise is measured outside of it."
    plotter.getFigure().suptitle(title, fontsize=11, y=0.96)
    return plotter


class ResolutionWizard(_ParticleWizard):
    """Proposes the resolution up to which particles are compared with the volumes."""

    _targets = [(ProtSwiftAlign, ["maximumResolution"])]

    def _show(self, form: Any) -> None:
        value, text = proposed_resolution(form.protocol)
        text += f" Set {value:g} A in the form?"
        if offer("Maximum resolution", textwrap.fill(text, DIALOG_WIDTH), form.root):
            form.setVar("maximumResolution", value)


def proposed_resolution(protocol: Any) -> Tuple[float, str]:
    """Resolution in Angstrom, rounded, and why."""
    particles = protocol.inputParticles.get()
    volumes = protocol._input_volumes()
    pixels = [float(volume.getSamplingRate()) for volume in volumes]
    pixels += [float(particles.getSamplingRate())] if particles is not None else []
    finest = 2 * max(pixels)
    trusted = [value for value in map(_trusted_A, volumes) if value is not None]
    if trusted:
        value = max(*trusted, finest * 1.1)
        why = f"The half maps of the volume agree (FSC {TRUSTED_FSC}) up to {max(trusted):.1f} A."
    else:
        value = max(USUAL_A, PIXELS / 2 * finest)
        why = f"The volume has no half maps to measure its resolution; {USUAL_A:g} A, or {PIXELS:g} pixels, is usual."
    why += f" Possible are {finest:.3g} A (two pixels) and coarser."
    return float(np.ceil(10 * value) / 10), why


def _trusted_A(volume: Any) -> Optional[float]:
    """Resolution at which the half maps of a volume of Scipion have a correlation of `TRUSTED_FSC`; None without."""
    if not volume.hasHalfMaps():
        return None
    names: List[str] = [name.split(":")[0] for name in volume.getHalfMaps().split(",")]
    first, second = (read_volume(name, float(volume.getSamplingRate())).values for name in names[:2])
    a, b = (np.fft.fftn(half) for half in (first, second))
    n = len(first)
    frequency = np.fft.fftfreq(n) * n
    shell = np.rint(np.sqrt(sum(f**2 for f in np.meshgrid(*[frequency] * 3, indexing="ij")))).astype(int).ravel()
    cross, power_a, power_b = (
        np.bincount(shell, np.real(values).ravel()) for values in (a * b.conj(), a * a.conj(), b * b.conj())
    )
    fsc = cross[1 : n // 2] / np.sqrt(power_a * power_b)[1 : n // 2].clip(1e-30)
    below = np.flatnonzero(fsc < TRUSTED_FSC)
    last = int(below[0]) if len(below) else len(fsc)  # the shells 1 to `last` are trusted
    return n * float(volume.getSamplingRate()) / max(last, 1)
