"""Compares alignments of the same particles, given as STAR files, and writes those on which they agree."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from typing import Callable, List, Optional, Sequence, Tuple

import numpy as np

from ..errors import ParticleError, SettingsError
from ..files import atomic_path, prepare_folder
from ..output import particle_plots
from ..output.replacing import is_same_movie
from ..particles import symmetry
from ..particles.consensus import Consensus, consensus
from ..particles.io_star import CLASS_COLUMN, POSE_COLUMNS, read_star, write_star
from ..particles.poses import distances, euler_angles, matrices
from ..particles.table import Table, image_keys
from ..result_files import PARTICLES
from .particle_parts import PARTS

REJECTED, SPREADS, AGREEMENT = "rejected.star", "spreads.tsv", "agreement.png"
BLOCK = 50_000  # particles compared at once
# Attributes of particles that Scipion's protocol gives too: rms distances of the runs that agree from their mean, in
# degrees and pixels, and their number.
SPREAD_COLUMNS = {
    "swiftAngleSpread": ("angle_spread", "%.4f"),
    "swiftShiftSpread": ("shift_spread", "%.4f"),
    "swiftRuns": ("runs", "%d"),
}
_FIELDS = [(name, "<f8") for name in ("rot", "tilt", "psi", "x_A", "y_A", "angle_spread", "shift_spread")]
_DTYPE = np.dtype([("row", "<i8"), *_FIELDS, ("volume", "<i4"), ("runs", "<i4"), ("aligned", "?")])


@dataclass(frozen=True)
class Agreement:
    """What a comparison has found.

    Attributes
    ----------
    agrees : (n,) bool of the particles of the first file that are in another one. spread_deg : (n,).
    off_deg : (R, n) distance of each run from the consensus, NaN where a run does not have the particle.
    left_out : particles of the first file that are in no other.
    """

    agrees: np.ndarray
    spread_deg: np.ndarray
    off_deg: np.ndarray
    left_out: int


def agree_stars(
    stars: Sequence[str],
    output_dir: str,
    max_angle_deg: float,
    max_shift_A: float,
    symmetry_name: str = "C1",
    compare_classes: bool = False,
    progress: Optional[Callable[[int, int], None]] = None,
) -> Agreement:
    """Compare the alignments in STAR files and write `particles.star`, the particles of the first file on which they
    agree, with their mean poses; `rejected.star`, the others, with those of the first; `spreads.tsv` and a plot.

    Parameters
    ----------
    max_angle_deg, max_shift_A : largest distances of alignments that agree.
    compare_classes : whether those that agree must show the same class.

    Raises
    ------
    ParticleError : a file can't be read, has no orientations, or they have no particle in common.
    SettingsError : there are fewer than two files, no such symmetry, or an output would replace an input.
    """
    group = symmetry.rotations(symmetry_name)
    if len(stars) < 2:
        raise SettingsError("A consensus needs at least two alignments: give two or more STAR files.")
    outputs = [os.path.join(output_dir, name) for name in (PARTICLES, REJECTED)]
    for star in stars:
        if any(is_same_movie(star, path) for path in outputs):
            raise SettingsError(f"{star}: would be replaced by the result: choose another output folder.")
    if os.path.isdir(os.path.join(output_dir, PARTS)):
        raise SettingsError(
            f"{output_dir}: holds an alignment, whose particles would be replaced: choose another folder."
        )
    read = [read_star(star) for star in stars]
    tables, source = [table for table, _ in read], read[0][1]
    for table in tables:
        if table.known.angles is None:
            raise ParticleError(f"{table.name}: its particles have no orientations: give aligned particles.")
    first, rows = matched(tables)
    if not len(first):
        raise ParticleError(
            f"{stars[0]}: none of its particles is in another of the files: give alignments of the same images."
        )
    prepare_folder(output_dir)
    both, off_deg = compare(tables, rows, max_angle_deg, max_shift_A, group, compare_classes, progress)
    poses, positions_A, _, _ = stacked(tables[:1], rows[:1])
    pixel_A = np.array([g.optics.pixel_A for g in tables[0].groups])[tables[0].group[first]]
    found = np.zeros(len(first), _DTYPE)
    found["row"], found["aligned"], found["volume"] = tables[0].row[first], both.agrees, both.volume
    kept = np.where(both.agrees[:, None, None], both.poses, poses[0])
    found["rot"], found["tilt"], found["psi"] = euler_angles(kept)
    found["x_A"], found["y_A"] = -np.where(both.agrees[:, None], both.positions, positions_A[0]).T
    found["angle_spread"], found["shift_spread"] = both.spread_deg, both.spread_px / pixel_A
    found["runs"] = both.runs.sum(axis=0)
    columns = {**POSE_COLUMNS, **(CLASS_COLUMN if compare_classes else {}), **SPREAD_COLUMNS}
    agrees = found["aligned"].copy()
    write_star(outputs[0], source, found, columns)
    found["aligned"] = ~agrees
    write_star(outputs[1], source, found, {**POSE_COLUMNS, **SPREAD_COLUMNS})
    spread_A = found["shift_spread"] * pixel_A
    path = os.path.join(output_dir, SPREADS)
    write_spreads(path, stars, found["row"], agrees, found["angle_spread"], spread_A, off_deg)
    with atomic_path(os.path.join(output_dir, AGREEMENT)) as temporary:
        particle_plots.save(particle_plots.agreement(off_deg, list(stars), max_angle_deg), temporary)
    return Agreement(agrees, found["angle_spread"].copy(), off_deg, len(tables[0]) - len(first))


def compare(
    tables: Sequence[Table],
    rows: np.ndarray,
    max_angle_deg: float,
    max_shift_A: float,
    group: np.ndarray,
    compare_classes: bool,
    progress: Optional[Callable[[int, int], None]] = None,
) -> Tuple[Consensus, np.ndarray]:
    """Compare the alignments `tables` of the particles `rows` (R, n), see `matched`.

    Returns
    -------
    The consensus, with positions and spreads in Angstrom instead of pixels; (R, n) float32 distance of each run from it
    in degrees, NaN where the run does not have the particle.
    """
    n = rows.shape[1]
    parts: List[Consensus] = []
    off_deg = np.full(rows.shape, np.nan, np.float32)
    tell = progress or (lambda done, total: None)
    tell(0, n)
    for start in range(0, n, BLOCK):
        part = slice(start, min(start + BLOCK, n))
        poses, positions_A, volume, present = stacked(tables, rows[:, part])
        compared = volume if compare_classes else np.ones_like(volume)
        mates = group if len(group) > 1 else None
        both = consensus(poses, positions_A, compared, max_angle_deg, max_shift_A, mates, present)
        off = np.stack([distances(run, both.poses, group) for run in poses])
        off_deg[:, part] = np.where(present, off, np.nan)
        parts.append(both)
        tell(part.stop, n)
    joined = [
        np.concatenate([getattr(one, f.name) for one in parts], axis=int(f.name == "runs")) for f in fields(Consensus)
    ]
    return Consensus(*joined), off_deg


def matched(tables: Sequence[Table], keys_of: Optional[Sequence[np.ndarray]] = None) -> Tuple[np.ndarray, np.ndarray]:
    """(n,) rows of the first table whose image is in another table, and (R, n) their rows in all tables, -1 if none.

    Only rows with a pose count. Of an image that is twice in a table, the first row is taken.

    Parameters
    ----------
    keys_of : of each table, (n,) numbers that are the same for the same particle; None: those of the images.
    """
    keys: List[np.ndarray] = []
    places: List[np.ndarray] = []
    for table, own in zip(tables, image_keys(tables) if keys_of is None else keys_of):
        known = table.known
        assert known.angles is not None
        usable = np.isfinite(known.angles).all(axis=1) & (table.index >= 0) & (table.group >= 0)
        if known.shifts_A is not None:
            usable &= np.isfinite(known.shifts_A).all(axis=1)
        kept = np.flatnonzero(usable)
        unique, at = np.unique(own[kept], return_index=True)
        keys.append(unique)
        places.append(kept[at])
    rows = np.full((len(tables), len(keys[0])), -1)
    for number, (own, place) in enumerate(zip(keys, places)):
        _, in_first, here = np.intersect1d(keys[0], own, assume_unique=True, return_indices=True)
        rows[number, in_first] = place[here]
    common = (rows >= 0).sum(axis=0) >= 2
    order = np.argsort(rows[0, common], kind="stable")
    rows = rows[:, common][:, order]
    return rows[0], rows


def stacked(tables: Sequence[Table], rows: np.ndarray) -> Tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(R, n, 3, 3) poses, (R, n, 2) positions in A, (R, n) classes, and (R, n) bool whether a run has the particle."""
    present = rows >= 0
    poses, positions, volume = [], [], []
    for table, own in zip(tables, np.maximum(rows, 0)):
        known = table.known
        assert known.angles is not None
        poses.append(matrices(*known.angles[own].T))
        shifts = np.zeros((len(own), 2)) if known.shifts_A is None else known.shifts_A[own].astype(float)
        positions.append(-shifts)
        volume.append(np.ones(len(own), int) if known.volume is None else known.volume[own])
    return np.stack(poses), np.stack(positions), np.stack(volume), present


def write_spreads(
    path: str,
    names: Sequence[str],
    row: np.ndarray,
    agrees: np.ndarray,
    spread_deg: np.ndarray,
    spread_A: np.ndarray,
    off_deg: np.ndarray,
) -> None:
    """A line for each particle: its `row`, whether it is kept, the spread, the distance of each of the runs `names`."""
    runs = range(1, len(names) + 1)
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write("".join(f"# deg_{i}: {name}\n" for i, name in zip(runs, names)))
        file.write("\t".join(["row", "kept", "spread_deg", "spread_A", *(f"deg_{i}" for i in runs)]) + "\n")
        for i, number in enumerate(row.tolist()):
            numbers = "\t".join(f"{v:.3f}" for v in (spread_deg[i], spread_A[i], *off_deg[:, i]))
            file.write(f"{number}\t{int(agrees[i])}\t{numbers}\n")
