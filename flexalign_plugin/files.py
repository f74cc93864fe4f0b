"""Writes files atomically: under a temporary name first, renamed when they are complete.

A movie's result is several files. `OutputFiles` gives them their final names together, after the last one is written;
if anything fails (disk full, permissions, an exception) none of them appears.
"""

from __future__ import annotations

import errno
import glob
import os
import secrets
from contextlib import contextmanager
from types import TracebackType
from typing import Callable, Dict, Iterator, List, Optional, Type

from .errors import OutputError
from .result_files import STARTS

_TEMPORARY_ENDING = ".part"
_ANOTHER_FOLDER = "choose another output folder"
# {error number of the operating system: (reason, what to do)}
_REASONS = {
    errno.ENOSPC: ("the disk is full", f"free some space or {_ANOTHER_FOLDER}"),
    errno.EDQUOT: ("your disk quota is used up", f"free some space or {_ANOTHER_FOLDER}"),
    errno.EFBIG: ("the file is larger than the system allows", f"raise the limit or {_ANOTHER_FOLDER}"),
    errno.EACCES: ("you have no permission to write there", f"change the folder's permissions or {_ANOTHER_FOLDER}"),
    errno.EPERM: ("you have no permission to write there", f"change the folder's permissions or {_ANOTHER_FOLDER}"),
    errno.EROFS: ("the disk is mounted read-only", _ANOTHER_FOLDER),
    errno.ENOENT: ("its folder does not exist", "create the folder or choose another one"),
    errno.ENOTDIR: ("a part of this path is a file, not a folder", _ANOTHER_FOLDER),
    errno.EEXIST: ("there is a file with the name of the folder", f"remove the file or {_ANOTHER_FOLDER}"),
    errno.EISDIR: ("there is a folder of this name", f"remove the folder or {_ANOTHER_FOLDER}"),
    errno.ERANGE: ("its values are too large for 16-bit floats", "write 32-bit floats"),
    errno.ENAMETOOLONG: ("the name is too long for this disk", "shorten the movie's name"),
}


def output_error(path: str, error: OSError) -> OutputError:
    """The failure to write `path` as one sentence for the user."""
    reason, remedy = _REASONS.get(error.errno or 0, (error.strerror or str(error), _ANOTHER_FOLDER))
    return OutputError(f"{path}: can't be written because {reason}: {remedy}.")


def prepare_folder(folder: str) -> None:
    """Create `folder` if it is missing; OutputError if it can't be created or is not writable."""
    folder = folder or "."
    try:
        os.makedirs(folder, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
            raise OSError(errno.EROFS if read_only else errno.EACCES, "")
    except OSError as error:
        raise output_error(folder, error) from error


def remove_leftovers(folder: str, root: str) -> List[str]:
    """Remove temporary files that a killed process left for the results `<root>_*`; returns their paths."""
    leftovers = []
    for start in STARTS:
        leftovers += glob.glob(os.path.join(glob.escape(folder), f".{glob.escape(root)}{start}*{_TEMPORARY_ENDING}"))
    for path in leftovers:
        _remove(path)
    return leftovers


def remove_all_leftovers(folder: str, but: str = "") -> None:
    """Remove every temporary file in `folder`; no process may be writing to it, except for the file named `but`."""
    for path in glob.glob(os.path.join(glob.escape(folder), f".*{_TEMPORARY_ENDING}")):
        if not but or not os.path.basename(path).startswith(f".{but}."):
            _remove(path)


class OutputFiles:
    """The files of one result, of which either all or none are written.

    with OutputFiles(folder) as out:
        with out.file("a.mrc") as temporary:
            ...write to the path `temporary`...

    Final names appear when the outer block ends without an exception, in the order of the calls to `file`.
    """

    def __init__(self, folder: str, before_rename: Optional[Callable[[], None]] = None) -> None:
        """before_rename : called when all files are on the disk; if it raises an exception, none appears."""
        self._folder = folder
        self._before_rename = before_rename
        self._temporary: Dict[str, str] = {}

    def __enter__(self) -> OutputFiles:
        prepare_folder(self._folder)
        return self

    @contextmanager
    def file(self, name: str) -> Iterator[str]:
        """Temporary path to write to; an OSError while writing becomes an OutputError that names the final path."""
        final = os.path.join(self._folder, name)
        # Random, not the process id, because jobs on several nodes share a folder. Hidden (it begins with a dot), so
        # that patterns for results don't match it.
        temporary = os.path.join(self._folder, f".{name}.{secrets.token_hex(4)}{_TEMPORARY_ENDING}")
        self._temporary[final] = temporary
        with _named(final):
            yield temporary

    def sizes(self) -> Dict[str, int]:
        """{name: bytes} of the files that are written."""
        return {os.path.basename(final): os.path.getsize(path) for final, path in self._temporary.items()}

    def __exit__(
        self, kind: Optional[Type[BaseException]], value: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        try:
            if kind is None:
                # All data are on the disk before the first name appears: after a power failure a name never stands for
                # an empty file.
                for final, temporary in self._temporary.items():
                    with _named(final):
                        _to_disk(temporary)
                if self._before_rename is not None:
                    self._before_rename()
                for final, temporary in self._temporary.items():
                    with _named(final):
                        os.replace(temporary, final)
                with _named(self._folder):
                    _to_disk(self._folder or ".")
        finally:
            for temporary in self._temporary.values():
                _remove(temporary)


@contextmanager
def atomic_path(path: str) -> Iterator[str]:
    """Temporary path next to `path`: renamed to `path` when the block succeeds, removed when it fails."""
    folder, name = os.path.split(os.fspath(path))
    with OutputFiles(folder) as out, out.file(name) as temporary:
        yield temporary


@contextmanager
def _named(final: str) -> Iterator[None]:
    """An OSError in the block becomes an OutputError that names the path `final`."""
    try:
        yield
    except OSError as error:
        raise output_error(final, error) from error


def _to_disk(path: str) -> None:
    """Wait until the content of a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems can't do this for folders.
        if not (os.path.isdir(path) and error.errno in (errno.EINVAL, errno.ENOTSUP)):
            raise
    finally:
        os.close(descriptor)


def _remove(path: str) -> None:
    if os.path.exists(path):
        os.remove(path)
