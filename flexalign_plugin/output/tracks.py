"""Where a particle of the micrograph is in every raw frame (Strelak 2020, section 2.1.2: traceable particles).

A pixel of the micrograph at the unbinned position p shows what frame t has at p - shift(t, p), by the definition of the
shift (docs/outputs.md): a particle's position in each frame follows without any search.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any, Iterator, List, NamedTuple, Sequence, Tuple

import numpy as np

from ..correction.magnification import resampling_model
from ..correction.resampling import binned_size
from ..errors import MovieError, SettingsError
from ..files import atomic_path
from ..motion.model import MotionModel
from ..result_files import MOTION
from ..settings import Settings
from .star import star_loop


class SavedMotion(NamedTuple):
    """What a result's `_motion.json` says about the motion and about how the micrograph was cut and binned."""

    model: MotionModel
    settings: Settings
    root: str


def load_motion(path: str) -> SavedMotion:
    """Read a `_motion.json`; `root` is the start of the names of the result's files."""
    try:
        with open(path, encoding="utf-8") as file:
            values = json.load(file)
        settings, model = Settings.from_dict(values["settings"]), MotionModel.from_dict(values["model"])
    except OSError as error:
        raise MovieError(f"{path}: can't be read ({error.strerror}): give the _motion.json of a result.") from error
    except (ValueError, KeyError, TypeError, SettingsError) as error:
        raise MovieError(f"{path}: is no result of FlexAlign ({error}): give its _motion.json.") from error
    name = os.path.basename(path)
    return SavedMotion(model, settings, name[: -len(MOTION)] if name.endswith(MOTION) else name)


def inside(model: MotionModel, settings: Settings, y: Any, x: Any) -> np.ndarray:
    """(n,) bool: which places, as those of `frame_positions`, are in the micrograph."""
    (_, ny), (_, nx) = _sizes(model, settings)
    y, x = np.asarray(y, float), np.asarray(x, float)
    return (y >= -0.5) & (y <= ny - 0.5) & (x >= -0.5) & (x <= nx - 0.5)


def micrograph_size(model: MotionModel, settings: Settings) -> Tuple[int, int]:
    """(ny, nx) of the micrograph as it was written, cropped and binned."""
    (_, ny), (_, nx) = _sizes(model, settings)
    return ny, nx


def _sizes(model: MotionModel, settings: Settings) -> List[Tuple[int, int]]:
    """[y, x]: unbinned pixels that were used, and pixels of the micrograph."""
    window = settings.crop_window(*model.frame_shape, "This movie")
    return [binned_size(part.stop - part.start, settings.output_binning) for part in window]


def frame_positions(model: MotionModel, settings: Settings, y: Any, x: Any) -> np.ndarray:
    """Positions in the raw frames of what the micrograph shows at given places.

    Parameters
    ----------
    settings : say how the micrograph was cropped and binned, and whether a magnification distortion was corrected.
    y, x : (n,) pixels of the micrograph as it was written, from 0 at the centre of its first pixel.

    Returns
    -------
    (n, n_aligned, 2) float64: y and x in unbinned pixels of each aligned frame, from 0 at the centre of its first
    pixel; perhaps outside the frame.

    Raises
    ------
    SettingsError : a place is outside the micrograph.
    """
    places = np.stack([np.asarray(y, float), np.asarray(x, float)], axis=1)
    sizes = _sizes(model, settings)
    outside = np.flatnonzero(~inside(model, settings, y, x))
    if len(outside):
        at_y, at_x = places[outside[0]]
        raise SettingsError(
            f"Particle {outside[0] + 1} at x {at_x:g}, y {at_y:g} is outside the micrograph of {sizes[1][1]} x "
            f"{sizes[0][1]} pixels: give coordinates in pixels of the micrograph as it was written."
        )
    window = settings.crop_window(*model.frame_shape, "This movie")
    # Binning crops the Fourier transform: the first pixels' centres stay on each other.
    whole = np.stack(
        [places[:, i] * (used / out) + part.start for i, ((used, out), part) in enumerate(zip(sizes, window))], axis=1
    )
    t = np.array(model.aligned_frames, float)
    seen = resampling_model(model, settings)
    shift = np.stack(seen.shift(t[None, :], whole[:, :1], whole[:, 1:]), axis=2)
    return whole[:, None, :] - shift


