"""`flexalign sum`: sums the frames of movies again, with the motion of earlier results."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from typing import Any

from ..errors import SettingsError
from ..settings import MOTION_SETTINGS
from .align import add_computing, add_run, add_settings, changed, check_corrections, finish, run_of, use_one_blas_thread
from .values import count, folder, shorten_help, stop_by_signals

COMMON = (
    ("help", "output", "movies_in", "overwrite", "device", "threads", "json", "quiet")
    + ("dose_per_frame", "total_dose", "sum_frame0", "sum_frame_n", "bin_factor", "do_apply_dose_filter")
    + ("split_even_odd", "do_save_movie", "crop_offset_x", "crop_offset_y", "crop_dim_x", "crop_dim_y")
)


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "sum",
        help="sum frames again with the motion of earlier results: other frames, doses, binning, halves, crop",
        description="Sum the frames of movies again with the motion of earlier results, without aligning them. "
        "Settings that are not given stay as they were.",
        usage="%(prog)s MOTION [MOTION ...] --output DIR [OPTION ...]",
        epilog="Exit status: 0 every movie succeeded, 1 some failed (see failed.tsv in the output folder), 2 invalid "
        "options, or a result, gain, dark or defects can't be read; 130 interrupted.",
        fromfile_prefix_chars="@",
        allow_abbrev=False,
    )
    option = parser.add_argument
    option(
        "motions",
        nargs="+",
        metavar="MOTION",
        help="_motion.json of a result; @FILE reads names from a file, one per line",
    )
    option(
        "--movies-in",
        type=folder,
        metavar="DIR",
        help="folder of the movies, if they are not where they were aligned",
    )
    add_run(parser)
    add_computing(parser)
    option("--only-process", type=count, metavar="N", help="sum only the first N movies")
    add_settings(parser, without=MOTION_SETTINGS, defaults=False)
    shorten_help(parser, COMMON)
    parser.set_defaults(run=_sum)


def _sum(args: argparse.Namespace) -> int:
    use_one_blas_thread()
    from ..output.saved_result import load_saved_result
    from ..runs.movies import sum_again

    paths = dict.fromkeys(os.path.abspath(path) for path in args.motions)
    results = [load_saved_result(path) for path in list(paths)[: args.only_process]]
    if args.movies_in:
        results = [replace(r, movie=os.path.join(args.movies_in, os.path.basename(r.movie))) for r in results]
    settings = []
    for result in results:
        try:
            settings.append(changed(result.settings.to_dict(), args))
        except SettingsError as error:
            raise SettingsError(f"{result.path}: {error}") from error
    for different in dict.fromkeys(settings):
        check_corrections(different)
    stop_by_signals()
    run = run_of(args)
    failed = sum_again(results, settings, args.output, replace(run, use_mdoc=False))
    return finish(args, run, len(results), len(failed))
