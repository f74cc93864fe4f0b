"""Aligns the particles of a table with volumes, batch by batch. A run that was stopped goes on where it was."""

from __future__ import annotations

import hashlib
import os
import threading
from dataclasses import dataclass, replace
from functools import partial
from typing import Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from ..errors import NoParticleError, ParticleError, SettingsError
from ..output.failures import write_failures
from ..output.replacing import is_same_movie
from ..particles import results, symmetry
from ..particles.align import BLOCK, FIRST, Alignment, Options, Particles, Start
from ..particles.io_stack import Stacks
from ..particles.io_star import read_star, write_star
from ..particles.poses import matrices
from ..particles.settings import FIT, ParticleSettings
from ..particles.table import Table
from ..particles.volumes import Volume, diameter_A, fitted
from ..result_files import FAILED_PARTICLES, MOTION, PARTICLES
from .particle_memory import threads_that_fit
from .particle_parts import PARTS, Measured, Parts, RunState

CHUNKS = 32  # of `BLOCK` particles between two checkpoints
WIDEST = 0.95  # diameter in image widths, if it is measured in the volume: some noise is then left beside the particle
FEW = 20  # particles of an optics group: with fewer, noise and scale are measured on few images
LARGEST_DEFOCUS_A = 1e6
Say = Callable[[str, str], None]  # called with "note" or "warning" and a sentence
Progress = Callable[[int, int], None]  # called with the number of particles that are done, and of all


@dataclass(frozen=True)
class ParticleResult:
    """What a run has found.

    Attributes
    ----------
    found : (n,) `results.DTYPE` in the order of the table; `aligned` is False for those that failed.
    failures : {`row` of a particle: why it could not be aligned}; also in the file `failures_path`.
    diameter_A : of the particle. scales : {name of an optics group: factor from the volumes to its images}.
    pixel_A : (n,) pixel size of each image.
    """

    found: np.ndarray
    failures: Mapping[int, str]
    failures_path: str
    diameter_A: float
    scales: Mapping[str, float]
    pixel_A: np.ndarray


