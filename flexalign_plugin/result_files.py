"""Names of the files of a result: `<root>` is the start that all files of one movie share."""

from __future__ import annotations

import itertools
import os
from typing import Collection, Iterator

MICROGRAPH = "_aligned_mic.mrc"
MICROGRAPH_WEIGHTED = "_aligned_mic_DW.mrc"
MICROGRAPH_EVEN = "_aligned_mic_EVN.mrc"
MICROGRAPH_ODD = "_aligned_mic_ODD.mrc"
ALIGNED_MOVIE = "_aligned_movie.mrcs"
AMPLITUDE_SPECTRUM = "_PS.mrc"
POWER_SPECTRUM = "_psd.mrc"
POWER_SPECTRUM_PICTURE = "_psd.png"
THUMBNAIL = "_thumbnail.png"
PLOT_GLOBAL = "_plot_global.png"
PLOT_LOCAL = "_plot_local.png"
PLOT_SPECTRA = "_plot_psd.png"
SHIFTS = "_shifts.star"
MOTION = "_motion.json"
# How each of the above goes on after the root, for looking for a movie's files: `<root>*` would take those of other
# movies along (a_* those of the movie a_b).
STARTS = ("_aligned_", "_PS.", "_psd.", "_thumbnail.", "_plot_", "_shifts.", "_motion.")

# Files about a whole folder of results.
FAILED_MOVIES = "failed.tsv"
CORRECTED_MICROGRAPHS = "corrected_micrographs.star"
REPORT = "report.html"


def unique_root(name: str, taken: Collection[str], number: int) -> str:
    """Start of the output files of a movie, different from all others.

    Only the movie's own endings are cut off: `a_1.234.tif` and `a_1.235.tif` are two movies. Where two folders hold
    movies of one name, the later gets its number.
    """
    root = os.path.basename(name)
    for ending in (".bz2", ".gz"):
        if root.lower().endswith(ending):
            root = root[: -len(ending)]
    root = os.path.splitext(root)[0]
    return root if root not in taken else next(r for r in _numbered(root, number) if r not in taken)


def _numbered(root: str, number: int) -> Iterator[str]:
    yield f"{root}_{number:06d}"
    yield from (f"{root}_{number:06d}_{again}" for again in itertools.count(2))
