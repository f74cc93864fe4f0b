"""Atomic writing: a final name is missing, the old file, or the complete new one; errors are one clear sentence."""

from __future__ import annotations

import errno
import os

import pytest

from flexalign_plugin.errors import OutputError
from flexalign_plugin.files import OutputFiles, atomic_path, output_error, prepare_folder, remove_leftovers


def write(path: str, text: str) -> None:
    with open(path, "w") as f:
        f.write(text)


def test_atomic_path_appears_only_at_the_end(tmp_path):
    final = tmp_path / "a.txt"
    final.write_text("old")
    with atomic_path(str(final)) as temporary:
        assert os.path.dirname(temporary) == str(tmp_path)
        write(temporary, "new")
        assert final.read_text() == "old"
    assert final.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_atomic_path_keeps_the_old_file_when_the_block_fails(tmp_path):
    final = tmp_path / "a.txt"
    final.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_path(str(final)) as temporary:
        write(temporary, "half")
        raise ZeroDivisionError
    assert final.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_all_files_or_none(tmp_path):
    with pytest.raises(OutputError, match=r"b\.txt: can't be written because the disk is full: free some space"):
        with OutputFiles(str(tmp_path)) as out:
            with out.file("a.txt") as temporary:
                write(temporary, "complete")
            with out.file("b.txt") as temporary:
                write(temporary, "half")
                raise OSError(errno.ENOSPC, "No space left on device")
    assert os.listdir(tmp_path) == []


def test_failing_rename_is_reported_and_cleaned_up(tmp_path):
    (tmp_path / "b.txt").mkdir()
    with pytest.raises(OutputError, match=r"b\.txt: .*folder of this name"):
        with OutputFiles(str(tmp_path)) as out, out.file("b.txt") as temporary:
            write(temporary, "x")
    assert os.listdir(tmp_path) == ["b.txt"]


def test_missing_folders_are_created(tmp_path):
    prepare_folder(str(tmp_path / "a" / "b"))
    assert (tmp_path / "a" / "b").is_dir()


def test_file_in_the_way_of_the_folder(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(OutputError, match="/a: .*there is a file with the name of the folder"):
        prepare_folder(str(tmp_path / "a"))
    with pytest.raises(OutputError, match="/a/b: .*is a file, not a folder"):
        prepare_folder(str(tmp_path / "a" / "b"))


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_folder_without_permission(tmp_path):
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(OutputError, match="you have no permission to write there"):
            prepare_folder(str(tmp_path))
    finally:
        tmp_path.chmod(0o755)


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (
            errno.EACCES,
            "x.mrc: can't be written because you have no permission to write there: change the folder's permissions",
        ),
        (errno.EROFS, "x.mrc: can't be written because the disk is mounted read-only: choose another output folder."),
        (errno.EIO, "x.mrc: can't be written because Input/output error: choose another output folder."),
    ],
)
def test_sentences(number, sentence):
    assert str(output_error("x.mrc", OSError(number, os.strerror(number)))).startswith(sentence)


def test_leftovers_of_a_killed_process(tmp_path):
    # A killed process never leaves the block: what it had written stays under the temporary name.
    killed = OutputFiles(str(tmp_path)).__enter__()
    with killed.file("mov[1]_aligned_mic.mrc") as temporary:
        write(temporary, "half")
    (tmp_path / "mov[1]_motion.json").write_text("{}")
    (tmp_path / ".mov[1]b_motion.json.0.part").write_text("another movie's")
    assert remove_leftovers(str(tmp_path), "mov[1]") == [temporary]
    assert sorted(os.listdir(tmp_path)) == [".mov[1]b_motion.json.0.part", "mov[1]_motion.json"]


def test_contents_are_on_the_disk_before_the_first_name_and_the_names_after_the_last(tmp_path, monkeypatch):
    """Else a power failure can leave names of empty files: a name may reach the disk before the data."""
    calls = []
    to_disk, rename = os.fsync, os.replace
    names = {}

    def fsync(descriptor):
        calls.append(("fsync", os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))))
        to_disk(descriptor)

    def replace(source, target):
        names[os.path.basename(target)] = os.path.basename(source)
        calls.append(("replace", os.path.basename(target)))
        rename(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    with OutputFiles(str(tmp_path)) as out:
        for name in ("a", "b"):
            with out.file(name) as temporary:
                write(temporary, name)
    assert calls == [
        *(("fsync", names[name]) for name in "ab"),
        *(("replace", name) for name in "ab"),
        ("fsync", tmp_path.name),
    ]


def test_a_disk_that_is_full_only_when_the_data_are_written_leaves_nothing(tmp_path, monkeypatch):
    """As on NFS, which reports a full disk when the data are sent to the server."""

    def fsync(descriptor):
        raise OSError(errno.EDQUOT, "")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OutputError, match=r"a\.txt: can't be written because your disk quota is used up"):
        with atomic_path(str(tmp_path / "a.txt")) as temporary:
            write(temporary, "x")
    assert os.listdir(tmp_path) == []
