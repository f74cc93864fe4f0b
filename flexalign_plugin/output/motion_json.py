"""`<root>_motion.json`: the complete result of a movie, except images, as one JSON file."""

from __future__ import annotations

import json
import math
from typing import Any, Dict

import numpy as np

from .. import __version__
from ..result import MovieResult

RESULT_FORMAT = "flexalign-result-1"


def result_to_dict(result: MovieResult) -> Dict[str, Any]:
    """The saved part of a result. Frames in "frames" count from 1, in "model" (`MotionModel.to_dict`) from 0."""
    aligned, summed = result.model.aligned_frames, result.summed_frames
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
        },
        "micrograph": {"size_x": nx, "size_y": ny, "pixel_size_A": result.micrograph_pixel_size_A},
        "quality": result.figures.to_dict(),
        "input": None if result.facts is None else {"line": result.facts.line, "doubts": result.facts.doubts},
        "warnings": result.warnings,
        "notes": result.notes,
        "timings_s": result.timings_s,
        "settings": result.settings.to_dict(),
        "model": result.model.to_dict(),
    }


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
