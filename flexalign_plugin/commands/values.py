"""Shared by the commands: exit statuses, types of option values, and the short help."""

from __future__ import annotations

import argparse
import math
import re
import signal
from typing import Any, Callable, Collection, List, Tuple

from ..inputs import shortened

# Exit statuses of all commands, explained in docs/command_line.md.
SUCCESS, SOME_FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


LARGEST = 1_000_000_000  # longer times and larger numbers can't be handled by the system


def whole(text: str) -> int:
    if not re.fullmatch("[0-9]{1,100}", text):
        raise argparse.ArgumentTypeError(f"{shortened(text)} is not a whole number")
    return int(text)


def count(text: str) -> int:
    if not 0 < whole(text) <= LARGEST:
        raise argparse.ArgumentTypeError(f"{shortened(text)} is not above 0 and at most {LARGEST}")
    return int(text)


def positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= LARGEST:
        raise argparse.ArgumentTypeError(f"{shortened(text)} is not a number above 0 and at most {LARGEST}")
    return value


def finite(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{shortened(text)} is not a number")
    return value


def within(low: float, high: float) -> Callable[[str], float]:
    """Type of an option that takes a number from `low` to `high`."""

    def number(text: str) -> float:
        value = finite(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not between {low:g} and {high:g}")
        return value

    return number


def folder(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("the name is empty: give a folder, or . for the current one")
    return text


def stop_by_signals() -> None:
    """End by SIGTERM, with which queues end jobs, and SIGHUP, when a terminal is closed, as by Ctrl-C: cleaning up."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` sets it
            signal.signal(number, signal.default_int_handler)


def shorten_help(parser: argparse.ArgumentParser, shown: Collection[str]) -> None:
    """Limit `--help` to the options whose names (`dest`) are in `shown`, and add `--help-all`, which shows all."""
    hidden = [
        (action, str(action.help))
        for action in parser._actions
        if action.option_strings and action.dest not in shown and action.help != argparse.SUPPRESS
    ]
    for action, _ in hidden:
        action.help = argparse.SUPPRESS
    parser.add_argument("--help-all", action=_HelpAll, hidden=hidden, help=f"show {len(hidden)} more options and exit")


class _HelpAll(argparse.Action):
    """Prints the help including the hidden options."""

    def __init__(self, option_strings: List[str], dest: str, hidden: List[Tuple[argparse.Action, str]], help: str):
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, help=help)
        self._hidden = hidden

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        for action, text in self._hidden:
            action.help = text
        parser.print_help()
        parser.exit()
