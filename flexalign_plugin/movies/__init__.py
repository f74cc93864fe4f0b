"""Readers of movies, gain, dark and defects: `open_movie`, `load_corrections`, `find_hot_pixels`, `neighbour_table`."""

from __future__ import annotations

from .corrections import Corrections, load_corrections
from .defects import find_hot_pixels, neighbour_table, replace_defects
from .eer_metadata import EerMetadata, read_eer_metadata
from .exposure import settings_of_frames
from .movie import Movie
from .reading import open_movie

__all__ = [
    "Corrections",
    "EerMetadata",
    "Movie",
    "find_hot_pixels",
    "load_corrections",
    "neighbour_table",
    "open_movie",
    "read_eer_metadata",
    "replace_defects",
    "settings_of_frames",
]
