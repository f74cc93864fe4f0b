"""`flexalign align` into a folder that holds results, and `flexalign sum`, which sums frames again."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from flexalign_plugin import cli
from flexalign_plugin.output.saved_result import load_saved_result

PHANTOM = "phantom --size 256 288 --frames 6 --pixel-size 3 --dose 4 --drift 5 --local 2".split()
ALIGN = "--pixel-size 3 --dose-per-frame 2 --no-do-plots".split()


@pytest.fixture(scope="module")
def movies(tmp_path_factory):
    folder = tmp_path_factory.mktemp("movies")
    for name, more in (("first", []), ("second", ["--format", "tiff", "--gain", "auto"])):
        assert cli.main([*PHANTOM, "--output", str(folder), "--name", name, *more]) == 0
    return folder


@pytest.fixture(scope="module")
def aligned(movies, tmp_path_factory):
    """Results of both movies; the second one has a gain."""
    folder = tmp_path_factory.mktemp("aligned")
    options = [*ALIGN, "--output", str(folder), "--no-report"]
    assert cli.main(["align", str(movies / "first.mrc"), *options]) == 0
    gain = next(movies.glob("second_gain.*"))
    assert cli.main(["align", str(movies / "second.tif"), *options, "--gain", str(gain), "--split-even-odd"]) == 0
    return folder


@pytest.fixture
def copy(aligned, tmp_path):
    return Path(shutil.copytree(aligned, tmp_path / "results"))


def states(folder: Path) -> dict:
    """{name: (bytes, modification time)} of the results of movies."""
    return {
        p.name: (p.read_bytes(), p.stat().st_mtime_ns)
        for p in folder.glob("*_*")
        if p.name != "corrected_micrographs.star"
    }


def pixels(path: Path) -> np.ndarray:
    with mrcfile.open(path, permissive=True) as f:
        return f.data.copy()


# --------------------------------------------------------------------------------------------------- results in the way


def align_again(movies, folder, *more):
    return cli.main(["align", str(movies / "first.mrc"), *ALIGN, "--output", str(folder), "--no-report", *more])


def test_done_movies_are_left_alone(movies, copy, capsys):
    before = states(copy)
    assert align_again(movies, copy, "--skip-done") == 0
    assert states(copy) == before
    assert "left alone: 1 of 1 movies" in capsys.readouterr().out


@pytest.mark.parametrize("harm", ["gone", "cut", "rewritten"])
def test_results_that_are_not_complete_or_older_than_the_movie_are_made_again(movies, copy, tmp_path, harm):
    movie = Path(shutil.copy(movies / "first.mrc", tmp_path / "first.mrc"))
    assert align_again(tmp_path, copy / "own") == 0
    micrograph = copy / "own" / "first_aligned_mic_DW.mrc"
    whole = micrograph.read_bytes()
    if harm == "gone":
        micrograph.unlink()
    elif harm == "cut":
        micrograph.write_bytes(whole[:-1])
    else:
        os.utime(movie)
    before = (copy / "own" / "first_motion.json").stat().st_mtime_ns
    assert align_again(tmp_path, copy / "own", "--skip-done") == 0
    assert (copy / "own" / "first_motion.json").stat().st_mtime_ns > before
    assert micrograph.read_bytes() == whole


def test_settings_without_effect_do_not_count(movies, copy):
    before = states(copy)
    assert align_again(movies, copy, "--skip-done", "--low-memory") == 0
    assert states(copy) == before


@pytest.mark.parametrize("words", [[], ["--skip-done"]])
def test_results_of_other_settings_are_not_replaced(movies, copy, capsys, words):
    before = states(copy)
    assert align_again(movies, copy, "--bin-factor", "2", *words) == 2
    message = capsys.readouterr().err
    assert "with other settings (bin_factor 1.0) and would be replaced" in message and "--overwrite" in message
    assert states(copy) == before


def test_overwrite_replaces_them(movies, copy):
    assert align_again(movies, copy, "--bin-factor", "2", "--skip-done", "--overwrite") == 0
    assert pixels(copy / "first_aligned_mic.mrc").shape == (144, 128)


def test_a_run_that_was_killed_goes_on(movies, tmp_path):
    """Two movies, of which one is done."""
    gain = str(next(movies.glob("second_gain.*")))
    options = [*ALIGN, "--output", str(tmp_path), "--gain", gain]
    both = [str(movies / "second.tif"), str(movies / "first.mrc")]
    assert cli.main(["align", both[0], *options]) == 0
    done = (tmp_path / "second_motion.json").stat().st_mtime_ns
    assert cli.main(["align", *both, *options, "--skip-done"]) == 0
    assert (tmp_path / "second_motion.json").stat().st_mtime_ns == done
    assert (tmp_path / "first_motion.json").exists()
    star = (tmp_path / "corrected_micrographs.star").read_text()
    assert "first_aligned_mic" in star and "second_aligned_mic" in star


# ------------------------------------------------------------------------------------------------------ flexalign sum


def sum_again(aligned, output, *more, names=("first", "second")):
    motions = [str(aligned / f"{name}_motion.json") for name in names]
    return cli.main(["sum", *motions, "--output", str(output), "--no-report", *more])


def test_the_same_settings_give_the_same_bytes(aligned, tmp_path):
    assert sum_again(aligned, tmp_path) == 0
    files = {p.name for p in aligned.iterdir() if p.suffix == ".mrc" or p.name.endswith("_shifts.star")}
    assert len(files) > 8
    for name in files:
        assert (tmp_path / name).read_bytes() == (aligned / name).read_bytes(), name
    for name in ("first", "second"):
        old, new = (json.loads((folder / f"{name}_motion.json").read_text()) for folder in (aligned, tmp_path))
        for part in ("model", "settings", "quality", "warnings", "micrograph", "frames", "files"):
            assert new[part] == old[part], part


def test_other_sums_equal_those_of_a_new_alignment(movies, aligned, tmp_path):
    """The motion does not depend on what is summed: aligning again with these settings gives the same images."""
    words = "--sum-frame0 2 --sum-frame-n 5 --bin-factor 2 --dose-per-frame 3 --crop-dim-x 200 --split-even-odd".split()
    assert sum_again(aligned, tmp_path / "sum", *words, names=["first"]) == 0
    options = [*ALIGN[:2], "--no-do-plots", *words, "--output", str(tmp_path / "align"), "--no-report"]
    assert cli.main(["align", str(movies / "first.mrc"), *options]) == 0
    for kind in ("", "_DW", "_EVN", "_ODD"):
        name = f"first_aligned_mic{kind}.mrc"
        assert (tmp_path / "sum" / name).read_bytes() == (tmp_path / "align" / name).read_bytes()
    summed, again = (load_saved_result(str(tmp_path / d / "first_motion.json")) for d in ("sum", "align"))
    assert summed.figures == again.figures and summed.settings == again.settings


def test_figures_of_images_that_are_not_made_are_left_out(aligned, tmp_path):
    assert sum_again(aligned, tmp_path, "--no-split-even-odd", "--no-do-compute-psd", names=["second"]) == 0
    figures = load_saved_result(str(tmp_path / "second_motion.json")).figures
    assert figures.frc is None and figures.psd_profile is None and figures.expected_error_px is not None


def test_movies_that_were_moved_are_found(movies, aligned, tmp_path):
    motion = json.loads((aligned / "first_motion.json").read_text())
    motion["movie_path"] = "/was/here/first.mrc"
    (tmp_path / "first_motion.json").write_text(json.dumps(motion))
    assert sum_again(tmp_path, tmp_path / "out", names=["first"]) == 1
    assert sum_again(tmp_path, tmp_path / "out", "--movies-in", str(movies), names=["first"]) == 0
    assert (tmp_path / "out" / "first_aligned_mic.mrc").exists()


def test_results_are_replaced_only_if_asked(aligned, copy, capsys):
    before = states(copy)
    assert sum_again(copy, copy, "--bin-factor", "2", names=["first"]) == 2
    assert "--overwrite" in capsys.readouterr().err and states(copy) == before
    assert sum_again(copy, copy, "--bin-factor", "2", "--overwrite", names=["first"]) == 0
    assert pixels(copy / "first_aligned_mic.mrc").shape == (144, 128)
    assert load_saved_result(str(copy / "first_motion.json")).figures.expected_error_px is not None


def test_the_motion_of_another_movie_is_refused(movies, aligned, tmp_path, capsys):
    small = tmp_path / "movies"
    assert (
        cli.main(
            [*PHANTOM[:1], *"--size 200 256 --frames 6 --pixel-size 3 --name first".split(), "--output", str(small)]
        )
        == 0
    )
    assert sum_again(aligned, tmp_path / "out", "--movies-in", str(small), names=["first"]) == 1
    assert "it is not the movie that was aligned" in (tmp_path / "out" / "failed.tsv").read_text()


def test_settings_of_the_motion_are_no_options(aligned, tmp_path, capsys):
    with pytest.raises(SystemExit):
        sum_again(aligned, tmp_path, "--max-shift", "20")
    assert "--max-shift" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["{}", "[]", '{"format": "flexalign-result-9"}'])
def test_files_that_are_no_results_are_refused(tmp_path, capsys, content):
    (tmp_path / "first_motion.json").write_text(content)
    assert sum_again(tmp_path, tmp_path / "out", names=["first"]) == 2
    assert "first_motion.json" in capsys.readouterr().err
