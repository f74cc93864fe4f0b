"""The report of a run of particles: its figures, hostile names, and its look in a browser."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from flexalign_plugin.particles.poses import euler_angles
from flexalign_plugin.particles.results import DTYPE
from flexalign_plugin.report_pages.particles import SHOWN_FAILURES, ParticleRun, write_particle_report

from . import chromium

HOSTILE = "a<script>alert(1)</script>&'\"\x1b[31m.mrcs"


def made(n=300, **changed):
    rng = np.random.default_rng(0)
    found = np.zeros(n, DTYPE)
    found["row"] = np.arange(n)
    found["rot"], found["tilt"], found["psi"] = euler_angles(Rotation.random(n, random_state=0).as_matrix())
    found["volume"] = 1 + (np.arange(n) % 4 == 0)
    found["score"], found["class_posterior"] = rng.normal(60, 10, n), 0.75
    found["angle_sd"], found["shift_sd"] = 2.5, 0.5
    found["posterior"] = np.where(np.arange(n) < n // 4, 0.5, 0.99)
    found["aligned"] = True
    values = dict(
        title="a run",
        found=found,
        pixel_A=2.0,
        diameter_A=150.0,
        volumes=["first.mrc", "second.mrc"],
        scales={"group 1": -0.5},
        settings={"max_resolution": 8.0},
    )
    return ParticleRun(**{**values, **changed})


def page_of(tmp_path, run):
    path = tmp_path / "report.html"
    write_particle_report(str(path), run)
    return path.read_text(encoding="utf-8")


def words(page):
    return " ".join(re.sub(r"<[^>]+>", " ", page[page.index("<body>") :]).split())


def test_the_figures_are_those_of_the_run(tmp_path):
    text = words(page_of(tmp_path, made()))
    for sentence in (
        "300 particles aligned",
        "2.5° predicted error of the angle",
        "1.00 Å predicted error of the shift",
        "75 % have an orientation of probability 0.9 or more",
        "first.mrc 225 75.0 % 0.75",
        "second.mrc 75 25.0 % 0.75",
        "scale of group 1 0.5, contrast inverted",
        "max resolution 8.0",
    ):
        assert sentence in text, sentence
    assert "failed" not in text and "going on" not in text


def test_pictures_are_in_the_page(tmp_path):
    picture = np.full((40, 60, 3), 200, np.uint8)
    page = page_of(tmp_path, made(examples=picture))
    pictures = [
        Image.open(io.BytesIO(base64.b64decode(data)))
        for data in re.findall(r'src="data:image/png;base64,([^"]+)', page)
    ]
    assert len(pictures) == 4 and pictures[-1].size == (60, 40)
    assert "http" not in page.replace("http-equiv", "")


def test_failures_and_hostile_names_are_text(tmp_path):
    failures = [(f"{i:06d}@{HOSTILE}", "its image is <empty>.") for i in range(SHOWN_FAILURES + 5)]
    page = page_of(tmp_path, made(title=HOSTILE, failures=failures, volumes=[HOSTILE], running=True))
    assert "<script" not in page and "\x1b" not in page and "<empty>" not in page
    text = words(page)
    assert f"{SHOWN_FAILURES + 5} particles failed" in text and "and 5 more, all in failed.tsv" in text
    assert 'http-equiv="refresh"' in page and "going on" in text


def test_a_run_without_aligned_particles_has_a_page(tmp_path):
    run = made()
    run.found["aligned"] = False
    assert "0 particles aligned" in words(page_of(tmp_path, run))


@pytest.mark.skipif(chromium.find() is None, reason="no Chromium: apt-get install chromium")
@pytest.mark.parametrize("width", [390, 1400])
def test_it_fits_into_the_window(tmp_path, width):
    page_of(tmp_path, made(failures=[(f"000001@{'x' * 120}.mrcs", "its image is empty.")]))
    browser = chromium.Page(str(tmp_path / "profile"))
    try:
        browser.open(str(tmp_path / "report.html"), width)
        assert browser.run("document.documentElement.scrollWidth") <= width
        assert browser.run("[...document.images].every((image) => image.complete && image.naturalWidth > 100)")
    finally:
        browser.close()
