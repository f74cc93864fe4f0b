"""Starts the command, or a worker process, so that no Python file of the folder in which it runs is imported.

`python -m` and an empty entry in PYTHONPATH put the working folder before all others, and that folder often holds data
of other people: a numpy.py there would be run. Processes are therefore started by the path of this file:

    python .../flexalign_plugin/launch.py flexalign_plugin.execution.worker_process ARGUMENT ...
"""

import os
import site
import sys
from typing import List

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)


def command(module: str) -> List[str]:
    """The beginning of a command line that runs `module` as a program, whatever the working folder contains."""
    return [sys.executable, os.path.join(HERE, "launch.py"), module]


def leave_out_working_folder() -> None:
    """Remove the working folder from `sys.path`, unless it is there for another reason than being the working folder,
    and remove relative folders."""
    try:
        here = os.getcwd()
    except OSError:  # it was deleted
        here = ""
    named = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    wanted = {ROOT, *site.getsitepackages(), site.getusersitepackages(), *filter(os.path.isabs, named)}
    sys.path[:] = [path for path in sys.path if os.path.isabs(path) and (path != here or path in wanted)]


if __name__ == "__main__":
    # As a program: the folder of this file, which Python puts first, holds modules of the package and no libraries.
    sys.path[:] = [path for path in sys.path if path != HERE]
    leave_out_working_folder()
    if os.path.basename(ROOT) not in ("site-packages", "dist-packages") and ROOT not in sys.path:
        sys.path.insert(0, ROOT)  # a checkout
    import runpy

    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
