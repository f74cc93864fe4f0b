"""`python -m flexalign_plugin` is the command `flexalign`."""

from __future__ import annotations

import os
import sys

from . import launch

# `python -m` puts the current folder in front, in which there may be a `numpy.py` beside the movies.
try:
    here = os.getcwd()
except OSError:  # the folder was removed, which the command reports
    here = ""
if sys.path and sys.path[0] == here != launch.ROOT:
    del sys.path[0]

from .cli import main

sys.exit(main())
