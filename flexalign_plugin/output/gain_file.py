"""Writes a gain reference as MRC or TIFF, as `align` expects it for these movies without further options."""

from __future__ import annotations

import os
from typing import Sequence

import numpy as np
import tifffile

from ..errors import SettingsError
from ..files import atomic_path, output_error
from ..movies.corrections import TOP_ROW_FIRST
from .mrc import write_mrc

KINDS = {".mrc": "MRC", ".tif": "TIFF", ".tiff": "TIFF"}


def kind_of_gain(path: str) -> str:
    """ "MRC" or "TIFF", from the file's ending; SettingsError for any other."""
    kind = KINDS.get(os.path.splitext(path)[1].lower())
    if kind is None:
        raise SettingsError(f"{path}: a gain is written as .mrc, .tif or .tiff: change the ending.")
    return kind


def write_gain(path: str, gain: np.ndarray, top_row_first: bool, labels: Sequence[str]) -> None:
    """Write a gain.

    Parameters
    ----------
    gain : (ny, nx) float32, rows as in the movies. It multiplies the frames, 0 marks defects.
    top_row_first : whether the first row of these movies is the top one. The rows of the file follow its own format.
    labels : sentences in ASCII for the header.

    Raises
    ------
    SettingsError : the name has another ending. OutputError : the file can't be written.
    """
    kind = kind_of_gain(path)
    if (kind in TOP_ROW_FIRST) != top_row_first:
        gain = gain[::-1]
    gain = np.ascontiguousarray(gain, np.float32)
    try:
        with atomic_path(path) as temporary:
            if kind == "MRC":
                write_mrc(temporary, gain, 1.0, labels)
            else:
                tifffile.imwrite(temporary, gain, description="; ".join(labels), metadata=None, software=False)
    except OSError as error:
        raise output_error(path, error) from error
