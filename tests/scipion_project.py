"""A headless Scipion project made with pyworkflow alone, for the tests and the demo. Imports no Scipion by itself:
pyworkflow reads its environment when it is first imported, and `prepare` must come before that.
"""

from __future__ import annotations

import os
import sys
from typing import Any, List, Tuple

HOSTS = """[localhost]
PARALLEL_COMMAND = mpirun -np %_(JOB_NODES)d %_(COMMAND)s
"""


def prepare(home: str) -> None:
    """Set the environment that Scipion needs; `home` becomes its folder of projects and configuration."""
    os.makedirs(os.path.join(home, "config"), exist_ok=True)
    hosts = os.path.join(home, "config", "hosts.conf")
    with open(hosts, "w") as f:
        f.write(HOSTS)
    os.environ.update(
        SCIPION_HOME=home,
        SCIPION_USER_DATA=home,
        SCIPION_HOSTS=hosts,
        SCIPION_DOMAIN="pwem",
        SCIPION_NOTIFY="False",
        SCIPION_PYTHON=sys.executable,
        SCIPION_STEPS_CHECK_SEC="0",
        SCIPION_EM_NEW_FILE_CHECK_SEC="1",
        MPLBACKEND="Agg",
    )
    # Protocols run in processes of their own, which must find the plugin of this checkout.
    root = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    if os.path.isdir(os.path.join(root, "flexalign_plugin")):
        paths = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p and p != root]
        os.environ["PYTHONPATH"] = os.pathsep.join([root, *paths])


def new_project(name: str) -> Any:
    """An empty project; the working folder becomes its folder."""
    from pyworkflow.project import Manager

    project = Manager().createProject(name)
    os.chdir(project.path)
    return project


def import_movies(project: Any, folder: str, pattern: str, pixel_size_A: float, label: str = "", **params: Any) -> Any:
    """A finished ProtImportMovies."""
    from pwem.protocols import ProtImportMovies

    protocol = project.newProtocol(
        ProtImportMovies, filesPath=folder, filesPattern=pattern, samplingRate=pixel_size_A, voltage=300, **params
    )
    if label:
        protocol.setObjLabel(label)
    return run(project, protocol)


def new_alignment(project: Any, movies: Any, label: str = "", **params: Any) -> Any:
    """A ProtFlexAlign on the movies of an import."""
    from flexalign_plugin.protocols import ProtFlexAlign

    protocol = project.newProtocol(ProtFlexAlign, **params)
    protocol.inputMovies.set(movies)
    protocol.inputMovies.setExtended("outputMovies")
    if label:
        protocol.setObjLabel(label)
    return protocol


def run(project: Any, protocol: Any) -> Any:
    """Run a protocol in this process, one step after the other: no start-up and no waits."""
    from pyworkflow.protocol.executor import StepExecutor

    project._setupProtocol(protocol)
    protocol.makePathsAndClean()
    protocol.setStepsExecutor(StepExecutor(protocol.getHostConfig()))
    protocol.run()
    return protocol


def shifts(movie: Any) -> Tuple[List[float], List[float]]:
    """(x, y) shifts of an output movie, as plain lists."""
    x, y = movie.getAlignment().getShifts()
    return [float(v) for v in x], [float(v) for v in y]


def as_stored(project: Any, protocol: Any) -> Any:
    """The protocol as its own database has it. What `project._updateProtocol` read while the run was writing may be of
    two moments, and is then taken as up to date."""
    from pyworkflow.protocol.protocol import getProtocolFromDb

    return getProtocolFromDb(project.path, protocol.getDbPath(), protocol.getObjId())
