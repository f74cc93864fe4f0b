"""Starts processes of this package that never import a module from the folder in which they run.

`python -m` puts the current folder in front of all others, so that a `numpy.py` beside the movies would be run. The
processes run this file as a script instead: `python .../launch.py MODULE ARGUMENT ...`. As it knows where the package
is, they also find it without PYTHONPATH: in a checkout, or on another machine.
"""

# Only modules that Python itself has loaded before, because the search path is put in order further down.
import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def command(module: str) -> "list[str]":
    """The beginning of a command that runs `module`, e.g. "flexalign_plugin.execution.worker_process"."""
    return [sys.executable, os.path.abspath(__file__), module]


def environment() -> "dict[str, str]":
    """Environment for such a process. PYTHONPATH has no empty or relative entries: they stand for the current folder,
    from which Python itself would import a `sitecustomize.py` before it runs this file."""
    folders = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if os.path.isabs(folder)]
    # site-packages is on the path anyway; in PYTHONPATH it would hide modules of the standard library.
    if os.path.basename(ROOT) not in ("site-packages", "dist-packages") and ROOT not in folders:
        folders.insert(0, ROOT)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}


def forget_current_folder() -> None:
    """Remove the current folder from the search path if only an empty entry of PYTHONPATH puts it there.

    An empty entry is usually left by `PYTHONPATH=$PYTHONPATH:/folder` in a shell where the variable was not set.
    """
    entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if len(entries) < 2 or "" not in entries:
        return
    try:
        here = os.getcwd()
    except OSError:  # the folder was removed
        return
    if here != ROOT and here not in map(os.path.abspath, filter(None, entries)):
        sys.path[:] = [path for path in sys.path if path != here]


def _main() -> None:
    own = os.path.dirname(os.path.realpath(__file__))  # Python puts the folder of a script in front
    sys.path[:] = [path for path in sys.path if path and os.path.realpath(path) != own]
    forget_current_folder()
    # site-packages is there already; in front it would hide modules of the standard library.
    if ROOT not in sys.path:
        sys.path.insert(0, ROOT)
    import runpy

    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main()
