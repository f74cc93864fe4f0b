"""The command `flexalign`: finds the subcommand and turns errors into one sentence and an exit status. No Scipion."""

from __future__ import annotations

import argparse
import sys
from typing import Optional, Sequence

from . import __version__
from .commands import COMMANDS
from .commands.values import INTERRUPTED, SOME_FAILED, USAGE
from .errors import FlexAlignError, SettingsError


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command line; returns the exit status."""
    args = build_parser().parse_args(argv)
    try:
        return int(args.run(args))
    except SettingsError as error:
        print(f"flexalign: {error}", file=sys.stderr)
        return USAGE
    except FlexAlignError as error:
        print(f"flexalign: {error}", file=sys.stderr)
        return SOME_FAILED
    except KeyboardInterrupt:
        print("flexalign: interrupted; what was finished before is complete.", file=sys.stderr)
        return INTERRUPTED


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="flexalign", description="Motion correction of cryo-EM movies.")
    parser.add_argument("--version", action="version", version=f"flexalign {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
