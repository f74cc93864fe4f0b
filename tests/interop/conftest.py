"""What these tests need: movies of known motion, imported into a Scipion project and aligned by FlexAlign there.

The tests run the converters and readers of other plugins on our outputs. A test needs the plugin and not the program
that the plugin calls; it begins with `pytest.importorskip("relion")` and is skipped where the plugin is missing.
`make test` does not install these plugins, because Scipion loads all that it finds, in every test. `bash .ci/run` runs
the folder in an environment that has them. By hand:

    interop=$(bash .ci/interop "$(bash .ci/environment)")
    "$interop/bin/python" -m pytest tests/interop

A test asks for a finished run with `run = aligned("mrc", binFactor=2.0)`: the format of the movies, and parameters of
the form that differ from the default. Runs with the same parameters are made once. `run.protocol` has the outputs,
`run.project` is the project, whose folder is the working folder from then on, `run.truths` the true motion.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import itertools
import os
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple
from unittest import mock

import pytest

from flexalign_plugin.phantoms.files import with_detector, write_phantom
from flexalign_plugin.phantoms.phantom import particle_phantom

from .. import scipion_project

SHAPE = (8, 256, 320)  # frames, y, x of each movie
PIXEL_A = 4.0
DOSE = 1.5  # e/A^2 in a frame
HARDWARE_PER_FRAME = 6  # of EER movies
N_MOVIES = 2
IMPORTED_DOSE = {"mrc": DOSE, "tiff": DOSE, "eer": DOSE / HARDWARE_PER_FRAME}
# Aligned movies of frames 3 to 7.
SAVED_MOVIES = {"doSaveMovie": True, "binFactor": 2.0, "alignFrame0": 3, "alignFrameN": 7, "doLocalAlignment": False}
GAIN = {"mrc": "movie_1_gain.mrc", "tiff": "movie_1_gain.tif", "eer": "movie_1_gain.gain"}


@dataclasses.dataclass
class Run:
    """A finished run of FlexAlign.

    Attributes
    ----------
    folder : with movie_1.EXT, movie_2.EXT and the gain of both.
    truths : true motion by the number of the movie, from 1.
    imported, protocol : the import and the alignment.
    """

    folder: str
    truths: Dict[int, Any]
    project: Any
    imported: Any
    protocol: Any


@dataclasses.dataclass
class Movies:
    folder: str
    truths: Dict[int, Any]


def write_movies(folder: Path, movie_format: str, **parameters: Any) -> Movies:
    """Movies of drift, local motion and one detector, with dead and hot pixels; keywords of `particle_phantom`."""
    truths = {}
    for number in range(1, N_MOVIES + 1):
        chosen = {"dose": 4, "contrast": 0.4, "band_limit_A": 20, "drift_px": 6, "local_px": 1.5, "seed": number}
        phantom = with_detector(particle_phantom(SHAPE, pixel_size_A=PIXEL_A, **{**chosen, **parameters}))
        name = f"movie_{number}"
        write_phantom(phantom, str(folder), name, movie_format, hardware_per_frame=HARDWARE_PER_FRAME)
        truths[number] = phantom.truth
    return Movies(str(folder), truths)


@pytest.fixture(autouse=True, scope="session")
def environment() -> None:
    """Skips all tests where the plugins are not installed, which would run Scipion's imports for nothing."""
    if importlib.util.find_spec("relion") is None:
        pytest.skip("the plugins of other programs are not installed: use the environment of .ci/interop")


@pytest.fixture(scope="session")
def movies(tmp_path_factory):
    """`movies("mrc")`: the movies in this format ("mrc", "tiff", "eer"), written when they are first asked for."""
    made: Dict[str, Movies] = {}

    def get(movie_format: str) -> Movies:
        if movie_format not in made:
            made[movie_format] = write_movies(tmp_path_factory.mktemp(movie_format), movie_format)
        return made[movie_format]

    return get


@pytest.fixture(scope="session")
def aligned(movies):
    """`aligned("mrc", binFactor=2.0)`: a finished run with these parameters of the form; see above."""
    finished: Dict[Tuple[Any, ...], Run] = {}
    count = itertools.count(1)

    def get(movie_format: str, **parameters: Any) -> Run:
        key = (movie_format, *sorted(parameters.items()))
        if key not in finished:
            project = scipion_project.new_project(f"interop_{next(count)}_{movie_format}")
            finished[key] = align(project, movies(movie_format), movie_format, **parameters)
        os.chdir(finished[key].project.path)
        return finished[key]

    return get


def align(project: Any, made: Movies, movie_format: str, **parameters: Any) -> Run:
    """Import the movies with their gain and dose, and align them."""
    imported = scipion_project.import_movies(
        project,
        made.folder,
        {"mrc": "movie_?.mrc", "tiff": "movie_?.tif", "eer": "movie_?.eer"}[movie_format],
        PIXEL_A,
        gainFile=os.path.join(made.folder, GAIN[movie_format]),
        dosePerFrame=IMPORTED_DOSE[movie_format],
    )
    parameters = {"nFrames": SHAPE[0], **parameters}
    protocol = scipion_project.new_alignment(project, imported, **parameters)
    problems = protocol.validate()
    assert problems == []
    scipion_project.run(project, protocol)
    assert protocol.isFinished(), protocol.getErrorMessage()
    assert protocol.outputMovies.getSize() == N_MOVIES
    return Run(made.folder, made.truths, project, imported, protocol)


@contextlib.contextmanager
def recorded_command(protocol: Any, look: Callable[[List[str]], object]) -> Iterator[List[List[str]]]:
    """The commands that a protocol would run, each split into lines (programs of cisTEM read values from standard
    input). Nothing is run; `look` is called instead, when the files that the program would read are there."""
    commands: List[List[str]] = []

    def record(program: str, arguments: str, **_: Any) -> None:
        commands.append(arguments.splitlines())
        look(commands[-1])

    with mock.patch.object(protocol, "runJob", record):
        yield commands
