"""A run may be killed at any moment: after Continue its outputs are those of an uninterrupted run."""

from __future__ import annotations

import os
import shutil
import signal

import pytest

from flexalign_plugin.protocols.records import load_record, numbers_in_set, remove_unfit_set, sort_out

from ..scipion_project import import_movies, new_alignment, new_project
from .conftest import PIXEL_A
from .killing import POINTS, start, state, wait

N_MOVIES = 3
FAST = {
    "after a record, before its step ends",
    "tables of a set made, no item in",
    "movies and their origin registered, micrographs not",
    "between two sets that are closed",
    "after the last check",
}


@pytest.fixture(scope="module")
def undisturbed(movies, tmp_path_factory):
    """Project folder, number of the protocol, its folder, and its state after an uninterrupted run."""
    folder = tmp_path_factory.mktemp("kills")
    for i in range(N_MOVIES):
        shutil.copy(f"{movies.folder}/movie_1.mrcs", folder / f"a_{i}.mrcs")
    project = new_project("kills")
    protocol = new_alignment(
        project, import_movies(project, str(folder), "*.mrcs", PIXEL_A), doLocalAlignment=False, doComputePSD=False
    )
    project._setupProtocol(protocol)
    protocol.makePathsAndClean()
    project._storeProtocol(protocol)
    where, number = os.path.abspath("."), protocol.getObjId()
    assert wait(start(where, number, restart=True)) == 0
    run_folder = os.path.join(where, protocol.workingDir.get())
    return where, number, run_folder, state(run_folder)


@pytest.mark.parametrize(
    "point",
    [
        pytest.param(point, id=name, marks=[pytest.mark.slow] if name not in FAST else [])
        for name, point in POINTS.items()
    ],
)
def test_continue_completes_what_was_killed(undisturbed, point):
    project, number, folder, expected = undisturbed
    assert wait(start(project, number, restart=True, point=point)) == signal.SIGKILL
    assert wait(start(project, number, restart=False)) == 0
    assert state(folder) == expected


def test_a_set_that_lost_an_item_or_was_damaged_is_made_whole_again(undisturbed):
    project, number, folder, expected = undisturbed
    with open(os.path.join(folder, "movies.sqlite"), "r+b") as f:
        f.write(b"nonsense" * 20)
    os.truncate(os.path.join(folder, "micrographs.sqlite"), 0)
    os.remove(os.path.join(folder, "extra", "DONE", "movie_000002.json"))
    assert wait(start(project, number, restart=False)) == 0
    assert state(folder) == expected


def test_a_record_counts_only_with_its_files(tmp_path):
    records, results = tmp_path / "DONE", tmp_path / "extra"
    records.mkdir(), results.mkdir()
    (results / "a.mrc").write_bytes(b"a")
    (results / ".b.mrc.1234.part").write_bytes(b"half")
    (records / "movie_000001.json").write_text('{"movie": "a", "ok": true, "files": {"m": "/moved/a.mrc"}}')
    (records / "movie_000002.json").write_text('{"movie": "b", "ok": true, "files": {"m": "/moved/b.mrc"}}')
    (records / "movie_000003.json").write_text('{"movie": "c", "ok": false, "error": "broken"}')
    (records / "movie_000004.json").write_text("")
    assert sort_out(str(records), str(results)) == ({1}, 3)
    assert [p.name for p in records.iterdir()] == ["movie_000001.json"]
    assert [p.name for p in results.iterdir()] == ["a.mrc"]
    assert load_record(str(records / "movie_000004.json")) is None


def test_a_set_of_other_movies_than_the_records_is_made_again(undisturbed, tmp_path):
    path = str(tmp_path / "movies.sqlite")
    shutil.copy(os.path.join(undisturbed[2], "movies.sqlite"), path)
    assert numbers_in_set(path) == {1, 2, 3}
    assert not remove_unfit_set(path, {1, 2, 3, 4})
    assert remove_unfit_set(path, {1, 2}) and numbers_in_set(path) is None
