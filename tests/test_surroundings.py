"""The command where its surroundings are bad: strange files beside the movies, a log that can't be written, signals,
files that change while they are read."""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

import numpy as np
import pytest

from flexalign_plugin import launch
from flexalign_plugin.output.failures import read_failures
from flexalign_plugin.phantoms.movie_writers import write_mrc_movie

from .signals import default_signals

ALIGN = "align {movies} --output out --pixel-size 1 --no-do-local-alignment --no-do-plots --no-report"
ALIGN += " --no-corrected-star --threads 1"


@pytest.fixture
def folder(tmp_path):
    """Two movies that can be aligned, a damaged one, and one that takes seconds."""
    rng = np.random.default_rng(1)
    for name in ("a.mrc", "b.mrc"):
        write_mrc_movie(str(tmp_path / name), rng.poisson(20, (4, 128, 128)).astype("u1"))
    (tmp_path / "bad.mrc").write_bytes(b"no movie")
    return tmp_path


def large_movie(path: Path, n_frames: int = 40) -> None:
    rng = np.random.default_rng(2)
    frame = rng.integers(0, 3, (2048, 2048), np.uint8)
    write_mrc_movie(str(path), (np.roll(frame, i) for i in range(n_frames)))


def command(*movies: str) -> list:
    return [*launch.command("flexalign_plugin"), *ALIGN.format(movies=" ".join(movies)).split()]


def started(folder, *movies, **options):
    options = {"cwd": folder, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
    return subprocess.Popen(command(*movies), preexec_fn=default_signals, **options)


def wait_until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    assert condition()


def aligned(folder):
    return sorted(path.name for path in (folder / "out").glob("*_aligned_mic.mrc"))


BOTH = ["a_aligned_mic.mrc", "b_aligned_mic.mrc"]

# --------------------------------------------------------------------------------------- modules beside the movies


@pytest.fixture
def hostile(folder):
    """Modules beside the movies that note that they were run."""
    (folder / "flexalign_plugin").mkdir()
    note = f"open({str(folder / 'was_run')!r}, 'a').close()\nraise ImportError('hostile')\n"
    for name in ("numpy.py", "json.py", "flexalign_plugin/__init__.py"):
        (folder / name).write_text(note)
    return folder


@pytest.mark.parametrize("path", ["", ":{root}"])
def test_no_module_beside_the_movies_is_run(hostile, path):
    """An empty entry of PYTHONPATH is the current folder."""
    environment = {**os.environ, "PYTHONPATH": path.format(root=launch.ROOT)}
    done = subprocess.run(command("a.mrc", "b.mrc"), cwd=hostile, env=environment, capture_output=True, text=True)
    assert (done.returncode, (hostile / "was_run").exists()) == (0, False), done.stderr
    assert aligned(hostile) == BOTH


def test_python_m_runs_no_module_beside_the_movies(hostile):
    """Except those that Python itself loads before it reaches the package."""
    (hostile / "json.py").unlink()
    (hostile / "flexalign_plugin" / "__init__.py").unlink()
    (hostile / "flexalign_plugin").rmdir()
    words = [sys.executable, "-m", "flexalign_plugin", *command("a.mrc", "b.mrc")[3:]]
    environment = {**os.environ, "PYTHONPATH": launch.ROOT}
    done = subprocess.run(words, cwd=hostile, env=environment, capture_output=True, text=True)
    assert (done.returncode, (hostile / "was_run").exists()) == (0, False), done.stderr


def test_the_jobs_of_a_queue_run_no_module_beside_the_movies(hostile):
    """The command as Scipion puts it into the script of a job."""
    from flexalign_plugin.execution.devices import Compute
    from flexalign_plugin.execution.job import Job
    from flexalign_plugin.execution.queue_job import read_answer, write_request
    from flexalign_plugin.protocols.scipion_queue import batch_command
    from flexalign_plugin.settings import Settings

    request = str(hostile / "a request.json")
    jobs = [Job(str(hostile / f"{root}.mrc"), str(hostile / "out"), root, Settings(pixel_size=1)) for root in "ab"]
    write_request(request, jobs, "cpu", Compute(threads=1))
    program, arguments = batch_command(request)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        f"{program} {arguments}", shell=True, cwd=hostile, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, (hostile / "was_run").exists()) == (0, False), done.stderr
    assert all(result.ok for result in read_answer(request).results.values()) and aligned(hostile) == BOTH


# --------------------------------------------------------------------------------------- logs that can't be written


@pytest.mark.parametrize("redirection", ["> /dev/full 2>&1", "2>&-", ">&- 2>&-", "| true"])
def test_a_log_that_can_not_be_written_does_not_stop_the_alignment(folder, redirection):
    words = " ".join(map(shlex.quote, command("a.mrc", "bad.mrc", "b.mrc")))
    line = f"{words} {redirection}; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], cwd=folder, capture_output=True, text=True, timeout=100)
    assert done.stdout.splitlines()[-1] == "1" and "Traceback" not in done.stderr
    assert aligned(folder) == BOTH
    assert [line[1] for line in read_failures(str(folder / "out" / "failed.tsv"))] == ["bad.mrc"]


