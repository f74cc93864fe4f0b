"""Standard output and error that may fail without ending the work: a full disk, a closed terminal, `| head`."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from typing import Any, Iterator, List, Optional, TextIO


class LastingStream:
    """A text stream. After the first error everything written to it is discarded; `error` keeps that error."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.error: Optional[OSError] = None

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except OSError as error:
            self._discard(error)
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._discard(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _discard(self, error: OSError) -> None:
        self.error = self.error or error
        # Python would try to write its buffer again when it ends, and report the error then.
        with contextlib.suppress(OSError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)


@contextlib.contextmanager
def lasting_streams() -> Iterator[List[LastingStream]]:
    """Replace standard output and error by `LastingStream`s, which it returns, until the block ends."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # closed by `2>&-`: else the next file would get its number, and what libraries print
            os.open(os.devnull, os.O_RDWR)
    before = sys.stdout, sys.stderr
    streams = [LastingStream(stream or open(os.devnull, "w")) for stream in before]
    sys.stdout, sys.stderr = streams  # type: ignore[assignment]
    try:
        yield streams
    finally:
        for stream in streams:
            stream.flush()
        sys.stdout, sys.stderr = before


def problem(streams: List[LastingStream]) -> Optional[str]:
    """A sentence if something could not be written; empty if a reader left on purpose (`| head`), None if all was."""
    errors = [stream.error for stream in streams if stream.error is not None]
    if not errors:
        return None
    if errors[0].errno == errno.EPIPE:
        return ""
    return f"messages could not be written ({errors[0].strerror}); result files are not affected."
