"""`flexalign trace`: where particles of a micrograph are in every raw frame."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from .values import SOME_FAILED, SUCCESS

N_NAMED = 3  # particles outside of the micrograph


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "trace",
        help="positions of particles in every raw frame",
        description="Write where particles picked in a micrograph are in every aligned frame of its movie, in unbinned "
        "pixels from 0. Particles outside of the micrograph are left out and named.",
        epilog="Exit status: 0 at least one particle was traced, 1 none was, or the output can't be written; 2 wrong "
        "options or files.",
        allow_abbrev=False,
    )
    option = parser.add_argument
    option("motion", metavar="MOTION", help="the result's _motion.json")
    option(
        "--coords",
        required=True,
        metavar="FILE",
        help="particles in pixels of the micrograph as it was written: a STAR file with rlnCoordinateX and Y, or lines "
        "of 'x y'",
    )
    option("--output", metavar="FILE", help="STAR file, or CSV by its name (default: <name of FILE>_tracks.star)")
    parser.set_defaults(run=_trace)


def _trace(args: argparse.Namespace) -> int:
    import numpy as np

    from ..output.tracks import frame_positions, inside, load_motion, micrograph_size, read_coordinates, write_tracks

    motion = load_motion(args.motion)
    y, x = read_coordinates(args.coords, motion.root)
    is_inside = inside(motion.model, motion.settings, y, x)
    if not is_inside.all():
        out = np.flatnonzero(~is_inside)
        named = [f"{i + 1} at x {x[i]:g}, y {y[i]:g}" for i in out[:N_NAMED]]
        ny, nx = micrograph_size(motion.model, motion.settings)
        print(
            f"flexalign: {args.coords}: {len(out)} of {len(y)} particles are outside the micrograph of {nx} x {ny} "
            f"pixels and left out (particle {'; '.join(named)}{'; ...' if len(out) > N_NAMED else ''}): give "
            "coordinates in pixels of the micrograph as it was written.",
            file=sys.stderr,
        )
        if len(out) == len(y):
            return SOME_FAILED
    positions = frame_positions(motion.model, motion.settings, y[is_inside], x[is_inside])
    output = args.output or os.path.splitext(args.coords)[0] + "_tracks.star"
    write_tracks(output, positions, motion.model.aligned_frames, np.flatnonzero(is_inside).tolist())
    print(f"{len(positions)} particles in {motion.model.n_aligned} frames: {output}")
    return SUCCESS
