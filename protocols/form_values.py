"""Converts the form's values and the properties of the input movies to fields of `Settings`."""

from __future__ import annotations

import os
from typing import Any, Dict, List, Optional

import pyworkflow.protocol.params as params

from flexalign_plugin.settings import EER_SAMPLINGS, FIELDS_OF_FORM, Settings

EER_FRACTIONATIONS = ("n_frames", "eer_group", "eer_dose")  # choices of `eerFractionation`


def form_values(protocol: Any) -> Dict[str, Any]:
    """Fields of Settings from the form's values, without the fields that are not in the protocol's form."""
    values: Dict[str, Any] = {}
    for name in filter(protocol.hasAttribute, FIELDS_OF_FORM):
        field = Settings.__dataclass_fields__[FIELDS_OF_FORM[name]]
        value = getattr(protocol, name).get()
        choices = field.metadata["choices"]
        if value is None and field.default is not None:
            value = field.default  # an empty field that does not apply; `empty_numbers` reports the others
        elif choices is not None:
            value = choices[value]
        elif field.default is None:
            value = value or None
        values[field.name] = value
    chosen = EER_FRACTIONATIONS[protocol.eerFractionation.get()]
    values.update({name: 0 for name in ("eer_group", "eer_dose") if name != chosen})
    return values


def settings_values(protocol: Any, movie: Any) -> Dict[str, Any]:
    """Fields of Settings for one movie: the form's values and the properties of the input set.

    The dose before the first frame depends on the movie: on frames that its file lacks. For EER, Scipion gives the dose
    of a hardware frame.
    """
    values = form_values(protocol)
    movies = protocol.inputMovies.get()
    acquisition = movies.getAcquisition()
    dose = acquisition.getDosePerFrame() or 0.0
    if protocol.useMovieDose:
        pre_exposure = (acquisition.getDoseInitial() or 0.0) + dose * dropped_frames(movie)
        values["dose_per_hardware_frame" if is_eer(movie) else "dose_per_frame"] = dose or None
    else:
        pre_exposure = protocol.preExposure.get()
        if protocol.totalDose.get():
            values["total_dose"] = protocol.totalDose.get()
        else:
            values["dose_per_frame"] = protocol.dosePerFrame.get()
    values.update(
        pixel_size=movies.getSamplingRate(),
        voltage=acquisition.getVoltage(),
        pre_exposure=pre_exposure,
        gain=absolute(movies.getGain()),
        dark=absolute(movies.getDark()),
    )
    return values


def empty_numbers(protocol: Any) -> List[str]:
    """Labels of number fields that apply but are empty or do not contain a number."""
    return [
        param.label.get()
        for name, param in protocol.getDefinition().iterParams()
        if isinstance(param, (params.IntParam, params.FloatParam))
        and getattr(protocol, name).get() is None
        and protocol.evalParamCondition(name)
    ]


def is_eer(movie: Any) -> bool:
    return movie.getFileName().lower().endswith(".eer")


def is_tiff(movie: Any) -> bool:
    return movie.getFileName().lower().endswith((".tif", ".tiff"))


def dropped_frames(movie: Any) -> int:
    """Number of frames of the original movie before the first frame of the stored file."""
    first, _, index_in_file = movie.getFramesRange()
    return max(first - index_in_file, 0)


def upsampling(protocol: Any, movie: Any) -> int:
    """Pixels of a frame along each side of a recorded pixel: above 1 for EER rendered at 8K or 16K."""
    return EER_SAMPLINGS[protocol.eerSampling.get()] if movie is not None and is_eer(movie) else 1


def absolute(path: Optional[str]) -> Optional[str]:
    return os.path.abspath(path) if path else None
