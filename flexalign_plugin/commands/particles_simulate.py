"""`flexalign particles simulate`: makes particle images whose orientations are known."""

from __future__ import annotations

import argparse
import os
from typing import Any

from ..errors import SettingsError
from .phantom import MOST_SEED
from .values import SUCCESS, count, folder, whole, within

LEAST_BOX, MOST_BOX = 16, 1024


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "simulate",
        help="make particle images whose orientations are known",
        description="Make particle images with CTF and white noise, whose orientations are known: a stack, a STAR file "
        "with the truth, and the map.",
        epilog="Exit status: 0 the files are written, 1 they can't be written, 2 invalid options, or the volume can't "
        "be read.",
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
        help="folder for the files, created if missing",
    )
    option(
        "--volume",
        action="append",
        default=argparse.SUPPRESS,
        metavar="MAP",
        help="volume to show; repeat for several, of which each particle shows one; without it a phantom like a "
        "protein of 146 A",
    )
    option("--particles", type=count, metavar="N", default=1000, help="number of particles")
    option("--box", type=whole, metavar="PX", default=0, help="side of the images, even; 0: that of the volume, or 64")
    option(
        "--pixel-size",
        type=within(0.05, 100),
        default=argparse.SUPPRESS,
        metavar="A",
        help="pixel size of the images (default: that of the volume, or 4)",
    )
    option(
        "--snr",
        type=within(1e-4, 1e4),
        default=0.1,
        metavar="R",
        help="signal-to-noise ratio: variance of the images without noise over that of the noise, over all pixels",
    )
    option(
        "--defocus",
        nargs=2,
        type=within(0, 1e5),
        default=(5000.0, 25000.0),
        metavar=("MIN", "MAX"),
        help="range of the underfocus in Angstrom",
    )
    option(
        "--shift", type=within(0, 1000), default=8.0, metavar="A", help="standard deviation of the positions along x, y"
    )
    option("--max-shift", type=within(0, 1000), default=20.0, metavar="A", help="largest distance from the centre")
    option("--voltage", type=within(10, 2000), default=300.0, metavar="KV", help="voltage in kV")
    option("--spherical-aberration", type=within(0, 100), default=2.7, metavar="MM", help="in mm")
    option("--amplitude-contrast", type=within(0, 1), default=0.1, metavar="W", help="amplitude contrast")
    option("--seed", type=whole, metavar="N", default=1, help="random seed of orientations, CTF and noise")
    option("--quiet", action="store_true", help="print only warnings")
    parser.set_defaults(run=_simulate)


def _simulate(args: argparse.Namespace) -> int:
    if args.seed > MOST_SEED:
        raise SettingsError(f"--seed {args.seed}: give at most {MOST_SEED}.")
    if args.defocus[0] > args.defocus[1]:
        raise SettingsError(f"--defocus {args.defocus[0]:g} {args.defocus[1]:g}: give the smaller value first.")
    if args.box and (args.box % 2 or not LEAST_BOX <= args.box <= MOST_BOX):
        raise SettingsError(f"--box {args.box}: give an even number from {LEAST_BOX} to {MOST_BOX}.")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from ..output.replacing import is_same_movie
    from ..particles.ctf import Optics
    from ..particles.simulate import chains
    from ..particles.volumes import fitted, read_volume
    from ..runs.particle_console import ParticleConsole
    from ..runs.particle_simulation import STACK, STAR, Simulation, map_name, write_simulation

    console = ParticleConsole(args.quiet)
    given = getattr(args, "volume", [])
    for path in given:
        if any(is_same_movie(path, os.path.join(args.output, map_name(i + 1))) for i in range(len(given))):
            raise SettingsError(f"{path}: would be replaced by the map that is written: choose another output folder.")
    read = [read_volume(path) for path in given]
    box, pixel_A = args.box, getattr(args, "pixel_size", 0.0)
    if read:
        box, pixel_A = box or len(read[0].values), pixel_A or read[0].pixel_A
        if box > MOST_BOX:
            raise SettingsError(f"{read[0].name}: has {box} voxels a side: give a smaller box with --box.")
        volumes = []
        for volume in read:
            values, notes = fitted(volume, box, pixel_A)
            volumes.append(values)
            for note in notes:
                console.say("note", note)
    else:
        box, pixel_A = box or 64, pixel_A or 4.0
        volumes = [chains(box, pixel_A, 0.57 * box * pixel_A, 3500, args.seed)]
    if args.max_shift > box * pixel_A / 2:
        raise SettingsError(
            f"--max-shift {args.max_shift:g}: the images are only {box * pixel_A:g} A wide: give at most half of that."
        )
    optics = Optics(pixel_A, args.voltage, args.spherical_aberration, args.amplitude_contrast)
    what = Simulation(
        args.particles,
        optics,
        args.snr,
        args.shift / pixel_A,
        args.max_shift / pixel_A,
        tuple(args.defocus),
        args.seed,
    )
    try:
        write_simulation(args.output, volumes, what, console.progress)
    finally:
        console.close()
    for name in (STACK, STAR, *(map_name(number) for number in range(1, len(volumes) + 1))):
        print(os.path.join(args.output, name))
    return SUCCESS
