"""For containers without a home folder; the package imports it before anything imports numba or matplotlib.

matplotlib would fail, and numba would make a folder named `~` beside the movies and later load code from it.
"""

from __future__ import annotations

import os

if not os.path.isabs(os.path.expanduser("~")):
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        os.environ.setdefault(name, os.path.join(os.devnull, "no home folder"))
