"""No Python file of a folder with data is imported, neither by the command nor by the processes that it starts."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from flexalign_plugin import launch
from flexalign_plugin.execution.job import Job
from flexalign_plugin.execution.worker import Worker, _child_environment
from flexalign_plugin.phantoms.movie_writers import write_mrc_movie
from flexalign_plugin.report_pages import LiveReport
from flexalign_plugin.settings import Settings

from .report_pages.results import make_results

# Names that Python would look for: a library, a module of the standard library, this package, the hook of a site.
TRAPS = ("numpy", "queue", "faulthandler", "flexalign_plugin", "numba", "scipy", "tifffile")
EMPTY_ENTRIES = ["", os.pathsep, "."]  # in PYTHONPATH each stands for the working folder


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A working folder with a movie and Python files that leave a trace when they are imported."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name in TRAPS:
        trap = f"open({str(tmp_path / 'imported')!r}, 'a').write({name!r})\nraise SystemExit(99)\n"
        (folder / f"{name}.py").write_text(trap)
    (folder / "flexalign_plugin.py").rename(folder / "trap.py")
    (folder / "flexalign_plugin").mkdir()
    (folder / "trap.py").rename(folder / "flexalign_plugin" / "__init__.py")
    frames = np.random.default_rng(1).poisson(5, (4, 96, 128)).astype(np.uint8)
    write_mrc_movie(str(folder / "movie.mrc"), frames)
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("entry", EMPTY_ENTRIES)
def test_a_worker_imports_nothing_from_its_folder(data, tmp_path, monkeypatch, entry):
    (data / "sitecustomize.py").write_text((data / "numpy.py").read_text())  # Python imports it when it starts
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "libraries") + os.pathsep + entry)
    settings = Settings(pixel_size=3.0, do_local_alignment=False, do_plots=False, do_compute_psd=False)
    with Worker("cpu") as worker:
        result = worker.submit(Job("movie.mrc", "out", "movie", settings)).result(60)
    assert result.ok, result.message
    assert not (tmp_path / "imported").exists()
    assert (data / "out" / "movie_motion.json").exists()  # relative names are still those of this folder


@pytest.mark.parametrize("entry", EMPTY_ENTRIES)
def test_the_report_of_a_run_imports_nothing_from_its_folder(data, tmp_path, monkeypatch, entry):
    (data / "sitecustomize.py").write_text((data / "numpy.py").read_text())
    make_results(data / "out")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "libraries") + os.pathsep + entry)
    lines = []
    live = LiveReport("out", lines.append, first_s=0.0)
    live.update(1)
    live._thread.join(60)
    assert (data / "out" / "report.html").exists() and lines == []
    assert not (tmp_path / "imported").exists()


def test_the_command_of_a_queue_job_imports_nothing_from_its_folder(data, tmp_path):
    environment = {**_child_environment(), "PYTHONPATH": ":"}
    done = subprocess.run(
        [*launch.command("flexalign_plugin"), "batch", "nowhere.json"], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 2 and "nowhere.json: can't be read" in done.stderr
    assert not (tmp_path / "imported").exists()


def test_the_installed_command_imports_no_library_from_its_folder(data, tmp_path):
    """The package itself is found by its own path; everything that is imported later is not taken from here."""
    code = "import sys; from flexalign_plugin.cli import main; sys.argv = ['flexalign', 'info']; sys.exit(main())"
    root = launch.ROOT
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}"}
    script = tmp_path / "flexalign"
    script.write_text(code)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "imported").exists()
