"""How a field of settings is declared: help, choices, name in the form, and the range of a number."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import field
from typing import Any, List, NamedTuple, Optional, Sequence

from .inputs import shortened
from .sanity import unit_hint


class Bounds(NamedTuple):
    """Allowed range of a numeric setting, and the error message for a value outside of it.

    Attributes
    ----------
    low, high : smallest and largest allowed value; `high` None means no upper bound.
    above : whether values must be larger than `low`, not equal to it.
    unit : of the value. advice : hint for choosing a valid value, without a full stop.
    only_if : the bounds are checked only if this other setting is True ("!name": only if it is False).
    """

    low: float
    high: Optional[float] = None
    above: bool = False
    unit: str = ""
    advice: str = ""
    only_if: str = ""

    def allow(self, value: float) -> bool:
        large_enough = value > self.low if self.above else value >= self.low
        # Comparisons, because a whole number may be too long for a float.
        return large_enough and value < math.inf and (self.high is None or value <= self.high)

    def sentence(self, label: str, value: float) -> str:
        """`Maximum shift is -1 A: it must be at least 0 and at most 100000 (0 for automatic).`"""
        low = f"above {self.low:g}" if self.above else f"at least {self.low:g}"
        span = low if self.high is None else f"{low} and at most {self.high:g}"
        value_and_unit = f"{shortened(value)} {self.unit}".rstrip()
        return f"{label} is {value_and_unit}: it must be {span}{f' ({self.advice})' if self.advice else ''}."


def option(
    default: Any,
    help: str,
    choices: Optional[Sequence[Any]] = None,
    metavar: str = "",
    form: str = "",
    label: str = "",
    bounds: Optional[Bounds] = None,
) -> Any:
    """A field of settings with the metadata that forms, command line and error messages use.

    Parameters
    ----------
    help : what it does. choices : allowed values. metavar : name of the value in the command's help.
    form : name of the parameter in Scipion's form; empty if it is not in the form.
    label, bounds : of a number: its name in error messages, and its allowed range.
    """
    about = {"help": help, "choices": choices, "metavar": metavar, "form": form, "label": label, "bounds": bounds}
    return field(default=default, metadata=about)


def out_of_bounds(settings: Any) -> List[str]:
    """One sentence for each value of a dataclass of settings that is not among the choices, not of the type or not
    within the bounds of its `option`."""
    sentences = []
    for setting in dataclasses.fields(settings):
        value, about = getattr(settings, setting.name), setting.metadata
        bounds: Optional[Bounds] = about["bounds"]
        if about["choices"] is not None and value not in about["choices"]:
            allowed = ", ".join(map(str, about["choices"]))
            sentences.append(f"{setting.name} is {shortened(value)}: choose one of {allowed}.")
        if setting.type == "bool" and not isinstance(value, bool):
            sentences.append(f"{setting.name} is {shortened(value)}: give yes or no.")
        if setting.type == "Optional[str]" and not isinstance(value, (str, type(None))):
            sentences.append(f"{setting.name} is {shortened(value)}: give the name of a file.")
        unknown = value is None and str(setting.type).startswith("Optional")
        if bounds is None or unknown or not _counts(settings, bounds):
            continue
        whole = setting.type == "int"
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
            sentences.append(f"{about['label']} is {shortened(value)}: give a {'whole ' if whole else ''}number.")
        elif not bounds.allow(value):
            hint = unit_hint(value) if setting.name == "pixel_size" else ""
            sentences.append(bounds.sentence(about["label"], value) + (f" {hint}." if hint else ""))
    return sentences


def _counts(settings: Any, bounds: Bounds) -> bool:
    """Whether a setting with these bounds has any effect, given the setting that it depends on."""
    if not bounds.only_if:
        return True
    return bool(getattr(settings, bounds.only_if.lstrip("!"))) != bounds.only_if.startswith("!")
