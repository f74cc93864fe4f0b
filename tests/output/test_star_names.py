"""Names of files in STAR files: foreign readers get the same names back, and what can't be said is refused."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from flexalign_plugin.cli import main
from flexalign_plugin.errors import MovieError
from flexalign_plugin.execution.worker import _child_environment
from flexalign_plugin.output.failures import read_failures
from flexalign_plugin.phantoms.movie_writers import write_mrc_movie
from flexalign_plugin.star_format import is_sayable, quoted, star_list, star_loop, words

NAMES = [
    "plain.mrc",
    "a blank.mrc",
    ".hidden.mrc",
    "_underscore.mrc",
    "data_1.mrc",
    "loop_",
    "#comment.mrc",
    "in#side.mrc",
    ";semicolon.mrc",
    "back\\slash.mrc",
    "back\\slash and blank\\",
    "µ-Bild_東京.mrc",
    "",
]
# RELION and Scipion read these; starfile takes all quotes for the same.
WITH_QUOTES = ['double"quote.mrc', 'two "words" quoted.mrc', "single'quote.mrc", "it's a blank.mrc", '"all"', "'all'"]
UNSAYABLE = ["two\nlines.mrc", "carriage\rreturn", "tab\tulator", "next\x85line", "both ' and \"", "nul\0"]


@pytest.mark.parametrize("name", NAMES + WITH_QUOTES)
def test_our_reader_follows_relions_rule_and_gets_the_name_back(name):
    assert words(f"  1.5 {quoted(name)} 2.5 # a comment") == ["1.5", name, "2.5"]


def test_starfile_gets_the_names_back(tmp_path):
    starfile = pytest.importorskip("starfile")
    text = star_loop("micrographs", ("rlnMicrographName", "rlnNumber"), [(name, "1") for name in NAMES if name])
    (tmp_path / "a.star").write_text(text)
    assert list(starfile.read(tmp_path / "a.star")["rlnMicrographName"]) == [name for name in NAMES if name]
    for name in filter(None, NAMES + WITH_QUOTES):
        (tmp_path / "b.star").write_text(star_list("general", [("rlnMicrographMovieName", name)]))
        assert starfile.read(tmp_path / "b.star")["rlnMicrographMovieName"] == name


@pytest.mark.parametrize("names", [NAMES, NAMES + WITH_QUOTES, ["plain.mrc", "a blank.mrc"], ["b.mrc", "a.mrc"]])
def test_scipions_reader_gets_the_names_back(tmp_path, names):
    """It decides by the first row whether there are quotes, so a column has them in every row or in none."""
    emtable = pytest.importorskip("emtable")
    rows = [(name or "x", "1") for name in names]
    (tmp_path / "a.star").write_text(star_loop("micrographs", ("rlnMicrographName", "rlnNumber"), rows))
    table = emtable.Table(fileName=str(tmp_path / "a.star"), tableName="micrographs")
    assert [row.rlnMicrographName for row in table] == [name for name, _ in rows]


@pytest.mark.parametrize("name", UNSAYABLE)
def test_what_a_star_file_cannot_say_is_refused(name):
    assert not is_sayable(name)
    with pytest.raises(MovieError, match="which a STAR file can't hold: rename") as refused:
        quoted(name)
    assert "\n" not in str(refused.value)


def movie(path) -> str:
    write_mrc_movie(str(path), np.random.default_rng(1).poisson(5, (4, 96, 128)).astype(np.uint8))
    return str(path)


def test_one_name_that_cannot_be_written_fails_alone(tmp_path, capsys):
    good, bad = movie(tmp_path / "it's a good one.mrc"), movie(tmp_path / "two\nlines.mrc")
    out = tmp_path / "out"
    options = ["--output", str(out), "--pixel-size", "3", "--no-do-plots", "--no-do-local-alignment"]
    assert main(["align", bad, good, *options]) == 1
    assert "two\\nlines.mrc" in capsys.readouterr().err
    (failure,) = read_failures(str(out / "failed.tsv"))
    assert failure[1].endswith("two\\nlines.mrc") and "rename the file" in failure[2]
    assert not [name for name in os.listdir(out) if name.startswith("two")]
    lines = (out / "corrected_micrographs.star").read_text().splitlines()
    assert words(lines[-1])[0] == str(out / "it's a good one_aligned_mic.mrc")
    # The failure of this movie is removed when it succeeds, and not doubled when it fails again.
    assert main(["align", bad, good, *options]) == 1
    assert len(read_failures(str(out / "failed.tsv"))) == 1


def test_a_result_that_the_list_cannot_name_is_counted(tmp_path):
    from flexalign_plugin.output.corrected_star import write_corrected_micrographs

    folder = tmp_path / 'a "folder"'
    folder.mkdir()
    (folder / "it's_motion.json").write_text("{}")
    (problem,) = write_corrected_micrographs(str(folder))
    assert "it's_motion.json: is left out" in problem and "rename" in problem


LOCALES = {
    "UTF-8": {"LC_ALL": "C.UTF-8"},
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "stdout in ASCII": {"PYTHONIOENCODING": "ascii:strict"},
}
NOT_ASCII = {"not UTF-8": b"caf\xe9.mrc", "not ASCII": "café_東京.mrc".encode()}


@pytest.mark.parametrize(
    "locale, name, n_movies",
    [("UTF-8", "not UTF-8", 2), ("C", "not ASCII", 1), ("C", "not UTF-8", 2), ("stdout in ASCII", "not ASCII", 1)],
)
def test_any_bytes_may_be_in_a_name_in_any_locale(tmp_path, locale, name, n_movies):
    movie(tmp_path / "a.mrc")
    path = os.path.join(os.fsencode(tmp_path), NOT_ASCII[name])
    os.rename(tmp_path / "a.mrc", path)
    (tmp_path / "list").write_bytes(path + b"\n" + (os.fsencode(movie(tmp_path / "b.mrc")) if n_movies > 1 else b""))
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-m", "flexalign_plugin", "align", "@list", "--output", "out", "--pixel-size", "3"]
        + ["--no-do-local-alignment"],
        capture_output=True,
        cwd=tmp_path,
        env={**_child_environment(), **LOCALES[locale]},
        timeout=120,
    )
    assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr
    root = os.path.splitext(NOT_ASCII[name])[0]
    assert root + b"_motion.json" in os.listdir(os.fsencode(out))
    assert path in (out / os.fsdecode(root + b"_shifts.star")).read_bytes()
    assert root + b"_aligned_mic.mrc" in (out / "corrected_micrographs.star").read_bytes()
    assert main(["report", str(out)]) == 0