class ParticleAligner:
    """Aligns the particles of a table, or of one that grows: the galleries are made once."""

    def __init__(
        self, volumes: Sequence[Volume], settings: ParticleSettings, output_dir: str, say: Optional[Say] = None
    ) -> None:
        """
        Parameters
        ----------
        output_dir : for the checkpoint and `failed.tsv`, created if it is missing.
        say : is told what the user should know.

        Raises
        ------
        SettingsError : the settings don't fit the volumes. OutputError : the folder can't be written to.
        """
        self._volumes, self._output_dir = volumes, output_dir
        self._say: Say = say or (lambda kind, sentence: None)
        self._given = settings
        diameter = settings.mask_diameter or max(map(diameter_A, volumes))
        if not settings.mask_diameter:
            self._say("note", f"The particle is {diameter:.0f} A in diameter, as measured in the volume.")
        self._settings = replace(settings, mask_diameter=diameter)  # checks what depends on the diameter
        problems = [
            f"{volume.name}: the maximum resolution is {settings.max_resolution:g} A, finer than its voxels of "
            f"{volume.pixel_A:.4g} A can show: give at least {2 * volume.pixel_A:.4g} A."
            for volume in volumes
            if settings.max_resolution * FIT < 2 * volume.pixel_A
        ]
        if problems:
            raise SettingsError(" ".join(problems))
        self._parts = Parts(os.path.join(output_dir, PARTS))
        self._measured: List[_Measured] = []
        self._failures = _Failures(os.path.join(output_dir, FAILED_PARTICLES))

    def align(self, table: Table, progress: Optional[Progress] = None) -> ParticleResult:
        """Align all particles of the table that are not aligned yet.

        Parameters
        ----------
        table : all particles so far: the first are those of earlier calls, and of the run that is continued.

        Raises
        ------
        SettingsError : the settings don't fit the images, or the folder holds another run.
        NoParticleError : no particle can be aligned. OutputError : a result can't be written.
        """
        if not len(table):
            raise ParticleError(f"{table.name}: holds no particles.")
        hashes = [hashlib.sha256(v.values.tobytes() + repr(v.pixel_A).encode()).hexdigest() for v in self._volumes]
        state = self._parts.begin(table, self._given.result_of(), hashes)
        found = self._found_before(table)
        images = _Images(table)
        usable = self._usable(table)
        self._measure(table, usable, images, state)
        pixel_A = np.array([group.optics.pixel_A for group in table.groups])[table.group]
        tell: Progress = progress or (lambda done, total: None)
        tell(int(found["aligned"].sum()), len(table))
        for measured in self._measured:
            rows = np.flatnonzero(usable & np.isin(table.group, measured.groups))
            rows = rows[np.lexsort((table.index[rows], table.file[rows]))]
            batches = self._batches(table, rows, found["aligned"])
            ready = self._ready(table, usable, measured, images, rows) if batches else None
            for places in batches:
                assert ready is not None
                batch = rows[places]
                new = results.results_of(ready.align(places), table.row[batch], pixel_A[batch[0]])
                problems = images.taken_problems()
                good = ~np.isin(batch, list(problems))
                self._parts.add(new[good])
                found[batch[good]] = new[good]
                self._failures.add(table, problems)
                tell(self._done(found), len(table))
        self._failures.write()
        if not found["aligned"].any():
            raise NoParticleError(
                f"{table.name}: none of its {len(table)} particles can be aligned; the first: {self._failures.first()}"
            )
        scales = {
            table.groups[group].name: scale
            for measured in self._measured
            for group, scale in zip(measured.groups, measured.scales)
        }
        diameter = self._settings.mask_diameter
        return ParticleResult(found, self._failures.reasons, self._failures.path, diameter, scales, pixel_A)

    def _done(self, found: np.ndarray) -> int:
        return int(found["aligned"].sum()) + len(self._failures.reasons)

    def _found_before(self, table: Table) -> np.ndarray:
        """Results with what was saved by this and earlier runs."""
        found = np.zeros(len(table), results.DTYPE)
        found["row"] = table.row
        order = np.argsort(table.row, kind="stable")
        for part in self._parts.saved():
            places = order[np.searchsorted(table.row, part["row"], sorter=order)]
            found[places] = part
        return found

    def _usable(self, table: Table) -> np.ndarray:
        """(n,) bool: particles whose numbers make sense; the others are failures."""
        usable = np.ones(len(table), bool)
        d, known = table.defocus, table.known
        numbers = np.stack([d.u_A, d.v_A, d.angle_deg, d.phase_deg])
        checks = [
            (table.index >= 0, "the name of its image is not a number and a stack, as in 000001@stack.mrcs."),
            (table.group >= 0, "its optics group is not in the table of optics groups."),
            (
                np.isfinite(numbers).all(axis=0) & (np.abs(numbers) <= LARGEST_DEFOCUS_A).all(axis=0),
                "its defocus or phase shift is not a number, or too large: estimate its CTF again.",
            ),
        ]
        if self._settings.local_only:
            if known.angles is None:
                raise SettingsError(
                    f"{table.name}: its particles have no orientations, which a search that is local only starts from: "
                    "align them without it."
                )
            checks.append((np.isfinite(known.angles).all(axis=1), "it has no orientation to start from."))
            if known.shifts_A is not None:
                checks.append((np.isfinite(known.shifts_A).all(axis=1), "it has no shift to start from."))
        problems: Dict[int, str] = {}
        for good, reason in checks:
            problems.update((int(i), reason) for i in np.flatnonzero(usable & ~good))
            usable &= good
        self._failures.add(table, problems)
        return usable

    def _measure(self, table: Table, usable: np.ndarray, images: _Images, state: RunState) -> None:
        """Make the galleries, and measure noise and scale of the optics groups that have not been measured yet. What
        an earlier run has measured is measured again, on the same particles, once it is needed."""
        for earlier in state.measured[len(self._measured) :]:
            self._measured.append(_Measured(earlier.groups, earlier.n, earlier.scales))
            self._warn_of_contrast(table, earlier.groups, earlier.scales)
        known = {int(group) for measured in self._measured for group in measured.groups}
        kinds: Dict[Tuple[int, float], List[int]] = {}
        for number, group in enumerate(table.groups):
            own = np.flatnonzero(usable & (table.group == number)) if number not in known else np.array([], int)
            if len(own):
                box = images.box(own)
                first, problems = images.first_usable(own, box)
                if len(first):
                    kinds.setdefault((box, group.optics.pixel_A), []).append(number)
                    if len(first) < FEW:
                        self._say(
                            "warning",
                            f"{group.name}: has only {len(first)} particles, so that noise and contrast are known "
                            "badly: join optics groups of the same microscope settings.",
                        )
                else:
                    self._failures.add(table, problems)
                    usable[own] = False
        problems_of_kinds = [
            sentence
            for (box, pixel_A), groups in kinds.items()
            for sentence in self._given.problems_with_images(box, pixel_A, table.groups[groups[0]].name)
        ]
        if problems_of_kinds:
            raise SettingsError(" ".join(problems_of_kinds))
        for groups in kinds.values():
            alignment = self._alignment(table, usable, images, groups)
            self._measured.append(_Measured(groups, len(table), alignment.scales, alignment))
            self._warn_of_contrast(table, groups, alignment.scales)
            state.measured.append(Measured(groups, len(table), alignment.scales))
            self._parts.save(state)

    def _warn_of_contrast(self, table: Table, groups: Sequence[int], scales: Sequence[float]) -> None:
        for group, scale in zip(groups, scales):
            if scale < 0:
                self._say(
                    "warning",
                    f"{table.groups[group].name}: the contrast of its images is inverted against the volume's; this is "
                    "taken into account, but check that the particles are what you think.",
                )

    def _alignment(self, table: Table, usable: np.ndarray, images: _Images, groups: Sequence[int]) -> Alignment:
        """Measure `groups`, of one box and pixel size, on the first of the `usable` particles."""
        rows = [np.flatnonzero(usable & (table.group == group)) for group in groups]
        box, pixel_A = images.box(rows[0]), table.groups[groups[0]].optics.pixel_A
        measured_on = np.full(len(table), -1, np.int16)
        for number, own in enumerate(rows):
            measured_on[images.first_usable(own, box)[0]] = number
        s, width_A = self._settings, box * pixel_A
        if s.mask_diameter > WIDEST * width_A and not self._given.mask_diameter:
            s = replace(s, mask_diameter=WIDEST * width_A)
        values: List[np.ndarray] = []
        for volume in self._volumes:
            resized, notes = fitted(volume, box, pixel_A)
            values.append(resized)
            for note in notes:
                self._say("note", note)
        threads = s.threads or len(os.sched_getaffinity(0))
        rotations = symmetry.rotations(s.symmetry)
        fewer = threads_that_fit(s, box, pixel_A, len(values), len(rotations), threads)
        if fewer < threads:
            self._say("note", f"{fewer} of {threads} threads are used, for which the memory suffices.")
        options = Options(
            max_resolution_A=max(s.max_resolution, 2 * pixel_A * box / (box - 2)),  # images end before Nyquist
            diameter_A=s.mask_diameter,
            max_shift_A=s.max_shift,
            symmetry=rotations if len(rotations) > 1 else None,
            coarse_A=s.coarse_resolution,
            threads=fewer,
            max_psi_deg=s.max_psi,
            start=self._start(table, pixel_A, np.arange(len(table))),
        )
        particles = Particles(
            box,
            pixel_A,
            [table.groups[group].optics for group in groups],
            measured_on,
            table.defocus,
            partial(images.read, box=box),
        )
        try:
            alignment = Alignment(particles, values, options)
        except ValueError as error:
            raise SettingsError(
                f"{table.groups[groups[0]].name}: with a diameter of {s.mask_diameter:.0f} A {error} in a box of "
                f"{width_A:.0f} A: give a smaller mask diameter, or extract the particles with a larger box."
            ) from error
        images.taken_problems()
        return alignment

    def _ready(
        self, table: Table, usable: np.ndarray, measured: _Measured, images: _Images, rows: np.ndarray
    ) -> Alignment:
        """The alignment of the particles `rows` of the table, which it numbers from 0."""
        if measured.alignment is None:
            before = usable & (np.arange(len(table)) < measured.n)
            measured.alignment = self._alignment(table, before, images, measured.groups)
        box, pixel_A = images.box(rows), table.groups[measured.groups[0]].optics.pixel_A
        place = np.full(len(table.groups), -1, np.int16)
        place[measured.groups] = np.arange(len(measured.groups))
        particles = Particles(
            box,
            pixel_A,
            [table.groups[group].optics for group in measured.groups],
            place[table.group[rows]],
            table.defocus[rows],
            lambda places: images.read(rows[places], box),
        )
        return measured.alignment.of(particles, self._start(table, pixel_A, rows))

    def _start(self, table: Table, pixel_A: float, rows: np.ndarray) -> Optional[Start]:
        """Where the particles `rows` start, if the search is only local."""
        known = table.known
        if not self._settings.local_only or known.angles is None:
            return None
        shifts = np.zeros((len(rows), 2)) if known.shifts_A is None else known.shifts_A[rows].astype(float)
        # Particles without a pose are not aligned, but may be in the table.
        return Start(matrices(*np.nan_to_num(known.angles[rows]).T), -shifts / pixel_A)

    def _batches(self, table: Table, rows: np.ndarray, aligned: np.ndarray) -> List[np.ndarray]:
        """Places in `rows` of the particles to align, in batches.

        They are taken in whole chunks, always the same ones, which `Alignment` takes at once.
        """
        done = aligned.copy()
        done[np.isin(table.row, list(self._failures.reasons))] = True
        places = np.arange(len(rows))
        chunks = [places[i : i + BLOCK] for i in range(0, len(rows), BLOCK)]
        chunks = [chunk for chunk in chunks if not done[rows[chunk]].all()]
        return [np.concatenate(chunks[i : i + CHUNKS]) for i in range(0, len(chunks), CHUNKS)]


