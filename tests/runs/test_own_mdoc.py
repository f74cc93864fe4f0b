"""A movie's own `.mdoc`: its dose is used where none is given, and what was typed is compared with it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from flexalign_plugin import cli
from flexalign_plugin.execution.worker import IN_FLIGHT
from flexalign_plugin.phantoms.movie_writers import write_mrc_movie
from flexalign_plugin.phantoms.phantom import particle_phantom
from flexalign_plugin.runs import movies
from flexalign_plugin.runs.own_mdoc import with_own_mdoc
from flexalign_plugin.runs.results import AHEAD
from flexalign_plugin.settings import Settings

N_FRAMES = 6
OPTIONS = "--threads 1 --no-do-local-alignment --no-do-plots --no-do-compute-psd --pixel-size".split()


@pytest.fixture(scope="module")
def movie(tmp_path_factory):
    """2.25 electrons in each pixel of 1.5 A of a frame: 1 e/A^2."""
    path = tmp_path_factory.mktemp("own") / "m_01.mrc"
    phantom = particle_phantom((N_FRAMES, 256, 320), 1.5, 2.25, drift_px=3, local_px=0, seed=3)
    write_mrc_movie(str(path), list(phantom.frames()), 1.5)
    return path


@pytest.fixture
def mdoc(movie):
    """Writes the movie's own .mdoc; it is removed afterwards."""
    paths = []

    def write(name="m_01.mrc.mdoc", kind="FrameSet", **values):
        values = {"TiltAngle": 0.01, "PixelSpacing": 1.5, "SubFramePath": "X:\\m_01.mrc", **values}
        paths.append(movie.with_name(name))
        paths[-1].write_text(f"[{kind} = 0]\n" + "".join(f"{key} = {value}\n" for key, value in values.items()))
        return paths[-1]

    yield write
    for path in paths:
        path.unlink(missing_ok=True)


@pytest.mark.parametrize("name", ["m_01.mrc.mdoc", "m_01.mdoc"])
def test_the_dose_is_used_where_none_is_given(movie, mdoc, name):
    mdoc(name, FrameDosesAndNumber=f"1.02 {N_FRAMES}", ExposureDose=6.12)
    settings, notes, warnings = with_own_mdoc(Settings(pixel_size=1.5), str(movie))
    assert settings.dose_per_frame == pytest.approx(1.02) and warnings == []
    assert notes == [f"The dose of 6.12 e/A^2 in {N_FRAMES} frames is that of {name}."]
    mdoc(name, FrameDosesAndNumber="0.5 2 1.25 4")
    settings, _, _ = with_own_mdoc(Settings(pixel_size=1.5), str(movie))
    assert settings.doses(N_FRAMES) == [0.5] * 2 + [1.25] * 4


def test_what_was_typed_is_kept_and_compared(movie, mdoc):
    mdoc(FrameDosesAndNumber=f"1.0 {N_FRAMES}")
    typed = Settings(pixel_size=0.75, dose_per_frame=6.0)
    settings, notes, (pixel, dose) = with_own_mdoc(typed, str(movie))
    assert settings == typed and notes == []
    assert pixel == "A pixel size of 0.75 A was given, but m_01.mrc.mdoc states 1.5."
    assert dose == "The dose of the whole movie is 36 e/A^2 as given, but m_01.mrc.mdoc states 6."
    for dose in ({"dose_per_frame": 1.0}, {"total_dose": 6.0}, {"frame_doses": "0.5 3 1.5 3"}):
        typed = Settings(pixel_size=1.5, **dose)
        assert with_own_mdoc(typed, str(movie)) == (typed, [], [])


