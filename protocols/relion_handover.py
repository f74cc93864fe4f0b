"""What RELION's protocols in Scipion read from our outputs: attributes of the movies, optics groups of the sets.

The plugins for RELION and MotionCor3 set the same names. All values come from `_shifts.star`, which RELION itself reads
outside Scipion, so that both ways into RELION have the same numbers.

RELION's protocol for Bayesian polishing takes the shifts relative to the first aligned frame, which it names as the
start. The polynomial is therefore passed on with its zero in this frame.
"""

from __future__ import annotations

import io
import json
import os
from typing import Any, Collection, Dict, List, NamedTuple, Optional, Tuple

import numpy as np
import pyworkflow.object as pwobj
from emtable import Table

from flexalign_plugin.files import atomic_path
from flexalign_plugin.inputs import read_text
from flexalign_plugin.motion.polynomial_origin import moved_origin

MOTION, HOT_PIXELS = "_rlnMotionModelCoeff", "_rlnHotPixels"  # attributes and columns of the movies, as JSON
DEFECTS = "relion_defects.txt"
# A movie with more replaced pixels has a defective region, which all movies of the run share. It is then written once,
# as a defect file, because the set would need 10 bytes for each pixel of each movie.
MOST_HOT_PIXELS = 500
OF_RAW_MOVIES = ("rlnMicrographGainName", "rlnMicrographDefectFile", "rlnEERGrouping", "rlnEERUpsampling")
Pixel = Tuple[int, int]  # x, y


class Shifts(NamedTuple):
    """Content of `_shifts.star`.

    Attributes
    ----------
    general : {name: value} of the first block.
    coefficients : (36,) float64 of the polynomial; (0,) without local motion.
    hot_pixels : x, y of every replaced pixel.
    """

    general: Dict[str, Any]
    coefficients: np.ndarray
    hot_pixels: List[Pixel]


def read_shifts(path: str) -> Shifts:
    text = read_text(path, errors="surrogateescape")

    def rows(name: str) -> List[Any]:
        table = Table()
        if f"\ndata_{name}\n" in text:
            table.readStar(io.StringIO(text), name)
        return list(table)

    return Shifts(
        rows("general")[0]._asdict(),
        np.array([row.rlnMotionModelCoeff for row in rows("local_motion_model")], float),
        [(int(row.rlnCoordinateX), int(row.rlnCoordinateY)) for row in rows("hot_pixels")],
    )


def set_motion(movie: Any, shifts: Shifts, first_frame: int, known: Collection[Pixel]) -> None:
    """Set the attributes of a movie that refer to its raw frames.

    Parameters
    ----------
    first_frame : first aligned frame of the file, from 1. known : pixels that the run's defect file contains.
    """
    coefficients = shifts.coefficients
    if len(coefficients):
        later = first_frame - shifts.general["rlnMicrographStartFrame"]
        coefficients = moved_origin(coefficients.reshape(2, -1), frames=later).ravel()
    set_none(movie)
    getattr(movie, MOTION).set(json.dumps(coefficients.tolist()))
    pixels = [pixel for pixel in shifts.hot_pixels if pixel not in known]
    getattr(movie, HOT_PIXELS).set(json.dumps(pixels, separators=(",", ":")))


def set_none(movie: Any) -> None:
    """The same attributes without local motion and pixels; all movies of a set have the same columns."""
    setattr(movie, MOTION, pwobj.String("[]"))
    setattr(movie, HOT_PIXELS, pwobj.String("[]"))


