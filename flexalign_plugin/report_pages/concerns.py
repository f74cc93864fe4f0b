"""The figures of a run's movies in words, and which movies stand out."""

from __future__ import annotations

import math
import statistics
from typing import Any, Dict, Iterable, List

from ..quality.figures import DESCRIPTIONS, FRACTION, Description, in_order_of_rank

OUTLIER_DISTANCE = 3.5  # robust standard deviations; Iglewicz and Hoaglin's limit
MIN_MOVIES_FOR_OUTLIERS = 8
MIN_SPREAD = 0.1  # of the logarithm: in a run where all movies are alike, a movie 10 % off is still like them
SECONDS = "seconds"
# What is known of a movie and is no figure of quality.
MORE = {SECONDS: Description("Time for the movie", "s", "Wall time of all stages.")}
_UNITS = {"_A": "Å", "_px": "px", "_s": "s", "_A2": "Å²"}


def described(name: str) -> Description:
    """The figure's words; a figure that is not known is called by its name."""
    if name in DESCRIPTIONS or name in MORE:
        return DESCRIPTIONS.get(name) or MORE[name]
    group, _, rest = name.partition(" ")
    for ending, unit in _UNITS.items():
        if group.endswith(ending) or rest.endswith(ending):
            words = " ".join(part[: -len(ending)] if part.endswith(ending) else part for part in (group, rest))
            return Description(_sentence(words), unit, "")
    return Description(_sentence(name), "", "")


def shown_order(names: Iterable[str]) -> List[str]:
    """The names as people see them: figures with a rank first, then the others as they come."""
    known = list(dict.fromkeys(names))
    first = [name for name in (*in_order_of_rank(), *MORE) if name in known]
    return first + [name for name in known if name not in first]


def _sentence(name: str) -> str:
    words = " ".join(name.replace("_", " ").split())
    return words[:1].upper() + words[1:]


def numbers(quality: Dict[str, Any], prefix: str = "") -> Dict[str, float]:
    """Every number among the quality figures, those of a group under `group name`; lists are left out."""
    found: Dict[str, float] = {}
    for name, value in quality.items():
        if isinstance(value, dict):
            found.update(numbers(value, f"{prefix}{name} "))
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            found[prefix + name] = float(f"{value:.5g}")
    return found


def concerns(values: List[Dict[str, float]]) -> List[List[str]]:
    """For each movie of a run, a sentence for each figure that is far from the others' or above its limit."""
    found: List[List[str]] = [[] for _ in values]
    for name in in_order_of_rank():
        harmless = DESCRIPTIONS[name].outlier_above
        if harmless is None:
            continue
        known = [v[name] for v in values if v.get(name, 0) > 0]
        if len(known) < MIN_MOVIES_FOR_OUTLIERS:
            continue
        logs = [math.log(v) for v in known]
        middle = statistics.median(logs)
        spread = max(1.4826 * statistics.median(abs(v - middle) for v in logs), MIN_SPREAD)
        for sentences, v in zip(found, values):
            if v.get(name, 0) > harmless and (math.log(v[name]) - middle) / spread > OUTLIER_DISTANCE:
                figure = described(name)
                times = v[name] / math.exp(middle)
                sentences.append(f"{figure.label} {in_words(name, v[name])}, {times:.1f} times the run's median.")
    for name in in_order_of_rank():
        figure = DESCRIPTIONS[name]
        for sentences, v in zip(found, values):
            if figure.limit is not None and v.get(name, 0) > figure.limit:
                sentences.append(f"{figure.label}: {in_words(name, v[name])}.")
    return found


def median(run: Any, name: str) -> float:
    """Of a figure over the movies of a `Run` that have it."""
    return statistics.median(row["values"][name] for row in run.rows if name in row["values"])


def in_words(name: str, value: float) -> str:
    """`12.3 Å`, `4 %`."""
    figure = described(name)
    is_fraction = figure.unit == FRACTION
    shown = 100 * value if is_fraction else value
    text = f"{shown:.0f}" if abs(shown) >= 100 or is_fraction or shown == int(shown) else f"{shown:.3g}"
    return f"{text} {'%' if is_fraction else figure.unit}".strip()