@dataclass
class _Measured:
    """Optics groups of the table that were measured on its first n particles, and their alignment once it is needed."""

    groups: List[int]
    n: int
    scales: List[float]
    alignment: Optional[Alignment] = None


class _Images:
    """The images of a table. Those that can't be used are 0, and are noted. Thread-safe."""

    def __init__(self, table: Table) -> None:
        self._table, self._stacks = table, Stacks(table.files)
        self._problems: Dict[int, str] = {}
        self._lock = threading.Lock()

    def read(self, rows: np.ndarray, box: int) -> np.ndarray:
        images, problems = self._stacks.read(self._table.file[rows], self._table.index[rows], box)
        if problems:
            with self._lock:
                self._problems.update((int(rows[i]), reason) for i, reason in problems.items())
        return images

    def taken_problems(self) -> Dict[int, str]:
        """{row: why its image can't be used} since the last call."""
        with self._lock:
            taken, self._problems = self._problems, {}
        return taken

    def box(self, rows: np.ndarray) -> int:
        """The box of the first of the particles whose stack can be read; 2 if there is none."""
        files = self._table.file[rows]
        for number in files[np.sort(np.unique(files, return_index=True)[1])]:
            try:
                return self._stacks.stack(int(number)).box
            except ParticleError:
                continue
        return 2

    def first_usable(self, rows: np.ndarray, box: int) -> Tuple[np.ndarray, Dict[int, str]]:
        """The first rows, at most `FIRST`, whose images can be used; and why those before them can't."""
        usable: List[int] = []
        problems: Dict[int, str] = {}
        for start in range(0, len(rows), BLOCK):
            part = rows[start : start + BLOCK]
            self.read(part, box)
            problems.update(self.taken_problems())
            usable += [int(row) for row in part if int(row) not in problems]
            if len(usable) >= FIRST:
                break
        return np.array(usable[:FIRST], np.int64), problems


