"""Content of the report's file: missing, damaged, hostile, outdated or many results."""

from __future__ import annotations

import json
import math
import os

import pytest

from flexalign_plugin import launch
from flexalign_plugin.cli import main
from flexalign_plugin.errors import SettingsError
from flexalign_plugin.report_pages import LiveReport, collect, collect_run, page, write_report
from flexalign_plugin.report_pages.concerns import concerns, described, in_words, numbers, pace
from flexalign_plugin.report_pages.packing import packed, unpacked

from .results import FULL, HOSTILE, copy_result, make_results


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return make_results(tmp_path_factory.mktemp("report") / "extra", 12)


def content_of(path):
    with open(path, encoding="utf-8") as f:
        (line,) = [line for line in f if line.startswith(page._DATA_START)]
    content = json.loads(line.strip()[len(page._DATA_START) : -len(page._DATA_END)])
    return {**content, "movies": unpacked(content)}


def test_the_command_writes_the_page(finished, capsys):
    assert main(["report", str(finished)]) == 0
    assert "13 movies, 1 failed" in capsys.readouterr().out
    content = content_of(finished / "report.html")
    assert [movie["root"] for movie in content["movies"] if movie["concerns"]] == ["copy_0003", "copy_0012"]
    full = next(movie for movie in content["movies"] if movie["root"] == FULL)
    assert full["details"]["patches"][0][2] > 0 and full["details"]["field"]["motion"]
    assert full["values"]["unheard_of_figure"] == 12.5 and "curve" not in full["values"]
    assert ["_psd.png", f"{FULL}_psd.png"] in full["files"]


def test_the_mesh_holds_the_models_motion(finished):
    from flexalign_plugin.motion import MotionModel
    from flexalign_plugin.report_pages.details import details

    field = details(str(finished), FULL)["field"]
    model = MotionModel.load(finished / f"{FULL}_motion.json")
    t, y, x = field["frames"][-1] - 1, field["y"][2], field["x"][5]
    start = model.global_shifts_px[0]
    local = [float(v) for v in model.shift(t, y, x)] - model.global_shifts_px[t]
    local -= [float(v) for v in model.shift(0, y, x)] - start
    at = 2 * (2 * len(field["x"]) + 5)
    assert [v * field["step_px"] for v in field["motion"][-1][at : at + 2]] == pytest.approx(local, abs=0.02)


def test_no_name_ends_the_script_or_starts_an_element(finished):
    write_report(str(finished))
    text = (finished / "report.html").read_text(encoding="utf-8")
    assert HOSTILE not in text and "<img src=x" not in text
    assert text.count("</script>") == 2
    assert content_of(finished / "report.html")["failed"][0][1] == f"/data/{HOSTILE}.tif: is empty."


def test_only_new_movies_are_read_again(finished, monkeypatch):
    write_report(str(finished))
    read = []
    load = collect.load_result
    root_of = lambda path: os.path.basename(path)[: -len("_motion.json")]  # noqa: E731
    monkeypatch.setattr(collect, "load_result", lambda path, *parts: read.append(root_of(path)) or load(path, *parts))
    monkeypatch.setattr("flexalign_plugin.report_pages.details.load_result", collect.load_result)
    write_report(str(finished))
    assert read == []
    copy_result(finished, "new_one")
    write_report(str(finished))
    assert set(read) == {"new_one"}
    os.remove(finished / "new_one_motion.json")
    assert "new_one" not in {row["root"] for row in write_report(str(finished)).rows}


def test_a_thousand_movies_stay_a_page_for_a_phone(tmp_path):
    make_results(tmp_path)
    content = (tmp_path / f"{FULL}_motion.json").read_text()
    for i in range(1000):
        (tmp_path / f"m{i}_motion.json").write_text(content)
    write_report(str(tmp_path))
    written = content_of(tmp_path / "report.html")
    assert len(written["movies"]) == 1001
    assert sum("details" in movie for movie in written["movies"]) == page.DETAILED
    # Each of 3,000 movies may take 2.5 kB of 10 MB, beside the pictures; names of movies are longer than here.
    pictures = len(json.dumps([movie["details"] for movie in written["movies"] if "details" in movie]))
    assert (os.path.getsize(tmp_path / "report.html") - pictures) / 1001 < 1500


