"""Checks of a movie before its alignment: empty or damaged frames, hot pixels, the gain's orientation."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Dict, List

import numpy as np

from ..backend import Backend, FrameSource
from ..errors import MovieError
from ..sanity import InputFacts
from ..settings import Settings
from .corrections import Corrections
from .counting import input_facts
from .dead_pixels import find_dead_pixels, whole_lines
from .defects import find_hot_pixels, neighbour_table, replace_defects
from .gain_orientation import orientation_warnings
from .movie import Movie

MIN_FRAME_PX = 16
MAX_VALUE = 1e12  # of a corrected pixel: beyond it the sums of squares lose their precision or overflow
NAMED_FRAMES = 5  # frames listed in an error; further ones are only counted


@dataclass(frozen=True)
class Inspection:
    """Result of the checks of a movie.

    Attributes
    ----------
    source : its frames with all corrections, hot pixels included.
    mean : (ny, nx) float32, mean of the corrected frames without motion correction.
    fill : (n_aligned,) mean of each aligned frame after the corrections, used for pixels that the frame does not cover.
    defects_px : (n, 2) int32, row and column of the pixels that are replaced in every frame.
    defect_counts : {source: number of pixels that it marks}.
    notes, warnings : sentences for the user.
    facts : what was typed and what the movie holds.
    """

    source: FrameSource
    mean: np.ndarray
    fill: np.ndarray
    defects_px: np.ndarray
    defect_counts: Dict[str, int]
    notes: List[str]
    warnings: List[str]
    facts: InputFacts


def check_size(movie: Movie) -> None:
    """MovieError if the frames are too small to be aligned."""
    _, ny, nx = movie.shape
    if min(ny, nx) < MIN_FRAME_PX:
        raise MovieError(
            f"{movie.path}: its frames of {nx} x {ny} pixels are too small to be aligned, at least {MIN_FRAME_PX} x "
            f"{MIN_FRAME_PX} are needed: check that the file is a movie."
        )


def inspect(movie: Movie, backend: Backend, corrections: Corrections, aligned: range, settings: Settings) -> Inspection:
    """Check the frames `aligned` (0-based).

    Raises
    ------
    MovieError : a frame is empty or holds NaN or infinite values.
    """
    plain = FrameSource(movie, corrections.dark, corrections.gain, None)
    total, means = backend.sum_raw(plain, aligned)
    _check_frames(movie, aligned, means)
    total /= len(aligned)
    warnings = orientation_warnings(total, corrections, settings)
    mean = total if plain.dark is None and plain.gain is None else backend.correct(plain, total)
    defects, notes = corrections.defects, []
    if settings.remove_hot_pixels:
        hot = find_hot_pixels(mean, defects)
        known = hot if defects is None else hot | defects
        hot |= find_dead_pixels(movie, aligned, total, mean, plain.gain, known)
        count = np.count_nonzero(hot)
        if count:
            lines = whole_lines(hot)
            among = f", among them {lines}" if lines else ""
            notes.append(f"{count} hot or dead pixels were found in the movie and replaced{among}.")
        defects = hot if defects is None else hot | defects
    source = plain
    defects_px = np.zeros((0, 2), np.int32)
    if defects is not None and defects.any():
        table = neighbour_table(defects)
        source = dataclasses.replace(plain, defects=table)
        replace_defects(mean, table)
        defects_px = np.stack([table.rows, table.cols], axis=1).astype(np.int32)
    largest = float(np.abs(mean).max())
    if not largest <= MAX_VALUE:
        raise MovieError(
            f"{movie.path}: its pixels have values up to {largest:g}, more than {MAX_VALUE:g}: the file is damaged or "
            "its gain is wrong; write it again or check the gain."
        )
    dark = 0.0 if corrections.dark is None else float(corrections.dark.mean())
    level = float(means.mean()) - dark
    fill = (means - dark) * (float(mean.mean()) / level if level else 1.0)
    known = 0 if corrections.defects is None else int(np.count_nonzero(corrections.defects))
    counts = {**corrections.counts, "hot_or_dead": len(defects_px) - known}
    facts = input_facts(movie, settings, corrections.gain, aligned, float(means.mean()))
    return Inspection(source, mean, fill, defects_px, counts, notes, warnings, facts)


def _check_frames(movie: Movie, aligned: range, means: np.ndarray) -> None:
    broken = _frame_list(aligned, ~np.isfinite(means))
    if broken:
        raise MovieError(
            f"{movie.path}: {broken} holds pixels that are not numbers (NaN or infinite): "
            "the file is damaged, write it again or leave these frames out of the range to align."
        )
    # Frames around a background of 0 may have a mean of 0 too.
    empty = _frame_list(aligned, np.array([mean == 0 and not movie.frame(t).any() for t, mean in zip(aligned, means)]))
    if empty:
        damage = "".join(f" {sentence}" for sentence in movie.damage())
        raise MovieError(
            f"{movie.path}: {empty} is empty (all pixels are 0): "
            f"check the recording, or leave these frames out of the range to align.{damage}"
        )


def _frame_list(aligned: range, marked: np.ndarray) -> str:
    """The marked frames as text, numbered from 1; empty if there are none."""
    numbers = [str(aligned[k] + 1) for k in np.flatnonzero(marked)]
    if len(numbers) > NAMED_FRAMES:
        return f"frame {', '.join(numbers[:NAMED_FRAMES])} and {len(numbers) - NAMED_FRAMES} more"
    return f"frame {', '.join(numbers)}" if numbers else ""
