"""A folder of results with one bad file: it is left out with its reason, and the others are shown."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from flexalign_plugin.cli import main
from flexalign_plugin.output.corrected_star import write_corrected_micrographs
from flexalign_plugin.report_pages import write_report
from flexalign_plugin.report_pages.packing import packed

from .results import FULL, copy_result, make_results
from .test_report import content_of

POSTSCRIPT = """%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 10 10
%%EndComments
(MARKER) (w) file closefile
showpage
%%EOF
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "results"
    make_results(folder)
    copy_result(folder, "good")
    return folder


@pytest.fixture
def folder(made, tmp_path):
    shutil.copytree(str(made), str(tmp_path / "results"))
    return tmp_path / "results"


def with_values(folder, **changed):
    content = json.loads((folder / f"{FULL}_motion.json").read_text())
    for name, value in changed.items():
        part, _, key = name.partition("__")
        if key:
            content[part][key] = value
        else:
            content[part] = value
    return json.dumps(content)


# {what is wrong: text of the file, from the folder of a good result}
BAD = {
    "null": lambda folder: "null",
    "a list": lambda folder: "[1]",
    "nothing": lambda folder: "",
    "another format": lambda folder: with_values(folder, format="flexalign-result-999"),
    "deeply nested": lambda folder: '{"quality": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "settings of another version": lambda folder: with_values(folder, settings__unheard_of={"a": 1}),
    "settings are a list": lambda folder: with_values(folder, settings=[1]),
    "quality is null": lambda folder: with_values(folder, quality=None),
    "a figure is text": lambda folder: with_values(folder, quality__pairs_rejected="many"),
    "a figure is a list of lists": lambda folder: with_values(folder, quality__frc=[[1], [2]]),
    "times are text": lambda folder: with_values(folder, timings_s={"read": {"wall": "long"}}),
    "warnings are numbers": lambda folder: with_values(folder, warnings=[1, 2]),
    "frames are null": lambda folder: with_values(folder, frames=None),
    "movie is a number": lambda folder: with_values(folder, movie=5),
    "shifts are NaN": lambda folder: with_values(folder, model__global_shifts_px=[[float("nan"), 0.0]] * 8),
    "shifts overflow": lambda folder: with_values(folder, model__global_shifts_px=[[1e308, -1e308]] * 8),
    "shifts of three": lambda folder: with_values(folder, model__global_shifts_px=[[1, 2, 3]] * 8),
    "ragged coefficients": lambda folder: with_values(folder, model__coefficients_px=[[[[1.0]], [[1.0, 2.0]]]]),
    "a frame of no pixels": lambda folder: with_values(folder, model__frame_shape=[0, 10]),
    "10^400 frames": lambda folder: with_values(folder, model__n_frames=8).replace(
        '"n_frames": 8', '"n_frames": ' + "9" * 400
    ),
    "1e999 as time": lambda folder: with_values(folder, timings_s={"read": {"wall": 1.5}}).replace("1.5}", "1e999}"),
}


