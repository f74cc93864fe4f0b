"""`python -m flexalign_plugin` is the command `flexalign`."""

from __future__ import annotations

import sys

from .cli import main

sys.exit(main())