@pytest.mark.parametrize("redirection, status", [("> /dev/full", 1), ("2>&-", 0)])
def test_the_status_states_that_messages_were_lost(folder, redirection, status):
    words = " ".join(map(shlex.quote, command("a.mrc", "b.mrc")))
    done = subprocess.run(["bash", "-c", f"{words} {redirection}"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == status and aligned(folder) == BOTH
    lost = "flexalign: messages could not be written (No space left on device); result files are not affected.\n"
    assert done.stderr == (lost if status else "")


def test_a_terminal_that_is_gone_does_not_stop_a_run_that_ignores_its_end(folder):
    large_movie(folder / "large.mrc", 8)
    master, slave = os.openpty()

    def with_terminal():
        os.setsid()
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    process = subprocess.Popen(
        command("bad.mrc", "large.mrc", "a.mrc"), cwd=folder, stdout=slave, stderr=slave, preexec_fn=with_terminal
    )
    os.close(slave)
    wait_until((folder / "out" / "failed.tsv").exists)
    os.close(master)
    assert process.wait(100) == 1 and aligned(folder) == ["a_aligned_mic.mrc", "large_aligned_mic.mrc"]


# --------------------------------------------------------------------------------------- signals


def test_failures_are_listed_when_they_occur(folder):
    """The run is killed, so that nothing can be written at its end."""
    large_movie(folder / "large.mrc")
    process = started(folder, "a.mrc", "bad.mrc", "large.mrc")
    wait_until((folder / "out" / "failed.tsv").exists)
    process.kill()
    process.communicate()
    assert [line[:2] for line in read_failures(str(folder / "out" / "failed.tsv"))] == [("2", "bad.mrc")]


def test_a_closed_terminal_ends_the_run_as_ctrl_c_does(folder):
    large_movie(folder / "large.mrc")
    process = started(folder, "bad.mrc", "large.mrc", "a.mrc")
    wait_until((folder / "out" / "failed.tsv").exists)
    process.send_signal(signal.SIGHUP)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130 and "interrupted" in errors and "Traceback" not in errors, errors
    assert os.listdir(folder / "out") == ["failed.tsv"]
    assert [line[1] for line in read_failures(str(folder / "out" / "failed.tsv"))] == ["bad.mrc"]


def test_nohup_is_respected(folder):
    large_movie(folder / "large.mrc", 8)
    line = f"trap '' HUP; exec {' '.join(map(shlex.quote, command('large.mrc')))}"
    process = subprocess.Popen(["bash", "-c", line], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_until((folder / "out").exists)
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=100)
    assert process.returncode == 0 and aligned(folder) == ["large_aligned_mic.mrc"]


# --------------------------------------------------------------------------------------- movies that change


def test_a_single_movie_that_is_truncated_while_it_is_read_fails_with_the_reason(folder):
    """Reading behind the end of a mapped file ends the process by SIGBUS."""
    large_movie(folder / "large.mrc")
    process = started(folder, "large.mrc")

    def mapped() -> bool:
        for maps in Path("/proc").glob("[0-9]*/maps"):
            try:
                if str(folder / "large.mrc") in maps.read_text():
                    return True
            except OSError:  # the process has ended
                continue
        return False

    wait_until(mapped)
    os.truncate(folder / "large.mrc", 4096)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 1 and "FAILED large.mrc" in errors and "copy it again" in errors, output + errors
    ((number, movie, reason),) = read_failures(str(folder / "out" / "failed.tsv"))
    assert (number, movie) == ("1", "large.mrc") and "SIGBUS" in reason


# --------------------------------------------------------------------------------------- limits of the account

CAPABILITIES = "-all,+dac_override,+dac_read_search"
AS_USER = ["setpriv", "--reuid", "54321", "--clear-groups", "--inh-caps", CAPABILITIES, "--ambient-caps", CAPABILITIES]


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("setpriv") or not shutil.which("prlimit"),
    reason="the limit does not apply to root, and only root can become another user",
)
@pytest.mark.parametrize("n_processes", [1, 3, 5])
def test_at_the_limit_of_processes_the_run_ends_with_the_reason(folder, n_processes):
    """With 1 not even the run's own threads can be started, with 5 those of the worker process."""
    with tempfile.TemporaryDirectory() as public:  # pytest's own folder is closed to others
        os.chmod(public, 0o777)
        words = ["prlimit", f"--nproc={n_processes}", *AS_USER]
        words += command(str(folder / "a.mrc"), str(folder / "b.mrc"))
        done = subprocess.run(words, cwd=public, capture_output=True, text=True, timeout=100)
        listed = [os.path.basename(line[1]) for line in read_failures(os.path.join(public, "out", "failed.tsv"))]
    assert done.returncode == 1 and "start new thread" in done.stderr, done.stderr
    assert listed == ([] if n_processes == 1 else ["a.mrc", "b.mrc"])


def test_interrupted_processes_end_also_where_the_tests_ignore_signals(folder):
    """As under `nohup make test &`: child processes inherit ignored signals, unless `default_signals` resets them."""
    large_movie(folder / "large.mrc")
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGHUP)}
    try:
        process = started(folder, "bad.mrc", "large.mrc")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    wait_until((folder / "out" / "failed.tsv").exists)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130 and "interrupted" in errors, errors
