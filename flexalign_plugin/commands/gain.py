"""`flexalign gain`: determines the orientation of a gain reference, or estimates one that is missing."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from .values import SOME_FAILED, SUCCESS, count


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "gain",
        help="determine the orientation of a gain reference, or estimate a missing one",
        description="Rank all rotations and flips of a gain reference, each multiplying or dividing, by how well it "
        "explains the sum of the raw frames. Or, with --estimate, make a gain reference from the mean of many movies. "
        "The movies must not be gain-corrected.",
        epilog="Exit status: 0 one orientation is clearly the best, or the gain was estimated from all movies; 1 none "
        "is, or a movie was left out, or the estimate adds more noise than it removes; 2 invalid options or files.",
        allow_abbrev=False,
    )
    option = parser.add_argument
    option("movies", nargs="+", metavar="MOVIE", help="raw movie; several movies of one camera give a clearer result")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--gain", metavar="FILE", help="gain reference (MRC, TIFF, EER .gain or dm4)")
    what.add_argument("--estimate", action="store_true", help="estimate the gain from the movies, better from hundreds")
    option("-o", "--output", metavar="FILE", help="with --estimate: the gain, as .mrc or .tif")
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
    from ..errors import SettingsError

    if bool(args.output) != args.estimate:
        raise SettingsError("--estimate and --output belong together: --estimate --output gain.mrc.")
    return _estimate(args) if args.estimate else _orientation(args)


def _estimate(args: argparse.Namespace) -> int:
    from .. import __version__
    from ..errors import CorrectionError, MovieError, SettingsError
    from ..movies import open_movie
    from ..movies.gain_estimate import GainEstimator
    from ..output.gain_file import kind_of_gain, write_gain
    from ..output.replacing import is_same_movie
    from ..settings import Settings

    kind_of_gain(args.output)
    if any(is_same_movie(args.output, movie) for movie in args.movies):
        raise SettingsError(f"{args.output}: is one of the movies: give the gain another name.")
    settings = Settings(n_frames=args.n_frames, eer_sampling=args.eer_sampling)
    estimator, top_row_first, left_out = GainEstimator(), False, 0
    for path in args.movies:
        try:
            with open_movie(path, settings) as movie:
                estimator.add(movie)
                top_row_first = movie.top_row_first
        except (MovieError, CorrectionError) as error:
            left_out += 1
            print(f"Left out: {error}", file=sys.stderr)
    found = estimator.estimate()
    electrons = found.electrons_per_px
    basis = "unknown number of electrons" if electrons is None else f"{electrons:.0f} electrons per pixel"
    rests_on = f"{found.movies} movies, {found.frames} frames, {basis}"
    write_gain(
        args.output,
        found.gain,
        top_row_first,
        [
            f"gain estimated by FlexAlign {__version__}; multiply",
            f"from {rests_on}",
            f"relative error {found.error:.4f} rms",
        ],
    )
    print(f"{args.output}: from {rests_on}")
    print(f"expected error {found.error:.2%}, detail of the gain {found.detail:.2%} (rms, relative)")
    print(f"dead pixels {found.dead_px}, hot pixels {found.hot_px}: 0 in the gain, which marks them as defects")
    if not found.is_useful:
        print(
            "This gain adds more noise than it removes: give more movies, or do without one if the movies are "
            "gain-corrected."
        )
    name = os.path.basename(args.output)
    print(f"Use: --gain {name}, with no rotation and no flip")
    return SUCCESS if found.is_useful and not left_out else SOME_FAILED


def _orientation(args: argparse.Namespace) -> int:
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
