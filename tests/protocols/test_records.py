from __future__ import annotations

from flexalign_plugin.execution.job import JobResult
from flexalign_plugin.output.failures import write_failures
from flexalign_plugin.protocols.records import load_record, save_record
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
