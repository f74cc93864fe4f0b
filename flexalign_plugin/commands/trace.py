"""`flexalign trace`: writes the positions of a micrograph's particles in every raw frame."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from ..errors import SettingsError
from ..result_files import TRACKS
from .values import SOME_FAILED, SUCCESS

N_NAMED = 3  # how many particles outside of the micrograph the message lists


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "trace",
        help="write the positions of particles in every raw frame",
        description="Write the positions, in unbinned pixels from 0, of particles picked in a micrograph in every "
        "aligned frame of its movie. Particles outside of the micrograph are left out with a warning.",
        epilog="Exit status: 0 at least one particle was traced, 1 none was, or the output can't be written; 2 invalid "
        "options or files.",
        allow_abbrev=False,
    )
    option = parser.add_argument
    option("motion", metavar="MOTION", help="the result's _motion.json")
    option(
        "--coords",
        required=True,
        metavar="FILE",
        help="particle positions in pixels of the written micrograph: a STAR file with rlnCoordinateX and "
        "rlnCoordinateY, or a text file with lines 'x y'",
    )
    option(
        "--output",
        metavar="FILE",
        help="file to write: CSV if its name ends with .csv, else STAR (default: <name of --coords>_tracks.star)",
    )
    parser.set_defaults(run=_trace)


def _trace(args: argparse.Namespace) -> int:
    import numpy as np

    from ..output.saved_result import load_saved_result
    from ..output.tracks import frame_positions, inside, micrograph_size, read_coordinates, write_tracks

    output = args.output or os.path.splitext(args.coords)[0] + TRACKS
    if os.path.realpath(output) in (os.path.realpath(args.coords), os.path.realpath(args.motion)):
        raise SettingsError(f"{output}: is an input of this command and would be replaced: choose another --output.")
    motion = load_saved_result(args.motion)
    y, x = read_coordinates(args.coords, motion.root)
    is_inside = inside(motion.model, motion.settings, y, x)
    if not is_inside.all():
        out = np.flatnonzero(~is_inside)
        named = [f"{i + 1} at x {x[i]:g}, y {y[i]:g}" for i in out[:N_NAMED]]
        ny, nx = micrograph_size(motion.model, motion.settings)
        print(
            f"flexalign: {args.coords}: {len(out)} of {len(y)} particles are outside the micrograph of {nx} x {ny} "
            f"pixels and left out (particle {'; '.join(named)}{'; ...' if len(out) > N_NAMED else ''}): give "
            "coordinates in pixels of the written micrograph.",
            file=sys.stderr,
        )
        if len(out) == len(y):
            return SOME_FAILED
    positions = frame_positions(motion.model, motion.settings, y[is_inside], x[is_inside])
    write_tracks(output, positions, motion.model.aligned_frames, np.flatnonzero(is_inside).tolist())
    print(f"{len(positions)} particles in {motion.model.n_aligned} frames: {output}")
    return SUCCESS
