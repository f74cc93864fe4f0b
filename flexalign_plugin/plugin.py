"""The plugin as Scipion sees it. There are no binaries to install: everything comes with the Python package."""

from __future__ import annotations

from typing import Any, List

import pwem


class Plugin(pwem.Plugin):
    """FlexAlign for Scipion."""

    __module__ = "flexalign_plugin"  # where pyworkflow looks for the plugin's folder

    # A home or path variable would have to exist on disk, else Scipion takes all protocols as not installed.
    _homeVar = ""
    _pathVars: List[str] = []
    _supportedVersions: List[str] = []
    _url = "https://doi.org/10.3390/electronics9061040"

    @classmethod
    def _defineVariables(cls) -> None:
        """No variables."""

    @classmethod
    def defineBinaries(cls, env: Any) -> None:
        """No binaries."""
