from __future__ import annotations

import json
import logging
import os
import sqlite3
import threading

import pytest

from flexalign_plugin.errors import OutputError
from flexalign_plugin.execution.job import JobResult
from flexalign_plugin.output.failures import write_failures
from flexalign_plugin.protocols import records
from flexalign_plugin.protocols.records import load_record, numbers_in_set, save_record, sort_out
from flexalign_plugin.result_files import unique_root


def test_a_record_is_read_as_it_was_written(tmp_path):
    path = str(tmp_path / "movie.json")
    result = JobResult(movie="a.mrc", ok=True, files={"micrograph": "a.mrc"}, first_frame=2, shifts_px=[[0.5, -1.0]])
    assert load_record(path) is None
    save_record(path, result)
    assert load_record(path) == result
    assert [p.name for p in tmp_path.iterdir()] == ["movie.json"]


def test_roots_of_output_files_are_unique():
    taken = set()
    names = ["d1/a_1.234.tif", "d1/a_1.235.tif", "d1/b.mrc.bz2", "d2/a_1.234.tif", "d1/c.eer"]
    for number, name in enumerate(names, 1):
        taken.add(unique_root(name, taken, number))
    assert taken == {"a_1.234", "a_1.235", "b", "a_1.234_000004", "c"}


def test_a_numbered_root_may_be_taken_too():
    assert unique_root("d2/a.mrc", {"a", "a_000002"}, 2) == "a_000002_2"


def test_failures_are_one_line_each(tmp_path):
    path = str(tmp_path / "failed.tsv")
    write_failures(path, [(3, "a.mrc", "a.mrc: broken\nfile.\tTry again.")])
    with open(path) as f:
        assert f.read() == "id\tmovie\treason\n3\ta.mrc\ta.mrc: broken file. Try again.\n"


@pytest.fixture
def locked_set(tmp_path):
    """A set with two items, locked by another connection, as by a viewer."""
    path = str(tmp_path / "movies.sqlite")
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.executescript(
        "CREATE TABLE Properties (key, value); INSERT INTO Properties VALUES ('self', 'SetOfMovies');"
        "CREATE TABLE Objects (id); INSERT INTO Objects VALUES (1), (2); BEGIN EXCLUSIVE"
    )
    yield path, other
    other.close()


def test_a_locked_set_is_waited_for_with_a_message(locked_set, monkeypatch, caplog):
    path, other = locked_set
    monkeypatch.setattr(records, "LOCKED_SECONDS", 0.1)
    threading.Timer(2.0, lambda: other.execute("COMMIT")).start()
    with caplog.at_level(logging.WARNING):
        assert numbers_in_set(path) == {1, 2}
    assert caplog.text.count(f"{path} is locked by another program: the run waits") == 1


def test_a_set_that_stays_locked_is_one_sentence_and_is_kept(locked_set, monkeypatch):
    path, other = locked_set
    monkeypatch.setattr(records, "LOCKED_SECONDS", 0.1)
    monkeypatch.setattr(records, "LOCKED_ATTEMPTS", 2)
    with pytest.raises(OutputError, match="movies.sqlite was locked .* close viewers .* use Continue"):
        records.remove_unfit_set(path, {1, 2})
    other.execute("COMMIT")
    assert numbers_in_set(path) == {1, 2} and not records.remove_unfit_set(path, {1, 2})


def test_the_wait_is_as_long_as_stated():
    """15 min at least: the pauses grow from 0.25 s by 1.7 up to 10 s."""
    pauses = sum(min(0.25 * 1.7**i, 10.0) for i in range(records.LOCKED_ATTEMPTS - 1))
    assert 900 < pauses + records.LOCKED_ATTEMPTS * records.LOCKED_SECONDS < 1500


def record_of(tmp_path, **changed):
    """A record `DONE/movie_000001.json` whose micrograph is in `tmp_path`, with changed values."""
    (tmp_path / "DONE").mkdir(exist_ok=True)
    (tmp_path / "a_mic.mrc").write_bytes(b"12345678")
    result = JobResult(movie="a.mrc", ok=True, files={"micrograph": "/old/a_mic.mrc"}, sizes={"micrograph": 8})
    path = tmp_path / "DONE" / "movie_000001.json"
    save_record(str(path), result)
    content = {**json.loads(path.read_text()), **changed}
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("size", [0, 7, 9])
def test_a_file_of_another_size_is_not_finished(tmp_path, size):
    path = record_of(tmp_path)
    assert sort_out(str(tmp_path / "DONE"), str(tmp_path)) == ({1}, 0)
    (tmp_path / "a_mic.mrc").write_bytes(b"1" * size)
    assert sort_out(str(tmp_path / "DONE"), str(tmp_path)) == (set(), 1)
    assert not path.exists()


def test_a_record_of_version_1_0_0_is_valid(tmp_path):
    path = record_of(tmp_path)
    old = json.loads(path.read_text())
    del old["format"], old["sizes"]
    path.write_text(json.dumps(old))
    assert sort_out(str(tmp_path / "DONE"), str(tmp_path)) == ({1}, 0)


BAD_RECORDS = {
    "null": "null",
    "a list": "[]",
    "nothing": "",
    "deeply nested": "[" * 200_000,
    "another format": {"format": "flexalign-record-99"},
    "another version's keys": {"of_version_2": 1},
    "files are a list": {"files": ["a_mic.mrc"]},
    "ok is text": {"ok": "yes"},
    "seconds": '{"movie": "a", "ok": true, "seconds": 1e999}',
    "frames": '{"movie": "a", "ok": true, "first_frame": ' + "9" * 5000 + "}",
    "shifts of three": {"shifts_px": [[1, 2, 3]]},
    "NaN shifts": {"shifts_px": [[float("nan"), 0.0]]},
    "a figure is text": {"quality": {"accumulated_motion_total_A": "far"}},
}


@pytest.mark.parametrize("what", BAD_RECORDS)
def test_a_bad_record_is_that_of_a_movie_to_align_again(tmp_path, what):
    bad = BAD_RECORDS[what]
    path = record_of(tmp_path, **(bad if isinstance(bad, dict) else {}))
    if isinstance(bad, str):
        path.write_text(bad)
    assert load_record(str(path)) is None
    assert sort_out(str(tmp_path / "DONE"), str(tmp_path)) == (set(), 1)


def test_a_pipe_or_a_folder_in_the_place_of_a_record(tmp_path):
    path = record_of(tmp_path)
    path.unlink()
    os.mkfifo(path)
    (tmp_path / "DONE" / "movie_000002.json").mkdir()
    assert sort_out(str(tmp_path / "DONE"), str(tmp_path)) == (set(), 2)
    save_record(str(path), JobResult("a.mrc", ok=False))
    assert load_record(str(path)) is not None
