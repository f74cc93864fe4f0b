"""`njit`: numba's decorator, with a cache of the compiled code that can only save time, never fail.

numba's own cache ends the call if its folder is full or can't be written, or if one of its files is damaged, which a
power failure or a full disk leaves behind.
"""

from __future__ import annotations

import contextlib
import logging
from typing import Any, Callable, Set

import numba
from numba.core.caching import FunctionCache

logger = logging.getLogger(__name__)
_warned: Set[str] = set()
NO_FOLDER = (
    "Compiled code can't be kept (%s), so every process compiles it again, which takes half a minute: free space, or "
    "set NUMBA_CACHE_DIR to a folder that can be written."
)
DAMAGED = "The compiled code in %s is damaged (%s): it is made again."


def njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """As `numba.njit(cache=True, ...)`."""

    def decorate(function: Callable[..., Any]) -> Any:
        compiled = numba.njit(**options)(function)
        try:
            compiled._cache = _Cache(function)
        except Exception as error:  # numba raises a RuntimeError if no folder can be written
            _warn(NO_FOLDER, error)
        return compiled

    return decorate


class _Cache(FunctionCache):  # type: ignore[misc]
    """A cache that is made again when it can't be read, and left alone when it can't be written."""

    def load_overload(self, *arguments: Any) -> Any:
        try:
            return super().load_overload(*arguments)
        except Exception as error:  # unpickling damaged bytes raises any error
            _warn(DAMAGED, self.cache_path, error)
            with contextlib.suppress(OSError):  # reported when the new code is saved
                self.flush()
            return None

    def save_overload(self, *arguments: Any) -> None:
        try:
            super().save_overload(*arguments)
        except Exception as error:
            _warn(NO_FOLDER, error)


def _warn(text: str, *values: object) -> None:
    """Log the warning, only once in a process: there are about 30 functions."""
    if text not in _warned:
        _warned.add(text)
        logger.warning(text, *[f"{type(v).__name__}: {v}" if isinstance(v, Exception) else v for v in values])
