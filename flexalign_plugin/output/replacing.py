"""Which existing files a result may replace: those of an earlier result of the same movie.

Movies of one name may come from several folders, and a folder of raw movies may be the output folder. A result
therefore never replaces that of another movie, which its `_motion.json` names, nor an image that FlexAlign has not
written.
"""

from __future__ import annotations

import os
from typing import Optional

from ..errors import MovieError, OutputError
from ..inputs import read_json
from ..movies.mrc import HEADER_BYTES, looks_like_mrc
from ..movies.reading import first_bytes, is_movie_start
from ..result_files import ENDINGS, MOTION

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


def is_foreign_image(path: str) -> bool:
    """Whether the file is a movie or an MRC image of another program."""
    try:
        start = first_bytes(path, HEADER_BYTES)
    except MovieError:  # empty, or no regular file
        return False
    return is_movie_start(start) and not (looks_like_mrc(start) and PROGRAM_MARK in start)
