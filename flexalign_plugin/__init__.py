"""FlexAlign: motion correction of cryo-EM movies on CPU and GPU, as a Scipion plugin and as a command.

The aligner (`aligner`, `movies`, `motion`, `micrographs`, `kernels`) and the command line need no Scipion.
`Plugin`, which pyworkflow asks for, is therefore handed out lazily.
"""

from __future__ import annotations

import os as _os
from typing import Any

_here = _os.path.dirname(_os.path.abspath(__file__))
_root = _os.path.dirname(_here)
if not _os.path.isdir(_os.path.join(_here, "protocols")) and _os.path.isfile(
    _os.path.join(_root, "protocols", "__init__.py")
):
    # Run from a checkout: protocols/, viewers/, kernels/ and tests/ stand beside this folder, not in it.
    __path__.append(_root)

__version__ = "0.1.0"
_logo = "flexalign_logo.png"
_references = ["strelak2020flexalign"]


def __getattr__(name: str) -> Any:
    if name == "Plugin":
        from .plugin import Plugin

        return Plugin
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
