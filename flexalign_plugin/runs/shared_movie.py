"""Which frames of one movie belong to which tilt, if the camera recorded a whole tilt series into one file.

SerialEM's `FrameTSStartEndFrames` counts the frames that the camera acquired, from the first one that was saved. Frames
while the stage tilts need not be saved; then a list of the saved frames (`<movie>_saved.txt`, one number for each frame
of the movie, negative for one without image) says which they are.
"""

from __future__ import annotations

import os
from typing import List, Optional, Sequence, Tuple

from ..errors import MovieError
from ..inputs import read_text

Span = Tuple[int, int]  # first and last number of `FrameTSStartEndFrames`
SAVED_LIST = "_saved.txt"


def frames_of_tilts(spans: Sequence[Span], n_frames: int, saved: Optional[Sequence[int]] = None) -> List[range]:
    """0-based frames of the movie that show each tilt; without a list of saved frames those that surely do.

    Parameters
    ----------
    spans : of the tilts, in the order of recording. n_frames : in the movie. saved : content of the list.

    Raises
    ------
    ValueError : spans, movie and list don't fit together; the text says why and what to do.
    """
    if any(first < 0 or last <= first for first, last in spans) or list(spans) != sorted(spans):
        raise ValueError("its FrameTSStartEndFrames are no rising numbers of frames: check the .mdoc")
    if saved is not None:
        return _from_list(spans, n_frames, saved)
    touching = all(later[0] == earlier[1] + 1 for earlier, later in zip(spans, spans[1:]))
    if n_frames >= spans[-1][1]:
        # Every frame was saved. The last frame of a span still belongs to the tilt if the next one follows at once;
        # else the stage moves in it.
        return [range(first, min(last + touching, n_frames)) for first, last in spans]
    lengths = [last - first for first, last in spans]
    spare = n_frames - sum(lengths)
    if not 0 <= spare <= len(spans):
        raise ValueError(
            f"its {len(spans)} tilts need {sum(lengths)} to {sum(lengths) + len(spans)} frames, but it has {n_frames}: "
            f"put the list of saved frames (<movie>{SAVED_LIST}) next to it"
        )
    # Each tilt has one frame more or not, and `spare` of them do. Frames that may belong to a neighbour are left out.
    found, before = [], 0
    for k, length in enumerate(lengths):
        most, least = min(k, spare), max(0, spare - (len(spans) - k - 1))
        found.append(range(before + most, before + length + least))
        before += length
    if min(map(len, found)) < 2:
        raise ValueError(
            "it is not clear which of its frames belong to which tilt: put the list of saved frames "
            f"(<movie>{SAVED_LIST}) next to it"
        )
    return found


def _from_list(spans: Sequence[Span], n_frames: int, saved: Sequence[int]) -> List[range]:
    if len(saved) != n_frames:
        raise ValueError(
            f"its list of saved frames has {len(saved)} numbers, but the movie has {n_frames} frames: give the list of "
            "this movie"
        )
    runs: List[range] = []  # of frames that follow each other
    for i, acquired in enumerate(saved):
        if acquired < 0:
            continue
        if runs and runs[-1].stop == i and saved[i - 1] == acquired - 1:
            runs[-1] = range(runs[-1].start, i + 1)
        else:
            runs.append(range(i, i + 1))
    runs = [run for run in runs if len(run) > 1 or len(runs) == len(spans)]
    if not runs:
        raise ValueError("its list of saved frames names none: give the list of this movie")
    if len(runs) == len(spans):
        return runs
    start = saved[runs[0].start]
    found = []
    for first, last in spans:
        inside = [i for run in runs for i in run if first <= saved[i] - start < last]
        found.append(range(inside[0], inside[-1] + 1) if inside else range(0))
    return found


def read_saved_list(movie: str) -> Optional[List[int]]:
    """Content of `<movie>_saved.txt` next to a movie; None if there is none.

    Raises
    ------
    MovieError : it can't be read, or contains anything but whole numbers.
    """
    path = os.path.splitext(movie)[0] + SAVED_LIST
    if not os.path.exists(path):
        return None
    try:
        return [int(line.split()[0]) for line in read_text(path, errors="replace").splitlines() if line.strip()]
    except OSError as error:
        raise MovieError(f"{path}: can't be read ({error.strerror}): check its permissions.") from error
    except ValueError as error:
        raise MovieError(
            f"{path}: is no list of saved frames, with one whole number on each line ({error})."
        ) from error
