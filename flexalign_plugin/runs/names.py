"""Names of the results of a run: each movie's own, and none that is an input of the run."""

from __future__ import annotations

import os
from typing import Dict, Iterable, List, Optional, Sequence, Set

from ..errors import SettingsError
from ..output.replacing import is_same_movie, movie_of
from ..result_files import CORRECTED_MICROGRAPHS, ENDINGS, FAILED_MOVIES, MOTION, REPORT, unique_root, without_number
from ..settings import Settings


class Names:
    """Gives each movie of a run the start of its files' names in `folder`.

    A movie that has a result in the folder keeps its name. Another movie of this name gets a number.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._given: Set[str] = set()
        self._movie = ""
        # Listed once for a run, not for each of its movies.
        names = os.listdir(folder) if os.path.isdir(folder) else []
        self._found: Dict[str, List[str]] = {}  # {name without a number: roots of results}
        for root in sorted(name[: -len(MOTION)] for name in names if name.endswith(MOTION)):
            for plain in {root, without_number(root)}:
                self._found.setdefault(plain, []).append(root)

    def root(self, movie: str, number: int, name: Optional[str] = None) -> str:
        """Root for the movie file `movie`, the `number`-th of the run. name : used instead of that of the file."""
        self._movie = movie
        plain = unique_root(name or movie, (), number)
        root = self._earlier(plain) or unique_root(name or movie, self, number)
        self._given.add(root)
        return root

    def __contains__(self, root: object) -> bool:
        """Whether the name is taken by another movie."""
        owner = None if root in self._given else movie_of(self._folder, str(root))
        return root in self._given or (owner is not None and not is_same_movie(owner, self._movie))

    def _earlier(self, plain: str) -> Optional[str]:
        """The root that the movie has in an earlier result."""
        for root in self._found.get(plain, []):
            owner = movie_of(self._folder, root) if root not in self._given else None
            if owner is not None and is_same_movie(owner, self._movie):
                return root
        return None


def check_inputs(folder: str, roots: Sequence[str], inputs: Iterable[str], others: Sequence[str] = ()) -> None:
    """Check that no file that the run writes is one of its inputs.

    Parameters
    ----------
    roots : of the movies. inputs : paths of all files that the run reads. others : names of further files in `folder`
        that the run writes.

    Raises
    ------
    SettingsError : an input would be replaced.
    """
    written = {root + ending for root in roots for ending in ENDINGS}
    written |= {FAILED_MOVIES, CORRECTED_MICROGRAPHS, REPORT, *others}
    here = os.path.realpath(folder)
    for path in inputs:
        in_folder = os.path.realpath(os.path.dirname(path) or ".") == here and os.path.basename(path) in written
        real_folder, name = os.path.split(os.path.realpath(path))
        if in_folder or (real_folder == here and name in written):
            raise SettingsError(
                f"{path}: is an input of this run and would be replaced by one of its results: choose another output "
                "folder."
            )


def correction_files(settings: Settings) -> List[str]:
    """Paths of gain, dark and defects."""
    return [path for path in (settings.gain, settings.dark, settings.defect_file, settings.defect_map) if path]
