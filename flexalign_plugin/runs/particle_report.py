"""Report and pictures of a run of particles, from its input and what was found."""

from __future__ import annotations

import os
from functools import partial
from typing import Optional, Sequence, Tuple

import numpy as np

from ..files import atomic_path
from ..output import particle_plots as plots
from ..output.bild import write_directions
from ..output.pictures import write_png
from ..particles import symmetry
from ..particles.align import Particles
from ..particles.compare import side_by_side
from ..particles.ctf import Optics
from ..particles.io_stack import Stacks
from ..particles.results import matrices_of, shifts_A_of
from ..particles.settings import ParticleSettings
from ..particles.table import Table
from ..particles.volumes import Volume, fitted
from ..report_pages.particles import ParticleRun, write_particle_report
from ..result_files import REPORT
from .particles import ParticleResult

Block = Tuple[np.ndarray, np.ndarray, Sequence[str]]  # images, projections, and a line for each
EXAMPLES = 8  # particles of each kind
DETAIL = 8  # resolution of their pictures: this part of the particle's diameter, where noise does not hide it yet
DIRECTIONS, EXAMPLES_PICTURE = "directions.bild", "examples.png"


def report_particles(
    folder: str,
    title: str,
    table: Table,
    result: ParticleResult,
    volumes: Sequence[Volume],
    settings: ParticleSettings,
    running: bool = False,
) -> None:
    """Write `report.html`, `directions.bild` (the distribution of views for ChimeraX) and `examples.png` into a folder.

    Parameters
    ----------
    running : whether the run goes on; the examples, which take some time, are then left out.

    Raises
    ------
    OutputError : a file can't be written.
    """
    group = symmetry.rotations(settings.symmetry)
    shown = None if running else examples(table, result, volumes, settings)
    picture = None
    if shown is not None:
        picture = plots.pixels(plots.examples(*shown))
        with atomic_path(os.path.join(folder, EXAMPLES_PICTURE)) as temporary:
            write_png(temporary, picture)
    names = {int(row): table.image_name(i) for i, row in enumerate(table.row) if int(row) in result.failures}
    run = ParticleRun(
        title=title,
        found=result.found,
        pixel_A=_commonest(table).pixel_A,
        diameter_A=result.diameter_A,
        volumes=[volume.name for volume in volumes],
        scales=result.scales,
        group=group if len(group) > 1 else None,
        failures=[(names[row], reason) for row, reason in sorted(result.failures.items()) if row in names],
        settings=settings.result_of(),
        examples=picture,
        running=running,
    )
    write_particle_report(os.path.join(folder, REPORT), run)
    good = result.found[result.found["aligned"]]
    if len(good):
        path = os.path.join(folder, DIRECTIONS)
        write_directions(path, matrices_of(good), result.diameter_A / 2, run.group)


def examples(
    table: Table, result: ParticleResult, volumes: Sequence[Volume], settings: ParticleSettings
) -> Optional[Tuple[Block, Block]]:
    """The particles of the highest and of the lowest scores with their projections, see `particle_plots.examples`.

    They are of one pixel size, that of most particles. None if no image can be read.
    """
    optics = _commonest(table)
    same = np.array([group.optics.pixel_A == optics.pixel_A for group in table.groups])
    usable = np.flatnonzero(result.found["aligned"] & same[table.group])
    if not len(usable):
        return None
    ordered = usable[np.argsort(-result.found["score"][usable], kind="stable")]
    n = min(EXAMPLES, max(len(ordered) // 2, 1))
    rows = np.unique(np.concatenate([ordered[:n], ordered[-n:]]))
    stacks = Stacks(table.files)
    box = stacks.stack(int(table.file[rows[0]])).box
    images, problems = stacks.read(table.file[rows], table.index[rows], box)
    if problems:  # a file was removed after the alignment
        return None
    found = result.found[rows]
    particles = Particles(
        box,
        optics.pixel_A,
        [group.optics for group in table.groups],
        table.group,
        table.defocus,
        partial(_picked, rows, images),
    )
    pictures = side_by_side(
        particles,
        [fitted(volume, box, optics.pixel_A)[0] for volume in volumes],
        rows,
        matrices_of(found),
        -shifts_A_of(found).astype(float) / optics.pixel_A,
        found["volume"] - 1,
        [result.scales.get(group.name, 1.0) for group in table.groups],
        max(settings.max_resolution, result.diameter_A / DETAIL, 2 * optics.pixel_A),
    )
    best, worst = (_block(part, rows, pictures, result.found, table) for part in (ordered[:n], ordered[-n:][::-1]))
    return best, worst


def _commonest(table: Table) -> Optics:
    counts = np.bincount(table.group[table.group >= 0], minlength=len(table.groups))
    return table.groups[int(counts.argmax())].optics


def _picked(rows: np.ndarray, images: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    return images[np.searchsorted(rows, wanted)]


def _block(
    part: np.ndarray, rows: np.ndarray, pictures: Tuple[np.ndarray, np.ndarray], found: np.ndarray, table: Table
) -> Block:
    places = np.searchsorted(rows, part)
    lines = [f"{table.row[i]}: {found['score'][i]:.0f}" for i in part]
    return pictures[0][places], pictures[1][places], lines