def read_coordinates(path: str, root: str) -> Tuple[np.ndarray, np.ndarray]:
    """(y, x) of particles in a STAR file with `rlnCoordinateX` and `Y`, or in lines `x y` (blanks or commas).

    A STAR file with the particles of many micrographs is searched for those of the micrograph `<root>_aligned_mic*`.
    """
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except OSError as error:
        raise MovieError(f"{path}: can't be read ({error.strerror}): check the name given to --coords.") from error
    except UnicodeDecodeError as error:
        raise MovieError(f"{path}: is no text file: give a STAR file or lines of 'x y'.") from error
    places = _star_places(path, text, root) if "data_" in text else _text_places(path, text)
    if not places:
        raise MovieError(f"{path}: holds no coordinates of {root}: check that it belongs to this micrograph.")
    x, y = np.array(places).T
    return y, x


def _star_places(path: str, text: str, root: str) -> List[Tuple[float, float]]:
    for columns, rows in _star_loops(text):
        if "_rlnCoordinateX" not in columns or "_rlnCoordinateY" not in columns:
            continue
        at_x, at_y = columns.index("_rlnCoordinateX"), columns.index("_rlnCoordinateY")
        if "_rlnMicrographName" in columns:
            at_name, starts = columns.index("_rlnMicrographName"), (f"{root}_aligned_mic", f"{root}.")
            rows = [row for row in rows if os.path.basename(row[at_name]).startswith(starts)]
        try:
            return [(float(row[at_x]), float(row[at_y])) for row in rows]
        except ValueError as error:
            raise MovieError(f"{path}: a coordinate is no number ({error}): correct the file.") from error
    raise MovieError(f"{path}: has no columns rlnCoordinateX and rlnCoordinateY: give a STAR file of coordinates.")


def _star_loops(text: str) -> Iterator[Tuple[List[str], List[List[str]]]]:
    """(columns, rows) of each `loop_` of a STAR file. No value in it goes over several lines."""
    columns: List[str] = []
    rows: List[List[str]] = []
    for line in [*text.splitlines(), "loop_"]:
        words = [word.strip('"') for word in re.findall(r'"[^"]*"|\S+', line)]
        if not words or words[0].startswith("#"):
            continue
        if words[0] == "loop_" or words[0].startswith("data_"):
            if rows:
                yield columns, rows
            columns, rows = [], []
        elif words[0].startswith("_"):
            columns.append(words[0])
        elif len(words) == len(columns):
            rows.append(words)


def _text_places(path: str, text: str) -> List[Tuple[float, float]]:
    places = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split("#")[0].replace(",", " ").split()
        if not words:
            continue
        try:
            places.append((float(words[0]), float(words[1])))
        except (ValueError, IndexError) as error:
            raise MovieError(f"{path}: line {number} is '{line.strip()}': write two numbers, 'x y'.") from error
    return places


def write_tracks(path: str, positions: np.ndarray, frames: range, particles: Sequence[int]) -> None:
    """Write the positions (n, n_frames, 2) as STAR or, if the name ends so, as CSV.

    Parameters
    ----------
    frames, particles : their numbers from 0; those in the file count from 1.
    """
    rows = [
        (str(i + 1), str(t + 1), f"{x:.4f}", f"{y:.4f}")
        for i, track in zip(particles, positions)
        for t, (y, x) in zip(frames, track)
    ]
    if path.lower().endswith(".csv"):
        text = "particle,frame,x_px,y_px\n" + "".join(",".join(row) + "\n" for row in rows)
    else:
        columns = ("rlnParticleNumber", "rlnMicrographFrameNumber", "rlnCoordinateX", "rlnCoordinateY")
        text = "# Positions in the raw frames, unbinned pixels from 0.\n\n" + star_loop("tracks", columns, rows)
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