@pytest.mark.parametrize("what", BAD)
def test_one_bad_result_is_left_out_with_its_reason(folder, what, capsys):
    (folder / "bad_motion.json").write_text(BAD[what](folder))
    assert main(["report", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "2 movies" in out and "bad_motion.json" in out and "Left out" in out
    assert {movie["root"] for movie in content_of(folder / "report.html")["movies"]} == {FULL, "good"}
    # The list for RELION is the last step of `align`.
    (folder / "good_aligned_mic.mrc").write_bytes(b"")
    (folder / "bad_aligned_mic.mrc").write_bytes(b"")
    problems = write_corrected_micrographs(str(folder))
    assert "bad_motion.json: is left out" in problems[0]
    assert len([problem for problem in problems if "left out" in problem]) == 1
    assert "good_aligned_mic.mrc" in (folder / "corrected_micrographs.star").read_text()


@pytest.mark.parametrize(
    "figures", [{"frc_frequency_per_A": [0.0], "frc": [0.5]}, {"patch_centres_px": [[1e308, 1]] * 2}]
)
def test_values_that_do_not_fit_together_hide_one_movies_motion_only(folder, figures):
    (folder / "bad_motion.json").write_text(with_values(folder, **{f"quality__{k}": v for k, v in figures.items()}))
    run = write_report(str(folder))
    assert len(run.rows) == 3
    details = {movie["root"] for movie in content_of(folder / "report.html")["movies"] if "details" in movie}
    assert {FULL, "good"} <= details


def test_a_result_that_is_a_pipe_is_left_out_and_nothing_waits(folder):
    os.mkfifo(folder / "pipe_motion.json")
    os.remove(folder / "failed.tsv")
    os.mkfifo(folder / "failed.tsv")
    os.mkfifo(folder / "report.html")
    os.mkfifo(folder / "good_thumbnail.png")
    done = subprocess.run(
        [sys.executable, "-m", "flexalign_plugin", "report", str(folder)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "2 movies" in done.stdout and "pipe_motion.json" in done.stdout and "not a regular file" in done.stdout
    assert "good_thumbnail.png" in done.stdout


def test_a_picture_of_another_format_is_not_opened(folder, tmp_path):
    """Pillow recognises formats by content and would run PostScript; Ghostscript itself need not be installed."""
    from PIL import EpsImagePlugin

    (folder / f"{FULL}_thumbnail.png").write_text(POSTSCRIPT)
    started = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EpsImagePlugin, "Ghostscript", lambda *a, **k: started.append(a))
        run = write_report(str(folder))
    assert not started
    assert any(f"{FULL}_thumbnail.png: is not a PNG picture" in sentence for sentence in run.unreadable)


@pytest.mark.parametrize("damage", ["bomb", "cut", "text", "empty"])
def test_a_bad_picture_is_left_out_and_the_motion_shown(folder, damage):
    path = folder / f"{FULL}_thumbnail.png"
    if damage == "bomb":  # 24 kB on disk, 100 million pixels
        Image.fromarray(np.zeros((10_000, 10_000), np.uint8)).save(path, compress_level=9)
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        path.write_bytes(b"not a picture" if damage == "text" else b"")
    started = time.monotonic()
    run = write_report(str(folder))
    assert time.monotonic() - started < 10
    assert [s for s in run.unreadable if f"{FULL}_thumbnail.png" in s]
    (full,) = [m for m in content_of(folder / "report.html")["movies"] if m["root"] == FULL]
    assert "thumbnail" not in full["details"] and full["details"]["shifts"]


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["movies"][0].pop("stamp"),
        lambda content: content["movies"][0].update(settings="99"),
        lambda content: content["movies"][0].update(values={"a": None}),
        lambda content: content["movies"][0].update(concerns=[1]),
        lambda content: content.update(movies=None),
        lambda content: content.update(settings=[]),
        lambda content: content["movies"].append(None),
        lambda content: content.update(names=None),
        lambda content: content.update(common=content["common"][:1]),
    ],
)
def test_a_damaged_earlier_report_is_not_used(folder, change):
    write_report(str(folder))
    content = content_of(folder / "report.html")
    content.update(packed(content["movies"]))
    change(content)
    line = '<script type="application/json" id="data">' + json.dumps(content) + "</script>\n"
    (folder / "report.html").write_text("<html>\n" + line)
    run = write_report(str(folder))
    assert {row["root"] for row in run.rows} == {FULL, "good"} and not run.unreadable


def test_an_earlier_report_nested_deeply_is_not_used(folder):
    nested = '<script type="application/json" id="data">' + "[" * 200_000 + "</script>\n"
    (folder / "report.html").write_text(nested)
    assert len(write_report(str(folder)).rows) == 2


def test_results_of_movies_that_begin_with_a_dot_are_shown_and_listed(folder):
    copy_result(folder, ".hidden")
    (folder / "._good_motion.json").write_bytes(b"\0\5\26\7")  # a note of macOS
    (folder / ".hidden_aligned_mic.mrc").write_bytes(b"")
    run = write_report(str(folder))
    assert ".hidden" in {row["root"] for row in run.rows} and not run.unreadable
    assert not [problem for problem in write_corrected_micrographs(str(folder)) if "left out" in problem]
    assert ".hidden_aligned_mic.mrc" in (folder / "corrected_micrographs.star").read_text()
