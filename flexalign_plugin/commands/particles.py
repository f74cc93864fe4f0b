"""`flexalign particles`: orientations of particle images; its subcommands are modules of their own."""

from __future__ import annotations

from typing import Any

from . import particles_align, particles_consensus, particles_simulate


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "particles",
        help="find the orientations of particles by comparing them with volumes",
        description="Find the orientations of particle images by comparing them with projections of volumes.",
        allow_abbrev=False,
    )
    subcommands = parser.add_subparsers(dest="subcommand", metavar="COMMAND", required=True)
    for module in (particles_align, particles_consensus, particles_simulate):
        module.add(subcommands)
