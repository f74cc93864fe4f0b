"""No result replaces that of another movie, an input of the run, or a raw movie."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from flexalign_plugin.cli import main
from flexalign_plugin.execution.job import Job, run_job
from flexalign_plugin.kernels import select_backend
from flexalign_plugin.phantoms.movie_writers import write_mrc_movie
from flexalign_plugin.result_files import ENDINGS, without_number
from flexalign_plugin.runs.names import Names
from flexalign_plugin.settings import Settings

FAST = ["--pixel-size", "3", "--no-do-local-alignment", "--no-do-plots", "--no-report", "--quiet"]
SETTINGS = Settings(pixel_size=3.0, do_local_alignment=False, do_plots=False)


def movie(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = np.random.default_rng(seed).poisson(5 + seed, (4, 96, 128)).astype(np.uint8)
    write_mrc_movie(str(path), frames)
    return path


def align(*movies, output) -> int:
    return main(["align", *map(str, movies), "--output", str(output), *FAST])


def contents(folder: Path):
    return {path.name: hashlib.sha1(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()}


def owner(folder: Path, root: str) -> str:
    return json.loads((folder / f"{root}_motion.json").read_text())["movie_path"]


def test_movies_of_one_name_from_two_runs_have_results_of_their_own(tmp_path):
    first, second = movie(tmp_path / "a" / "x.mrc", 1), movie(tmp_path / "b" / "x.mrc", 2)
    out = tmp_path / "out"
    assert align(first, output=out) == 0
    before = contents(out)
    assert align(second, output=out) == 0
    after = contents(out)
    lists = {"corrected_micrographs.star"}
    assert {name: after[name] for name in before if name not in lists} == {
        name: digest for name, digest in before.items() if name not in lists
    }
    assert owner(out, "x") == str(first) and owner(out, "x_000001") == str(second)
    star = (out / "corrected_micrographs.star").read_text()
    assert "x_aligned_mic.mrc" in star and "x_000001_aligned_mic.mrc" in star
    # Each finds its own result again, through links and from another folder too.
    (tmp_path / "link.mrc").symlink_to(second)
    assert align(second, output=out) == 0
    assert contents(out).keys() == after.keys()


def test_relative_names_of_two_folders_are_two_movies(tmp_path, monkeypatch):
    for seed, name in enumerate("ab", 1):
        movie(tmp_path / name / "x.mrc", seed)
        monkeypatch.chdir(tmp_path / name)
        assert align("x.mrc", output="../out") == 0
    assert owner(tmp_path / "out", "x") == str(tmp_path / "a" / "x.mrc")
    assert owner(tmp_path / "out", "x_000001") == str(tmp_path / "b" / "x.mrc")


def test_a_result_of_version_1_0_0_belongs_to_the_movie_that_it_names(tmp_path):
    path = movie(tmp_path / "x.mrc", 1)
    out = tmp_path / "out"
    assert align(path, output=out) == 0
    saved = json.loads((out / "x_motion.json").read_text())
    del saved["movie_path"]
    (out / "x_motion.json").write_text(json.dumps(saved))
    assert Names(str(out)).root(str(path), 5) == "x"
    assert Names(str(out)).root("/elsewhere/x.mrc", 5) == "x_000005"


def test_the_movies_of_a_run_keep_their_numbers_in_the_next(tmp_path):
    """A second run with another order of the same movies replaces each movie's own result."""
    movies = [movie(tmp_path / name / "x.mrc", seed) for seed, name in enumerate("abc", 1)]
    out = tmp_path / "out"
    assert align(*movies, output=out) == 0
    names = {root: owner(out, root) for root in ("x", "x_000002", "x_000003")}
    assert align(*reversed(movies), output=out) == 0
    assert {root: owner(out, root) for root in names} == names
    assert len(list(out.glob("*_motion.json"))) == 3