class _Failures:
    """Particles that can't be aligned, in `failed.tsv`."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.reasons: Dict[int, str] = {}  # by the particle's `row`
        self._names: Dict[int, str] = {}

    def add(self, table: Table, problems: Mapping[int, str]) -> None:
        """problems : {place in the table: reason}."""
        new = {place: reason for place, reason in problems.items() if int(table.row[place]) not in self.reasons}
        for place, reason in new.items():
            row = int(table.row[place])
            self.reasons[row], self._names[row] = reason, table.image_name(place)
        if new:
            self.write()

    def first(self) -> str:
        row = min(self.reasons)
        return f"{self._names[row]}: {self.reasons[row]}"

    def write(self) -> None:
        """Write the table, or remove that of an earlier run if there is no failure. Raises OutputError."""
        if self.reasons:
            write_failures(
                self.path, [(row, self._names[row], reason) for row, reason in sorted(self.reasons.items())], "particle"
            )
        elif os.path.exists(self.path):
            os.remove(self.path)


def align_star(
    star: str,
    volumes: Sequence[Volume],
    settings: ParticleSettings,
    output_dir: str,
    progress: Optional[Progress] = None,
    say: Optional[Say] = None,
) -> Tuple[Table, ParticleResult]:
    """Align the particles of a STAR file and write those that are aligned to `particles.star` in `output_dir`; returns
    all that were read, and what was found.

    Raises
    ------
    As `ParticleAligner`, and SettingsError if the output would replace an input.
    """
    path = os.path.join(output_dir, PARTICLES)
    if is_same_movie(path, star):
        raise SettingsError(f"{star}: would be replaced by the result: choose another output folder.")
    if os.path.isdir(output_dir) and any(name.endswith(MOTION) for name in os.listdir(output_dir)):
        raise SettingsError(
            f"{output_dir}: holds results of movies, whose failed.tsv would be replaced: choose another."
        )
    table, source = read_star(star)
    result = ParticleAligner(volumes, settings, output_dir, say).align(table, progress)
    write_star(path, source, result.found)
    return table, result
