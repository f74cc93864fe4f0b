"""The text of STAR files: words, quotes, lists and loops, as RELION, starfile and Scipion read them."""

from __future__ import annotations

import re
from typing import Any, Iterator, List, Match, Optional, Sequence, Tuple

from .errors import MovieError
from .inputs import printable

_CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")
# Blanks, quotes and characters with a meaning of their own, in RELION or in other readers; beginnings of other lines.
_NEEDS_QUOTES = re.compile(r"""^$|[\s"'#\\]|^(_|;|data_|loop_|save_|stop_|global_)""")
_WORD = re.compile(r"""'(.*?)'(?=\s|$)|"(.*?)"(?=\s|$)|(\S+)""")


def is_sayable(text: str) -> bool:
    """Whether a STAR file can hold the text so that RELION, starfile and Scipion read the same: on one line, in one
    kind of quotes."""
    return not _CONTROL.search(text) and not ('"' in text and "'" in text)


def check_sayable(*texts: Optional[str]) -> None:
    """MovieError if a STAR file can't hold one of the texts; see `is_sayable`."""
    for text in texts:
        if text and not is_sayable(text):
            raise MovieError(
                f"{printable(text)}: this name has a line break, another control character or both kinds of quotes, "
                "which a STAR file can't hold: rename the file or its folder."
            )


def words(line: str) -> List[str]:
    """Values on a line of a STAR file, without quotes and comment. A quote ends before a blank, as in RELION."""
    return [next(part for part in match.groups() if part is not None) for match in _matches(line)]


def written_words(line: str) -> List[str]:
    """Values on a line of a STAR file as they are written, with their quotes, but without comment."""
    return [match[0] for match in _matches(line)]


def _matches(line: str) -> Iterator[Match[str]]:
    for match in _WORD.finditer(line):
        if match[0].startswith("#"):
            return
        yield match


def star_list(name: str, pairs: Sequence[Tuple[str, Any]]) -> str:
    return f"data_{name}\n\n" + "".join(f"_{key:<34} {quoted(value)}\n" for key, value in pairs)


def star_loop(name: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"_{column} #{i + 1}\n" for i, column in enumerate(columns))
    # Quotes for a whole column: some readers look at the first row to decide whether there are any.
    in_quotes = [any(_NEEDS_QUOTES.search(str(row[i])) for row in rows) for i in range(len(columns))]
    lines = (" ".join(f"{quoted(v, always):>14}" for v, always in zip(row, in_quotes)) + "\n" for row in rows)
    return f"data_{name}\n\nloop_\n{head}" + "".join(lines)


def quoted(value: Any, always: bool = False) -> str:
    """The value for a STAR file, in quotes if it needs them. always : in any case.

    Raises
    ------
    MovieError : a STAR file can't hold it.
    """
    text = str(value)
    check_sayable(text)
    if not always and not _NEEDS_QUOTES.search(text):
        return text
    # Some readers take a backslash in double quotes for the beginning of an escape.
    quote = "'" if ('"' in text or "\\" in text) and "'" not in text else '"'
    return f"{quote}{text}{quote}"
