"""Positions of the micrograph's particles in every raw frame (Strelak 2020, section 2.1.2: traceable particles).

By the definition of the shift (docs/outputs.md), the unbinned position p of the micrograph corresponds to the position
p - shift(t, p) in frame t. A particle's position in each frame is therefore known without a search.
"""

from __future__ import annotations

import os
from typing import Any, Iterator, List, Sequence, Tuple

import numpy as np

from ..correction.magnification import resampling_model
from ..correction.resampling import binned_size
from ..errors import MovieError, SettingsError
from ..files import atomic_path
from ..inputs import read_text, shortened
from ..motion.model import MotionModel
from ..settings import Settings
from ..star_format import star_loop, words


def inside(model: MotionModel, settings: Settings, y: Any, x: Any) -> np.ndarray:
    """(n,) bool: whether positions, given as for `frame_positions`, are in the micrograph."""
    (_, ny), (_, nx) = _sizes(model, settings)
    y, x = np.asarray(y, float), np.asarray(x, float)
    return (y >= -0.5) & (y <= ny - 0.5) & (x >= -0.5) & (x <= nx - 0.5)


def micrograph_size(model: MotionModel, settings: Settings) -> Tuple[int, int]:
    """(ny, nx) of the written micrograph, after cropping and binning."""
    (_, ny), (_, nx) = _sizes(model, settings)
    return ny, nx


def _sizes(model: MotionModel, settings: Settings) -> List[Tuple[int, int]]:
    """For y and x: number of unbinned pixels used, and of pixels of the micrograph."""
    window = settings.crop_window(*model.frame_shape, "This movie")
    return [binned_size(part.stop - part.start, settings.output_binning) for part in window]


def frame_positions(model: MotionModel, settings: Settings, y: Any, x: Any) -> np.ndarray:
    """Positions in the raw frames that correspond to positions in the micrograph.

    Parameters
    ----------
    settings : define how the micrograph was cropped and binned, and the correction of magnification distortion.
    y, x : (n,) pixels of the written micrograph, 0 at the centre of its first pixel.

    Returns
    -------
    (n, n_aligned, 2) float64: y and x in unbinned pixels of each aligned frame, 0 at the centre of its first pixel.
    Positions can be outside the frame.

    Raises
    ------
    SettingsError : a position is outside the micrograph.
    """
    places = np.stack([np.asarray(y, float), np.asarray(x, float)], axis=1)
    sizes = _sizes(model, settings)
    outside = np.flatnonzero(~inside(model, settings, y, x))
    if len(outside):
        first_y, first_x = places[outside[0]]
        raise SettingsError(
            f"Particle {outside[0] + 1} at x {first_x:g}, y {first_y:g} is outside the micrograph of {sizes[1][1]} x "
            f"{sizes[0][1]} pixels: give coordinates in pixels of the micrograph as it was written."
        )
    window = settings.crop_window(*model.frame_shape, "This movie")
    # Binning crops the Fourier transform, so that the centres of the first pixels coincide.
    unbinned = np.stack(
        [places[:, i] * (used / out) + part.start for i, ((used, out), part) in enumerate(zip(sizes, window))], axis=1
    )
    t = np.array(model.aligned_frames, float)
    resampled = resampling_model(model, settings)
    shift = np.stack(resampled.shift(t[None, :], unbinned[:, :1], unbinned[:, 1:]), axis=2)
    return unbinned[:, None, :] - shift


def read_coordinates(path: str, root: str) -> Tuple[np.ndarray, np.ndarray]:
    """(y, x) of particles in a STAR file with `rlnCoordinateX` and `Y`, or in lines `x y` (blanks or commas).

    Of a STAR file with particles of many micrographs only those of `<root>_aligned_mic*` are returned.

    Raises
    ------
    MovieError : the file can't be read or contains no coordinates of this micrograph.
    """
    try:
        text = read_text(path)
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
    for columns, rows in _star_loops(path, text):
        if "_rlnCoordinateX" not in columns or "_rlnCoordinateY" not in columns:
            continue
        column_x, column_y = columns.index("_rlnCoordinateX"), columns.index("_rlnCoordinateY")
        if "_rlnMicrographName" in columns:
            column_name, starts = columns.index("_rlnMicrographName"), (f"{root}_aligned_mic", f"{root}.")
            rows = [row for row in rows if os.path.basename(row[column_name]).startswith(starts)]
        try:
            return [(float(row[column_x]), float(row[column_y])) for row in rows]
        except ValueError as error:
            raise MovieError(f"{path}: a coordinate is not a number ({error}): correct the file.") from error
    raise MovieError(f"{path}: has no columns rlnCoordinateX and rlnCoordinateY: give a STAR file of coordinates.")


def _star_loops(path: str, text: str) -> Iterator[Tuple[List[str], List[List[str]]]]:
    """(columns, rows) of each `loop_` of a STAR file. Values that extend over several lines are not supported.

    Raises
    ------
    MovieError : a row has another number of values than there are columns. It can't be left out, because particles are
        numbered by their rows.
    """
    columns: List[str] = []
    rows: List[List[str]] = []
    in_loop = False
    for number, line in enumerate([*text.split("\n"), "loop_"], 1):
        values = words(line)
        if not values:
            continue
        first = line.split()[0]  # with its quotes, so that a value may begin like a keyword
        if first == "loop_" or first.startswith("data_"):
            if rows:
                yield columns, rows
            columns, rows, in_loop = [], [], first == "loop_"
        elif first.startswith("_") and not rows:
            columns.append(first)
        elif in_loop and len(values) == len(columns):
            rows.append(values)
        elif in_loop:
            raise MovieError(
                f"{path}: line {number} has {len(values)} values instead of {len(columns)}: correct or remove it."
            )


def _text_places(path: str, text: str) -> List[Tuple[float, float]]:
    places = []
    for number, line in enumerate(text.splitlines(), 1):
        numbers = line.split("#")[0].replace(",", " ").split()
        if not numbers:
            continue
        try:
            places.append((float(numbers[0]), float(numbers[1])))
        except (ValueError, IndexError) as error:
            raise MovieError(
                f"{path}: line {number} is {shortened(line.strip())}: write two numbers, 'x y'."
            ) from error
    return places


def write_tracks(path: str, positions: np.ndarray, frames: range, particles: Sequence[int]) -> None:
    """Write the positions (n, n_frames, 2) as STAR, or as CSV if the name ends with .csv.

    Parameters
    ----------
    frames, particles : numbers from 0; in the file they count from 1.

    Raises
    ------
    OutputError : the file can't be written.
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
