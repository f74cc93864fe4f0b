"""The command `flexalign`: runs the subcommand and turns errors into a message and an exit status. No Scipion."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from typing import Any, List, NoReturn, Optional, Sequence

from . import __version__, launch
from .commands import COMMANDS
from .commands.streams import lasting_streams, problem
from .commands.values import INTERRUPTED, SOME_FAILED, USAGE
from .errors import CorrectionError, FlexAlignError, MovieError, ParticleError, ResultError, SettingsError
from .inputs import TEXT_BYTES, cut, read_bytes

UNKNOWN = "unrecognized arguments: "
NO_LIST = "the file given with @ is not a text file: it must hold the names of movies, one per line"


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command line; returns the exit status."""
    launch.forget_current_folder()
    if argv is None and hasattr(sys.stdout, "reconfigure"):
        # Names of files may have bytes or characters that the terminal's encoding has not.
        sys.stdout.reconfigure(errors="backslashreplace")
    with lasting_streams() as streams:
        status = _run(argv)
        for stream in streams:
            stream.flush()
        lost = problem(streams)
        if lost:
            print(f"flexalign: {lost}", file=sys.stderr)
    return status if lost is None else max(status, SOME_FAILED)


def _run(argv: Optional[Sequence[str]]) -> int:
    args = build_parser().parse_args(argv)
    try:
        os.getcwd()
    except OSError as error:
        print(
            f"flexalign: the current folder does not exist any more ({error.strerror}): change to another one.",
            file=sys.stderr,
        )
        return USAGE
    try:
        return int(args.run(args))
    except (SettingsError, MovieError, ParticleError, CorrectionError, ResultError) as error:
        # Not a movie that failed among others: an option is wrong, or a file needed at the start can't be read.
        print(f"flexalign: {error}", file=sys.stderr)
        return USAGE
    except FlexAlignError as error:
        print(f"flexalign: {error}", file=sys.stderr)
        return SOME_FAILED
    except KeyboardInterrupt:
        print("flexalign: interrupted; results finished before are complete.", file=sys.stderr)
        return INTERRUPTED


class Parser(argparse.ArgumentParser):
    """Reports errors in one line, without listing all options, and suggests the option that was probably meant."""

    def _read_args_from_files(self, arg_strings: List[str]) -> List[str]:
        """Replaces `@FILE` by the names in the file, one per line, without empty lines. argparse would wait for a pipe,
        read an endless device, and read the files named in a file."""
        found: List[str] = []
        for word in arg_strings:
            found += self._names_in(word[1:]) if word.startswith("@") else [word]
        return found

    def _names_in(self, path: str) -> List[str]:
        try:
            content = read_bytes(path, TEXT_BYTES)
        except OSError as error:
            self.error(f"{path}: can't be read ({error.strerror}): check the name after @")
        if b"\0" in content:
            self.error(NO_LIST)
        names = [os.fsdecode(line).strip() for line in content.splitlines()]
        return [name for name in names if name]

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Unknown options are reported here by the subcommand's parser, which knows the options of the subcommand."""
        known, rest = super().parse_known_args(args, namespace)
        if rest:
            self.error(UNKNOWN + " ".join(rest))
        return known, rest

    def error(self, message: str) -> NoReturn:
        unknown = message[len(UNKNOWN) :].split()[0] if message.startswith(UNKNOWN) else ""
        similar: List[str] = []
        if unknown.startswith("--"):
            options = list(self._option_string_actions)
            # Users shorten options more often than they misspell them.
            similar = [option for option in options if option.startswith(unknown + "-")]
            similar = similar or difflib.get_close_matches(unknown, options, 1)
        message = cut(message, 1000)
        suggestion = f" (did you mean {similar[0]}?)" if similar else ""
        self.exit(USAGE, f"{self.prog}: {message}{suggestion}. See {self.prog} --help.\n")


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="flexalign", description="Motion correction of cryo-EM movies, and orientations of particles.")
    parser.add_argument("--version", action="version", version=f"flexalign {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
