"""Names of all result files. The files of one movie are named `<root>` followed by one of the endings below."""

from __future__ import annotations

import itertools
import os
import re
from typing import Container, Iterator

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
# All of them: what the result of one movie may consist of.
ENDINGS = (
    *(MICROGRAPH, MICROGRAPH_WEIGHTED, MICROGRAPH_EVEN, MICROGRAPH_ODD, ALIGNED_MOVIE, AMPLITUDE_SPECTRUM),
    *(POWER_SPECTRUM, POWER_SPECTRUM_PICTURE, THUMBNAIL, PLOT_GLOBAL, PLOT_LOCAL, PLOT_SPECTRA, SHIFTS, MOTION),
)
# What follows the root in the names above, to search for a movie's files: the pattern `<root>*` would also match files
# of other movies (a_* matches those of the movie a_b).
STARTS = ("_aligned_", "_PS.", "_psd.", "_thumbnail.", "_plot_", "_shifts.", "_motion.")
# Such names in a folder of results are notes of macOS beside the files of these names.
NOT_RESULTS = "._"

# Stacks of a tilt series and their angles, after the name of the series.
STACK = "_stack.mrc"
STACK_WEIGHTED = "_stack_DW.mrc"
STACK_EVEN = "_stack_EVN.mrc"
STACK_ODD = "_stack_ODD.mrc"
STACK_RAW_ANGLES = "_stack.rawtlt"
STACK_ANGLES = "_stack.tlt"

# The stacks of Scipion's tilt series, with the endings of the names in tomo's own protocols.
SCIPION_STACKS = {
    "micrograph": ".mrcs",
    "micrograph_dw": "_DW.mrcs",
    "micrograph_even": "_even.mrcs",
    "micrograph_odd": "_odd.mrcs",
}

# Positions of particles in every frame, after the name of the file of coordinates.
TRACKS = "_tracks.star"

# Files about a whole folder of results.
FAILED_MOVIES = "failed.tsv"
CORRECTED_MICROGRAPHS = "corrected_micrographs.star"
REPORT = "report.html"

# Files of a run of particles.
FAILED_PARTICLES = "failed.tsv"
PARTICLES = "particles.star"


def unique_root(name: str, taken: Container[str], number: int) -> str:
    """Start of the names of a movie's output files, different from all those in `taken`.

    Only the extension is removed: `a_1.234.tif` and `a_1.235.tif` are two movies. If the name is taken, because two
    folders hold movies of the same name, `number` is appended.
    """
    root = os.path.basename(name)
    for ending in (".bz2", ".gz"):
        if root.lower().endswith(ending):
            root = root[: -len(ending)]
    root = os.path.splitext(root)[0]
    return root if root not in taken else next(r for r in _numbered(root, number) if r not in taken)


def is_result_file(path: str) -> bool:
    """Whether the path has the name of a movie's result, of the list of failures or of RELION's list."""
    name = os.path.basename(path)
    return name.endswith(ENDINGS) or name in (FAILED_MOVIES, CORRECTED_MICROGRAPHS)


def without_number(root: str) -> str:
    """The root without a number that `unique_root` may have added to it."""
    return re.sub(r"_\d{6,}(_\d+)?$", "", root)


def _numbered(root: str, number: int) -> Iterator[str]:
    yield f"{root}_{number:06d}"
    yield from (f"{root}_{number:06d}_{again}" for again in itertools.count(2))
