"""`<root>_motion.json`: the complete result of a movie, except images, as one JSON file."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any, Dict

import numpy as np

from .. import __version__
from ..result import MovieResult
from ..settings import Settings

RESULT_FORMAT = "flexalign-result-2"
PIXEL_OF_GRID_FORMAT = "flexalign-result-1"  # its pixel size of an EER movie is that of the rendering
EER_NOTE = "hardware frames summed by"  # in the notes on every EER movie


def result_to_dict(result: MovieResult) -> Dict[str, Any]:
    """The saved part of a result. Frames in "frames" count from 1, in "model" (`MotionModel.to_dict`) from 0."""
    aligned, summed, settings = result.model.aligned_frames, result.summed_frames, result.settings
    ny, nx = result.images.micrograph.shape
    return {
        "format": RESULT_FORMAT,
        "version": __version__,
        "movie": result.movie,
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
    }


def settings_of_result(values: Dict[str, Any]) -> Settings:
    """The settings with which a saved result was made, in the meaning that they have today.

    Raises
    ------
    KeyError, TypeError, SettingsError : the values are no result, or one of a newer version.
    """
    settings = Settings.of_result(values["settings"])
    if values.get("format") == PIXEL_OF_GRID_FORMAT and any(EER_NOTE in note for note in values.get("notes", ())):
        return dataclasses.replace(settings, pixel_size=settings.pixel_size * settings.eer_sampling)
    return settings


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
