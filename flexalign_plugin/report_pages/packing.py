"""The rows of a report in a small form: what is the same in many rows is written once.

`report.js` undoes the same in the browser (`unpacked`). A row has 2.5 kB, of which 1 kB are left.
"""

from __future__ import annotations

import json
from typing import Any, Dict, List
from urllib.parse import quote

# Texts and objects that are often the same: a row holds their place in "common".
SHARED = ("warnings", "notes", "input", "doubts", "concerns", "frames", "micrograph")


def packed(rows: List[Dict[str, Any]]) -> Dict[str, Any]:
    """{"movies": packed rows, "names": of the figures, "common": shared values}.

    In a packed row `values` is a list in the order of `names`, null where the row has no value; a shared value is its
    place in `common`; `quoted` is the root as in an address, if it differs; a file is its ending alone if its name is
    that with this ending.
    """
    names = list(dict.fromkeys(name for row in rows for name in row["values"]))
    places: Dict[str, int] = {}
    common: List[Any] = []
    movies = []
    for row in rows:
        small = {**row, "values": [row["values"].get(name) for name in names], "files": []}
        for name in SHARED:
            key = json.dumps(row.get(name))
            if key not in places:
                places[key] = len(common)
                common.append(row.get(name))
            small[name] = places[key]
        start = quote(row["root"], errors="surrogateescape")
        if start != row["root"]:
            small["quoted"] = start
        small["files"] = [end if name == start + end else [end, name] for end, name in row["files"]]
        movies.append(small)
    return {"movies": movies, "names": names, "common": common}


def unpacked(content: Dict[str, Any]) -> List[Dict[str, Any]]:
    """The rows of `packed`.

    Raises
    ------
    KeyError, TypeError, IndexError, ValueError, AttributeError : the content is damaged.
    """
    names, common, rows = content["names"], content["common"], []
    for small in content["movies"]:
        row = dict(small)
        row["values"] = {name: v for name, v in zip(names, small["values"]) if v is not None}
        row.update((name, common[small[name]]) for name in SHARED)
        start = row.pop("quoted", row["root"])
        row["files"] = [[f, start + f] if isinstance(f, str) else f for f in small["files"]]
        rows.append(row)
    return rows
