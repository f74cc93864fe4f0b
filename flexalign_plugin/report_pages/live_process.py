"""The process in which `live.LiveReport` writes the report of a run: FOLDER TITLE running|finished EXPECTED, where
EXPECTED is the number of movies of the whole run, or 0."""

from __future__ import annotations

import sys

from ..errors import FlexAlignError
from .page import write_report


def main() -> None:
    folder, title, state, expected = sys.argv[1:]
    try:
        write_report(folder, title=title, running=state == "running", expected=int(expected) or None)
    except FlexAlignError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
