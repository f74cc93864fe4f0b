"""The plugin class for Scipion. There are no binaries to install, because the Python package contains everything."""

from __future__ import annotations

from typing import Any, List

import pwem
from pyworkflow import SPA, TOMO

_VARIABLES = (
    ("FLEXALIGN_CUDA_BIN", pwem.Config.CUDA_BIN, "Folder of the CUDA compiler nvcc, which compiles the GPU kernels."),
    (
        "FLEXALIGN_CUDA_LIB",
        pwem.Config.CUDA_LIB,
        "Folder of libcufft.so, the library for Fourier transforms on the GPU.",
    ),
    ("FLEXALIGN_CACHE", "~/.cache/flexalign", "Folder for compiled GPU kernels."),
    ("FLEXALIGN_TUNING_FILE", "~/.cache/flexalign/fft_sizes.json", "File with the fastest FFT sizes of each GPU."),
)


class Plugin(pwem.Plugin):
    """FlexAlign for Scipion."""

    __module__ = "flexalign_plugin"  # pyworkflow derives the plugin's folder from it

    # Scipion treats all protocols as not installed if a home or path variable names a folder that does not exist.
    _homeVar = ""
    _pathVars: List[str] = []
    _supportedVersions: List[str] = []
    _processingField = [SPA, TOMO]
    _url = "https://doi.org/10.3390/electronics9061040"

    @classmethod
    def _defineVariables(cls) -> None:
        """Define the variables with their defaults. The kernels read them from the environment."""
        for name, default, description in _VARIABLES:
            cls._defineVar(name, default, description=description)

    @classmethod
    def defineBinaries(cls, env: Any) -> None:
        """No binaries."""
