"""FlexAlign: motion correction of cryo-EM movies on CPU and GPU, as a Scipion plugin and as a command.

The aligner and the command line do not need Scipion. `Plugin`, the class that pyworkflow requests, is therefore
imported only when it is used.

In the repository `protocols/`, `viewers/`, `kernels/` and `tests/` are at the top level. Links with these names in this
folder give a checkout the same imports as the installed package.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
_logo = "flexalign_logo.png"
_references = ["strelak2020flexalign"]


def __getattr__(name: str) -> Any:
    if name == "Plugin":
        from .plugin import Plugin

        return Plugin
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
