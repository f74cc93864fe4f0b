"""FlexAlign: motion correction of cryo-EM movies on CPU and GPU, as a Scipion plugin and as a command.

The aligner and the command line need no Scipion: only `protocols`, `viewers`, `plugin` and `wizards` import it.
`Plugin`, which pyworkflow asks for, is therefore loaded when it is first used.

In the repository `protocols/`, `viewers/`, `kernels/` and `tests/` stand at the top level. The links of these names in
this folder make a checkout import exactly as the installed package does.
"""

from __future__ import annotations

from typing import Any

from . import no_home  # noqa: F401

__version__ = "1.2.0"
_logo = "flexalign_logo.png"
_references = ["strelak2020flexalign"]


def __getattr__(name: str) -> Any:
    if name == "Plugin":
        from .plugin import Plugin

        return Plugin
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