def test_the_angle_of_a_movie_is_not_needed(movie, mdoc):
    path = mdoc(FrameDosesAndNumber=f"1.0 {N_FRAMES}")
    path.write_text("".join(line for line in path.read_text().splitlines(True) if not line.startswith("TiltAngle")))
    settings, notes, warnings = with_own_mdoc(Settings(pixel_size=1.5), str(movie))
    assert settings.dose_per_frame == 1.0 and len(notes) == 1 and warnings == []
    assert with_own_mdoc(Settings(pixel_size=1.52, dose_per_frame=1.1), str(movie))[1:] == ([], [])


@pytest.mark.parametrize("values", [
    dict(kind="ZValue", SubFramePath="other.mrc", ExposureDose=3),  # of a stack of tilts with the movie's name
    dict(FrameTSStartEndFrames="0 3"),
    dict(ExposureDose=0),
    dict(FrameDosesAndNumber="never"),
])  # fmt: skip
def test_a_file_that_says_nothing_about_the_dose(movie, mdoc, values):
    mdoc(**values)
    settings = Settings(pixel_size=1.5)
    assert with_own_mdoc(settings, str(movie)) == (settings, [], [])


def test_a_damaged_file_is_named_and_the_movie_is_aligned(movie, mdoc, tmp_path, capsys):
    path = mdoc()
    path.write_text("nothing\n")
    assert cli.main(["align", str(movie), "--output", str(tmp_path), *OPTIONS, "1.5"]) == 0
    out = capsys.readouterr().out
    assert f"warning: {path}: contains no section" in out and "It is not used." in out


def test_the_command(movie, mdoc, tmp_path, capsys):
    mdoc(FrameDosesAndNumber="0.5 2 1.25 4")
    assert cli.main(["align", str(movie), "--output", str(tmp_path), *OPTIONS, "1.5"]) == 0
    out = capsys.readouterr().out
    assert "note: The dose of 6 e/A^2 in 6 frames is that of m_01.mrc.mdoc." in out
    assert "6 frames of different dose, 6 e/A^2 in all; counted in the movie: 6\n" in out
    assert (tmp_path / "m_01_aligned_mic_DW.mrc").exists() and "warning" not in out
    settings = json.loads((tmp_path / "m_01_motion.json").read_text())["settings"]
    assert settings["frame_doses"] == "0.5 1 0.5 1 1.25 1 1.25 1 1.25 1 1.25 1"
    star = (tmp_path / "m_01_shifts.star").read_text().split()
    assert float(star[star.index("_rlnMicrographDoseRate") + 1]) == 1.0
    assert cli.main(["align", str(movie), "--output", str(tmp_path / "other"), "--no-mdoc", *OPTIONS, "1.5"]) == 0
    assert "dose not given" in capsys.readouterr().out


def test_each_movie_is_opened_for_its_mdoc_when_its_turn_comes(tmp_path, monkeypatch):
    """Not all movies before the first is aligned: that takes minutes with thousands of movies on a slow disk."""
    n = 8
    for i in range(n):
        write_mrc_movie(str(tmp_path / f"m_{i}.mrc"), np.full((2, 64, 64), 5, np.uint8) + np.eye(64, dtype=np.uint8))
        (tmp_path / f"m_{i}.mrc.mdoc").write_text(f"[FrameSet = 0]\nSubFramePath = m_{i}.mrc\nExposureDose = 2\n")
    out, finished = tmp_path / "out", []
    read = movies.with_own_mdoc

    def counted(settings, path):
        finished.append(len(list(out.glob("*_motion.json"))))
        return read(settings, path)

    monkeypatch.setattr(movies, "with_own_mdoc", counted)
    paths = [str(tmp_path / f"m_{i}.mrc") for i in range(n)]
    assert cli.main(["align", *paths, "--output", str(out), "--workers", "1", *OPTIONS, "1.5"]) == 0
    waiting = AHEAD * (IN_FLIGHT + 1)  # of one worker
    assert len(finished) == n
    assert all(done > i - waiting for i, done in enumerate(finished)), finished
    assert len(list(out.glob("*_aligned_mic_DW.mrc"))) == n  # every dose was used
