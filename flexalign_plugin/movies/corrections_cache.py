"""Cache of gain, dark and defects, so that they are read once for many movies."""

from __future__ import annotations

from dataclasses import fields
from typing import Optional, Tuple

from ..inputs import file_state
from ..settings import Settings
from .corrections import Corrections, load_corrections
from .movie import Movie

# Corrections depend on the settings whose names begin with one of these words.
DECISIVE_SETTINGS = ("gain", "dark", "defect", "eer_sampling")


class CorrectionsCache:
    """Corrections of the last movie, reused until their files, the settings or the kind of movie change."""

    def __init__(self) -> None:
        self._key: Tuple[object, ...] = ()
        self._corrections: Optional[Corrections] = None

    def get(self, movie: Movie, settings: Settings) -> Corrections:
        """As `load_corrections`, without reading again if nothing changed."""
        names = [f.name for f in fields(settings) if f.name.startswith(DECISIVE_SETTINGS)]
        values = [getattr(settings, name) for name in names]
        key = (
            movie.kind,
            movie.top_row_first,
            movie.shape[1:],
            [(v, file_state(v) if isinstance(v, str) else None) for v in values],
        )
        if self._corrections is None or key != self._key:
            self._corrections, self._key = load_corrections(movie, settings), key
        return self._corrections
