"""`corrected_micrographs.star`: RELION's list of all micrographs in a folder, to go on there after motion correction.

It is made from the results that lie in the folder, whichever run or job wrote them, and replaced as a whole: runs that
share a folder, one after the other or side by side, need not know of each other.
"""

from __future__ import annotations

import json
import os
from typing import Dict, List, Tuple

from ..errors import SettingsError
from ..settings import Settings
from .files import atomic_path
from .star import star_loop

CORRECTED_NAME = "corrected_micrographs.star"
MOTION_ENDING = "_motion.json"
OPTICS_COLUMNS = (
    "rlnOpticsGroupName",
    "rlnOpticsGroup",
    "rlnMicrographOriginalPixelSize",
    "rlnVoltage",
    "rlnSphericalAberration",
    "rlnAmplitudeContrast",
    "rlnMicrographPixelSize",
)
MIRRORED = "# Micrographs of TIFF movies are mirror images of RELION's frames: to polish, align with --flip-tiff.\n"
# RELION's column: the file's ending.
FILE_COLUMNS = {
    "rlnMicrographName": "_aligned_mic_DW.mrc",  # or the next one
    "rlnMicrographNameNoDW": "_aligned_mic.mrc",
    "rlnMicrographNameEven": "_aligned_mic_EVN.mrc",
    "rlnMicrographNameOdd": "_aligned_mic_ODD.mrc",
    "rlnCtfPowerSpectrum": "_PS.mrc",
    "rlnMicrographMetadata": "_shifts.star",
}
FIGURE_COLUMNS = {
    "rlnAccumMotionTotal": "accumulated_motion_total_A",
    "rlnAccumMotionEarly": "accumulated_motion_early_A",
    "rlnAccumMotionLate": "accumulated_motion_late_A",
}


def write_corrected_micrographs(
    folder: str, spherical_aberration_mm: float = 2.7, amplitude_contrast: float = 0.1
) -> List[str]:
    """Write the list of all micrographs whose results are in `folder`.

    File names are `folder` and the name: relative to where RELION runs if `folder` is.

    Returns
    -------
    A sentence for each result that can't be read and is left out.

    Raises
    ------
    OutputError : the list can't be written.
    """
    names = sorted(name for name in os.listdir(folder) if name.endswith(MOTION_ENDING) and not name.startswith("."))
    optics: List[Tuple[str, ...]] = []
    rows: List[Dict[str, str]] = []
    problems: List[str] = []
    mirrored = False
    for name in names:
        try:
            row = _row(folder, name[: -len(MOTION_ENDING)])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SettingsError) as error:
            path, reason = os.path.join(folder, name), f"{type(error).__name__}: {error}"
            problems.append(f"{path}: is left out of {CORRECTED_NAME}, since it is no complete result ({reason}).")
            continue
        if not row:
            continue
        mirrored = bool(row.pop("mirrored", "")) or mirrored
        group = tuple(row.pop(key) for key in ("original_pixel_size", "pixel_size", "voltage"))
        if group not in optics:
            optics.append(group)
        row["rlnOpticsGroup"] = str(optics.index(group) + 1)
        rows.append(row)
    if not rows:
        return problems
    constants = (f"{spherical_aberration_mm:.6f}", f"{amplitude_contrast:.6f}")
    groups = [
        (f"opticsGroup{i}", str(i), original, voltage, *constants, pixel)
        for i, (original, pixel, voltage) in enumerate(optics, 1)
    ]
    order = [*FILE_COLUMNS, *FIGURE_COLUMNS, "rlnOpticsGroup"]
    columns = [column for column in order if any(column in row for row in rows)]
    text = "\n".join(
        [
            "# version 30001\n" + (MIRRORED if mirrored else ""),
            star_loop("optics", OPTICS_COLUMNS, groups),
            star_loop("micrographs", columns, [[row.get(column, "None") for column in columns] for row in rows]),
        ]
    )
    with atomic_path(os.path.join(folder, CORRECTED_NAME)) as path, open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return problems


def _row(folder: str, root: str) -> Dict[str, str]:
    """One micrograph's values by column, and those of its optics group; nothing if no micrograph was written."""
    start = os.path.join(folder, root)
    with open(start + MOTION_ENDING, encoding="utf-8") as file:
        result = json.load(file)
    parsed = Settings.from_dict(result["settings"])
    settings, quality, binned = result["settings"], result["quality"], float(result["micrograph"]["pixel_size_A"])
    pixel_size, voltage = float(settings["pixel_size"]), float(settings["voltage"])
    # Files that an earlier run with other settings left are not of this result.
    unwanted = {
        "rlnMicrographName": not parsed.is_dose_weighted,
        "rlnMicrographNameNoDW": parsed.is_dose_weighted and not parsed.do_save_unweighted_mic,
        "rlnMicrographNameEven": not parsed.split_even_odd,
        "rlnMicrographNameOdd": not parsed.split_even_odd,
        "rlnCtfPowerSpectrum": not parsed.do_save_ps,
    }
    row = {
        column: start + ending
        for column, ending in FILE_COLUMNS.items()
        if os.path.exists(start + ending) and not unwanted.get(column)
    }
    if "rlnMicrographName" not in row:
        if "rlnMicrographNameNoDW" not in row:
            return {}
        row["rlnMicrographName"] = row.pop("rlnMicrographNameNoDW")
    if str(result["movie"]).lower().endswith((".tif", ".tiff")) and not parsed.flip_tiff:
        row["mirrored"] = "yes"
    for column, figure in FIGURE_COLUMNS.items():
        if quality.get(figure) is not None:
            row[column] = f"{quality[figure]:.6f}"
    row.update(original_pixel_size=f"{pixel_size:.6f}", pixel_size=f"{binned:.6f}", voltage=f"{voltage:.6f}")
    return row
