"""The plugin as Scipion sees it. There are no binaries to install: everything comes with the Python package."""

from __future__ import annotations

from typing import Any, List

import pwem

_VARIABLES = (
    ("FLEXALIGN_CUDA_BIN", pwem.Config.CUDA_BIN, "Folder of the CUDA compiler nvcc, which compiles the GPU kernels."),
    ("FLEXALIGN_CUDA_LIB", pwem.Config.CUDA_LIB, "Folder of libcufft.so, the library of the GPU's Fourier transforms."),
    ("FLEXALIGN_CACHE", "~/.cache/flexalign", "Folder for compiled GPU kernels."),
    ("FLEXALIGN_TUNING_FILE", "~/.cache/flexalign/fft_sizes.json", "File of the FFT sizes found fast on each GPU."),
)


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
        """Where the parts of CUDA are; whoever uses them reads the variables from the environment."""
        for name, default, description in _VARIABLES:
            cls._defineVar(name, default, description=description)

    @classmethod
    def defineBinaries(cls, env: Any) -> None:
        """No binaries."""
