"""`<root>_motion.json`: the complete result of a movie, except images, as one JSON file."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from typing import Any, Dict, List, Mapping, Optional, Sequence, Union

import numpy as np

from .. import __version__
from ..errors import ResultError, SettingsError
from ..inputs import has_type, read_json, shortened
from ..motion.model import MotionModel
from ..quality.figures import Figures
from ..result import MovieResult
from ..settings import Settings

RESULT_FORMAT = "flexalign-result-2"
PIXEL_OF_GRID_FORMAT = "flexalign-result-1"  # its pixel size of an EER movie is that of the rendering
EER_NOTE = "hardware frames summed by"  # in the notes on every EER movie
READ_FORMATS = (PIXEL_OF_GRID_FORMAT, RESULT_FORMAT)  # which this version reads
# Parts of a saved result, each with the type of its content.
PARTS: Dict[str, Any] = {
    "format": str,
    "version": str,
    "movie": str,
    "movie_path": str,
    "frames": Dict[str, Optional[float]],
    "micrograph": Dict[str, Optional[float]],
    "quality": Dict[str, Any],
    "input": Optional[Dict[str, Union[str, List[str]]]],
    "warnings": List[str],
    "notes": List[str],
    "timings_s": Dict[str, Dict[str, float]],
    "settings": Dict[str, Union[str, float, bool, None, List[float]]],
    "model": Dict[str, Any],
    "files": Dict[str, int],
}


def result_to_dict(result: MovieResult, files: Mapping[str, int]) -> Dict[str, Any]:
    """The saved part of a result. Frames in "frames" count from 1, in "model" (`MotionModel.to_dict`) from 0.

    files : {ending of the name: bytes} of the other files of the result.
    """
    aligned, summed, settings = result.model.aligned_frames, result.summed_frames, result.settings
    ny, nx = result.images.micrograph.shape
    return {
        "format": RESULT_FORMAT,
        "version": __version__,
        "movie": result.movie,
        "movie_path": os.path.abspath(result.movie),
        "frames": {
            "in_movie": result.model.n_frames,
            "first_aligned": aligned.start + 1,
            "last_aligned": aligned.stop,
            "first_summed": summed.start + 1,
            "last_summed": summed.stop,
            "pixel_size_A": settings.pixel_size,
            "dose_per_frame": settings.dose_per_frame,
        },
        "micrograph": {"size_x": nx, "size_y": ny, "pixel_size_A": result.micrograph_pixel_size_A},
        "quality": result.figures.to_dict(),
        "input": None if result.facts is None else {"line": result.facts.line, "doubts": result.facts.doubts},
        "warnings": result.warnings,
        "notes": result.notes,
        "timings_s": result.timings_s,
        "settings": (result.given or settings).to_dict(),
        "model": result.model.to_dict(),
        "files": dict(files),
    }


def load_result(path: str, *needed: str) -> Dict[str, Any]:
    """Content of a `_motion.json`; each of its parts has the right type, numbers are finite or None.

    Parameters
    ----------
    needed : parts that must be there; others may be missing, e.g. in the result of an earlier version.

    Raises
    ------
    ResultError : it can't be read, has another format, or a part of it is missing or not what it should be.
    """
    try:
        content = read_json(path)
        _check(content, needed)
    except OSError as error:
        raise ResultError(f"{path}: can't be read ({error.strerror}): give the _motion.json of a result.") from error
    except ValueError as error:
        raise ResultError(
            f"{path}: is not a result of this version of FlexAlign ({error}): give the _motion.json of a movie."
        ) from error
    return dict(content)


def _check(content: Any, needed: Sequence[str]) -> None:
    """ValueError unless the value is the content of a result."""
    if not isinstance(content, dict):
        raise ValueError("it contains no result of an alignment")
    missing = [name for name in needed if name not in content]
    if missing:
        raise ValueError(f"it has no {' and no '.join(missing)}")
    if content.get("format", RESULT_FORMAT) not in READ_FORMATS:
        raise ValueError(f"its format is {shortened(content['format'])}, but this version reads {RESULT_FORMAT}")
    for name, of_type in PARTS.items():
        if name in content and not has_type(content[name], of_type):
            raise ValueError(f"its {name} is {shortened(content[name])}")
    Figures.from_dict(content.get("quality", {}))
    if "model" in content:
        MotionModel.from_dict(content["model"])


def settings_of_result(values: Dict[str, Any]) -> Settings:
    """The settings with which a saved result was made, in the meaning that they have today.

    Raises
    ------
    SettingsError : they are not valid in this version.
    """
    settings = Settings.of_result(values["settings"])
    if values.get("format") == PIXEL_OF_GRID_FORMAT and any(EER_NOTE in note for note in values.get("notes", ())):
        return dataclasses.replace(settings, pixel_size=settings.pixel_size * settings.eer_sampling)
    return settings


def saved_settings(content: Dict[str, Any], path: str) -> Settings:
    """`settings_of_result` of a loaded result; ResultError if they are not valid in this version."""
    try:
        return settings_of_result(content)
    except SettingsError as error:
        raise ResultError(f"{path}: is not a result of this version of FlexAlign ({error}).") from error


def json_text(value: Any) -> str:
    """JSON text with one line for each list of numbers; numbers that are not finite become null."""
    return _layout(_plain(value), "") + "\n"


def _plain(value: Any) -> Any:
    """`value` with built-in Python types only."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _layout(value: Any, indent: str) -> str:
    if isinstance(value, dict) and value:
        items = [f"{json.dumps(key)}: {_layout(item, indent + '  ')}" for key, item in value.items()]
        opening, closing = "{", "}"
    elif isinstance(value, list) and any(isinstance(item, (dict, list, str)) for item in value):
        items = [_layout(item, indent + "  ") for item in value]
        opening, closing = "[", "]"
    else:
        return json.dumps(value, allow_nan=False)
    inner = ",\n".join(f"{indent}  {item}" for item in items)
    return f"{opening}\n{inner}\n{indent}{closing}"
