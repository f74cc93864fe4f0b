"""Names and units of the quality figures in the report, and the movies whose figures are outliers."""

from __future__ import annotations

import math
import statistics
from typing import Any, Dict, Iterable, List

from ..inputs import has_type
from ..quality.figures import DESCRIPTIONS, FRACTION, Description, in_order_of_rank

OUTLIER_DISTANCE = 3.5  # robust standard deviations; the limit of Iglewicz and Hoaglin
MIN_MOVIES_FOR_OUTLIERS = 8
MIN_SPREAD = 0.1  # smallest standard deviation of the logarithm: if all movies are alike, 10 % more is no outlier
SECONDS = "seconds"
# Values of a movie that are not quality figures.
MORE = {SECONDS: Description("Time for the movie", "s", "Wall time of all stages.")}
_UNITS = {"_A": "Å", "_px": "px", "_s": "s", "_A2": "Å²"}


def described(name: str) -> Description:
    """Label, unit and meaning of a figure; those of an unknown figure are derived from its name."""
    if name in DESCRIPTIONS or name in MORE:
        return DESCRIPTIONS.get(name) or MORE[name]
    group, _, rest = name.partition(" ")
    for ending, unit in _UNITS.items():
        if group.endswith(ending) or rest.endswith(ending):
            words = " ".join(part[: -len(ending)] if part.endswith(ending) else part for part in (group, rest))
            return Description(_sentence(words), unit, "")
    return Description(_sentence(name), "", "")


def shown_order(names: Iterable[str]) -> List[str]:
    """The names in the order of the report: figures with a rank first, then the others as given."""
    known = list(dict.fromkeys(names))
    first = [name for name in (*in_order_of_rank(), *MORE) if name in known]
    return first + [name for name in known if name not in first]


def _sentence(name: str) -> str:
    words = " ".join(name.replace("_", " ").split())
    return words[:1].upper() + words[1:]


def numbers(quality: Dict[str, Any], prefix: str = "") -> Dict[str, float]:
    """All finite numbers among the quality figures, without lists; those of a group are named "group name"."""
    values: Dict[str, float] = {}
    for name, value in quality.items():
        if isinstance(value, dict):
            values.update(numbers(value, f"{prefix}{name} "))
        elif has_type(value, float):
            rounded = float(f"{value:.5g}")
            values[prefix + name] = rounded if math.isfinite(rounded) else value
    return values


def concerns(values: List[Dict[str, float]]) -> List[List[str]]:
    """For each movie of a run, one sentence per figure that is an outlier among the movies or above its limit."""
    sentences_of_movies: List[List[str]] = [[] for _ in values]
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
        for sentences, v in zip(sentences_of_movies, values):
            if v.get(name, 0) > harmless and (math.log(v[name]) - middle) / spread > OUTLIER_DISTANCE:
                figure = described(name)
                times = v[name] / math.exp(middle)
                sentences.append(f"{figure.label} {in_words(name, v[name])}, {times:.1f} times the run's median.")
    for name in in_order_of_rank():
        figure = DESCRIPTIONS[name]
        for sentences, v in zip(sentences_of_movies, values):
            if figure.limit is not None and v.get(name, 0) > figure.limit:
                sentences.append(f"{figure.label}: {in_words(name, v[name])}.")
    return sentences_of_movies


def median(run: Any, name: str) -> float:
    """Median of a figure over those movies of a `Run` that have it."""
    return statistics.median(row["values"][name] for row in run.rows if name in row["values"])


def in_words(name: str, value: float) -> str:
    """The value with its unit: `12.3 Å`, `4 %`."""
    figure = described(name)
    is_fraction = figure.unit == FRACTION
    shown = 100 * value if is_fraction else value
    text = f"{shown:.0f}" if abs(shown) >= 100 or is_fraction or shown == int(shown) else f"{shown:.3g}"
    return f"{text} {'%' if is_fraction else figure.unit}".strip()
