"""The form of ProtFlexAlignTiltSeries, built from parts of ProtFlexAlign's form, and its values as `Settings`.

Some parameters of ProtFlexAlign are left out, because they make no sense for a tilt with a few electrons per pixel:
aligned movies, spectra for CTF programs, a dose entered in the form (each tilt has its own), only N movies.
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
        help="Tilt series whose tilts are movies, as imported by *import tilt-series movies*. Gain, dark, pixel size "
        "and the dose of each tilt are those given at the import.",
    )
    devices.define_choice(where)
    # The dose of a tilt is about 3 e/A^2: enough for a few frames, but too little to measure local motion reliably.
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
        "Every tilt is weighted by the dose that the specimen received before and during it, which the import reads "
        "from the .mdoc file. The dose-weighted tilt series are a separate output, *TiltSeriesDW*.",
    )
    group = where.addGroup("Images of the tilts")
    form.add_image_parameters(group)
    group = where.addGroup("Even and odd frames")
    form.add(
        group,
        "splitEvenOdd",
        "Sum even and odd frames?",
        "Two more tilt series, each from half of the frames, corrected with the same motion, to denoise tomograms.",
    )
    group = where.addGroup("Further results")
    form.add_psd(group)


def settings_values(protocol: Any, tilt: Any) -> Dict[str, Any]:
    """Fields of Settings from the form's values, the properties of the input set and the dose of the tilt.

    Parameters
    ----------
    tilt : tomo's TiltImageM. The dose per frame in its acquisition is the dose of the whole tilt.
    """
    tilts = getattr(protocol, INPUT).get()
    acquisition = tilt.getAcquisition() or tilts.getAcquisition()
    dose = acquisition.getDosePerFrame()
    values = form_values.form_values(protocol)
    values.update(
        pixel_size=tilts.getSamplingRate(),
        voltage=acquisition.getVoltage() or 0.0,  # Settings reports 0 as an error
        total_dose=dose or None,
        pre_exposure=acquisition.getDoseInitial() or 0.0,
        gain=form_values.absolute(tilts.getGain()),
        dark=form_values.absolute(tilts.getDark()),
    )
    return values
