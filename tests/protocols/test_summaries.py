"""Rates and summaries, with a clock that the test controls."""

from __future__ import annotations

import pytest

from flexalign_plugin.execution.job import JobResult
from flexalign_plugin.protocols.summaries import Pace, duration, summary


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def paced(arrive_every, finish_every, hours=1.0, first=0):
    clock = Clock()
    pace = Pace(clock)
    pace.arrived(first)
    pace.start()
    for second in range(1, int(hours * 3600) + 1):
        clock.now += 1
        if second % arrive_every == 0:
            pace.arrived(1)
        if second % finish_every == 0:
            pace.finished()
    return pace


def test_there_is_no_rate_before_the_first_movie():
    assert Pace().text(5, True) == "no movie is finished yet"


def test_rates_are_those_of_the_last_movies():
    pace = paced(arrive_every=40, finish_every=60)
    assert pace.per_hour() == pytest.approx(60) and pace.arriving_per_hour() == pytest.approx(90, rel=0.05)
    clock = pace._clock
    for _ in range(40):
        clock.now += 20
        pace.finished()
    assert pace.per_hour() == pytest.approx(180)


@pytest.mark.parametrize(
    "arrive, finish, waiting, words",
    [
        (40, 60, 30, "falls behind by 3"),
        (60, 60, 1, "keeps up with the input"),
        (60, 30, 50, "catches up with the input"),
    ],
)
def test_the_text_states_whether_the_run_keeps_up(arrive, finish, waiting, words):
    assert words in paced(arrive, finish).text(waiting, more_come=True)


def test_movies_that_existed_at_the_start_do_not_count_as_arriving():
    assert paced(arrive_every=60, finish_every=60, first=500).arriving_per_hour() == pytest.approx(60, rel=0.05)
    assert "input" not in paced(arrive_every=10**6, finish_every=60, first=500).text(400, more_come=True)


def test_the_remaining_time_is_that_of_the_waiting_movies():
    assert paced(10**6, 60).text(30, more_come=False) == "60 movies per hour, about 30 min 0 s left"
    assert duration(3700) == "1 h 1 min"


class _Run:
    """The part of a protocol that the summary reads: 3 of 10 movies aligned, 5 failed, 2 waiting."""

    def __init__(self, pace, finished, waiting):
        self._pace, self.finished, self.streamClosed, self._waiting = pace, finished, finished, waiting
        self.outputMovies = type("Movies", (), {"getSize": lambda _: 3})()
        self._failures = {i: JobResult(f"/data/m{i}.tif", False, error="is empty.") for i in range(5)}

    def _n_waiting(self):
        return self._waiting

    def _getExtraPath(self, name):
        return f"Runs/1/extra/{name}"


def test_the_summary_begins_with_counts_rate_and_report():
    lines = summary(_Run(paced(arrive_every=40, finish_every=60), False, 30)).splitlines()
    assert lines[0] == "3 movies aligned, *5 failed*, 30 waiting."
    assert lines[1].startswith("60 movies per hour, falls behind by 3") and "left for the waiting movies." in lines[1]
    assert lines[2] == "Overview of all movies: [[Runs/1/extra/report.html][extra/report.html]]"
    assert lines[4:] == ["  m0.tif: Is empty.", "  m1.tif: Is empty.", "  m2.tif: Is empty.", "  and 2 more."]


def test_the_summary_of_a_finished_run_has_no_remaining_time():
    lines = summary(_Run(paced(arrive_every=40, finish_every=60), True, 0)).splitlines()
    assert lines[:2] == ["3 movies aligned, *5 failed*.", "60 movies per hour."]
    assert "Overview" in summary(_Run(Pace(), True, 0)).splitlines()[1]
