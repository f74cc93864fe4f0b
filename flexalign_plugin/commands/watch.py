"""`flexalign watch`: aligns movies as they appear in a folder."""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from ..errors import SettingsError
from ..inputs import shortened
from .align import (
    COMMON_SETTINGS,
    SETTINGS_HELP,
    add_computing,
    add_run,
    add_settings,
    check_corrections,
    run_of,
    settings_of,
    use_one_blas_thread,
)
from .values import SOME_FAILED, SUCCESS, folder, positive, shorten_help, stop_by_signals

COMMON = ("help", "output", "settings", "pattern", "until", "idle", "device", "threads", "quiet")


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "watch",
        help="align movies as they appear in a folder",
        description="Align the movies in a folder and its subfolders, and those that appear there, until Ctrl-C or the "
        "end that is given. Movies that are done are left alone. Several watchers, also on several machines, may share "
        "a folder: each movie is aligned once.",
        usage="%(prog)s FOLDER --output DIR --pixel-size A [OPTION ...]",
        epilog="Exit status: 0 every movie succeeded, 1 some failed (see failed.tsv in the output folder), 2 invalid "
        "options, or gain, dark or defects can't be read; 130 ended by Ctrl-C.",
        allow_abbrev=False,
    )
    option = parser.add_argument
    option("folder", type=folder, metavar="FOLDER", help="folder in which movies appear; subfolders belong to it")
    option(
        "--pattern",
        action="append",
        metavar="GLOB",
        help="names of movies, such as '*_Fractions.tiff'; may be given several times (default: all names that end as "
        "those of MRC, TIFF and EER files do)",
    )
    option("--until", type=_moment, metavar="TIME", help="begin no movie after this time: 18:30 or 2026-12-24T18:30")
    option("--idle", type=positive, metavar="MIN", help="end when nothing has happened for this many minutes")
    option(
        "--settle",
        type=positive,
        default=10.0,
        metavar="S",
        help="a movie is complete when its file has not changed for this many seconds (default: 10)",
    )
    option("--settings", metavar="FILE", help=SETTINGS_HELP)
    add_run(parser)
    add_computing(parser)
    option("--no-mdoc", action="store_true", help="don't read the dose from a movie's own .mdoc")
    add_settings(parser)
    shorten_help(parser, COMMON + COMMON_SETTINGS)
    parser.set_defaults(run=_watch)


def _moment(text: str) -> float:
    """Seconds since the epoch of a time of the day, the next one, or of a date and time."""
    now = datetime.now()
    for form in ("%H:%M", "%H:%M:%S"):
        try:
            at = datetime.combine(now.date(), datetime.strptime(text, form).time())
            return (at if at > now else at + timedelta(days=1)).timestamp()
        except ValueError:
            continue
    try:
        moment = datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        raise argparse.ArgumentTypeError(f"{shortened(text)} is not a time: write 18:30, or 2026-12-24T18:30") from None
    if moment <= time.time():
        raise argparse.ArgumentTypeError(f"{shortened(text)} is in the past")
    return moment


def _watch(args: argparse.Namespace) -> int:
    settings = settings_of(args)
    use_one_blas_thread()
    from ..runs.watching import MOVIES, Watched, watch

    if not os.path.isdir(args.folder):
        raise SettingsError(f"{args.folder}: is not a folder: give the one in which movies appear.")
    check_corrections(settings)
    stop_by_signals()
    idle_s = None if args.idle is None else 60 * args.idle
    watched = Watched(args.folder, args.pattern or MOVIES, args.settle, args.until, idle_s)
    run = replace(run_of(args), use_mdoc=not args.no_mdoc)
    counts = watch(watched, args.output, settings, run, report=not args.no_report)
    if not args.quiet and not args.json:
        others = f", {counts.done_before} were done by others or before" if counts.done_before else ""
        print(f"{counts.aligned} movies aligned, {counts.failed} failed{others}.")
    return SOME_FAILED if counts.failed else SUCCESS
