"""What the quality figures of a movie are called and mean, in words, and which movies stand out of a run."""

from __future__ import annotations

import math
import statistics
from typing import Any, Dict, List, NamedTuple, Optional

OUTLIER_DISTANCE = 3.5  # robust standard deviations; Iglewicz and Hoaglin's limit
MIN_MOVIES_FOR_OUTLIERS = 8
MIN_SPREAD = 0.1  # of the logarithm: in a run where all movies are alike, a movie 10 % off is still like them
# Figures that grow when a movie goes wrong, and up to which value they do no harm, whatever the others have.
WATCHED = {"accumulated_motion_total_A": 5.0, "local_motion_max_px": 1.0, "pair_residual_px": 0.2}


class Figure(NamedTuple):
    """`unit` "%" means that the value is a fraction. `limit`: above it the movie needs a look."""

    label: str
    unit: str
    meaning: str
    limit: Optional[float] = None


FIGURES: Dict[str, Figure] = {
    "accumulated_motion_total_A": Figure("Total motion", "Å", "Length of the path of the whole frame."),
    "accumulated_motion_early_A": Figure("Early motion", "Å", "Its part in the first 4 e/Å²."),
    "accumulated_motion_late_A": Figure("Late motion", "Å", "Its part after the first 4 e/Å²."),
    "local_motion_max_px": Figure("Largest local motion", "px", "Anywhere in the frame, on top of the whole frame's."),
    "pairs_rejected": Figure(
        "Rejected pairs", "%", "Frame pairs that contradict the motion found; many of them: too little signal.", 0.3
    ),
    "pairs_on_rim": Figure(
        "Pairs at the search limit", "%", "Frame pairs without a match inside the search range (maximum shift).", 0.1
    ),
    "pair_residual_px": Figure("Residual of pairs", "px", "How far the pairs that were kept scatter about the motion."),
    "pair_significance": Figure("Strength of the matches", "", "Height of a pair's match over the noise around it."),
    "patch_pairs_rejected": Figure("Rejected pairs of patches", "%", "As above, mean over the patches.", 0.5),
    "expected_error_px": Figure("Expected error", "px", "Of the motion, rms over the frame and all frames."),
    "confidence": Figure("Confidence", "%", "Part of the finest signal (at Nyquist) that the expected error leaves."),
    "motion_over_error": Figure(
        "Motion over its error", "", "How many times larger the motion is than its expected error."
    ),
    "late_drift_A_per_dose": Figure(
        "Late drift", "Å per e/Å²", "How fast the specimen still moves late: blurs frames."
    ),
    "local_log_evidence": Figure(
        "Evidence for local motion", "", "How much better the field explains the movie than whole-frame shifts alone."
    ),
    "frc_0143_A": Figure("Halves agree to (0.143)", "Å", "Finest resolution at which even and odd frames agree."),
    "frc_05_A": Figure("Halves agree to (0.5)", "Å", "As above, to a correlation of one half."),
    "pixels_replaced": Figure("Pixels replaced", "px", "Defects and hot pixels, in every frame."),
    "reference_frame": Figure("Reference frame", "", "The frame in which all shifts are zero."),
    "relion_fit_rms_px": Figure("RELION polynomial, rms", "px", "Difference between the STAR file and the field."),
    "relion_fit_max_px": Figure("RELION polynomial, largest", "px", "Largest difference of the two."),
    "seconds": Figure("Time for the movie", "s", "Wall time of all stages."),
}
_UNITS = {"_A": "Å", "_px": "px", "_s": "s", "_A2": "Å²"}


def described(name: str) -> Figure:
    """The figure's words; a figure that is not known is called by its name."""
    if name in FIGURES:
        return FIGURES[name]
    group, _, rest = name.partition(" ")
    for ending, unit in _UNITS.items():
        if group.endswith(ending) or rest.endswith(ending):
            words = " ".join(part[: -len(ending)] if part.endswith(ending) else part for part in (group, rest))
            return Figure(_sentence(words), unit, "")
    return Figure(_sentence(name), "", "")


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
    for name, harmless in WATCHED.items():
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
    for name, figure in FIGURES.items():
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
    shown = 100 * value if figure.unit == "%" else value
    text = f"{shown:.0f}" if abs(shown) >= 100 or figure.unit == "%" or shown == int(shown) else f"{shown:.3g}"
    return f"{text} {figure.unit}".strip()
