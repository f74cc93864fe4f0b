"""`flexalign report`: writes an HTML report of a folder of results."""

from __future__ import annotations

import argparse
import os
from typing import Any

from ..errors import SettingsError
from .values import SUCCESS, whole


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "report",
        help="write an HTML report of a folder of results",
        description="Write a report of a folder of results (of flexalign align, or a protocol's extra folder) as one "
        "HTML file that opens in any browser and needs no network.",
        epilog="Exit status: 0 the report is written, 1 it can't be written, 2 the folder contains no results.",
        allow_abbrev=False,
    )
    option = parser.add_argument
    option("results", metavar="RESULTS_DIR", help="folder of the results")
    option("--output", metavar="FILE", help="file to write (default: report.html in RESULTS_DIR)")
    option(
        "--pictures",
        type=whole,
        default=40,
        metavar="N",
        help="number of movies whose pictures are stored in the report, about 50 kB each: the newest and those with "
        "the most warnings; pictures of the others are linked (default: 40)",
    )
    parser.set_defaults(run=_report)


def _report(args: argparse.Namespace) -> int:
    from ..output.replacing import is_foreign_image
    from ..report_pages import holds_results, write_report
    from ..result_files import REPORT, is_result_file

    path = args.output or os.path.join(args.results, REPORT)
    if not holds_results(args.results):
        raise SettingsError(f"{args.results}: contains no results: give the output folder of flexalign align.")
    if os.path.exists(path) and (is_result_file(path) or is_foreign_image(path)):
        raise SettingsError(f"{path}: is a movie or a file of a result and is kept: choose another --output.")
    run = write_report(args.results, path, detailed=args.pictures)
    for sentence in run.unreadable:
        print(f"left out: {sentence}")
    print(f"{path}: {len(run.rows)} movie{'' if len(run.rows) == 1 else 's'}, {len(run.failed)} failed")
    return SUCCESS
