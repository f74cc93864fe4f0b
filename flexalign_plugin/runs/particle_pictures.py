"""The pictures of a run of particles."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, List

from ..files import atomic_path
from ..output import particle_plots
from ..particles import results, symmetry

if TYPE_CHECKING:
    from .particles import ParticleResult

DIRECTIONS, HISTOGRAMS, POSTERIOR = "directions.png", "histograms.png", "posterior.png"


def write_pictures(folder: str, result: ParticleResult, symmetry_name: str) -> List[str]:
    """Write pictures of the directions of view, of scores and predicted errors, and of the posterior; returns their
    paths. Raises OutputError."""
    found = result.found[result.found["aligned"]]
    group = symmetry.rotations(symmetry_name)
    figures = {
        DIRECTIONS: particle_plots.directions(results.matrices_of(found), group if len(group) > 1 else None),
        HISTOGRAMS: particle_plots.histograms(
            found["score"], found["angle_sd"], found["shift_sd"] * result.pixel_A[result.found["aligned"]], 1.0
        ),
        POSTERIOR: particle_plots.posterior_against_score(found["score"], found["posterior"]),
    }
    paths = []
    for name, figure in figures.items():
        path = os.path.join(folder, name)
        with atomic_path(path) as temporary:
            particle_plots.save(figure, temporary)
        paths.append(path)
    return paths
