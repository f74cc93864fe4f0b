"""Exit statuses and error messages of all commands (docs/command_line.md)."""

from __future__ import annotations

import json

import numpy as np
import pytest

from flexalign_plugin import cli
from flexalign_plugin.motion import MotionModel
from flexalign_plugin.phantoms.movie_writers import write_mrc_movie
from flexalign_plugin.settings import Settings


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A raw movie, its gain, files that are something else, and a result whose model is only global."""
    folder = tmp_path_factory.mktemp("inputs")
    rng = np.random.default_rng(1)
    gain = rng.normal(1, 0.05, (128, 128)).astype("f4")
    write_mrc_movie(str(folder / "m.mrc"), rng.poisson(20 / gain, (4, 128, 128)).astype("u1"))
    write_mrc_movie(str(folder / "gain.mrc"), [gain])
    write_mrc_movie(str(folder / "flat.mrc"), [np.ones((128, 128), "f4")])
    write_mrc_movie(str(folder / "small.mrc"), [np.ones((50, 60), "f4")])
    (folder / "text").write_text("hello\n")
    (folder / "binary").write_bytes(b"\xc0\0\0\0")
    (folder / "empty").mkdir()
    (folder / "in.txt").write_text("9999 1\n12 13\n")
    (folder / "out.txt").write_text("9999 1\n")
    model = MotionModel((128, 128), 4, 0, np.zeros((4, 2)), None, 1.0)
    motion = {"settings": Settings().to_dict(), "model": model.to_dict(), "quality": {}}
    (folder / "a_motion.json").write_text(json.dumps(motion))
    (folder / "t.mdoc").write_text("[ZValue = 0]\nTiltAngle = 0\nSubFramePath = nowhere.mrc\n")
    return folder


ALIGN = "align m.mrc --output OUT --pixel-size 1 --no-do-local-alignment --no-do-plots "
STATUSES = [  # for every command: right and wrong input, the status, and a part of the output
    (ALIGN + "--gain gain.mrc", 0, "m.mrc: moved"),
    ("align nowhere.mrc --output OUT --pixel-size 1", 1, "nowhere.mrc: no such file: check"),
    ("align text --output OUT --pixel-size 1", 1, "text: its content is neither MRC"),
    (ALIGN + "--gain small.mrc", 1, "small.mrc"),
    (ALIGN.replace("OUT", "text"), 1, "text: can't be written because"),
    (ALIGN + "--gain nowhere.mrc", 2, "nowhere.mrc: no such file: check"),
    (ALIGN + "--gain text", 2, "text: its content is neither MRC"),
    (ALIGN + "--gain m.mrc", 2, "m.mrc: holds 4 images, but one image is needed"),
    (ALIGN + "--dark empty", 2, "empty: is a folder: give a file inside it"),
    (ALIGN + "--defect-map nowhere.mrc", 2, "nowhere.mrc: no such file: check"),
    (ALIGN + "--defect-file gain.mrc", 2, "gain.mrc: is no text file: give lines"),
    (ALIGN + "--settings text", 2, "text: is not a JSON file"),
    (ALIGN + "@nowhere.txt", 2, "nowhere.txt: can't be read (No such file or directory): check the name after @"),
    (ALIGN + "@binary", 2, "the file given with @ is not a text file: it must"),
    ("tilt-series t.mdoc --output OUT --pixel-size 1", 1, "nowhere.mrc: no such file: check"),
    ("tilt-series nowhere.mdoc --output OUT --pixel-size 1", 2, "nowhere.mdoc: can't be read (No such file"),
    ("tilt-series text --output OUT --pixel-size 1", 2, "text: contains no section"),
    ("tilt-series t.mdoc --output OUT --pixel-size 1 --gain nowhere.mrc", 2, "nowhere.mrc: no such file: check"),
    ("tilt-series t.mdoc --output OUT --pixel-size 1 --device abacus", 2, "There is no device 'abacus': choose"),
    ("align m.mrc --pixel-size 1 --output=", 2, "--output: the name is empty: give a folder"),
    ("report . --output OUT/r.html", 0, "r.html: 1 movie, 0 failed"),
    ("report . --output text/r.html", 1, "text: can't be written because"),
    ("report nowhere", 2, "nowhere: can't be read (No such file or directory): give the folder"),
    ("report empty", 2, "empty: contains no results: give the output folder"),
    ("trace a_motion.json --coords in.txt --output OUT/t.star", 0, "1 of 2 particles are outside"),
    ("trace a_motion.json --coords out.txt --output OUT/t.star", 1, "1 of 1 particles are outside"),
    ("trace a_motion.json --coords in.txt --output text/t.star", 1, "text: can't be written because"),
    ("trace nowhere.json --coords in.txt", 2, "nowhere.json: can't be read (No such file or directory): give"),
    ("trace a_motion.json --coords nowhere.txt", 2, "nowhere.txt: can't be read (No such file or directory): check"),
    ("gain m.mrc --gain gain.mrc", 0, "Use: --gain-rot none --gain-flip none"),
    ("gain m.mrc --gain flat.mrc", 1, "Undecided."),
    ("gain nowhere.mrc --gain gain.mrc", 2, "nowhere.mrc: no such file: check"),
    ("gain m.mrc --gain nowhere.mrc", 2, "nowhere.mrc: no such file: check"),
    ("phantom --size 64 64 --frames 2 --output OUT", 0, "phantom_truth.json"),
    ("phantom --size 64 64 --frames 2 --output text", 1, "text: can't be written because"),
    ("phantom --size 1 1 --frames 2 --output OUT", 2, "--size 1 1: give at least"),
    ("phantom --size 64 64 --drift 1e9 --output OUT", 2, "the motion is larger than the frame"),
    ("phantom --size 64 64 --local nan --output OUT", 2, "'nan' is not a number"),
    ("phantom --size 64 64 --dose 1e9 --output OUT", 2, "--dose 1e+09: give at most 200"),
    ("phantom --size 64 64 --seed 99999999999999999999 --output OUT", 2, "--seed 99999999999999999999: give"),
    ("tune --device cpu --size 64 64 --frames 2", 2, "--device cpu: sizes are measured on one GPU"),
    ("batch nowhere.json", 2, "nowhere.json: can't be read (No such file or directory)"),
    ("info --pixel-size 1", 2, "unrecognized arguments"),
]


@pytest.mark.parametrize("words, status, sentence", STATUSES)
def test_status_and_sentence(words, status, sentence, inputs, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(inputs)
    try:
        got = cli.main(words.replace("OUT", str(tmp_path / "out")).split())
    except SystemExit as end:  # of argparse
        got = end.code
    out, err = capfd.readouterr()
    assert (got, "Traceback" in err) == (status, False), err
    assert sentence in out + err
    assert status != 2 or (out == "" and err.count("\n") == 1 and not (tmp_path / "out").exists())
