"""The checkpoint of a run of particles: what was found so far, in a file for each batch, and for which input."""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass, field, replace
from typing import Iterator, List, Mapping

import numpy as np

from ..errors import ResultError, SettingsError
from ..files import atomic_path, prepare_folder, remove_all_leftovers
from ..inputs import dataclass_of, open_regular, read_json
from ..particles.results import DTYPE
from ..particles.table import Table

PARTS = "parts"  # name of the folder
RUN, PART = "run.json", "part_{:06d}.npy"
_PART = re.compile(r"part_(\d{6,})\.npy")


@dataclass(frozen=True)
class Measured:
    """Optics groups whose noise and scale were measured together, on those of the first n particles."""

    groups: List[int]
    n: int
    scales: List[float]


@dataclass(frozen=True)
class RunState:
    """What the parts of a run belong to.

    Attributes
    ----------
    settings : those that the result depends on. volumes : hashes of the volumes. n, fingerprint : of the particles.
    measured : in the order in which it was done.
    """

    settings: Mapping[str, object]
    volumes: List[str]
    n: int
    fingerprint: str
    measured: List[Measured] = field(default_factory=list)


class Parts:
    """The files of a checkpoint in one folder."""

    def __init__(self, folder: str) -> None:
        """Raises OutputError if the folder can't be written to."""
        prepare_folder(folder)
        remove_all_leftovers(folder)
        self._folder = folder
        self._next = 1 + max((int(match[1]) for match in map(_PART.fullmatch, os.listdir(folder)) if match), default=0)

    def begin(self, table: Table, settings: Mapping[str, object], volumes: List[str]) -> RunState:
        """Start a run, or go on with the one in the folder, whose particles may be the first of `table`.

        Raises
        ------
        SettingsError : the folder holds a run of other particles, volumes or settings. ResultError : it can't be read.
        """
        path = os.path.join(self._folder, RUN)
        measured: List[Measured] = []
        if os.path.exists(path) and self._next > 1:  # without a part nothing was found yet
            earlier = _load(path)
            self._check_same(earlier, table, settings, volumes)
            measured = earlier.measured
        elif self._next > 1:
            raise ResultError(f"{self._folder}: holds parts of a run, but not its {RUN}: remove this folder.")
        state = RunState(settings, volumes, len(table), table.fingerprint(len(table)), measured)
        self.save(state)
        return state

    def save(self, state: RunState) -> None:
        with atomic_path(os.path.join(self._folder, RUN)) as temporary, open(temporary, "w", encoding="utf-8") as file:
            json.dump(asdict(state), file, indent=1)

    def add(self, found: np.ndarray) -> None:
        """Save what was found for a batch, (n,) `results.DTYPE`. Raises OutputError."""
        with atomic_path(os.path.join(self._folder, PART.format(self._next))) as temporary:
            with open(temporary, "wb") as file:
                np.save(file, found, allow_pickle=False)
        self._next += 1

    def saved(self) -> Iterator[np.ndarray]:
        """What was found for each batch that was saved, in the order of time. Raises ResultError."""
        for name in sorted(filter(_PART.fullmatch, os.listdir(self._folder))):
            path = os.path.join(self._folder, name)
            try:
                with open_regular(path) as file:
                    found = np.load(file, allow_pickle=False)
                if not isinstance(found, np.ndarray) or found.dtype != DTYPE:
                    raise ValueError("it is of another version")
            except (OSError, ValueError, EOFError) as error:
                raise ResultError(
                    f"{path}: can't be read ({error}): remove the file, and its particles are aligned again."
                ) from error
            yield found

    def _check_same(self, earlier: RunState, table: Table, settings: Mapping[str, object], volumes: List[str]) -> None:
        different = [name for name, value in settings.items() if earlier.settings.get(name) != value]
        what = ""
        if different:
            name = different[0]
            what = f"another {name.replace('_', ' ')} ({earlier.settings.get(name)}, not {settings[name]})"
        elif earlier.volumes != volumes:
            what = "other volumes"
        elif earlier.n > len(table) or earlier.fingerprint != table.fingerprint(earlier.n):
            what = "other particles"
        if what:
            raise SettingsError(
                f"{self._folder}: holds a run with {what}: choose another output folder, or remove this one."
            )


def _load(path: str) -> RunState:
    try:
        values = read_json(path)
        measured = [dataclass_of(Measured, value) for value in values.pop("measured")]
        return replace(dataclass_of(RunState, {**values, "measured": []}), measured=measured)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ResultError(f"{path}: can't be read ({error}): remove its folder to start again.") from error
