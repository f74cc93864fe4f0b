"""Absurd sizes, values and options: one sentence with the right advice, no traceback and no result of nonsense."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from flexalign_plugin.cli import main
from flexalign_plugin.errors import MovieError, SettingsError
from flexalign_plugin.execution.worker import _child_environment
from flexalign_plugin.movies import open_movie
from flexalign_plugin.phantoms.movie_writers import write_mrc_movie, write_tiff_movie
from flexalign_plugin.runs.mdoc import read_mdoc
from flexalign_plugin.settings import Settings

NY, NX = 96, 128


def frames(n=4, ny=NY, nx=NX):
    return np.random.default_rng(1).poisson(5, (n, ny, nx)).astype(np.uint8)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "good.mrc"
    write_mrc_movie(str(path), frames())
    return path


def align(path, out, *options):
    return main(["align", str(path), "--output", str(out), "--pixel-size", "3", "--no-do-plots", *options])


@pytest.mark.parametrize("shape", [(4, 4), (1, 64), (64, 1), (1, 1), (15, 200)])
def test_frames_that_are_too_small(tmp_path, capsys, shape):
    write_mrc_movie(str(tmp_path / "a.mrc"), frames(4, *shape))
    assert align(tmp_path / "a.mrc", tmp_path / "out") == 1
    err = capsys.readouterr().err
    assert f"frames of {shape[1]} x {shape[0]} pixels are too small to be aligned, at least 16 x 16" in err
    assert "Traceback" not in err and "crop" not in err


def test_the_smallest_frames_are_aligned(tmp_path, capsys):
    write_mrc_movie(str(tmp_path / "a.mrc"), frames(4, 16, 16))
    assert align(tmp_path / "a.mrc", tmp_path / "out") == 0


@pytest.mark.parametrize("factor", [1e13, 1e20, 1e35, 1e37])
def test_pixels_with_impossible_values(tmp_path, capsys, factor):
    write_mrc_movie(str(tmp_path / "a.mrc"), (frames() * factor).astype(np.float32))
    assert align(tmp_path / "a.mrc", tmp_path / "out") == 1
    err = capsys.readouterr().err
    assert (
        "Traceback" not in err and "a.mrc: " in err and ("its pixels have values up to" in err or "not numbers" in err)
    )


@pytest.mark.parametrize(
    "options, sentence",
    [
        (["--pixel-size", "1e-5"], "Pixel size is 1e-05 A: it must be at least 0.01"),
        (["--max-shift", "1e-300"], "Maximum shift is 1e-300 A, less than a tenth of a pixel (0.3 A)"),
        (["--min-local-res", "inf"], "Patch size is inf A: it must be"),
        (["--min-local-res", "1e300"], "Patch size is 1e+300 A: it must be"),
        (["--timeout", "1e300"], "argument --timeout: '1e300' is not a number above 0 and at most 1000000000"),
        (["--threads", "9" * 30], "argument --threads: '9999"),
        (["--threads", "9" * 5000], "is not a whole number"),
        (["--align-frame-n", "9" * 400], "Last frame to align is 9999"),
        (["--crop-dim-x", "9" * 400], "Crop dimension X is 9999"),
        (["--crop-offset-y", "9" * 5000], "argument --crop-offset-y"),
        (["--gain", "a\0b"], "is no name of a file"),
    ],
)
def test_options_with_absurd_values(good, tmp_path, capsys, options, sentence):
    try:
        status = align(good, tmp_path / "out", *options)
    except SystemExit as end:  # the option itself is refused
        status = end.code
    err = capsys.readouterr().err
    assert status == 2 and sentence in err and len(err) < 1500 and "Traceback" not in err
    assert not (tmp_path / "out").exists()


def test_the_largest_time_limit_works(good, tmp_path):
    assert align(good, tmp_path / "out", "--timeout", "1e9") == 0


def test_a_folder_that_is_gone(tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    command = f"cd {gone} && rmdir {gone} && {sys.executable} -m flexalign_plugin align a.mrc --output o --pixel-size 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=_child_environment())
    assert done.returncode == 2 and "the current folder does not exist any more" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


def test_a_section_with_thousands_of_digits(tmp_path):
    (tmp_path / "a.mdoc").write_text(f"[ZValue = {'9' * 5000}]\nTiltAngle = 3\n")
    with pytest.raises(MovieError, match=r"section \[ZValue = 9999.*\.\.\.\] has an impossible number") as refused:
        read_mdoc(str(tmp_path / "a.mdoc"))
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize("ending", ["gz", "bz2"])
def test_a_compressed_header_of_a_gigantic_movie(tmp_path, ending):
    """1,000 frames of 100,000 x 100,000 in some hundred bytes; the advice was to use fewer workers."""
    import bz2

    write_mrc_movie(str(tmp_path / "a.mrc"), frames(1))
    header = bytearray((tmp_path / "a.mrc").read_bytes()[:1024])
    header[:12] = np.array([100_000, 100_000, 1000], "<i4").tobytes()
    path = tmp_path / f"a.mrc.{ending}"
    path.write_bytes((gzip if ending == "gz" else bz2).compress(bytes(header)))
    with pytest.raises(MovieError, match="1000 frames of 100000 x 100000, which can't be in .* compressed bytes: copy"):
        open_movie(str(path), Settings())


def test_a_tiff_of_too_many_pages(tmp_path, monkeypatch):
    monkeypatch.setattr("flexalign_plugin.movies.tiff.MAX_PAGES", 20)
    write_tiff_movie(str(tmp_path / "a.tif"), frames(21, 16, 16))
    with pytest.raises(MovieError, match="has more than 20 frames"):
        open_movie(str(tmp_path / "a.tif"), Settings())


def test_too_many_frames_to_compare():
    with pytest.raises(SettingsError, match="100000 frames are to be aligned, more than 5000: choose a range"):
        Settings().frame_ranges(100_000, "a.mrc")


@pytest.mark.parametrize("name", ["settings.json", "list", "series.mdoc", "picks.star", "defects.txt"])
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_inputs_that_never_end_are_refused_at_once(good, tmp_path, name, kind):
    path = tmp_path / name
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    align_words = ["align", str(good), "--output", "out", "--pixel-size", "3"]
    words = {
        "settings.json": [*align_words, "--settings", name],
        "list": ["align", f"@{name}", "--output", "out", "--pixel-size", "3"],
        "series.mdoc": ["tilt-series", name, "--output", "out", "--pixel-size", "3"],
        "picks.star": ["trace", str(good), "--coords", name],
        "defects.txt": [*align_words, "--defect-file", name],
    }[name]
    if name == "picks.star":
        from flexalign_plugin.output.tracks import read_coordinates

        with pytest.raises(MovieError, match="not a regular file"):
            read_coordinates(str(path), "a")
        return
    os.chdir(tmp_path)
    started = time.monotonic()
    try:
        status = main(words)
    except SystemExit as end:
        status = end.code
    assert status == 2 and time.monotonic() - started < 20


def test_a_list_of_failures_that_is_a_pipe_does_not_stop_the_run(good, tmp_path):
    (tmp_path / "out").mkdir()
    os.mkfifo(tmp_path / "out" / "failed.tsv")
    assert main(["align", str(tmp_path / "missing.mrc"), "--output", str(tmp_path / "out"), "--pixel-size", "3"]) == 1
    assert "missing.mrc" in (tmp_path / "out" / "failed.tsv").read_text()