def test_packed_rows_come_back():
    row = {"root": "a b", "values": {"x": 1.0}, "files": [["_psd.png", "a%20b_psd.png"], ["_x y", "a%20b_x%20y"]]}
    row.update(warnings=["w"], notes=[], input="1 A/px", doubts=[], concerns=[], frames={"in_movie": 3}, micrograph={})
    other = {**row, "root": "b", "values": {"y": 2.0, "x": 3.0}, "files": [["_psd.png", "b_psd.png"]]}
    content = packed([row, other])
    assert len(content["common"]) == 5 and content["movies"][1]["files"] == ["_psd.png"]  # one of each distinct value
    assert unpacked(json.loads(json.dumps(content))) == [row, other]


def test_a_pace_needs_a_minute():
    """Files that were copied all at once are no 1.2 million movies per hour."""
    assert pace([1e9]) == (None, None) and pace([]) == (None, None)
    assert pace([1e9 + 0.003 * i for i in range(300)]) == (None, None)
    assert pace([1e9 + 12 * i for i in range(300)]) == pytest.approx((300, 300))
    # Twenty slow movies at the end, which may come in any order.
    times = [1e9 + 12 * i for i in range(100)] + [1e9 + 99 * 12 + 60 * i for i in range(1, 21)]
    overall, lately = pace(times[::-1])
    assert lately == pytest.approx(60) and overall == pytest.approx(3600 * 119 / (99 * 12 + 1200))


def test_lengths_in_pixels_have_angstrom_beside_them():
    assert in_words("local_motion_max_px", 4.0, 0.83) == "4 px (3.32 Å)"
    assert in_words("local_motion_max_px", 4.0) == "4 px"
    assert in_words("pixels_replaced", 94, 0.83) == "94 pixels"
    assert in_words("local_log_evidence", 1234567.0) == "1,234,567"


def test_a_movie_with_less_than_half_of_the_dose_needs_a_look():
    values = [{"counted_dose_A2": 50.0, "mean_intensity": 1.0}] * 9 + [{"counted_dose_A2": 24.0, "mean_intensity": 0.5}]
    assert concerns(values) == [[]] * 9 + [["Counted dose 24 e/Å², 0.48 times the run's median."]]
    assert concerns([{"mean_intensity": v["mean_intensity"] - 0.1} for v in values])[-1] == [
        "Mean intensity 0.4, 0.44 times the run's median."
    ]


def test_the_newest_and_the_worst_have_pictures(finished):
    for i in range(1, 13):
        os.utime(finished / f"copy_{i:04d}_motion.json", (1e9 - i, 1e9 - i))
    run = collect_run(str(finished))
    assert set(page._chosen(run, 3)) == {FULL, "copy_0001", "copy_0012"}


def test_damaged_and_missing_results_are_reported(tmp_path):
    make_results(tmp_path)
    (tmp_path / "bad_motion.json").write_text('{"quality": ')
    (tmp_path / "other_motion.json").write_text("[]")
    (tmp_path / "bare_motion.json").write_text('{"quality": {"a": 1, "b": NaN}}')
    run = write_report(str(tmp_path))
    assert {row["root"] for row in run.rows} == {FULL, "bare"}
    assert len(run.unreadable) == 2
    with pytest.raises(SettingsError, match="can't be read"):
        write_report(str(tmp_path / "nowhere"))


def test_a_file_of_another_program_is_not_used_as_cache(tmp_path):
    make_results(tmp_path)
    (tmp_path / "report.html").write_bytes(b"\xff\xfe<html>")
    assert len(write_report(str(tmp_path)).rows) == 1


def test_a_report_that_cannot_be_written_is_logged_only(tmp_path):
    lines = []
    live = LiveReport(str(tmp_path / "nowhere"), lines.append, first_s=0.0)
    live.update(3)
    live.finish()
    assert len(lines) == 3 and all("could not be written" in line and "can't be read" in line for line in lines)


