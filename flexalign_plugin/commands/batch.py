"""`flexalign batch`: aligns the movies of one queue job."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from .values import SOME_FAILED, SUCCESS, stop_by_signals


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "batch",
        help="align the movies of one queue job (called by the Scipion protocol)",
        description="Align the movies of a request file and write their results to a file next to it. The Scipion "
        "protocol writes the request and runs this command when its steps go to a queue; users do not need it.",
        epilog="Exit status: 0 every movie succeeded, 1 some failed, 2 the request can't be read, 130 ended by the "
        "queue.",
        allow_abbrev=False,
    )
    parser.add_argument("request", metavar="REQUEST", help="the request, a JSON file")
    parser.set_defaults(run=_batch)


def _batch(args: argparse.Namespace) -> int:
    # Must be set before NumPy is loaded, see `align`.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    stop_by_signals()  # noted in the answer
    from ..execution.queue_job import run_request

    results = run_request(args.request, lambda line: print(line, file=sys.stderr, flush=True))
    for result in results:
        print(f"{result.movie}: aligned in {result.seconds:.1f} s" if result.ok else f"FAILED: {result.message}")
    return SUCCESS if all(result.ok for result in results) else SOME_FAILED
