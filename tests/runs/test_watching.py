"""`flexalign watch`: movies that appear, end, failures, kills, and several watchers of one folder."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flexalign_plugin import cli
from flexalign_plugin.commands.watch import _moment
from flexalign_plugin.execution.worker import _child_environment
from flexalign_plugin.output.failures import read_failures
from flexalign_plugin.runs.claims import FOLDER, Claims

PHANTOM = "phantom --size 192 160 --frames 4 --pixel-size 4 --dose 4 --drift 4 --local 1".split()
OPTIONS = "--pixel-size 4 --no-do-plots --no-do-compute-psd --no-do-local-alignment --settle 0.4".split()


@pytest.fixture(scope="module")
def movies(tmp_path_factory):
    """Five movies m_0001.mrc to m_0005.mrc and their results, made by `flexalign align`."""
    folder = tmp_path_factory.mktemp("movies")
    assert cli.main([*PHANTOM, "--movies", "5", "--name", "m", "--output", str(folder)]) == 0
    names = sorted(folder.glob("m_*.mrc"))
    assert cli.main(["align", *map(str, names), *OPTIONS[:5], "--output", str(folder / "aligned")]) == 0
    return names


def hashes(folder: Path) -> dict:
    return {p.name: hashlib.md5(p.read_bytes()).hexdigest() for p in sorted(folder.glob("*_aligned_mic.mrc"))}


def command(folder, output, *more):
    return [sys.executable, "-m", "flexalign_plugin", "watch", str(folder), "--output", str(output), *OPTIONS, *more]


def start(folder, output, *more, **options) -> subprocess.Popen:
    return subprocess.Popen(
        command(folder, output, *more),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=_child_environment(),
        **options,
    )


def wait_for(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def written(output) -> int:
    return len(list(Path(output).glob("*_motion.json")))


def test_movies_that_appear_are_aligned_and_an_idle_watch_ends(movies, tmp_path):
    """Also in subfolders; a movie that is still written is left until it is complete; the output folder is inside."""
    data, output = tmp_path / "data", tmp_path / "data" / "results"
    (data / "square").mkdir(parents=True)
    shutil.copy(movies[0], data)
    (data / "notes.txt").write_text("no movie")
    process = start(data, output, "--idle", "0.05")
    wait_for(lambda: written(output) == 1)
    growing = data / "square" / movies[1].name
    content = movies[1].read_bytes()
    with open(growing, "wb") as file:
        for part in range(10):
            file.write(content[part * len(content) // 10 : (part + 1) * len(content) // 10])
            file.flush()
            time.sleep(0.1)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 0, text
    assert "2 movies aligned, 0 failed." in text
    expected = hashes(movies[0].parent / "aligned")
    assert hashes(output) == {name: expected[name] for name in ("m_0001_aligned_mic.mrc", "m_0002_aligned_mic.mrc")}
    assert "m_0002_aligned_mic" in (output / "corrected_micrographs.star").read_text()
    assert (output / "report.html").exists() and not (output / FOLDER).exists()


def test_a_bad_movie_is_listed_and_tried_again_when_it_changes(movies, tmp_path):
    data, output = tmp_path / "data", tmp_path / "results"
    data.mkdir()
    (data / "bad.mrc").write_bytes(movies[0].read_bytes()[:5000])
    process = start(data, output, "--idle", "0.1")
    failed = output / "failed.tsv"
    wait_for(failed.exists)
    assert [os.path.basename(movie) for _, movie, _ in read_failures(str(failed))] == ["bad.mrc"]
    shutil.copy(movies[0], data / "bad.mrc")
    text, _ = process.communicate(timeout=60)
    assert written(output) == 1 and not failed.exists()
    assert process.returncode == 1 and "1 movies aligned, 1 failed." in text


def test_a_failed_movie_is_not_tried_again_and_again(movies, tmp_path, capsys):
    (tmp_path / "bad.mrc").write_bytes(movies[0].read_bytes()[:5000])
    assert cli.main(command(tmp_path, tmp_path / "out", "--idle", "0.04")[3:]) == 1
    assert capsys.readouterr().err.count("FAILED") == 1
    assert cli.main(command(tmp_path, tmp_path / "out", "--idle", "0.04")[3:]) == 1  # a new watch tries once more
    assert capsys.readouterr().err.count("FAILED") == 1


def test_two_watchers_share_the_movies_and_each_is_done_once(movies, tmp_path):
    """Two movies have the same name: they must not get the same results."""
    data, output = tmp_path / "data", tmp_path / "results"
    (data / "other").mkdir(parents=True)
    for path in movies:
        shutil.copy(path, data)
    shutil.copy(movies[4], data / "other" / movies[0].name)
    watchers = [start(data, output, "--idle", "0.05", "--no-report", "--workers", "1") for _ in range(2)]
    texts = [process.communicate(timeout=100)[0] for process in watchers]
    assert [process.returncode for process in watchers] == [0, 0], texts
    assert sum("moved" in line for text in texts for line in text.splitlines()) == 6
    expected = hashes(movies[0].parent / "aligned")
    found = hashes(output)
    assert len(found) == 6 and not (output / FOLDER).exists()
    owners = {json.loads(p.read_text())["movie_path"] for p in output.glob("*_motion.json")}
    assert len(owners) == 6
    for name in ("m_0002", "m_0003", "m_0004", "m_0005"):
        assert found[f"{name}_aligned_mic.mrc"] == expected[f"{name}_aligned_mic.mrc"]


POINTS = {
    "a movie is claimed": ("flexalign_plugin.runs.watching", "prepared"),
    "a movie is sent": ("flexalign_plugin.execution.worker", "Worker.submit"),
    "a movie is done, its claim is kept": ("flexalign_plugin.runs.claims", "Claims.release"),
}
KILLED = """
import importlib, os, signal, sys
from flexalign_plugin import cli
module, name = sys.argv.pop(1), sys.argv.pop(1)
holder, _, name = name.rpartition(".")
target = importlib.import_module(module)
target = getattr(target, holder) if holder else target
calls, whole = [], getattr(target, name)
def killing(*args, **kwargs):
    calls.append(1)
    if len(calls) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(*args, **kwargs)
