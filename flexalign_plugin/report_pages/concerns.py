"""Names and units of the quality figures in the report, and the movies whose figures are outliers.

Rules for all that shows a run: the report, the windows of the viewer.
"""

from __future__ import annotations

import math
import statistics
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple

from ..inputs import has_type
from ..quality.figures import DESCRIPTIONS, FRACTION, Description, in_chart, in_order_of_rank

OUTLIER_DISTANCE = 3.5  # robust standard deviations; the limit of Iglewicz and Hoaglin
MIN_MOVIES_FOR_OUTLIERS = 8
MIN_SPREAD = 0.1  # smallest standard deviation of the logarithm: if all movies are alike, 10 % more is no outlier
SECONDS = "seconds"
LATELY = 20
SHORTEST_PACE_S = 60.0
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


def concerns(values: List[Dict[str, float]], pixel_sizes_A: Sequence[Optional[float]] = ()) -> List[List[str]]:
    """For each movie of a run, one sentence per figure that is an outlier among the movies or above its limit.

    `pixel_sizes_A`, None where unknown, are those of the movies' unbinned pixels, for lengths.
    """
    pixels = list(pixel_sizes_A) or [None] * len(values)
    sentences_of_movies: List[List[str]] = [[] for _ in values]
    for name in in_order_of_rank():
        outliers = _outliers(name, values)
        for sentences, v, pixel_A in zip(sentences_of_movies, values, pixels):
            if name in v and v[name] in outliers:
                times, shown = outliers[v[name]], in_words(name, v[name], pixel_A)
                label, ratio = described(name).label, f"{times:.1f}" if times >= 1 else f"{times:.2f}"
                sentences.append(f"{label} {shown}, {ratio} times the run's median.")
    for name in in_order_of_rank():
        figure = DESCRIPTIONS[name]
        for sentences, v, pixel_A in zip(sentences_of_movies, values, pixels):
            if figure.limit is not None and v.get(name, 0) > figure.limit:
                sentences.append(f"{figure.label}: {in_words(name, v[name], pixel_A)}.")
    return sentences_of_movies


def _outliers(name: str, values: List[Dict[str, float]]) -> Dict[float, float]:
    """{value far from those of the other movies: the same in medians}."""
    figure = DESCRIPTIONS[name]
    known = [v[name] for v in values if v.get(name, 0) > 0]
    if len(known) < MIN_MOVIES_FOR_OUTLIERS:
        return {}
    if figure.outlier_below is not None and name == dose_figure(values):
        middle = statistics.median(known)
        return {v: v / middle for v in known if v < figure.outlier_below * middle}
    if figure.outlier_above is None:
        return {}
    logs = [math.log(v) for v in known]
    centre = statistics.median(logs)
    spread = max(1.4826 * statistics.median(abs(v - centre) for v in logs), MIN_SPREAD)
    far = OUTLIER_DISTANCE * spread
    return {v: v / math.exp(centre) for v in known if v > figure.outlier_above and math.log(v) - centre > far}


def dose_figure(values: List[Dict[str, float]]) -> str:
    """The figure that shows the dose of the movies: counted where it can be, else the mean intensity."""
    counted, intensity = in_chart("dose")
    return counted if any(counted in v for v in values) else intensity


def pace(times: Sequence[float]) -> Tuple[Optional[float], Optional[float]]:
    """Movies per hour, of all movies and of the last `LATELY`, from the times at which they were finished, in s.

    None for less than `SHORTEST_PACE_S`: in that time no number of movies is a pace, as when results were copied.
    """
    ordered = sorted(times)
    overall, lately = (
        3600 * (len(part) - 1) / (part[-1] - part[0]) if part and part[-1] - part[0] >= SHORTEST_PACE_S else None
        for part in (ordered, ordered[-LATELY - 1 :])
    )
    return overall, lately


def median(run: Any, name: str) -> float:
    """Median of a figure over those movies of a `Run` that have it."""
    return statistics.median(row["values"][name] for row in run.rows if name in row["values"])


def pixel_size_A(row: Any) -> Optional[float]:
    """Unbinned pixel size of a row of a `Run`; None in results that don't have it."""
    value = row["frames"].get("pixel_size_A")
    return float(value) if has_type(value, float) and value > 0 else None


def common_pixel_size_A(run: Any) -> Optional[float]:
    """The unbinned pixel size of all movies of a `Run`; None if they differ."""
    sizes = {pixel_size_A(row) for row in run.rows}
    return sizes.pop() if len(sizes) == 1 else None


def in_words(name: str, value: float, pixel_A: Optional[float] = None) -> str:
    """The value with its unit: `12.3 Å`, `4 %`, and with the size of an unbinned pixel `5 px (4.15 Å)`."""
    unit = described(name).unit
    if unit == FRACTION:
        return f"{100 * value:.0f} %"
    text = f"{number_text(value)} {unit}".strip()
    return f"{text} ({number_text(value * pixel_A)} Å)" if unit == "px" and pixel_A is not None else text


def number_text(value: float) -> str:
    """Three digits, and all of those before the decimal point: `0.0123`, `12.3`, `1,234,567`."""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
