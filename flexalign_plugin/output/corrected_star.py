"""`corrected_micrographs.star`: RELION's list of all micrographs in a folder, to continue in RELION.

The list contains all results in the folder, whichever run or job wrote them, and is replaced as a whole. Therefore runs
that share a folder, one after the other or in parallel, need no communication.
"""

from __future__ import annotations

import os
import re
from typing import Callable, Dict, List, Optional, Set, Tuple

from .. import result_files as names
from ..errors import FlexAlignError
from ..files import atomic_path
from ..inputs import open_regular, printable
from ..quality.figures import Figures
from ..settings import Settings
from ..star_format import check_sayable, star_loop
from .motion_json import load_result, saved_settings

OPTICS_COLUMNS = (
    "rlnOpticsGroupName",
    "rlnOpticsGroup",
    "rlnMicrographOriginalPixelSize",
    "rlnVoltage",
    "rlnSphericalAberration",
    "rlnAmplitudeContrast",
    "rlnMicrographPixelSize",
)
# Why RELION's polishing can't use a micrograph. The list then has no metadata of it, instead of wrong ones.
MIRRORED = (
    "they are mirror images of the frames as RELION reads TIFF movies; to polish, align with --flip-tiff "
    "(*Turn TIFF movies upside down*)"
)
UNDISTORTED = (
    "they are corrected for magnification distortion, which RELION's frames are not; to polish, align without the "
    "correction"
)
# RELION's columns and the endings of the files that they name.
FILE_COLUMNS = {
    "rlnMicrographName": names.MICROGRAPH_WEIGHTED,  # MICROGRAPH if there is no weighted one
    "rlnMicrographNameNoDW": names.MICROGRAPH,
    "rlnMicrographNameEven": names.MICROGRAPH_EVEN,
    "rlnMicrographNameOdd": names.MICROGRAPH_ODD,
    "rlnCtfPowerSpectrum": names.AMPLITUDE_SPECTRUM,
    "rlnMicrographMetadata": names.SHIFTS,
}
FIGURE_COLUMNS: Dict[str, Callable[[Figures], Optional[float]]] = {
    "rlnAccumMotionTotal": lambda figures: figures.accumulated_motion_total_A,
    "rlnAccumMotionEarly": lambda figures: figures.accumulated_motion_early_A,
    "rlnAccumMotionLate": lambda figures: figures.accumulated_motion_late_A,
}


def write_corrected_micrographs(
    folder: str, spherical_aberration_mm: float = 2.7, amplitude_contrast: float = 0.1
) -> List[str]:
    """Write the list of all micrographs whose results are in `folder`.

    File names in the list are `folder` joined with the name. If `folder` is relative, it must be relative to RELION's
    project folder.

    Returns
    -------
    One sentence for each result that can't be read and is left out, for each reason for which RELION's polishing can't
    use some of the micrographs, and if it can't use all of them at once.

    Raises
    ------
    OutputError : the list can't be written.
    """
    results = sorted(
        name for name in os.listdir(folder) if name.endswith(names.MOTION) and not name.startswith(names.NOT_RESULTS)
    )
    optics: List[Tuple[str, ...]] = []
    rows: List[Dict[str, str]] = []
    problems: List[str] = []
    unfit: Dict[str, int] = {}
    groupings: Set[int] = set()
    for name in results:
        try:
            row = _row(folder, name[: -len(names.MOTION)])
        except FlexAlignError as error:
            path = printable(os.path.join(folder, name))
            reason = str(error).split(": ", 1)[-1]  # these errors begin with a path
            problems.append(f"{path}: is left out of {names.CORRECTED_MICROGRAPHS}: {reason}")
            continue
        if not row:
            continue
        obstacle = row.pop("obstacle", "")
        if obstacle:
            unfit[obstacle] = unfit.get(obstacle, 0) + 1
        group = tuple(row.pop(key) for key in ("original_pixel_size", "pixel_size", "voltage"))
        if group not in optics:
            optics.append(group)
        if "rlnMicrographMetadata" in row:
            groupings |= _eer_grouping(row["rlnMicrographMetadata"])
        row["rlnOpticsGroup"] = str(optics.index(group) + 1)
        rows.append(row)
    if not rows:
        return problems
    reasons = [
        f"{n} of {len(rows)} micrographs can't be used for Bayesian polishing in RELION and have no "
        f"rlnMicrographMetadata: {obstacle}."
        for obstacle, n in unfit.items()
    ]
    if len(groupings) > 1:
        reasons.append(
            f"The EER movies have frames of {' or '.join(map(str, sorted(groupings)))} hardware frames, but RELION's "
            "polishing takes the number of the first movie for all: polish each kind in a job of its own."
        )
    constants = (f"{spherical_aberration_mm:.6f}", f"{amplitude_contrast:.6f}")
    groups = [
        (f"opticsGroup{i}", str(i), original, voltage, *constants, pixel)
        for i, (original, pixel, voltage) in enumerate(optics, 1)
    ]
    order = [*FILE_COLUMNS, *FIGURE_COLUMNS, "rlnOpticsGroup"]
    columns = [column for column in order if any(column in row for row in rows)]
    text = "\n".join(
        [
            "# version 30001\n" + "".join(f"# {reason}\n" for reason in reasons),
            star_loop("optics", OPTICS_COLUMNS, groups),
            star_loop("micrographs", columns, [[row.get(column, "None") for column in columns] for row in rows]),
        ]
    )
    with atomic_path(os.path.join(folder, names.CORRECTED_MICROGRAPHS)) as path, open(
        path, "w", encoding="utf-8", errors="surrogateescape"
    ) as file:
        file.write(text)
    return problems + [f"{names.CORRECTED_MICROGRAPHS}: {reason}" for reason in reasons]


