"""The command `flexalign`: finds the subcommand and turns errors into one sentence and an exit status. No Scipion."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from typing import Any, List, NoReturn, Optional, Sequence

from . import __version__
from .commands import COMMANDS
from .commands.values import INTERRUPTED, SOME_FAILED, USAGE
from .errors import CorrectionError, FlexAlignError, MovieError, SettingsError

UNKNOWN = "unrecognized arguments: "
NO_LIST = "the file given with @ is no text: write the names of movies into it, one a line"


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command line; returns the exit status."""
    try:
        args = build_parser().parse_args(argv)
    except UnicodeDecodeError:
        print(f"flexalign: {NO_LIST}.", file=sys.stderr)
        return USAGE
    try:
        return int(args.run(args))
    except (SettingsError, MovieError, CorrectionError) as error:
        # One of many movies that fails never gets here: this is an option, or a file without which nothing can begin.
        print(f"flexalign: {error}", file=sys.stderr)
        return USAGE
    except FlexAlignError as error:
        print(f"flexalign: {error}", file=sys.stderr)
        return SOME_FAILED
    except BrokenPipeError:
        # As of `flexalign ... | head`. Python would complain again when it empties its buffer at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return SOME_FAILED
    except KeyboardInterrupt:
        print("flexalign: interrupted; what was finished before is complete.", file=sys.stderr)
        return INTERRUPTED


class Parser(argparse.ArgumentParser):
    """Says what is wrong in a line, not after a page of all options, and what may have been meant."""

    def convert_arg_line_to_args(self, arg_line: str) -> List[str]:
        """A name a line in the files that are given as @FILE; empty lines count for nothing."""
        if "\0" in arg_line or "\udc80" <= max(arg_line, default="") <= "\udcff":
            self.error(NO_LIST)
        return [arg_line.strip()] if arg_line.strip() else []

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """What is not known is told by the command itself, whose help knows the right options."""
        known, rest = super().parse_known_args(args, namespace)
        if rest:
            self.error(UNKNOWN + " ".join(rest))
        return known, rest

    def error(self, message: str) -> NoReturn:
        cause = sys.exc_info()[1]
        if isinstance(cause, OSError):
            message = f"{cause.filename}: can't be read ({cause.strerror}): check the name after @"
        wrong = message[len(UNKNOWN) :].split()[0] if message.startswith(UNKNOWN) else ""
        close: List[str] = []
        if wrong.startswith("--"):
            options = list(self._option_string_actions)
            # The beginning of an option is meant more often than a word that looks like it.
            close = [option for option in options if option.startswith(wrong + "-")]
            close = close or difflib.get_close_matches(wrong, options, 1)
        meant = f" (did you mean {close[0]}?)" if close else ""
        self.exit(USAGE, f"{self.prog}: {message}{meant}. See {self.prog} --help.\n")


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="flexalign", description="Motion correction of cryo-EM movies.")
    parser.add_argument("--version", action="version", version=f"flexalign {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
