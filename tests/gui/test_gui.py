"""Form, wizards and viewer in Scipion's own windows. What is done and looked at is in `scenes`, a process for each.

With FLEXALIGN_SCREENSHOTS=FOLDER pictures of the windows are written there, for people to look at.
"""

from __future__ import annotations

import importlib.util
import os
import shutil

import pytest

from .display import Screen, missing

LIMIT_S = 180  # a scene takes 3 to 10 s, and as much again where kernels are compiled first


@pytest.mark.parametrize("kind", ["mrc", "eer", "tiff"])
def test_the_form_shows_what_applies(screen, folder, kind):
    screen.play(f"form_of_{kind}", folder, LIMIT_S)


@pytest.mark.skipif(importlib.util.find_spec("tomo") is None, reason="scipion-em-tomo is not installed")
def test_the_form_of_tilt_series_shows_what_applies(screen, folder):
    screen.play("form_of_tilt_series", folder, LIMIT_S)


def test_tree_and_help(screen, folder):
    screen.play("tree_and_help", folder, LIMIT_S)


def test_a_run_is_started_from_the_form(screen, folder):
    screen.play("execute", folder, LIMIT_S)


def test_wizards_set_their_results(screen, folder):
    screen.play("wizards", folder, LIMIT_S)


def test_the_viewer_opens_its_windows(screen, folder):
    screen.play("viewer", folder, LIMIT_S)


def test_form_wizards_and_viewer_of_particles(screen, tmp_path):
    screen.play("particles", str(tmp_path), LIMIT_S)


@pytest.mark.skipif(shutil.which("xdotool") is None, reason="tables are not looked for: apt install xdotool")
def test_the_viewer_opens_tables(screen, folder):
    said = screen.play("tables", folder, LIMIT_S)
    if "no Qt platform plugin could be initialized" in said:
        pytest.skip("Qt lacks libraries of the system: .ci/run names them")
    assert "ended with" not in said, said


def test_a_scene_that_fails_or_hangs_is_reported_and_ends(screen, tmp_path):
    with pytest.raises(AssertionError, match="KeyError: 'no such scene'"):
        screen.play("no such scene", str(tmp_path), LIMIT_S)
    with pytest.raises(AssertionError, match="not over after 4 s"):
        screen.play("wait_for_nobody", str(tmp_path), 4)
    assert screen.processes() == []


def test_no_process_is_left(screen):
    with Screen() as other:
        assert other.name != screen.name
        server = other._server
    assert server.poll() is not None
    assert not os.path.exists(f"/tmp/.X11-unix/X{other.name[1:]}")
    assert screen.processes() == [], "scenes left processes behind"


@pytest.mark.skipif(bool(missing()), reason=f"windows are not tested: {missing()}")
def test_without_a_server_the_reason_is_given(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert missing() == "there is no Xvfb (Debian: apt install xvfb)"