def _eer_grouping(path: str) -> Set[int]:
    """Hardware frames in each frame, from the beginning of `_shifts.star`; empty for other movies."""
    with open_regular(path) as file:
        return {int(number) for number in re.findall(rb"^_rlnEERGrouping +(\d+)$", file.read(4096), re.MULTILINE)}


def polishing_obstacle(settings: Settings, movie: str) -> str:
    """Why RELION's polishing can't use the micrographs made with these settings, as the end of a sentence about `they`;
    empty if it can."""
    if movie.lower().endswith((".tif", ".tiff")) and not settings.flip_tiff:
        return MIRRORED
    return UNDISTORTED if settings.do_mag_cor else ""


def _row(folder: str, root: str) -> Dict[str, str]:
    """Values of one micrograph and of its optics group by column; empty if no micrograph was written."""
    start = os.path.join(folder, root)
    check_sayable(start)
    path = start + names.MOTION
    result = load_result(path, "movie", "micrograph", "settings", "quality")
    settings, figures = saved_settings(result, path), Figures.from_dict(result["quality"])
    binned, movie = result["micrograph"].get("pixel_size_A") or settings.micrograph_pixel_size, result["movie"]
    pixel_size = binned / settings.output_binning  # of the frames: finer than recorded for EER at 8K or 16K
    # Such files are from an earlier run with other settings and not part of this result.
    outdated = {
        "rlnMicrographName": not settings.is_dose_weighted,
        "rlnMicrographNameNoDW": settings.is_dose_weighted and not settings.do_save_unweighted_mic,
        "rlnMicrographNameEven": not settings.split_even_odd,
        "rlnMicrographNameOdd": not settings.split_even_odd,
        "rlnCtfPowerSpectrum": not settings.do_save_ps,
    }
    row = {
        column: start + ending
        for column, ending in FILE_COLUMNS.items()
        if os.path.exists(start + ending) and not outdated.get(column)
    }
    if "rlnMicrographName" not in row:
        if "rlnMicrographNameNoDW" not in row:
            return {}
        row["rlnMicrographName"] = row.pop("rlnMicrographNameNoDW")
    obstacle = polishing_obstacle(settings, movie)
    if obstacle:
        row["obstacle"] = obstacle
        row.pop("rlnMicrographMetadata", None)
    for column, figure in FIGURE_COLUMNS.items():
        value = figure(figures)
        if value is not None:
            row[column] = f"{value:.6f}"
    row.update(original_pixel_size=f"{pixel_size:.6f}", pixel_size=f"{binned:.6f}", voltage=f"{settings.voltage:.6f}")
    return row
