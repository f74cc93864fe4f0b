"""The cache of compiled code can only save time: whatever is wrong with it, functions are compiled and run."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import textwrap

import pytest

from flexalign_plugin import launch
from flexalign_plugin.phantoms.movie_writers import write_mrc_movie
from flexalign_plugin.phantoms.phantom import particle_phantom

MODULE = """
    from flexalign_plugin.jit import njit

    @njit(nogil=True)
    def next_one(x):
        return x + 1

    @njit(nogil=True)
    def twice(x):
        return 2 * x
"""
RUN = (
    "import {before}os, sys; sys.path.insert(0, os.getcwd()); import compiled_here as c; "
    "print(c.next_one(1), c.twice(2), sum(c.next_one.stats.cache_hits.values()))"
)


@pytest.fixture
def run(tmp_path):
    """Runs two compiled functions in a new process; returns whether the first came from the cache, and the log."""
    (tmp_path / "compiled_here.py").write_text(textwrap.dedent(MODULE))

    def run_once(before="", preexec=None, **environment):
        variables = {key: value for key, value in os.environ.items() if key not in ("NUMBA_CACHE_DIR", "HOME")}
        variables.update(environment, PYTHONPATH=launch.ROOT, PYTHONDONTWRITEBYTECODE="1")
        code = RUN.replace("{before}", before)
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env=variables,
            capture_output=True,
            text=True,
            preexec_fn=preexec,
        )
        assert done.returncode == 0, done.stderr
        first, second, hits = done.stdout.split()
        assert (first, second) == ("2", "4")
        return hits == "1", done.stderr

    return run_once


@pytest.mark.parametrize("ending, kept", [(".nbi", 0), (".nbi", 0.5), (".nbc", 0.5)])
def test_damaged_files_are_made_again(run, tmp_path, ending, kept):
    cache = {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    assert run(**cache) == (False, "")
    damaged = list((tmp_path / "cache").rglob(f"*{ending}"))
    assert len(damaged) == 2
    for path in damaged:
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    hit, log = run(**cache)
    assert not hit and log.count("is damaged") == 1 and "Traceback" not in log
    assert run(**cache) == (True, "")


def test_a_full_disk_is_a_warning(run, tmp_path):
    def no_room():
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    hit, log = run(preexec=no_room, NUMBA_CACHE_DIR=str(tmp_path / "cache"))
    assert not hit and log.count("can't be kept") == 1 and "NUMBA_CACHE_DIR" in log and "Traceback" not in log


def test_no_folder_that_can_be_written_is_a_warning(run, tmp_path):
    (tmp_path / "__pycache__").write_text("not a folder")
    hit, log = run(XDG_CACHE_HOME="/dev/null/cache")
    assert not hit and log.count("can't be kept") == 1 and "Traceback" not in log


def test_without_a_home_nothing_is_written_beside_the_movies(run, tmp_path):
    """numba alone would make a folder `~`, and later load code from it."""
    (tmp_path / "__pycache__").write_text("not a folder")
    before = sorted(os.listdir(tmp_path))
    hit, log = run(before="os; os.path.expanduser = lambda path: path; import ")
    assert not hit and log.count("can't be kept") == 1 and "Traceback" not in log
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("setpriv"), reason="only root can become a user without a home"
)
def test_a_container_without_a_home_aligns(tmp_path):
    """A user who is not in the list of users, as in many containers, and who may write only the output."""
    phantom = particle_phantom((3, 128, 128), pixel_size_A=2.0, dose=4, contrast=0.4, band_limit_A=20, seed=1)
    write_mrc_movie(str(tmp_path / "a.mrc"), phantom.frames(), 2.0)
    rights = "-all,+dac_read_search"
    words = ["setpriv", "--reuid", "54321", "--clear-groups", "--inh-caps", rights, "--ambient-caps", rights]
    words += [*launch.command("flexalign_plugin"), "align", str(tmp_path / "a.mrc"), "--output", "out"]
    with tempfile.TemporaryDirectory() as public:
        os.chmod(public, 0o777)
        environment = {"PATH": os.environ["PATH"], "TMPDIR": public}
        done = subprocess.run(
            [*words, "--pixel-size", "2", "--no-do-local-alignment"],
            cwd=public,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Traceback" not in done.stderr and "~" not in os.listdir(public)
