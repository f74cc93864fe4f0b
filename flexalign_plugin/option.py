"""How a field of `Settings` is declared: help, choices, name in the form, and the range of a number."""

from __future__ import annotations

import math
from dataclasses import field
from typing import Any, NamedTuple, Optional, Sequence

from .inputs import shortened


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
    """A field of `Settings` with the metadata that forms, command line and error messages use.

    Parameters
    ----------
    help : what it does. choices : allowed values. metavar : name of the value in the command's help.
    form : name of the parameter in Scipion's form; empty if it is not in the form.
    label, bounds : of a number: its name in error messages, and its allowed range.
    """
    about = {"help": help, "choices": choices, "metavar": metavar, "form": form, "label": label, "bounds": bounds}
    return field(default=default, metadata=about)
