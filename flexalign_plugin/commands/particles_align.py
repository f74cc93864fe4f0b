"""`flexalign particles align`: its options, one for each field of `ParticleSettings`, and running the alignment."""

from __future__ import annotations

import argparse
import os
from typing import Any

from ..particles.settings import ParticleSettings
from ..result_files import REPORT
from .align import QUIET_HELP, add_setting
from .values import SOME_FAILED, SUCCESS, folder, positive, shorten_help, stop_by_signals

SHOWN = ("help", "output", "volume", "max_resolution", "mask_diameter", "max_shift", "symmetry", "threads")


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "align",
        help="find orientation, shift and volume of every particle",
        description="Find the orientation and shift of every particle, and which of the volumes it shows, by comparing "
        "its image with projections of the volumes. Writes particles.star with new columns, a report, and failed.tsv "
        "if particles can't be aligned. Killed and started again, it goes on where it was.",
        usage="%(prog)s STAR --volume MAP [--volume MAP2 ...] --output DIR [OPTION ...]",
        epilog="Exit status: 0 every particle is aligned, 1 some are not (see failed.tsv in the output folder), "
        "2 invalid options, or the particles or volumes can't be read; 130 interrupted.",
        allow_abbrev=False,
    )
    option = parser.add_argument
    option("star", metavar="STAR", help="particles with CTF: a STAR file as RELION writes it")
    option(
        "--volume",
        required=True,
        action="append",
        metavar="MAP",
        help="volume to compare with; repeat for several: each particle gets the one that it shows",
    )
    option("--output", required=True, type=folder, metavar="DIR", help="folder for the results, created if missing")
    option(
        "--volume-pixel-size", type=positive, metavar="A", help="pixel size of the volumes (default: that in the file)"
    )
    option("--no-report", action="store_true", help="write neither report.html nor pictures of the result")
    option("--quiet", action="store_true", help=QUIET_HELP.replace("failures", "warnings"))
    for name, setting in ParticleSettings.__dataclass_fields__.items():
        add_setting(parser, name, setting)
    shorten_help(parser, SHOWN)
    parser.set_defaults(run=_align)


def _align(args: argparse.Namespace) -> int:
    # The alignment uses its own threads, so BLAS must use one only. Must be set before NumPy is loaded.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    given = {name: value for name, value in vars(args).items() if name in ParticleSettings.__dataclass_fields__}
    settings = ParticleSettings.from_dict(given)
    from ..particles.volumes import read_volume
    from ..runs.particle_console import ParticleConsole
    from ..runs.particles import align_star

    stop_by_signals()
    console = ParticleConsole(args.quiet)
    volumes = [read_volume(path, args.volume_pixel_size or 0.0) for path in args.volume]
    try:
        table, result = align_star(args.star, volumes, settings, args.output, console.progress, console.say)
    finally:
        console.close()
    if not args.no_report:
        from ..runs.particle_pictures import write_pictures
        from ..runs.particle_report import report_particles

        console.files(write_pictures(args.output, result, settings.symmetry))
        report_particles(args.output, args.star, table, result, volumes, settings)
        console.files([os.path.join(args.output, REPORT)])
    console.end(result, len(volumes), args.output)
    return SOME_FAILED if result.failures else SUCCESS
