"""`failed.tsv`: the movies, or the particles, of a run that could not be aligned, each with its reason."""

from __future__ import annotations

from typing import Iterable, List, Tuple, Union

from ..files import atomic_path
from ..inputs import printable, read_text


def read_failures(path: str) -> List[Tuple[str, str, str]]:
    """(number, movie, reason) of each line; an empty list if the table can't be read."""
    try:
        lines = [line.split("\t") for line in read_text(path, errors="surrogateescape").split("\n")][1:]
    except OSError:
        return []
    return [(line[0], line[1], line[2]) for line in lines if len(line) >= 3]


def write_failures(path: str, failures: Iterable[Tuple[Union[int, str], str, str]], what: str = "movie") -> None:
    """Write the table of (number, name, reason), separated by tabs; `what` heads the names. Raises OutputError."""
    lines = [f"id\t{what}\treason"]
    lines += ["\t".join((str(i), printable(movie), " ".join(reason.split()))) for i, movie, reason in failures]
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write("\n".join(lines) + "\n")
