"""The engine always has as many movies as its capacity, each once. A movie without a valid job fails alone."""

from __future__ import annotations

from concurrent.futures import Future

import pwem.objects as emobj
import pytest

from flexalign_plugin.errors import SettingsError
from flexalign_plugin.execution.job import Job, JobResult
from flexalign_plugin.protocols.handover import HandOver
from flexalign_plugin.settings import Settings


class FakeEngine:
    """Finishes movies when the test says so."""

    capacity = 3

    def __init__(self):
        self.jobs, self.futures = [], {}

    def submit(self, job):
        self.jobs.append(job.root)
        self.futures[job.root] = Future()
        return self.futures[job.root]

    def finish(self, root):
        self.futures.pop(root).set_result(JobResult(movie=root, ok=True))

    def close(self):
        for root in list(self.futures):
            self.futures.pop(root).set_result(JobResult(movie=root, ok=False, error="closed"))


def movie(number):
    it = emobj.Movie(location=f"movie_{number}.mrc")
    it.setObjId(number)
    return it


@pytest.fixture
def engine():
    return FakeEngine()


@pytest.fixture
def hand_over(engine, monkeypatch):
    def job_of(movie):
        if movie.getObjId() == 4:
            raise SettingsError("The dose per frame is not known.")
        return Job(movie.getFileName(), "out", str(movie.getObjId()), Settings())

    monkeypatch.setattr("flexalign_plugin.protocols.handover.is_being_written", lambda path, before: False)
    it = HandOver(lambda job: engine, job_of, print)
    for number in range(1, 8):
        it.expect(movie(number))
    return it


def test_the_engine_has_as_many_movies_as_it_takes_and_each_once(engine, hand_over):
    first = hand_over._future(movie(1))
    assert engine.jobs == ["1", "2", "3"]
    hand_over._future(movie(2))  # its step starts when the engine already has it
    assert engine.jobs == ["1", "2", "3"]
    engine.finish("3")  # a later movie is faster: the next one follows, although its step has not started
    assert engine.jobs == ["1", "2", "3", "5"]
    engine.finish("1")
    assert first.result(0).ok and engine.jobs == ["1", "2", "3", "5", "6"]


def test_a_movie_without_valid_settings_fails_alone(engine, hand_over):
    result = hand_over.result(movie(4))
    assert not result.ok and result.message.endswith("movie_4.mrc: The dose per frame is not known.")
    assert engine.jobs == ["1", "2", "3"]


def test_after_close_every_movie_fails_and_no_engine_is_made(engine, hand_over):
    waiting = hand_over._future(movie(1))
    hand_over.close()
    assert waiting.result(0).message == "1: closed"
    assert "the run was stopped" in hand_over.result(movie(7)).message
    assert engine.jobs == ["1", "2", "3"]


def test_an_engine_that_fails_every_movie_at_once_is_asked_for_all_of_them(monkeypatch):
    """More movies than Python's depth of calls: each result asks for the next movie."""

    class Broken(FakeEngine):
        def submit(self, job):
            future = super().submit(job)
            self.futures.pop(job.root).set_result(JobResult(movie=job.root, ok=False, error="no worker"))
            return future

    engine = Broken()
    it = HandOver(lambda job: engine, lambda movie: Job("a.mrc", "out", str(movie.getObjId()), Settings()), print)
    for number in range(1, 2001):
        it.expect(movie(number))
    assert it._future(movie(1)).result(0).error == "no worker"
    assert len(engine.jobs) == 2000
