"""How many threads the memory allows for an alignment of particles."""

from __future__ import annotations

import math
import os

from ..errors import SettingsError
from ..particles import align, gallery, search
from ..particles.settings import ParticleSettings

PART_OF_MACHINE = 0.8  # used if no limit is given
BASE_BYTES = 300e6  # Python, its libraries and compiled code


def threads_that_fit(
    settings: ParticleSettings, box: int, pixel_A: float, n_volumes: int, order: int, threads: int
) -> int:
    """Number of threads, at most `threads`.

    Parameters
    ----------
    box, pixel_A : of the images. order : number of rotations of the symmetry.

    Raises
    ------
    SettingsError : the memory does not suffice for one.
    """
    limit = settings.memory * 1e9 or PART_OF_MACHINE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    diameter = settings.mask_diameter
    coarse = settings.coarse_resolution or gallery.coarse_resolution_A(diameter, settings.max_resolution)
    references = n_volumes * 8 * math.pi**2 / (gallery.STEP * coarse / diameter) ** 3 / order
    shifts = math.pi * (settings.max_shift / (coarse / 2) + 0.5) ** 2 + 1
    radius = box * pixel_A / settings.max_resolution
    spectra = 2 * n_volumes * 8 * (4 * radius + 6) ** 3
    padded = 12 * (2 * box) ** 3  # while a spectrum is made
    coefficients = math.pi * (box * pixel_A / coarse) ** 2 / 2
    fixed = BASE_BYTES + spectra + padded + 4 * references * (2 * gallery.AXES + 2 * coefficients)
    own = 4 * search.BLOCK * shifts * references + align.BLOCK * (12 * box**2 + 32 * math.pi * radius**2)
    fits = int((limit - fixed) // own)
    if fits < 1:
        raise SettingsError(
            f"The alignment needs about {(fixed + own) / 1e9:.1f} GB of memory, more than {limit / 1e9:.1f} GB: give a "
            "coarser maximum resolution, a smaller maximum shift, or more memory."
        )
    return min(fits, threads)
