"""`open_movie`: recognises the format of a movie by its first bytes and opens it with the right reader."""

from __future__ import annotations

import os
import stat
from typing import List

from ..errors import MovieError
from ..inputs import file_state, open_regular
from ..settings import Settings
from .compressed import OPENERS, CompressedMrcMovie
from .eer import SKIP_AND_SUBPIXEL_BITS, EerMovie
from .movie import TRUNCATED_ADVICE, Movie
from .mrc import HEADER_BYTES, MrcMovie, looks_like_mrc
from .tiff import MAGIC as TIFF_MAGIC
from .tiff import TiffMovie, read_pages

KINDS = "MRC (also .bz2, .gz), TIFF or EER"


def open_movie(path: str, settings: Settings) -> Movie:
    """Open a movie for reading; no frame is decoded yet.

    Parameters
    ----------
    path : MRC, MRCS, TIFF, EER, or MRC compressed with bzip2 or gzip; recognised by content, not by name.
    settings : `n_frames` and `eer_sampling` define how an EER movie is rendered, `flip_tiff` how a TIFF movie is read;
        `low_memory`: MRC files are not mapped.

    Raises
    ------
    MovieError : the file is missing, empty, truncated, damaged, or not a movie.
    """
    path = os.fspath(path)
    state = file_state(path)  # before the first byte is read
    movie = _opened(path, settings)
    movie.state = state
    return movie


def _opened(path: str, settings: Settings) -> Movie:
    start = first_bytes(path, HEADER_BYTES)
    try:
        if start[:4] in TIFF_MAGIC:
            pages = read_pages(path)
            if pages.cut and not settings.use_whole_frames:
                raise MovieError(f"{path}: {pages.cut}: {TRUNCATED_ADVICE}")
            notes: List[str] = []
            file = open(path, "rb")
            try:
                movie: Movie
                if any(page.compression in SKIP_AND_SUBPIXEL_BITS for page in pages.pages):
                    movie = EerMovie(path, file, pages, settings, notes)
                else:
                    movie = TiffMovie(path, file, pages.pages, notes, settings.flip_tiff)
                if pages.cut:
                    kind = "hardware frames" if movie.kind == "EER" else "frames"
                    movie.warnings.append(f"The file is {pages.cut}: its {len(pages.pages)} complete {kind} are used.")
                    if settings.total_dose is not None and movie.n_recorded <= len(pages.pages):
                        movie.warnings.append(
                            f"The file does not tell how many {kind} were recorded, so the dose of the whole movie was "
                            f"taken as that of the {len(pages.pages)} complete ones: give the dose per frame."
                        )
                return movie
            except BaseException:
                file.close()
                raise
        if start[:2] in OPENERS:
            return CompressedMrcMovie(path, start[:2])
        if looks_like_mrc(start):
            return MrcMovie(path, start, settings.use_whole_frames, mapped=not settings.low_memory)
    except OSError as error:
        raise MovieError(f"{path}: can't be read ({error.strerror}): check the disk or the network mount.") from error
    if path.lower().endswith((".mrc", ".mrcs")):
        raise MovieError(
            f"{path}: its MRC header is truncated or damaged: copy the file again, or give another one if this "
            "is not a movie."
        )
    raise MovieError(f"{path}: its content is neither {KINDS}: give a file in one of these formats.")


def is_movie_start(start: bytes) -> bool:
    """Whether a file that begins with these bytes may be a movie in one of the formats that we read."""
    return start[:4] in TIFF_MAGIC or start[:2] in OPENERS or looks_like_mrc(start)


def first_bytes(path: str, n: int) -> bytes:
    """The first `n` bytes of a file, fewer if it is shorter.

    Raises
    ------
    MovieError : the file is missing, empty or can't be read.
    """
    try:
        if os.path.islink(path) and not os.path.exists(path):
            raise MovieError(f"{path}: broken link to {os.readlink(path)}: restore that file or remove the link.")
        if stat.S_ISDIR(os.stat(path).st_mode):
            raise MovieError(f"{path}: is a folder: give a file inside it.")
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise MovieError(f"{path}: is not a regular file: give a file on a disk.")
        with open_regular(path) as file:
            start = file.read(n)
    except ValueError as error:
        raise MovieError(f"{path!r}: is no name of a file ({error}): check the name.") from error
    except FileNotFoundError as error:
        raise MovieError(f"{path}: no such file: check the name, or whether the disk is mounted.") from error
    except OSError as error:
        raise MovieError(f"{path}: can't be opened ({error.strerror}): check its permissions and the disk.") from error
    if not start:
        raise MovieError(f"{path}: is empty (0 bytes): copy the file again.")
    return start
