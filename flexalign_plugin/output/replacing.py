"""Which existing files a result may replace: those of an earlier result of the same movie.

Movies of one name may come from several folders, and a folder of raw movies may be the output folder. A result
therefore never replaces that of another movie, which its `_motion.json` names, nor an image or a list of micrographs
that FlexAlign has not written.
"""

from __future__ import annotations

import os
from typing import Iterator, List, Optional

from ..errors import MovieError, OutputError
from ..inputs import read_json, read_text
from ..movies.mrc import HEADER_BYTES, looks_like_mrc
from ..movies.reading import first_bytes, is_movie_start
from ..result_files import CORRECTED_MICROGRAPHS, ENDINGS, MICROGRAPH, MICROGRAPH_WEIGHTED, MOTION
from ..star_format import words

PROGRAM_MARK = b"FlexAlign"  # in the labels of every MRC file that we write


def movie_of(folder: str, root: str) -> Optional[str]:
    """Absolute path of the movie whose result has the names `<root>_*`; None if there is none or it can't be read."""
    try:
        content = read_json(os.path.join(folder, root + MOTION))
    except (OSError, ValueError):
        return None
    # Results of 1.0.0 have only the path as it was given.
    path = (content.get("movie_path") or content.get("movie")) if isinstance(content, dict) else None
    return os.path.abspath(path) if isinstance(path, str) else None


def is_same_movie(path: str, other: str) -> bool:
    """Whether two paths are the same file, also through links."""
    return os.path.abspath(path) == os.path.abspath(other) or os.path.realpath(path) == os.path.realpath(other)


def check_replaceable(folder: str, root: str, movie: str, keep_others: bool) -> None:
    """Check the names `<root>_*` before the result of `movie` is written to them.

    Parameters
    ----------
    keep_others : whether a result of another movie is kept; False in a folder in which the caller manages the names.

    Raises
    ------
    OutputError : one of the names is that of an image that FlexAlign has not written, such as a raw movie, or of the
        result of another movie.
    """
    owner = movie_of(folder, root) if keep_others else None
    if owner is not None and not is_same_movie(owner, movie):
        raise OutputError(
            f"{os.path.join(folder, root + MOTION)}: is the result of another movie, {owner}, and is kept: align this "
            "movie again, and its result gets another name."
        )
    for ending in ENDINGS:
        path = os.path.join(folder, root + ending)
        if os.path.exists(path) and is_foreign_image(path):
            raise OutputError(
                f"{path}: is an image that FlexAlign has not written, perhaps a raw movie, and is kept: choose another "
                "output folder."
            )


def check_list_replaceable(folder: str) -> None:
    """OutputError if RELION's list in the folder has micrographs of another program, which the new list would lack."""
    path = os.path.join(folder, CORRECTED_MICROGRAPHS)
    try:
        text = read_text(path, errors="surrogateescape")
    except OSError:  # none, or nothing that can be read
        return
    for name in _listed_micrographs(text):
        if not name.endswith((MICROGRAPH, MICROGRAPH_WEIGHTED)):
            raise OutputError(
                f"{path}: lists micrographs of another program, such as {name}, and is kept: choose another output "
                "folder, or leave out the list for RELION (--no-corrected-star)."
            )


def _listed_micrographs(text: str) -> Iterator[str]:
    """Values of rlnMicrographName in the loops of a STAR file."""
    labels: List[str] = []
    for line in text.split("\n"):
        row = words(line)
        if row and (row[0].startswith("data_") or row[0] == "loop_"):
            labels = []
        elif row and line.startswith("_rln"):
            labels.append(row[0])
        elif "_rlnMicrographName" in labels and len(row) == len(labels):
            yield row[labels.index("_rlnMicrographName")]


def is_foreign_image(path: str) -> bool:
    """Whether the file is a movie or an MRC image of another program."""
    try:
        start = first_bytes(path, HEADER_BYTES)
    except MovieError:  # empty, or no regular file
        return False
    return is_movie_start(start) and not (looks_like_mrc(start) and PROGRAM_MARK in start)
