"""Damaged files: valid ones with bytes, words or values changed, and texts made of the words of a format."""

from __future__ import annotations

import json
from typing import Any, Callable, List, Sequence

from hypothesis import strategies as st

HEADER = 1200  # most of what a reader decides stands in the first bytes
NUMBERS = (0, 1, -1, 2, 3, 255, 65535, 1 << 16, (1 << 31) - 1, -(1 << 31), 1 << 32, (1 << 63) - 1, 10**30)
WORDS = (
    "",
    "0",
    "-1",
    "nan",
    "inf",
    "1e999",
    "-1e308",
    "9" * 40,
    "9" * 5000,
    "\0",
    "é",
    "None",
    '"',
    "'",
    "#",
    "a b",
    "=",
)


@st.composite
def damaged_bytes(draw: Callable[..., Any], originals: Sequence[bytes]) -> bytes:
    """One of the files with up to six changes: bytes set, numbers set, a part cut out, doubled, or the end missing."""
    data = bytearray(draw(st.sampled_from(list(originals))))
    for _ in range(draw(st.integers(0, 6))):
        if not data:
            break
        kind = draw(st.sampled_from(("byte", "byte", "number", "number", "number", "random", "cut", "double", "end")))
        last = len(data) - 1
        at = draw(st.one_of(st.integers(0, min(last, HEADER)), st.integers(0, last)))
        if kind == "byte":
            data[at] = draw(st.sampled_from((0, 1, 127, 128, 255)))
        elif kind == "number":
            size, order = draw(st.sampled_from((2, 4, 8))), draw(st.sampled_from(("little", "big")))
            value = draw(st.sampled_from(NUMBERS)) % (1 << 8 * size)
            at -= at % draw(st.sampled_from((1, 2, 4)))
            data[at : at + size] = value.to_bytes(size, order)  # type: ignore[arg-type]
        elif kind == "random":
            data[at : at + 16] = draw(st.binary(min_size=0, max_size=16))
        else:
            n = draw(st.integers(1, max(1, len(data) // 2)))
            if kind == "cut":
                del data[at : at + n]
            elif kind == "double":
                data[at:at] = data[at : at + n]
            else:
                del data[at:]
    return bytes(data)


def text_of(words: Sequence[str], separators: Sequence[str] = (" ", "\n", "\t", ",", "  \r\n")) -> Any:
    """UTF-8 text made of the words of a format, of absurd words, and of any characters."""
    word = st.one_of(
        *(3 * [st.sampled_from(list(words))]),
        st.sampled_from(WORDS),
        st.integers(-5, 300).map(str),
        st.floats().map(repr),
        st.text(max_size=8),
    )
    pairs = st.lists(st.tuples(word, st.sampled_from(list(separators))), max_size=60)
    return pairs.map(lambda found: "".join(w + s for w, s in found).encode("utf-8", "surrogatepass"))


def junk() -> Any:
    """Any JSON value, absurd ones more often."""
    leaves = st.one_of(
        st.sampled_from([None, True, 1e308, -1e308, 5e-324, float("nan"), float("inf"), 10**400, *NUMBERS, *WORDS]),
        st.text(max_size=5),
        st.floats(),
    )
    return st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner))


@st.composite
def damaged_json(draw: Callable[..., Any], original: Any) -> bytes:
    """The value as JSON with up to four parts replaced, removed, added, or given to each other; or damaged text."""
    value = json.loads(json.dumps(original))
    for _ in range(draw(st.integers(1, 4))):
        holder, key = _place(draw, value)
        if holder is None:
            value = draw(junk())
            break
        action = draw(st.sampled_from(("replace", "replace", "replace", "remove", "repeat", "add", "nest")))
        if action == "replace":
            holder[key] = draw(junk())
        elif action == "remove":
            del holder[key]
        elif action == "repeat":
            holder[key] = [holder[key]] * draw(st.integers(0, 3))
        elif action == "nest":
            depth = draw(st.sampled_from((5, 50)))
            for _ in range(depth):
                holder[key] = [holder[key]]
        elif isinstance(holder, dict):
            holder[draw(st.text(max_size=5))] = draw(junk())
    text = json.dumps(value)
    if draw(st.integers(0, 9)) == 0:
        return draw(damaged_bytes([text.encode()]))  # type: ignore[no-any-return]
    return text.encode()


def _place(draw: Callable[..., Any], value: Any) -> Any:
    """(list or dictionary, key) of some part of the value; (None, None) for the value itself."""
    holder, key = None, None
    while isinstance(value, (list, dict)) and value:
        keys: List[Any] = list(value) if isinstance(value, dict) else list(range(len(value)))
        holder, key = value, draw(st.sampled_from(keys))
        value = holder[key]
        if draw(st.booleans()):
            break
    return holder, key
