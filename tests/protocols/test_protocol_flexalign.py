"""The protocol in a real, headless Scipion project: imported movies in, registered micrographs out."""

from __future__ import annotations

import datetime
import itertools
import json
import os
import shutil
import sqlite3
import threading
from contextlib import closing
from types import SimpleNamespace

import mrcfile
import numpy as np
import pytest

from flexalign_plugin.motion import MotionModel
from flexalign_plugin.protocols.handover import HandOver
from flexalign_plugin.report_pages import LiveReport

from ..scipion_project import import_movies, new_alignment, run, shifts
from .conftest import PIXEL_A, SHAPE


@pytest.mark.parametrize("kind", ["mrcs", "tiff", "eer"])
def test_imported_movies_become_micrographs_with_the_true_shifts(project, movies, kind):
    imported = import_movies(
        project, movies.folder, f"*.{kind}", PIXEL_A, gainFile=f"{movies.folder}/gain.mrc", dosePerFrame=1.0
    )
    # The gain was made for the movie's own rows; TIFF and EER rows run the other way than those of an MRC gain.
    order = {"mrcs": 0, "tiff": 1, "eer": 1}[kind]
    protocol = new_alignment(project, imported, nFrames=SHAPE[0], gainRowOrder=order, binFactor=2.0)
    assert protocol.validate() == []
    run(project, protocol)
    assert protocol.isFinished(), protocol.getErrorMessage()

    (micrograph,) = [m.clone() for m in protocol.outputMicrographs]
    assert protocol.outputMicrographs.getSamplingRate() == pytest.approx(2 * PIXEL_A)
    assert protocol.outputMicrographs.getDim()[:2] == (SHAPE[2] // 2, SHAPE[1] // 2)
    with mrcfile.open(micrograph.getFileName(), permissive=False) as mrc:
        assert mrc.data.shape == (SHAPE[1] // 2, SHAPE[2] // 2)
    folder = os.path.dirname(micrograph.getFileName())
    with open(os.path.join(folder, "corrected_micrographs.star")) as star:
        listed = micrograph.getFileName().replace("_aligned_mic.mrc", "_shifts.star") in star.read()
    assert listed == (kind != "tiff")  # RELION's frames of TIFF movies are upside down
    assert ("Bayesian polishing" in protocol.summary()[-1]) == (kind == "tiff")
    moved = [getattr(micrograph, f"_rlnAccumMotion{when}").get() for when in ("Total", "Early", "Late")]
    assert moved[0] > 0 and moved[0] == pytest.approx(moved[1] + moved[2])
    for picture in (micrograph.thumbnail, micrograph.plotGlobal, micrograph.psdCorr):
        assert os.path.getsize(picture.getFileName()) > 500

    (movie,) = [m.clone() for m in protocol.outputMovies]
    assert protocol.outputMovies.getSamplingRate() == pytest.approx(PIXEL_A)
    assert movie.getAlignment().getRange() == (1, SHAPE[0])
    x, y = shifts(movie)
    true = np.stack(movies.truths[kind].shift(np.arange(SHAPE[0]), SHAPE[1] / 2, SHAPE[2] / 2))
    error = np.array([y, x]) - true
    error -= error.mean(axis=1, keepdims=True)
    assert np.sqrt((error**2).sum(axis=0).mean()) < 0.25
    model = MotionModel.load(micrograph.getFileName().replace("_aligned_mic.mrc", "_motion.json"))
    assert model.n_aligned == SHAPE[0]
    assert not protocol.outputMicrographs.isStreamOpen() and not protocol.outputMovies.isStreamOpen()
    assert protocol.summary()[0] == "1 movie aligned."


def test_the_database_of_the_run_is_used_by_one_thread_at_a_time(project, movies, tmp_path, monkeypatch):
    """With a queue, other threads store the numbers of the jobs, holding pyworkflow's lock. A set that was registered
    without it ended with 0 items, or the run with "Recursive use of cursors not allowed"."""
    _copies(movies, tmp_path, 1)
    imported = import_movies(project, str(tmp_path), "*.mrcs", PIXEL_A, gainFile=f"{movies.folder}/gain.mrc")
    protocol = new_alignment(project, imported, doLocalAlignment=False)
    locked, update = [], protocol._updateOutputSets

    def updated(*args):
        database = protocol.mapper.db
        execute = database.executeCommand
        database.executeCommand = lambda *a: locked.append(protocol._lock._is_owned()) or execute(*a)
        update(*args)
        database.executeCommand = execute

    monkeypatch.setattr(protocol, "_updateOutputSets", updated)
    assert run(project, protocol).isFinished(), protocol.getErrorMessage()
    assert locked and all(locked)


def _copies(movies, folder, n):
    for i in range(1, n + 1):
        shutil.copy(f"{movies.folder}/movie_1.mrcs", folder / f"good_{i}.mrcs")


def test_a_damaged_movie_fails_alone_and_continue_tries_it_again(project, movies, tmp_path, monkeypatch):
    _copies(movies, tmp_path, 2)
    whole = (tmp_path / "good_1.mrcs").read_bytes()
    (tmp_path / "bad_0.mrcs").write_bytes(whole[: len(whole) // 2])
    imported = import_movies(project, str(tmp_path), "*.mrcs", PIXEL_A, gainFile=f"{movies.folder}/gain.mrc")
    reports, update = [], LiveReport.update
    monkeypatch.setattr(LiveReport, "update", lambda self, n: reports.append(n) or update(self, n))
    protocol = run(project, new_alignment(project, imported, doLocalAlignment=False))
    assert reports and set(reports) == {3}
    # What Scipion keeps of each movie until the run ends.
    kept = [step.argsStr.get() for step in protocol._steps if step.funcName == "processMovieStep"]
    assert kept == ["[1]", "[2]", "[3]"] and protocol._unfinished == {}
    assert protocol.isFinished(), protocol.getErrorMessage()
    assert protocol.outputMicrographs.getSize() == protocol.outputMovies.getSize() == 2
    (failed,) = [m.getFileName() for m in protocol.outputMoviesFailed]
    assert failed.endswith("bad_0.mrcs")
    with open(protocol._getExtraPath("failed.tsv")) as f:
        header, line = f.read().splitlines()
    assert header == "id\tmovie\treason" and "bad_0.mrcs" in line
    counts, _, report, _, reason = protocol.summary()
    assert counts == "2 movies aligned, *1 failed*."
    assert f"[[{protocol._getExtraPath('report.html')}][" in report
    assert reason.startswith("  bad_0.mrcs: Truncated") and "copy the file again" in reason
    assert protocol.outputMoviesFailed.getFirstItem().reason.get() in reason
    with open(protocol._getExtraPath("report.html"), encoding="utf-8") as f:
        report = f.read()
    assert "bad_0.mrcs" in report and '"root":"good_1"' in report

    (tmp_path / "bad_0.mrcs").write_bytes(whole)
    done_before = {m.getFileName(): os.stat(m.getFileName()).st_mtime_ns for m in protocol.outputMicrographs}
    again = run(project, project.getProtocol(protocol.getObjId()))
    assert again.isFinished(), again.getErrorMessage()
    assert again.outputMicrographs.getSize() == again.outputMovies.getSize() == 3
    assert not hasattr(again, "outputMoviesFailed")
    assert all(os.stat(name).st_mtime_ns == time for name, time in done_before.items())


@pytest.mark.parametrize("lacking", [("outputMoviesFailed", "outputMovies"), ()])
def test_a_list_of_outputs_that_lacks_some_does_not_end_a_continued_run(project, movies, tmp_path, lacking):
    """A window of Scipion that has read the run while it wrote stores such a list when it starts the run again, or that
    there is none."""
    _copies(movies, tmp_path, 2)
    whole = (tmp_path / "good_1.mrcs").read_bytes()
    (tmp_path / "bad_0.mrcs").write_bytes(whole[: len(whole) // 2])
    imported = import_movies(project, str(tmp_path), "*.mrcs", PIXEL_A)
    protocol = run(project, new_alignment(project, imported, doLocalAlignment=False))
    (tmp_path / "bad_0.mrcs").write_bytes(whole)
    again = project.getProtocol(protocol.getObjId())
    for name in lacking:
        again._outputs.remove(name)
    again._useOutputList.set(bool(lacking))
    again = run(project, again)
    assert again.isFinished(), again.getErrorMessage()
    assert again.outputMovies.getSize() == 3 and not hasattr(again, "outputMoviesFailed")
    assert {name for name, _ in again.iterOutputAttributes()} == {"outputMovies", "outputMicrographs"}


def test_what_a_process_of_a_killed_run_wrote_for_a_moment_longer_is_removed(project, movies, tmp_path, monkeypatch):
    _copies(movies, tmp_path, 1)
    imported = import_movies(project, str(tmp_path), "*.mrcs", PIXEL_A)
    protocol = new_alignment(project, imported, doLocalAlignment=False)
    late, close = [], HandOver.close

    def closed(self):
        if not late:
            late.append(protocol._getExtraPath(".good_0_plot_global.png.01234567.part"))
            open(late[0], "w").close()
        close(self)

    monkeypatch.setattr(HandOver, "close", closed)
    protocol = run(project, protocol)
    assert protocol.isFinished() and late and not os.path.exists(late[0])


def test_movies_may_have_the_numbers_of_the_protocols_parameters(project, movies, tmp_path):
    """In the database of the run every parameter has a number, as every movie has in its set."""
    _copies(movies, tmp_path, 2)
    imported = import_movies(project, str(tmp_path), "*.mrcs", PIXEL_A)
    protocol = new_alignment(project, imported, doLocalAlignment=False, binFactor=2.0)
    project._setupProtocol(protocol)
    number = protocol.binFactor.getObjId()
    with closing(sqlite3.connect(imported.outputMovies.getFileName())) as database, database:
        database.execute("UPDATE Objects SET id = id + ?", (number - 1,))
    run(project, protocol)
    assert protocol.isFinished(), protocol.getErrorMessage()
    assert [micrograph.getObjId() for micrograph in protocol.outputMicrographs] == [number, number + 1]
    with closing(sqlite3.connect("project.sqlite")) as database:
        assert database.execute("SELECT value FROM Objects WHERE id = ?", (number,)).fetchall() == [("2.0",)]


def test_a_clock_that_is_set_back_does_not_stop_the_run(project, movies, tmp_path, monkeypatch):
    """pyworkflow would look for results only when the clock has caught up, here in years."""
    calls = itertools.count()

    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return super().now(tz) - datetime.timedelta(hours=next(calls))

    fake = SimpleNamespace(datetime=Clock, timedelta=datetime.timedelta)
    monkeypatch.setattr("pyworkflow.protocol.executor.datetime", fake)
    _copies(movies, tmp_path, 2)
    imported = import_movies(project, str(tmp_path), "*.mrcs", PIXEL_A)
    protocol = run(project, new_alignment(project, imported, doLocalAlignment=False))
    assert protocol.isFinished(), protocol.getErrorMessage()
    assert next(calls) > 2 and protocol.outputMicrographs.getSize() == 2


def test_when_no_movie_can_be_aligned_the_run_fails_and_says_why(project, movies, tmp_path):
    _copies(movies, tmp_path, 2)
    imported = import_movies(project, str(tmp_path), "*.mrcs", PIXEL_A)
    protocol = new_alignment(project, imported)
    project._setupProtocol(protocol)
    for name in ("good_1.mrcs", "good_2.mrcs"):
        (tmp_path / name).write_bytes(b"")
    protocol._validate = list  # as if the movies had been damaged after the start
    run(project, protocol)
    assert protocol.isFailed()
    assert "None of 2 movies" in protocol.getErrorMessage() and "good_1.mrcs" in protocol.getErrorMessage()
    assert protocol.outputMoviesFailed.getSize() == 2 and not protocol.outputMoviesFailed.isStreamOpen()
    assert not hasattr(protocol, "outputMicrographs")


def test_a_run_that_breaks_off_closes_its_sets_and_its_worker(project, movies, tmp_path):
    """Protocols that wait for the outputs must stop waiting, and pyworkflow waits for every thread."""
    _copies(movies, tmp_path, 3)
    imported = import_movies(project, str(tmp_path), "*.mrcs", PIXEL_A)
    protocol = new_alignment(project, imported, doLocalAlignment=False)
    process = protocol._processMovie

    def breaks(movie):
        if movie.getObjId() == 3:
            raise RuntimeError("an unforeseen fault of the protocol")
        process(movie)

    protocol._processMovie = breaks
    run(project, protocol)
    assert protocol.isFailed() and "unforeseen" in protocol.getErrorMessage()
    assert protocol.outputMicrographs.getSize() == 2
    assert not protocol.outputMicrographs.isStreamOpen() and not protocol.outputMovies.isStreamOpen()
    assert "flexalign-worker" not in {thread.name for thread in threading.enumerate()}


def test_saved_movies_are_binned_cropped_and_have_no_shifts_left(project, movies):
    imported = import_movies(project, movies.folder, "*.mrcs", PIXEL_A, gainFile=f"{movies.folder}/gain.mrc")
    crop = {"cropOffsetX": 20, "cropOffsetY": 10, "cropDimX": 200, "cropDimY": 160}
    protocol = new_alignment(
        project, imported, doSaveMovie=True, binFactor=2.0, alignFrame0=2, alignFrameN=7, doLocalAlignment=False, **crop
    )
    run(project, protocol)
    assert protocol.isFinished(), protocol.getErrorMessage()
    (movie,) = [m.clone() for m in protocol.outputMovies]
    with mrcfile.open(movie.getFileName(), permissive=False) as mrc:
        assert mrc.data.shape == (6, 80, 100)
    assert shifts(movie) == ([0.0] * 6, [0.0] * 6)
    assert tuple(movie.getFramesRange()) == (2, 7, 1)
    assert protocol.outputMovies.getSamplingRate() == pytest.approx(2 * PIXEL_A)
    assert protocol.outputMovies.getGain() is None
    assert protocol.outputMovies.getDim() == (100, 80, 6)


def test_weighted_micrographs_even_odd_sums_and_pairs_are_separate_sets(project, movies, tmp_path):
    _copies(movies, tmp_path, 3)
    imported = import_movies(project, str(tmp_path), "*.mrcs", PIXEL_A, dosePerFrame=2.0)
    values = dict(doLocalAlignment=False, onlyProcess=2, denoiserPairs=True, nDenoiserPairs=1, saveFloat16=True)
    protocol = run(project, new_alignment(project, imported, fcropFactor=0.5, **values))
    assert protocol.isFinished(), protocol.getErrorMessage()
    sizes = {}
    for name in ("", "DoseWeighted", "Even", "Odd"):
        micrographs = getattr(protocol, f"outputMicrographs{name}")
        assert micrographs.getSamplingRate() == pytest.approx(2 * PIXEL_A) and not micrographs.isStreamOpen()
        sizes[name] = micrographs.getSize()
        for micrograph in micrographs:
            with mrcfile.open(micrograph.getFileName()) as mrc:
                assert mrc.data.dtype == np.float16 and mrc.data.shape == (SHAPE[1] // 2, SHAPE[2] // 2)
    assert sizes == {"": 2, "DoseWeighted": 2, "Even": 1, "Odd": 1} and protocol.outputMovies.getSize() == 2
    with open(protocol._getExtraPath("good_1_motion.json")) as f:
        assert json.load(f)["settings"]["dose_per_frame"] == 2.0


def test_weighted_micrographs_alone_with_the_dose_of_the_form(project, movies):
    imported = import_movies(project, movies.folder, "*.mrcs", PIXEL_A, dosePerFrame=2.0)
    dose = dict(useMovieDose=False, dosePerFrame=3.5, preExposure=1.0)
    protocol = new_alignment(project, imported, doLocalAlignment=False, doSaveUnweightedMic=False, **dose)
    run(project, protocol)
    assert protocol.isFinished(), protocol.getErrorMessage()
    assert not hasattr(protocol, "outputMicrographs") and protocol.outputMicrographsDoseWeighted.getSize() == 1
    with open(protocol._getExtraPath("movie_1_motion.json")) as f:
        settings = json.load(f)["settings"]
    assert (settings["dose_per_frame"], settings["pre_exposure"]) == (3.5, 1.0)
    # The programs that come next take it from the outputs.
    acquisition = protocol.outputMovies.getAcquisition()
    assert (acquisition.getDosePerFrame(), acquisition.getDoseInitial()) == (3.5, 1.0)


def test_movies_stored_from_a_later_frame_on_are_counted_as_in_their_file(project, movies):
    """The base class refuses such movies, because its default first frame, 1, is before the range of the set."""
    imported = import_movies(project, movies.folder, "*.mrcs", PIXEL_A, dosePerFrame=2.0, doseInitial=1.0)
    trimmed = imported._createSetOfMovies("_trimmed")
    trimmed.copyInfo(imported.outputMovies)
    for movie in imported.outputMovies:
        movie.setFramesRange([3, SHAPE[0] + 2, 1])
        trimmed.append(movie)
    imported._defineOutputs(outputTrimmed=trimmed)
    project._storeProtocol(imported)
    protocol = new_alignment(project, imported, doLocalAlignment=False)
    protocol.inputMovies.setExtended("outputTrimmed")
    assert protocol.validate() == []
    run(project, protocol)
    (movie,) = [m.clone() for m in protocol.outputMovies]
    assert tuple(movie.getFramesRange()) == (3, SHAPE[0] + 2, 1)
    with open(protocol._getExtraPath("movie_1_motion.json")) as f:
        assert json.load(f)["settings"]["pre_exposure"] == 5.0


def test_step_threads_leave_nothing_behind(project, movies, tmp_path):
    """The parallel executor waits for every thread of the process before a run counts as finished."""
    _copies(movies, tmp_path, 3)
    imported = import_movies(project, str(tmp_path), "*.mrcs", PIXEL_A)
    protocol = new_alignment(project, imported, numberOfThreads=3, doLocalAlignment=False)
    project.launchProtocol(protocol, wait=True)
    assert protocol.isFinished(), protocol.getErrorMessage()
    assert protocol.outputMicrographs.getSize() == 3
    log = "".join(open(p).read() for p in protocol.getLogPaths() if os.path.exists(p))
    assert "Movie 3 of 3" in log and "left" in log