setattr(target, name, killing)
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_watcher_is_continued_by_another(movies, tmp_path, point):
    data, output = tmp_path / "data", tmp_path / "results"
    data.mkdir()
    for path in movies[:3]:
        shutil.copy(path, data)
    words = command(data, output, "--idle", "0.03", "--no-report", "--workers", "1")[3:]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *POINTS[point], *words], env=_child_environment(), timeout=60
    )
    assert killed.returncode == -signal.SIGKILL
    assert list((output / FOLDER).iterdir())
    assert cli.main(words) == 0
    expected = hashes(movies[0].parent / "aligned")
    assert hashes(output) == {name: expected[name] for name in list(expected)[:3]}
    assert not (output / FOLDER).exists() and not list(output.glob(".*.part"))


def test_ctrl_c_ends_the_watch_and_gives_up_its_movies(movies, tmp_path):
    data, output = tmp_path / "data", tmp_path / "results"
    data.mkdir()
    shutil.copy(movies[0], data)
    process = start(data, output)
    wait_for(lambda: written(output) == 1)
    process.send_signal(signal.SIGINT)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted" in text
    assert not (output / FOLDER).exists() and (output / "corrected_micrographs.star").exists()


def test_results_of_other_settings_are_kept(movies, tmp_path, capsys):
    shutil.copy(movies[0], tmp_path)
    assert cli.main(command(tmp_path, tmp_path / "out", "--idle", "0.03")[3:]) == 0
    assert cli.main(command(tmp_path, tmp_path / "out", "--idle", "0.03", "--bin-factor", "2")[3:]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert cli.main(command(tmp_path, tmp_path / "out", "--idle", "0.03", "--bin-factor", "2", "--overwrite")[3:]) == 0


def test_no_movie_is_begun_after_the_end(movies, tmp_path, monkeypatch):
    shutil.copy(movies[0], tmp_path)
    until = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + 2))
    assert cli.main(command(tmp_path, tmp_path / "out", "--settle", "5", "--until", until)[3:]) == 0
    assert written(tmp_path / "out") == 0


@pytest.mark.parametrize("text", ["25:00", "tomorrow", "2001-01-01", "", "9" * 400])
def test_ends_that_are_no_times_are_refused(text):
    with pytest.raises(Exception, match="is not a time|in the past"):
        _moment(text)


def test_ends_are_times_of_the_day_or_dates():
    assert 0 < _moment("00:00") - time.time() <= 86400
    assert _moment("2999-01-01T10:00") > time.time()


def test_a_folder_that_is_missing_is_named(tmp_path, capsys):
    assert cli.main(command(tmp_path / "none", tmp_path / "out")[3:]) == 2
    assert "none: is not a folder" in capsys.readouterr().err


# -------------------------------------------------------------------------------------------------------------- claims


@pytest.fixture
def claims(tmp_path):
    claims = Claims(str(tmp_path))
    yield claims
    claims.close()


def as_other(tmp_path, claims, root, **changes) -> Path:
    """The claim as if another process had made it."""
    path = next((tmp_path / FOLDER).glob(f"{root}.*"))
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return path


def test_a_claim_is_given_once(tmp_path, claims):
    other = Claims(str(tmp_path))
    assert claims.take("m", "/m.mrc") and not other.take("m", "/m.mrc")
    assert other.holder("m") == "/m.mrc" and other.holder("n") is None
    claims.release("m")
    assert other.take("m", "/m.mrc")
    other.close()


@pytest.mark.parametrize("changes", [{"pid": 2**22 + 1}, {"started": "1"}, {"pid": None}])
def test_the_claim_of_a_dead_process_of_this_machine_is_free_at_once(tmp_path, claims, changes):
    other = Claims(str(tmp_path))
    other.take("m", "/m.mrc")
    as_other(tmp_path, other, "m", **changes)
    assert claims.take("m", "/m.mrc")
    assert len(list((tmp_path / FOLDER).iterdir())) == 1


def test_the_claim_of_another_machine_is_free_when_it_is_not_renewed(tmp_path, claims, monkeypatch):
    other = Claims(str(tmp_path))
    other.take("m", "/m.mrc")
    path = as_other(tmp_path, other, "m", host=["far away"])
    now = [1000.0]
    monkeypatch.setattr("flexalign_plugin.runs.claims.time.monotonic", lambda: now[0])
    assert not claims.take("m", "/m.mrc")
    now[0] += 119
    os.utime(path)  # renewed
    assert not claims.take("m", "/m.mrc")
    now[0] += 119
    assert not claims.take("m", "/m.mrc")
    now[0] += 2
    assert claims.take("m", "/m.mrc")


def test_claims_are_renewed(tmp_path, monkeypatch):
    monkeypatch.setattr("flexalign_plugin.runs.claims.BEAT_S", 0.05)
    claims = Claims(str(tmp_path))
    claims.take("m", "/m.mrc")
    path = next((tmp_path / FOLDER).glob("m.*"))
    os.utime(path, (1, 1))
    wait_for(lambda: path.stat().st_mtime > 1, 10)
    claims.close()


@pytest.mark.parametrize("content", ["", "[]", "{", '{"host": 3}'])
def test_a_damaged_claim_is_not_taken_at_once(tmp_path, claims, content):
    (tmp_path / FOLDER / "m.1").write_text(content)
    assert not claims.take("m", "/m.mrc")
