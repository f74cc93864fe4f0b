"""Packaging of the FlexAlign plugin.

The top level of the repository has the rooms `flexalign_plugin/`, `protocols/`, `viewers/`, `kernels/` and `tests/`;
installed, they are one package: `protocols/` becomes `flexalign_plugin.protocols`, and so on.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent
PACKAGE = "flexalign_plugin"
ROOMS = ("protocols", "viewers", "kernels", "tests")


def version() -> str:
    """The version that the package states, read without importing it (its dependencies may not be there yet)."""
    text = (HERE / PACKAGE / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE).group(1)


def packages() -> dict:
    """{package name: folder} of every package, subpackages included."""
    found = {PACKAGE: PACKAGE}
    for sub in find_packages(str(HERE / PACKAGE)):
        if sub.split(".")[0] not in ROOMS:
            found[f"{PACKAGE}.{sub}"] = f"{PACKAGE}/{sub.replace('.', '/')}"
    for room in ROOMS:
        found[f"{PACKAGE}.{room}"] = room
        for sub in find_packages(str(HERE / room)):
            found[f"{PACKAGE}.{room}.{sub}"] = f"{room}/{sub.replace('.', '/')}"
    found[f"{PACKAGE}.docs"] = "docs"
    return found


setup(
    name="scipion-em-flexalign",
    version=version(),
    description="FlexAlign: global and local motion correction of cryo-EM movies, as a Scipion plugin and as a command",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="GPL-3.0-or-later",
    classifiers=[
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Image Processing",
    ],
    keywords="scipion cryo-em motion-correction movies flexalign",
    python_requires=">=3.8,<3.13",  # 3.8 is Scipion's own environment; Scipion's pins can't be installed on 3.13
    packages=sorted(packages()),
    package_dir=packages(),
    package_data={
        PACKAGE: ["protocols.conf", "*.png", "templates/*.json.template"],
        f"{PACKAGE}.report_pages": ["*.html", "*.css", "*.js"],
        f"{PACKAGE}.docs": ["*.md", "*.png"],  # Help in the form shows them
        f"{PACKAGE}.kernels": ["*.cu", "*.cuh"],
        f"{PACKAGE}.tests": ["emulation/*.h", "emulation/driver/*.cpp", "emulation/kernels/*.cu"],
    },
    install_requires=[
        "scipion-pyworkflow>=3.11.6",  # protocols, forms, projects; retries of locked databases
        "scipion-em>=3.11.1",  # ProtAlignMovies and the movie and micrograph objects; pins numpy, scipy, matplotlib
        # numpy, scipy, matplotlib, tifffile (TIFF and EER containers), mrcfile, pillow (PNG) and ncempy (dm4 gains)
        # come with the two above, which pin them.
        # LZW, deflate and zstd TIFF strips, EER bit streams; scipion-em does not bring it. Later releases ask for
        # numpy 2, which Scipion's pins exclude, and send pip through all old versions of everything else.
        "imagecodecs>=2023.1.23,<=2026.1.14",
        "numba>=0.57",  # the CPU kernels, compiled when first used
        "tqdm",  # progress bar of the command line
        "threadpoolctl>=3",  # BLAS uses one thread where particles are aligned in several
    ],
    extras_require={
        # The GPU backend. pycuda is compiled on the machine, with the CUDA toolkit, whose cuFFT is used. Where the
        # toolkit has none, NVIDIA's wheel has it, for the toolkit's version.
        "cuda": ["pycuda>=2022.1"],
        "cuda12": ["pycuda>=2022.1", "nvidia-cufft-cu12"],
        "cuda13": ["pycuda>=2022.1", "nvidia-cufft"],
        # Particles: an index for very large galleries.
        "search": ["faiss-cpu"],
        # The protocol for tilt series.
        "tomo": ["scipion-em-tomo>=3.12"],
        # Other plugins, whose readers and converters tests/interop runs on our outputs (.ci/interop installs them).
        "interop": [
            "scipion-em-relion>=5.0.2",
            "scipion-em-motioncorr>=4.0.1",
            "scipion-em-cistem>=3.10.1",
            "scipion-em-xmipp>=29.0.1",
            "scipion-em-cryosparc2>=5.0.1",
            "scipion-em-tomo>=3.12",
            "scipion-app>=3.8",  # scipion-em-xmipp imports it
        ],
        # What `make test` runs. starfile reads our STAR files as users' scripts do; it has left Python 3.8 behind.
        # hypothesis makes the damaged files of tests/fuzz; pip takes an older one for Python 3.8. faiss-cpu is that of
        # `search`.
        "dev": [
            "pytest",
            "ruff",
            "mypy",
            "build",
            "hypothesis>=6.100",
            "starfile; python_version >= '3.9'",
            "faiss-cpu",
        ],
    },
    entry_points={
        "pyworkflow.plugin": [f"{PACKAGE} = {PACKAGE}"],
        "console_scripts": [f"flexalign = {PACKAGE}.cli:main"],
    },
)