def test_two_runs_at_the_same_time_do_not_replace_each_other(tmp_path):
    """Both have chosen the name before either has written: the later one fails and keeps the other's result."""
    paths = [movie(tmp_path / name / "x.mrc", seed) for seed, name in enumerate("ab", 1)]
    out = tmp_path / "out"
    both_chose = threading.Barrier(2)
    results = []

    def run(path: Path) -> None:
        waited = []

        def progress(stage: str, done: float) -> None:
            if not waited:
                waited.append(both_chose.wait(60))

        job = Job(str(path), str(out), Names(str(out)).root(str(path), 1), SETTINGS, keep_others=True)
        results.append(run_job(job, select_backend("cpu", 1), progress))

    threads = [threading.Thread(target=run, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (good,), (bad,) = [r for r in results if r.ok], [r for r in results if not r.ok]
    assert owner(out, "x") == good.movie
    assert f"is the result of another movie, {good.movie}, and is kept" in bad.error


@pytest.mark.parametrize("ending", [e for e in ENDINGS if e.endswith(("mrc", "mrcs"))])
def test_a_raw_movie_that_is_named_like_a_result_is_never_replaced(tmp_path, capsys, ending):
    """Neither if it is an input of the run nor if it only lies in the folder."""
    first, raw = movie(tmp_path / "x.mrc", 1), movie(tmp_path / f"x{ending}", 2)
    before = raw.read_bytes()
    assert align(first, raw, output=tmp_path) == 2
    assert f"{raw}: is an input of this run and would be replaced" in capsys.readouterr().err
    assert align(first, output=tmp_path) == 1
    assert f"{raw}: is an image that FlexAlign has not written" in capsys.readouterr().err
    assert raw.read_bytes() == before
    assert align(first, output=tmp_path / "out") == 0


def test_a_folder_of_raw_movies_may_be_the_output_folder(tmp_path):
    paths = [movie(tmp_path / f"x_{i}.mrc", i) for i in (1, 2)]
    before = contents(tmp_path)
    assert align(*paths, output=tmp_path) == 0
    assert {name: digest for name, digest in contents(tmp_path).items() if name in before} == before
    assert align(*paths, output=tmp_path) == 0  # the results of the first run are replaced


@pytest.mark.parametrize("option", ["--gain", "--dark", "--defect-map", "--defect-file"])
def test_no_other_input_is_replaced(tmp_path, option, capsys):
    path, out = movie(tmp_path / "x.mrc", 1), tmp_path / "out"
    assert align(path, output=out) == 0
    used = out / ("x_aligned_mic.mrc" if option != "--defect-file" else "failed.tsv")
    if option == "--defect-file":
        used.write_text("1 1 1 1\n")
    before = used.read_bytes()
    assert main(["align", str(path), "--output", str(out), *FAST, option, str(used)]) == 2
    assert f"{used}: is an input of this run" in capsys.readouterr().err
    assert used.read_bytes() == before


def test_commands_do_not_replace_their_inputs(tmp_path, capsys):
    path, out = movie(tmp_path / "x.mrc", 1), tmp_path / "out"
    assert align(path, output=out) == 0
    motion, coords = out / "x_motion.json", tmp_path / "c.txt"
    coords.write_text("10 10\n")
    for output in (coords, motion):
        before = output.read_bytes()
        words = ["trace", str(motion), "--coords", str(coords), "--output", str(output)]
        assert main(words) == 2 and "would be replaced" in capsys.readouterr().err
        assert output.read_bytes() == before
    for output in (motion, path, out / "x_aligned_mic.mrc"):
        before = output.read_bytes()
        assert main(["report", str(out), "--output", str(output)]) == 2 and "is kept" in capsys.readouterr().err
        assert output.read_bytes() == before


RELION_LIST = """
# version 30001

data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
opticsGroup1            1

# version 30001

data_micrographs

loop_
_rlnCtfPowerSpectrum #1
_rlnMicrographName #2
_rlnOpticsGroup #3
MotionCorr/job002/Movies/a_PS.mrc MotionCorr/job002/Movies/a.mrc            1
"""


def test_a_list_of_relions_own_motion_correction_is_kept(tmp_path, capsys):
    path, out = movie(tmp_path / "x.mrc", 1), tmp_path / "out"
    out.mkdir()
    own = out / "corrected_micrographs.star"
    own.write_text(RELION_LIST)
    assert align(path, output=out) == 1
    assert f"{own}: lists micrographs of another program, such as MotionCorr/job" in capsys.readouterr().err
    assert own.read_text() == RELION_LIST and os.listdir(out) == [own.name]
    assert main(["align", str(path), "--output", str(out), "--no-corrected-star", *FAST]) == 0
    assert own.read_text() == RELION_LIST
    # Our own list is replaced, also if its micrographs have been moved away.
    own.unlink()
    assert align(path, output=out) == 0
    os.rename(out / "x_motion.json", tmp_path / "x_motion.json")
    assert align(movie(tmp_path / "y.mrc", 2), output=out) == 0
    assert "y_aligned_mic.mrc" in own.read_text() and "x_aligned_mic.mrc" not in own.read_text()


def test_two_tilt_series_of_one_name_are_not_mixed(tmp_path, capsys):
    for seed, name in enumerate("ab", 1):
        movie(tmp_path / name / "tilt.mrc", seed)
        (tmp_path / name / "series.mdoc").write_text("[ZValue = 0]\nTiltAngle = 0\nSubFramePath = tilt.mrc\n")
    out = tmp_path / "out"
    words = ["--output", str(out), *[w for w in FAST if w != "--no-report"]]
    assert main(["tilt-series", str(tmp_path / "a" / "series.mdoc"), *words]) == 0
    before = contents(out)
    assert main(["tilt-series", str(tmp_path / "b" / "series.mdoc"), *words]) == 2
    assert "is a tilt series of other movies" in capsys.readouterr().err
    assert contents(out) == before
    assert main(["tilt-series", str(tmp_path / "a" / "series.mdoc"), *words]) == 0


def test_a_movie_that_is_rewritten_while_it_is_read_fails(tmp_path):
    """As the protocol does: frames of two movies must not be mixed."""
    path = movie(tmp_path / "x.mrc", 1)
    movie(tmp_path / "other.mrc", 2)

    def progress(stage: str, done: float) -> None:
        if stage == "motion correction":
            with open(path, "r+b") as file:  # in place, with the same size
                file.write((tmp_path / "other.mrc").read_bytes())

    result = run_job(Job(str(path), str(tmp_path / "out"), "x", SETTINGS), select_backend("cpu", 1), progress)
    assert not result.ok and "was changed while it was read" in result.error
    assert os.listdir(tmp_path / "out") == []
    assert run_job(Job(str(path), str(tmp_path / "out"), "x", SETTINGS), select_backend("cpu", 1)).ok


def test_numbers_of_names():
    assert without_number("x_000012") == without_number("x_000012_2") == "x"
    assert [without_number(root) for root in ("x_12", "x_20240101_5_fractions")] == ["x_12", "x_20240101_5_fractions"]


def test_thousands_of_results_delay_no_run(tmp_path):
    """A movie is compared with the results of its name only, not with all others."""
    for i in range(2000):
        (tmp_path / f"x_{i}_motion.json").write_text(f'{{"movie_path": "/data/x_{i}.mrc"}}')
    names, started = Names(str(tmp_path)), time.monotonic()
    assert [names.root(f"/data/x_{i}.mrc", i) for i in range(2000)] == [f"x_{i}" for i in range(2000)]
    assert names.root("/other/x_7.mrc", 2001) == "x_7_002001"
    assert time.monotonic() - started < 20
