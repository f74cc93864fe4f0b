"""`flexalign gain`: determines the orientation of a gain reference."""

from __future__ import annotations

import argparse
from typing import Any

from .values import SOME_FAILED, SUCCESS, count


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "gain",
        help="determine the orientation of a gain reference",
        description="Rank all rotations and flips of a gain reference, each multiplying or dividing, by how well it "
        "explains the sum of the raw frames. The movies must not be gain-corrected.",
        epilog="Exit status: 0 one orientation is clearly the best, 1 none is, 2 invalid options or files.",
        allow_abbrev=False,
    )
    option = parser.add_argument
    option("movies", nargs="+", metavar="MOVIE", help="raw movie; several movies of one camera give a clearer result")
    option("--gain", required=True, metavar="FILE", help="gain reference (MRC, TIFF, EER .gain or dm4)")
    option("--gain-row-order", choices=("auto", "same", "flipped"), default="auto", help="as for align")
    option(
        "--n-frames",
        type=count,
        metavar="N",
        default=10,
        help="EER only: number of frames into which the hardware frames are grouped (default: 10)",
    )
    option("--eer-sampling", type=int, choices=(1, 2, 4), default=1, help="EER only: as for align (default: 1)")
    parser.set_defaults(run=_gain)


def _gain(args: argparse.Namespace) -> int:
    from ..errors import CorrectionError
    from ..movies import open_movie
    from ..movies.gain_orientation import find_orientation, raw_sum
    from ..settings import Settings

    settings = Settings(
        gain=args.gain,
        gain_row_order=args.gain_row_order,
        n_frames=args.n_frames,
        eer_sampling=args.eer_sampling,
    )
    with open_movie(args.movies[0], settings) as movie:
        total = raw_sum(movie)
    for path in args.movies[1:]:
        with open_movie(path, settings) as movie:
            if movie.shape[1:] != total.shape:
                raise CorrectionError(
                    f"{path}: its frames are not of the same size as those of {args.movies[0]}: leave this movie out."
                )
            total += raw_sum(movie)
    with open_movie(args.movies[0], settings) as movie:
        verdict = find_orientation(movie, total, settings)
    if verdict.fits:
        print("rotation  flip         gain      explains  +/-")
    for fit in verdict.fits:
        if fit.slope > 0:
            print(f"{fit.rotation:8}  {fit.flip:11}  {fit.convention:8}  {fit.slope:8.1%}  {fit.error:.1%}")
    if verdict.best is None:
        print(f"Undecided. {verdict.reason}")
        return SOME_FAILED
    print(f"Use: {verdict.best.options()}")
    return SUCCESS
