"""Readers of movies, gain, dark and defects: `open_movie`, `load_corrections`, `find_hot_pixels`, `neighbour_table`."""

from __future__ import annotations

from .corrections import Corrections, load_corrections
from .defects import find_hot_pixels, neighbour_table, replace_defects
from .movie import Movie
from .reading import open_movie

__all__ = [
    "Corrections",
    "Movie",
    "find_hot_pixels",
    "load_corrections",
    "neighbour_table",
    "replace_defects",
    "open_movie",
]
