"""The form of ProtFlexAlignTiltSeries, of the parts of ProtFlexAlign's, and the way from its values to `Settings`.

Left out is what makes no sense for a tilt of a few electrons: aligned movies, spectra for CTF programs, a dose given by
hand (each tilt has its own), a choice of movies.
"""

from __future__ import annotations

from typing import Any, Dict

import pyworkflow.protocol.params as params

from . import devices, form, form_values

INPUT = "inputTiltSeriesM"
EER_FRAMES = 6


def define_form(where: Any) -> None:
    where.addSection(label="Input")
    where.addParam(
        INPUT,
        params.PointerParam,
        pointerClass="SetOfTiltSeriesM",
        important=True,
        label="Tilt series (movies)",
        help="Tilt series whose tilts are movies, as *import tilt-series movies* makes them. Gain, dark, pixel size "
        "and the dose of each tilt are those of the import.",
    )
    devices.define_choice(where)
    # A tilt has some 3 e/A^2: enough for a few frames, too few to follow local motion reliably.
    form.define_frames(where, movies=INPUT, eer_frames=EER_FRAMES)
    form.define_correction(where)
    form.define_alignment(where, local=False)
    _define_output(where)
    form.define_computing(where)


def _define_output(where: Any) -> None:
    where.addSection(label="Output")
    group = where.addGroup("Dose weighting")
    form.add(
        group,
        "doApplyDoseFilter",
        "Apply dose filter?",
        "Every tilt is weighted by what the sample had received before and during it; the import knows that from the "
        ".mdoc. The weighted tilt series is an output of its own, *TiltSeriesDW*.",
    )
    group = where.addGroup("Images of the tilts")
    form.add_image_parameters(group)
    group = where.addGroup("Even and odd frames")
    form.add(
        group,
        "splitEvenOdd",
        "Sum even and odd frames apart?",
        "Two more tilt series of half the frames each, moved by the same motion: for denoisers of tomograms.",
    )
    group = where.addGroup("Further results")
    form.add_psd(group)


def settings_values(protocol: Any, tilt: Any, n_frames: int) -> Dict[str, Any]:
    """Fields of Settings from the form's values, the input set and the tilt's own dose.

    Parameters
    ----------
    tilt : tomo's TiltImageM. What its acquisition calls dose per frame is the dose of the whole tilt.
    n_frames : of its movie as they are aligned (of EER: groups).
    """
    tilts = getattr(protocol, INPUT).get()
    acquisition = tilt.getAcquisition() or tilts.getAcquisition()
    dose = acquisition.getDosePerFrame()
    values = form_values.form_values(protocol)
    values.update(
        pixel_size=tilts.getSamplingRate(),
        voltage=acquisition.getVoltage() or 0.0,  # which Settings refuse in words
        dose_per_frame=dose / n_frames if dose else None,
        pre_exposure=acquisition.getDoseInitial() or 0.0,
        gain=form_values.absolute(tilts.getGain()),
        dark=form_values.absolute(tilts.getDark()),
    )
    return values
