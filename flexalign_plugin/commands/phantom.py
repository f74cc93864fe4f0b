"""`flexalign phantom`: makes movies with a known motion."""

from __future__ import annotations

import argparse
import os
from typing import Any

from ..errors import SettingsError
from .values import SUCCESS, count, finite, folder, positive, whole, within

LEAST_SIZE = 32
MOST_DOSE = 200  # counts above 255 saturate
MOST_SEED = 2**32


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "phantom",
        help="make movies with a known motion",
        description="Make movies with a known motion. The true motion is written next to each movie as "
        "<name>_truth.json.",
        epilog="Exit status: 0 all movies are written, 1 they can't be written, 2 invalid options.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    option = parser.add_argument
    option(
        "--output",
        required=True,
        type=folder,
        default=argparse.SUPPRESS,  # so that the help shows no default
        metavar="DIR",
        help="folder for the movies, created if missing",
    )
    option(
        "--kind",
        choices=("particles", "grid"),
        default="particles",
        help="random structure, or the grid of the FlexAlign paper",
    )
    option(
        "--size", nargs=2, type=count, metavar=("NX", "NY"), default=(4096, 4096), help="size of the frames in pixels"
    )
    option("--frames", type=count, metavar="N", default=30, help="frames in a movie")
    option("--format", choices=("mrc", "tiff", "eer"), default="mrc", help="format of the movie")
    option("--compression", choices=("none", "lzw", "deflate", "zstd"), default="none", help="TIFF only: compression")
    option("--hardware-frames", type=count, metavar="N", default=8, help="EER only: hardware frames per frame")
    gains = ("none", "auto", "mrc", "tiff", "gain")
    option(
        "--gain",
        choices=gains,
        default="none",
        help="format of the gain file; unless none, the detector has uneven gain and defect pixels",
    )
    option("--movies", type=count, metavar="N", default=1, help="number of movies, with consecutive seeds")
    option("--name", default="phantom", help="start of the file names")
    option("--overwrite", action="store_true", help="replace existing files of these names")
    option("--seed", type=whole, metavar="N", default=1, help="random seed of structure, motion and noise")
    option("--pixel-size", type=within(0.01, 1000), metavar="A", default=1.0, help="pixel size in Angstrom")
    option = parser.add_argument_group("particles only").add_argument
    option("--dose", type=positive, metavar="D", default=1.0, help="electrons per pixel and frame")
    option(
        "--contrast", type=within(1e-6, 10), metavar="C", default=0.15, help="RMS of the structure relative to its mean"
    )
    option("--band-limit", type=within(0.02, 1000), metavar="A", default=10.0, help="resolution limit in Angstrom")
    option("--drift", type=finite, metavar="PX", default=9.0, help="length of the global drift in pixels")
    option("--local", type=finite, metavar="PX", default=3.0, help="largest local motion along each axis in pixels")
    option(
        "--local-points",
        type=_at_least_2,
        metavar="N",
        default=3,
        help="random values of the local motion along each axis: 3 is as smooth as in real movies, more is rougher",
    )
    option(
        "--defocus",
        type=within(-1e6, 1e6),
        metavar="A",
        default=0.0,
        help="underfocus in Angstrom, for Thon rings; 0: no CTF",
    )
    option = parser.add_argument_group("grid only").add_argument
    option(
        "--doming",
        type=within(-100, 100),
        metavar="D",
        default=1.0,
        help="doming relative to the paper's; 0: drift only",
    )
    parser.set_defaults(run=_phantom)


def _phantom(args: argparse.Namespace) -> int:
    if args.compression != "none" and args.format != "tiff":
        raise SettingsError(f"--compression {args.compression} is for TIFF only: add --format tiff or leave it out.")
    if min(args.size) < LEAST_SIZE:
        raise SettingsError(f"--size {args.size[0]} {args.size[1]}: give at least {LEAST_SIZE} pixels along each axis.")
    if max(abs(args.drift), abs(args.local)) > min(args.size):
        raise SettingsError(
            f"--drift {args.drift:g}, --local {args.local:g}: the motion is larger than the frame: give smaller values."
        )
    if args.dose > MOST_DOSE:
        raise SettingsError(
            f"--dose {args.dose:g}: give at most {MOST_DOSE} electrons per pixel, because counts are stored in 8 bits."
        )
    if args.seed > MOST_SEED:
        raise SettingsError(f"--seed {args.seed}: give at most {MOST_SEED}.")
    from tqdm import tqdm

    from ..files import output_error, prepare_folder
    from ..phantoms.files import phantom_files, with_detector, write_phantom

    names = [args.name] if args.movies == 1 else [f"{args.name}_{i + 1:04d}" for i in range(args.movies)]
    for name in () if args.overwrite else names:
        for path in phantom_files(args.output, name, args.format, args.gain).values():
            if os.path.lexists(path):
                raise SettingsError(f"{path}: exists and is kept: choose another --output or --name, or --overwrite.")
    prepare_folder(args.output)
    per_frame = args.hardware_frames if args.format == "eer" else 1
    for i, name in enumerate(names):
        try:
            phantom = made_phantom(args, args.seed + i)
            if args.gain != "none":
                phantom = with_detector(phantom, args.seed)  # one detector for all movies of a call
            # `disable=None` shows the bar at a terminal only.
            with tqdm(total=args.frames * per_frame, desc=name, unit="frame", leave=False, disable=None) as bar:
                files = write_phantom(
                    phantom, args.output, name, args.format, args.compression, args.gain, per_frame, bar.update
                )
        except ValueError as error:
            raise SettingsError(f"The phantom can't be made: {error}.") from error
        except OSError as error:
            raise output_error(os.path.join(args.output, name), error) from error
        for kind, path in files.items():
            print(f"{kind}: {path}", flush=True)
    if args.format == "eer":
        print(f"align with: --n-frames {args.frames}")
    return SUCCESS


def _at_least_2(text: str) -> int:
    if count(text) < 2:
        raise argparse.ArgumentTypeError("give at least 2: fewer values can't vary across the frame")
    return int(text)


def made_phantom(args: argparse.Namespace, seed: int) -> Any:
    """The phantom that the options describe."""
    from ..phantoms.phantom import grid_phantom, particle_phantom

    shape = (args.frames, args.size[1], args.size[0])
    if args.kind == "grid":
        return grid_phantom(shape, args.doming, args.pixel_size, seed)
    return particle_phantom(
        shape,
        pixel_size_A=args.pixel_size,
        dose=args.dose,
        contrast=args.contrast,
        band_limit_A=args.band_limit,
        drift_px=args.drift,
        local_px=args.local,
        control_points=args.local_points,
        seed=seed,
        defocus_A=args.defocus,
    )
