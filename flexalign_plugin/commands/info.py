"""`flexalign info`: prints versions, processor and devices, and which device will be used."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from .. import __version__
from .values import SUCCESS


def add(commands: Any) -> None:
    parser = commands.add_parser("info", help="print versions, processor and devices, and which is used")
    parser.set_defaults(run=_info)


def _info(args: argparse.Namespace) -> int:
    import importlib
    import platform

    from ..kernels import describe_devices, select_backend, usable_cores

    print(f"flexalign     {__version__} ({os.path.dirname(os.path.dirname(os.path.abspath(__file__)))})")
    print(f"python        {platform.python_version()} ({sys.executable})")
    for name in ("numpy", "scipy", "numba", "imagecodecs", "tifffile", "mrcfile", "matplotlib"):
        try:
            print(f"{name:13} {importlib.import_module(name).__version__}")
        except ImportError as error:
            print(f"{name:13} missing ({error}): install it, e.g. with pip install {name}")
    memory_GB = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    print(f"processor     {usable_cores()} of {os.cpu_count()} cores may be used, {memory_GB:.0f} GB of memory")
    for i, line in enumerate(describe_devices()):
        print(f"{'' if i else 'devices':13} {line}")
    backend: Any = select_backend("auto")
    print(
        f"will be used  {backend.name}, {backend.threads} threads, unless --device names a GPU: the GPU code has not "
        "been run on hardware yet"
    )
    return SUCCESS
