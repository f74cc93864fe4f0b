"""`flexalign tilt-series`: the movies of a tilt series, and their stacks."""

from __future__ import annotations

import argparse
import os
import signal
from typing import Any

from .align import COMMON_SETTINGS, add_computing, add_settings, compute_of, settings_of
from .values import SOME_FAILED, SUCCESS, folder, shorten_help


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "tilt-series",
        help="align the movies of a tilt series and make stacks",
        description="Align the movie of every tilt that SerialEM's .mdoc names, with its dose, and put the micrographs "
        "into stacks with their angles. A tilt that fails is listed and left out.",
        usage="%(prog)s MDOC --output DIR --pixel-size A [OPTION ...]",
        epilog="Exit status: 0 every tilt succeeded, 1 some failed (see <series>_failed.tsv in the output folder), "
        "2 wrong options, or the .mdoc, gain, dark or defects can't be read; 130 interrupted.",
        allow_abbrev=False,
    )
    option = parser.add_argument
    option("mdoc", metavar="MDOC", help="the tilt series' .mdoc")
    option("--movies", metavar="DIR", help="folder of the movies (default: that of the .mdoc)")
    option("--output", required=True, type=folder, metavar="DIR", help="folder of the results, made if it is missing")
    option(
        "--order", choices=("tilt", "mdoc"), default="tilt", help="order of the stacks: by angle (default) or MDOC's"
    )
    option("--settings", metavar="FILE", help="settings of an earlier result (_motion.json); options given here win")
    add_computing(parser)
    option("--quiet", action="store_true", help="say only what failed")
    add_settings(parser)
    shorten_help(parser, ("movies", "output", "order", "settings", "threads", "quiet") + COMMON_SETTINGS)
    parser.set_defaults(run=_tilt_series)


def _tilt_series(args: argparse.Namespace) -> int:
    settings = settings_of(args)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as in `align`
    from ..movies.corrections import check_files
    from ..runs.console import Report
    from ..runs.tilt_series import align_tilt_series

    check_files(settings)

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    files, failed = align_tilt_series(
        args.mdoc,
        args.movies or os.path.dirname(args.mdoc) or ".",
        args.output,
        settings,
        Report(quiet=args.quiet),
        compute_of(args),
        args.order,
        args.timeout,
    )
    if not args.quiet:
        for what, path in files.items():
            print(f"{what}: {path}")
    return SOME_FAILED if failed else SUCCESS
