"""`flexalign particles consensus`: compares alignments of the same particles."""

from __future__ import annotations

import argparse
import os
from typing import Any

from .values import SOME_FAILED, SUCCESS, folder, stop_by_signals, within


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "consensus",
        help="keep the particles on whose orientation several alignments agree",
        description="Compare two or more alignments of the same particles, by any programs, against the same volume. A "
        "particle is kept if more than half of them agree on it, of two both, and gets their mean orientation and "
        "shift. Rows and columns are those of the first file.",
        usage="%(prog)s STAR STAR [STAR ...] --output DIR [OPTION ...]",
        epilog="Exit status: 0 particles are kept, 1 the alignments agree on none, 2 invalid options, or the files "
        "can't be read or have no particle in common; 130 interrupted.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    option = parser.add_argument
    option("stars", nargs="+", metavar="STAR", help="aligned particles: a STAR file as RELION writes it")
    option(
        "--output",
        required=True,
        type=folder,
        default=argparse.SUPPRESS,  # so that the help shows no default
        metavar="DIR",
        help="folder for the results, created if missing",
    )
    option(
        "--max-angle",
        type=within(1e-3, 180),
        default=10.0,
        metavar="DEG",
        help="orientations agree if they are not further apart, in degrees",
    )
    option(
        "--max-shift-difference",
        type=within(1e-3, 1e4),
        default=10.0,
        metavar="A",
        help="shifts agree if they are not further apart, in Angstrom",
    )
    option("--symmetry", default="C1", metavar="NAME", help="symmetry of the volume, as in `align`")
    option("--compare-classes", action="store_true", help="those that agree must also have the same class")
    option("--quiet", action="store_true", help="print only warnings")
    parser.set_defaults(run=_consensus)


def _consensus(args: argparse.Namespace) -> int:
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    import numpy as np

    from ..runs.particle_consensus import agree_stars
    from ..runs.particle_console import ParticleConsole

    stop_by_signals()
    console = ParticleConsole(args.quiet)
    try:
        found = agree_stars(
            args.stars,
            args.output,
            args.max_angle,
            args.max_shift_difference,
            args.symmetry,
            args.compare_classes,
            console.progress,
        )
    finally:
        console.close()
    if found.left_out:
        console.say("warning", f"{found.left_out:,} particles of {args.stars[0]} are in no other file and left out.")
    kept = int(found.agrees.sum())
    if not args.quiet:
        spread = f"; their spread is {np.median(found.spread_deg[found.agrees]):.2f} degrees (median)" if kept else ""
        print(f"{kept:,} of {len(found.agrees):,} particles have alignments that agree{spread}.")
        for star, off in zip(args.stars, found.off_deg):
            known = off[np.isfinite(off)]
            if len(known):
                share = 100 * (known <= args.max_angle).mean()
                print(f"{star}: {share:.0f} % within {args.max_angle:g} degrees of the consensus")
        print(f"results: {args.output}")
    return SUCCESS if kept else SOME_FAILED
