"""`flexalign tilt-series`: aligns the movies of a tilt series and makes stacks."""

from __future__ import annotations

import argparse
import os
from typing import Any

from .align import (
    COMMON_SETTINGS,
    QUIET_HELP,
    SETTINGS_HELP,
    add_computing,
    add_settings,
    check_corrections,
    compute_of,
    settings_of,
)
from .values import SOME_FAILED, SUCCESS, folder, shorten_help, stop_by_signals


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "tilt-series",
        help="align the movies of a tilt series and make stacks",
        description="Align the movie of every tilt in SerialEM's .mdoc, with the dose stated there, and write the "
        "micrographs as stacks with their tilt angles. Tilts that fail are listed and left out of the stacks.",
        usage="%(prog)s MDOC [MDOC ...] --output DIR --pixel-size A [OPTION ...]",
        epilog="Exit status: 0 every tilt succeeded, 1 some failed (see <series>_failed.tsv in the output folder), "
        "2 invalid options, or the .mdoc, gain, dark or defects can't be read; 130 interrupted.",
        allow_abbrev=False,
    )
    option = parser.add_argument
    option(
        "mdoc",
        nargs="+",
        metavar="MDOC",
        help=".mdoc file of the tilt series, or those that were saved with its movies",
    )
    option("--name", default="", metavar="TEXT", help="name of the series (default: that of MDOC)")
    option("--movies", metavar="DIR", help="folder of the movies (default: the folder of MDOC)")
    option("--output", required=True, type=folder, metavar="DIR", help="folder for the results, created if missing")
    option(
        "--order",
        choices=("tilt", "mdoc"),
        default="tilt",
        help="order of the images in the stacks: by tilt angle (tilt) or as in MDOC (mdoc) (default: tilt)",
    )
    option("--settings", metavar="FILE", help=SETTINGS_HELP)
    add_computing(parser)
    option("--quiet", action="store_true", help=QUIET_HELP)
    add_settings(parser)
    shorten_help(parser, ("name", "movies", "output", "order", "settings", "threads", "quiet") + COMMON_SETTINGS)
    parser.set_defaults(run=_tilt_series)


def _tilt_series(args: argparse.Namespace) -> int:
    settings = settings_of(args)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as in `align`
    from ..runs.console import Report
    from ..runs.tilt_series import align_tilt_series

    check_corrections(settings)
    stop_by_signals()
    files, failed = align_tilt_series(
        args.mdoc,
        args.movies or os.path.dirname(args.mdoc[0]) or ".",
        args.output,
        settings,
        Report(quiet=args.quiet),
        compute_of(args),
        args.order,
        args.name,
    )
    if not args.quiet:
        for kind, path in files.items():
            print(f"{kind}: {path}")
    return SOME_FAILED if failed else SUCCESS
