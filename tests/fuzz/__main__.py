"""Runs the fuzzer: `python -m flexalign_plugin.tests.fuzz [--minutes M | --examples N] [--seed S] [--target NAME ...]`.

Failures are: an exception that is no `FlexAlignError`, a crash, more than 20 s or 2 GB of memory for one file. The
smallest failing file is printed with the seed, which repeats it.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import io
import os
import random
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings

from .targets import Target, check, targets

HANG_S = 20.0
MEMORY_BYTES = 2_000_000_000


def run(name: str, target: Target, path: str, examples: int, start: int) -> None:
    """Let the target read this number of files; raises what it raised for the smallest one that fails."""

    @seed(start)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(target.data)
    def one(data: bytes) -> None:
        faulthandler.dump_traceback_later(HANG_S, exit=True)  # also out of a library that does not come back
        started = time.monotonic()
        with contextlib.redirect_stderr(io.StringIO()):
            check(target, path, data)
        assert time.monotonic() - started < HANG_S
        faulthandler.cancel_dump_traceback_later()

    one()


def limit_memory() -> None:
    """Allow this process 2 GB more than it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m flexalign_plugin.tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, help="how long to run")
    parser.add_argument("--examples", type=int, default=200, help="files of each kind in a round (default: 200)")
    parser.add_argument("--seed", type=int, help="of the first round (default: another one each time)")
    parser.add_argument("--target", nargs="*", help="kinds of files (default: all)")
    args: Any = parser.parse_args()
    start = random.randrange(1 << 30) if args.seed is None else args.seed
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    end = time.monotonic() + 60 * (args.minutes or 0)
    failed = 0
    with tempfile.TemporaryDirectory(prefix="flexalign-fuzz-") as folder:
        found = targets(Path(folder))
        limit_memory()
        while True:
            for name in args.target or found:
                started = time.monotonic()
                print(f"seed {start} {name}: ", end="", flush=True)
                try:
                    run(name, found[name], os.path.join(folder, "fuzzed"), args.examples, start)
                    print(f"{args.examples} files, {time.monotonic() - started:.1f} s", flush=True)
                except Exception as error:
                    failed += 1
                    notes = "\n".join(getattr(error, "__notes__", []))
                    print(f"FAILED with {type(error).__name__}: {error}\n{notes}", flush=True)
                    if not args.minutes:
                        raise
            start += 1
            if time.monotonic() >= end:
                return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