def test_a_live_report_without_a_process_is_logged_only(tmp_path, monkeypatch):
    make_results(tmp_path)
    lines = []
    monkeypatch.setattr("flexalign_plugin.launch.command", lambda module: [str(tmp_path / "nothing")])
    live = LiveReport(str(tmp_path), lines.append, first_s=0.0)
    live.update(1)
    live.finish()
    assert len(lines) == 2 and all("could not be written" in line for line in lines)
    assert content_of(tmp_path / "report.html")["running"] is False


def test_a_live_report_is_written_in_a_process_of_its_own_and_not_too_often(tmp_path, monkeypatch):
    """The first update is written, those within the interval are not."""
    make_results(tmp_path)
    started, lines = [], []
    command = launch.command
    monkeypatch.setattr("flexalign_plugin.launch.command", lambda module: started.append(module) or command(module))
    live = LiveReport(str(tmp_path), lines.append, "A <title>", first_s=0.0)
    for _ in range(5):
        live.update(9)
    live._thread.join()
    written = content_of(tmp_path / "report.html")
    assert (written["running"], written["expected"], written["title"]) == (True, 9, "A <title>")
    live.finish()
    assert content_of(tmp_path / "report.html")["running"] is False
    assert len(started) == 2 and lines == []


def test_a_short_run_has_the_final_report_only(tmp_path, monkeypatch):
    make_results(tmp_path)
    monkeypatch.setattr("flexalign_plugin.launch.command", None)  # would raise
    live = LiveReport(str(tmp_path), print)
    live.update(9)
    live.finish()
    assert content_of(tmp_path / "report.html")["running"] is False


def test_outliers_are_reported_only_with_enough_movies():
    motion = [{"accumulated_motion_total_A": v} for v in [10, 11, 9, 10, 12, 10, 9, 60]]
    assert [bool(found) for found in concerns(motion)] == [False] * 7 + [True]
    assert not any(concerns(motion[-3:]))
    # An outlier, but the value itself is harmless.
    assert not any(concerns([{"pair_residual_px": 0.01}] * 8 + [{"pair_residual_px": 0.1}]))
    assert any(concerns([{"pair_residual_px": 0.01}] * 8 + [{"pair_residual_px": 1.0}]))
    assert concerns([{"pairs_rejected": 0.42}]) == [["Rejected pairs: 42 %."]]


def test_unknown_figures_get_a_label():
    assert described("some_new_figure_A")[:2] == ("Some new figure", "Å")
    assert described("frc_A at 0.143")[:2] == ("Frc at 0.143", "Å")
    assert numbers({"a": {"left": 1.0}, "b": [1], "c": True, "d": None, "e": float("nan")}) == {"a left": 1.0}


@pytest.mark.parametrize("times, stands_out", [(1.38, False), (1.46, True)])
def test_movies_of_an_even_run_may_differ_by_40_percent(times, stands_out):
    """All others are alike: their spread is taken as 0.1 in the logarithm, and exp(3.5 * 0.1) = 1.42."""
    values = [{"accumulated_motion_total_A": v} for v in [10.0] * 8 + [10.0 * times]]
    assert [bool(found) for found in concerns(values)] == [False] * 8 + [stands_out]


@pytest.mark.parametrize("distance, stands_out", [(3.3, False), (3.7, True)])
def test_an_outlier_is_three_and_a_half_robust_standard_deviations_away(distance, stands_out):
    """Logarithms 0.2 from their median: the robust standard deviation is 1.4826 * 0.2."""
    logs = [-0.2] * 5 + [0.0] + [0.2] * 4 + [distance * 1.4826 * 0.2]
    values = [{"accumulated_motion_total_A": 100 * math.exp(v)} for v in logs]
    assert [bool(found) for found in concerns(values)] == [False] * 10 + [stands_out]


def test_a_run_of_seven_movies_has_no_outliers():
    values = [{"accumulated_motion_total_A": v} for v in [10.0] * 7 + [60.0]]
    assert any(concerns(values)) and not any(concerns(values[1:]))


@pytest.mark.parametrize("name, limit", [("pairs_rejected", 0.3), ("pairs_on_rim", 0.1), ("patch_pairs_rejected", 0.5)])
def test_a_figure_above_its_limit_is_a_concern(name, limit):
    assert [len(found) for found in concerns([{name: limit}, {name: limit + 0.01}])] == [0, 1]
