"""The report in a real browser, with the widths of a phone and of a desktop screen.

FLEXALIGN_SCREENSHOTS: folder for screenshots.
"""

from __future__ import annotations

import os

import pytest

from flexalign_plugin.report_pages import write_report
from flexalign_plugin.report_pages.concerns import in_words

from . import chromium
from .results import HOSTILE, make_results, rename_to_hostile

pytestmark = pytest.mark.skipif(chromium.find() is None, reason="no Chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = make_results(tmp_path_factory.mktemp("pages") / ("results_" + 80 * "x"), 10)
    rename_to_hostile(folder, HOSTILE.split("/")[0])  # no file is named with a slash
    write_report(str(folder))
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    page = chromium.Page(str(tmp_path_factory.mktemp("profile")))
    yield page
    page.close()


@pytest.mark.parametrize("width", [390, 1400])
def test_every_page_is_shown_without_errors_or_network(browser, report, width, tmp_path):
    browser.open(str(report), width)
    browser.wait("document.querySelectorAll('.chart svg').length >= 3")
    text = browser.run("document.body.innerText")
    for words in ("12\ndone", "1\nfailed", "Motion of each movie", "Throughput", "is empty.", "times the run's median"):
        assert words in text
    assert "0.83 A/px, field 0.48 x 0.34 um, 40 frames x 1.2 = 48 e/A^2; counted in the movie: 46" in text
    for words in ("The movie holds 12 e/A^2, but 48 were given. In 1 of 12 movies.", "Dose of each movie"):
        assert words in text
    browser.run(
        "document.querySelectorAll('circle').forEach((c) => "
        "c.dispatchEvent(new PointerEvent('pointerover', { bubbles: true })))"
    )
    dots = browser.run("[...document.querySelectorAll('circle title')].map((t) => t.textContent).join('; ')")
    assert "copy_0003.tif: Counted dose 12 e/Å²" in dots and "full_0000.tif: Counted dose 46.5 e/Å²" in dots
    assert "null" not in text and "undefined" not in text
    browser.run("[...document.querySelectorAll('td a')].find((a) => a.textContent.startsWith('full_')).click()")
    browser.wait("document.querySelector('h1').textContent === 'full_0000.tif' && document.querySelector('canvas')")
    text = browser.run("document.body.innerText")
    for words in (
        "A warning about <b>this</b> movie.",
        "Power spectrum",
        "Residuals of the patches",
        "83 %",
        "Rejected pairs of each frame",
        "Even and odd frames",
        "Unheard of figure",
    ):
        assert words in text
    bars = browser.run("[...document.querySelectorAll('rect title')].map((t) => t.textContent).join('; ')")
    assert "frame 3: 75 %; frame 4: 0 %" in bars
    assert browser.run("document.documentElement.scrollWidth") <= width
    before = browser.run("document.querySelector('canvas').toDataURL()")
    browser.run(
        "(() => { const s = document.querySelector('input[type=range]'); s.value = 0; "
        "s.dispatchEvent(new Event('input')); })()"
    )
    assert browser.run("document.querySelector('canvas').toDataURL()") != before
    browser.screenshot(os.path.join(os.environ.get("FLEXALIGN_SCREENSHOTS", str(tmp_path)), f"movie_{width}.png"))
    browser.run("location.hash = ''")
    browser.wait("document.querySelector('.tiles')")
    assert browser.run("document.documentElement.scrollWidth") <= width
    browser.screenshot(os.path.join(os.environ.get("FLEXALIGN_SCREENSHOTS", str(tmp_path)), f"run_{width}.png"))
    assert browser.errors == []
    assert [r for r in browser.requests if not r.startswith(("file:///", "data:", "about:"))] == []
    assert {r for r in browser.requests if r.startswith("file:")} == {f"file://{report}"}


def test_names_that_are_markup_stay_text(browser, report):
    browser.open(str(report), 1400)
    assert browser.run("[...document.images].filter((i) => !i.src.startsWith('data:')).length") == 0
    assert browser.run("document.scripts.length") == 2
    for i in range(1, 13):
        browser.run(f"location.hash = '#m={i}'")
        browser.wait(f"document.body.innerText.includes('Movie {i} of 12')")
    assert browser.errors == []


def test_rows_are_made_as_they_scroll_into_view(browser, tmp_path):
    write_report(str(make_results(tmp_path / "many", 160)))
    rows = "document.querySelectorAll('tbody tr').length"
    for width in (390, 1366):
        browser.open(str(tmp_path / "many" / "report.html"), width, 768)
        assert browser.run(rows) == 50
        assert browser.run("document.documentElement.scrollWidth") <= width
        for more in (100, 150, 161):
            browser.run("window.scrollTo(0, document.body.scrollHeight)")
            browser.wait(f"{rows} >= {more}")
        assert browser.run(rows) == 161 and "more below" not in browser.run("document.body.innerText")
        # A search begins anew; a movie and back keeps the place in the list.
        browser.run("document.querySelector('tbody tr:last-child a').click()")
        browser.wait("location.hash && document.querySelector('.steps')")
        browser.run("location.hash = ''")
        browser.wait(f"{rows} === 161")
        browser.run(
            "(() => { const s = document.querySelector('input[type=search]'); s.value = '0160'; "
            "s.dispatchEvent(new Event('input')); })()"
        )
        browser.wait(f"{rows} === 1")
    assert browser.errors == []


def test_one_movie_has_no_charts_of_a_run_and_red_means_one_thing(browser, tmp_path):
    write_report(str(make_results(tmp_path / "one")))
    browser.open(str(tmp_path / "one" / "report.html"), 1366, 768)
    assert "1 movie" in browser.run("document.body.innerText")
    assert browser.run("document.querySelectorAll('.chart').length") == 0
    browser.run("location.hash = '#m=1'")
    browser.wait("document.querySelector('canvas') && document.querySelectorAll('.chart svg').length >= 4")
    red = "['fill', 'stroke'].some((name) => e.getAttribute(name) === ALARM)"
    marked = browser.run(f"[...document.querySelectorAll('svg *')].filter((e) => {red}).map((e) => e.textContent)")
    # The patch of which 83 %, and the frame of which 75 % of the pairs were rejected; no ring, no level, no curve.
    assert len(marked) == 2 and "83 %" in marked[0] and "75 %" in marked[1]


def test_the_largest_local_motion_is_one_number(browser, tmp_path):
    folder = make_results(tmp_path / "one")
    run = write_report(str(folder))
    (row,) = run.rows
    words = in_words("local_motion_max_px", row["values"]["local_motion_max_px"], row["frames"]["pixel_size_A"])
    browser.open(str(folder / "report.html"), 1366, 768)
    text = browser.run("document.body.innerText")
    px, in_A = words[:-1].split(" (")
    assert words in text and f"{px}\n= {in_A}, largest local motion" in text  # list and tile
    browser.run("location.hash = '#m=1'")
    browser.wait("document.querySelector('canvas')")
    text = browser.run("document.body.innerText")
    assert f"at most {words}, edges of the frame included" in text and text.count(words) == 3  # and both columns
