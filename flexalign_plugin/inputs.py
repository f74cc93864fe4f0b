"""Reads small files of unknown origin: regular files only, and no more than a stated number of bytes.

A pipe would block the run for ever, and a device such as /dev/zero never ends. Every text and JSON file is therefore
opened here, and what is in a JSON file is checked against the types of a dataclass. Movies have readers of their own.
"""

from __future__ import annotations

import collections.abc
import errno
import json
import math
import os
import re
import stat
from functools import lru_cache
from typing import (
    Any,
    BinaryIO,
    Callable,
    Dict,
    Optional,
    Tuple,
    Type,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

T = TypeVar("T")

TEXT_BYTES = 64_000_000  # lists of movies, .mdoc, coordinates, tables
JSON_BYTES = 256_000_000  # results, records, requests and reports; a large movie's result has about 2 MB
MAX_DIGITS = 4000  # of an integer: Python refuses to convert more than 4300


State = Optional[Tuple[int, int]]


def file_state(path: str) -> State:
    """Size in bytes and modification time in ns; None if there is no file."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # ValueError: no name of a file
        return None
    return status.st_size, status.st_mtime_ns


def open_regular(path: str) -> BinaryIO:
    """Open a regular file for reading bytes.

    Raises
    ------
    OSError : it can't be opened, or is a pipe, a socket, a device or a folder; `strerror` is the reason.
    """
    # O_NONBLOCK: opening a pipe would wait for its other end. It has no effect on regular files.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise OSError(errno.EISDIR, "it is a folder", path)
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is not a regular file", path)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_bytes(path: str, max_bytes: int) -> bytes:
    """The whole content of a regular file; OSError also if it has more than `max_bytes`."""
    with open_regular(path) as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise OSError(errno.EFBIG, f"it has more than {max_bytes / 1e6:g} MB", path)
    return content


def read_text(path: str, max_bytes: int = TEXT_BYTES, errors: str = "strict") -> str:
    """The UTF-8 text of a regular file, with \\n at the end of each line.

    Raises
    ------
    OSError : as `read_bytes`. UnicodeDecodeError : it is no text, if `errors` is "strict".
    """
    text = read_bytes(path, max_bytes).decode("utf-8", errors)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: str, max_bytes: int = JSON_BYTES) -> Any:
    """The value of a JSON file; see `json_value`.

    Raises
    ------
    OSError : as `read_bytes`. ValueError : it is not valid JSON.
    """
    return json_value(read_text(path, max_bytes))


def json_value(text: str) -> Any:
    """The value of a JSON text. Numbers beyond the range of a float become None, as in the files that we write.

    Raises
    ------
    ValueError : the text is not valid JSON, or nested too deeply.
    """
    try:
        return json.loads(text, parse_float=_finite_float, parse_int=_finite_int, parse_constant=lambda _: None)
    except RecursionError as error:
        raise ValueError("its brackets are nested too deeply") from error


def _finite_float(text: str) -> Optional[float]:
    value = float(text)
    return value if math.isfinite(value) else None


def _finite_int(text: str) -> Optional[int]:
    return int(text) if len(text) <= MAX_DIGITS and _finite_float(text) is not None else None


def dataclass_of(cls: Type[T], values: Any, ignore_unknown: bool = False) -> T:
    """An instance of the dataclass `cls` from the values of a JSON object.

    Parameters
    ----------
    ignore_unknown : whether names that are not fields are ignored, instead of refused.

    Raises
    ------
    ValueError : a value does not have the type of its field, a number is not finite, or a name is missing or unknown.
    """
    if not isinstance(values, dict):
        raise ValueError("it is not a list of names and values")
    hints: Dict[str, Any] = _types_of_fields(cls)  # type: ignore[arg-type]
    unknown = sorted(str(name) for name in values if name not in hints)
    if unknown and not ignore_unknown:
        raise ValueError(f"this version does not know {cut(', '.join(unknown))}")
    known = {name: value for name, value in values.items() if name in hints}
    for name, value in known.items():
        if not has_type(value, hints[name]):
            raise ValueError(f"its {name} is {shortened(value)}")
    try:
        return cls(**known)
    except TypeError as error:
        raise ValueError(str(error)) from error


@lru_cache(maxsize=None)
def _types_of_fields(cls: type) -> Dict[str, Any]:
    return get_type_hints(cls)


def has_type(value: Any, hint: Any) -> bool:
    """Whether a JSON value is of a type such as `Optional[Dict[str, List[float]]]`. Numbers must be finite."""
    return _check_of(hint)(value)


@lru_cache(maxsize=None)
def _check_of(hint: Any) -> Callable[[Any], bool]:
    """The check of a type, put together once: a report reads thousands of results with hundreds of numbers each."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Union:
        first, rest = _check_of(arguments[0]), _check_of(Union[arguments[1:]])
        return lambda value: first(value) or rest(value)
    if origin in (list, collections.abc.Sequence):
        item = _check_of(arguments[0])
        return lambda value: isinstance(value, list) and all(map(item, value))
    if origin is tuple and Ellipsis in arguments:
        item = _check_of(arguments[0])
        return lambda value: isinstance(value, (list, tuple)) and all(map(item, value))
    if origin is tuple:
        items = [_check_of(argument) for argument in arguments]
        return lambda value: (
            isinstance(value, (list, tuple))
            and len(value) == len(items)
            and all(check(part) for check, part in zip(items, value))
        )
    if origin in (dict, collections.abc.Mapping):
        key, item = map(_check_of, arguments)
        return lambda value: isinstance(value, dict) and all(map(key, value)) and all(map(item, value.values()))
    if hint is float:
        return lambda value: (
            isinstance(value, (int, float)) and not isinstance(value, bool) and -math.inf < value < math.inf
        )
    if hint is int:
        return lambda value: isinstance(value, int) and not isinstance(value, bool)
    if hint in (Any, object):
        return lambda value: True
    return lambda value: isinstance(value, hint)


def shortened(value: Any) -> str:
    """The value as Python writes it, for an error message."""
    try:
        return cut(repr(value))
    except ValueError:  # a whole number with more digits than Python converts
        return "a number of thousands of digits"


def cut(text: str, most: int = 60) -> str:
    """At most `most` characters of the text."""
    return text if len(text) <= most else text[: most - 3] + "..."


def printable(text: str) -> str:
    """The text on one line: control characters as Python writes them."""
    return re.sub(r"[\x00-\x1f\x7f\x85\u2028\u2029]", lambda match: repr(match[0])[1:-1], text)