def describe(acquisition: Any, shifts: Shifts, first_frame: int, folder: str, raw: bool) -> None:
    """Write the optics groups of a set into its acquisition. Groups and columns of the input, such as the MTF, stay.

    Parameters
    ----------
    shifts : of one of the movies. first_frame : its first aligned frame, from 1. folder : of the results.
    raw : whether RELION would have to apply gain and defects; False for aligned movies, in which they are applied.
    """
    defects = os.path.join(folder, DEFECTS)
    values = {
        "rlnMicrographOriginalPixelSize": shifts.general["rlnMicrographOriginalPixelSize"],
        "rlnMicrographStartFrame": first_frame,
        "rlnMicrographGainName": _gain(shifts, folder),
        "rlnMicrographDefectFile": defects if os.path.exists(defects) else None,
        "rlnEERGrouping": shifts.general.get("rlnEERGrouping"),
        "rlnEERUpsampling": shifts.general.get("rlnEERUpsampling"),
    }
    columns = {name: value for name, value in values.items() if value is not None}
    groups = Table()
    if acquisition.opticsGroupInfo.get():
        groups.readStar(io.StringIO(acquisition.opticsGroupInfo.get()), "optics")
    rows = [{**row._asdict(), **columns} for row in groups] or [{**_new_group(acquisition), **columns}]
    if not raw:
        rows = [{name: v for name, v in row.items() if name not in OF_RAW_MOVIES} for row in rows]
    table, text = Table(columns=list(rows[0])), io.StringIO()
    for row in rows:
        table.addRow(**row)
    table.writeStar(text, "optics")
    acquisition.opticsGroupInfo.set(text.getvalue())


def _new_group(acquisition: Any) -> Dict[str, Any]:
    return {
        "rlnOpticsGroupName": "opticsGroup1",
        "rlnOpticsGroup": 1,
        "rlnMicrographOriginalPixelSize": 1.0,  # replaced
        "rlnVoltage": float(acquisition.getVoltage()),
        "rlnSphericalAberration": float(acquisition.getSphericalAberration()),
        "rlnAmplitudeContrast": float(acquisition.getAmplitudeContrast()),
        "rlnImageDimensionality": 2,
    }


def _gain(shifts: Shifts, folder: str) -> Optional[str]:
    """File with the gain for RELION's protocols, relative to the project where it is in it; None without a gain.

    Parameters
    ----------
    folder : of the results, where a gain that was turned is written, and where a link is made to a gain whose name has
        blanks: RELION's protocol writes names without quotes.
    """
    path = shifts.general.get("rlnMicrographGainName")
    if path is None:
        return None
    beside = os.path.join(folder, os.path.basename(path))
    # The folder in the file is that of the run, and the project may have been moved.
    path = beside if os.path.exists(beside) else path
    if any(c.isspace() for c in path):
        link = os.path.join(folder, "relion_gain" + os.path.splitext(path)[1])
        if not os.path.lexists(link):
            os.symlink(os.path.abspath(path), link)
        path = link
    relative = os.path.relpath(path)
    return path if relative.startswith(os.pardir) else relative


def share_defects(shifts: Shifts, folder: str) -> None:
    """Make the run's defect file of the pixels of its first movie if they are many, unless there is one."""
    path = os.path.join(folder, DEFECTS)
    if len(shifts.hot_pixels) > MOST_HOT_PIXELS and not os.path.exists(path):
        # No new line at the end: RELION's reader would take what follows it for one more region.
        with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
            file.write("\n".join(f"{x} {y} {width} 1" for x, y, width in _runs(shifts.hot_pixels)))


def shared_defects(folder: str) -> Collection[Pixel]:
    """The pixels of the run's defect file; none if it has no such file."""
    path = os.path.join(folder, DEFECTS)
    if not os.path.exists(path):
        return frozenset()
    with open(path, encoding="utf-8") as file:
        regions = [[int(word) for word in line.split()] for line in file]
    return frozenset((x + i, y) for x, y, width, _ in regions for i in range(width))


def _runs(pixels: List[Pixel]) -> List[Tuple[int, int, int]]:
    """x, y and length of the horizontal lines of which the pixels consist."""
    runs: List[Tuple[int, int, int]] = []
    for x, y in sorted(pixels, key=lambda pixel: pixel[::-1]):
        if runs and runs[-1][1] == y and runs[-1][0] + runs[-1][2] == x:
            runs[-1] = (runs[-1][0], y, runs[-1][2] + 1)
        else:
            runs.append((x, y, 1))
    return runs
