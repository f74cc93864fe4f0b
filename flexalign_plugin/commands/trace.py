"""`flexalign trace`: where particles of a micrograph are in every raw frame."""

from __future__ import annotations

import argparse
import os
from typing import Any

from .values import SUCCESS


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "trace",
        help="positions of particles in every raw frame",
        description="Write where particles picked in a micrograph are in every aligned frame of its movie, in unbinned "
        "pixels from 0.",
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
    from ..micrographs.tracks import frame_positions, load_motion, read_coordinates, write_tracks

    motion = load_motion(args.motion)
    y, x = read_coordinates(args.coords, motion.root)
    positions = frame_positions(motion.model, motion.settings, y, x)
    output = args.output or os.path.splitext(args.coords)[0] + "_tracks.star"
    write_tracks(output, positions, motion.model.aligned_frames)
    print(f"{len(positions)} particles in {motion.model.n_aligned} frames: {output}")
    return SUCCESS
