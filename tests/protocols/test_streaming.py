"""Movies that arrive during the run, in various patterns: each is in exactly one output at the end."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
import time

import pytest

from flexalign_plugin.phantoms.movie_writers import write_mrc_movie
from flexalign_plugin.phantoms.phantom import particle_phantom
from flexalign_plugin.protocols import arrivals

from ..scipion_project import as_stored, import_movies, new_alignment, run
from .conftest import PIXEL_A


@pytest.fixture(autouse=True)
def _short_looks(monkeypatch):
    monkeypatch.setattr(arrivals, "STILL_S", 0.3)


def streamed(project, movies, tmp_path, arrivals_of_files):
    """A finished run whose input set grew by one batch each time that the run checked it, and was then closed.

    arrivals_of_files : batches of paths.
    """
    shutil.copy(f"{movies.folder}/movie_1.mrcs", tmp_path / "first.mrcs")
    imported = import_movies(project, str(tmp_path), "first.mrcs", PIXEL_A)
    stream = imported.outputMovies
    protocol = new_alignment(project, imported, doLocalAlignment=False, doComputePSD=False)
    template = stream.getFirstItem().clone()
    batches, sizes = iter(arrivals_of_files), []
    look = protocol._checkNewInput

    def grow(files, state):
        stream.enableAppend()
        for path in files:
            movie = template.clone()
            movie.setObjId(None)
            movie.setFileName(str(path))
            movie.setMicName(os.path.basename(str(path)))
            stream.append(movie)
        stream.setStreamState(state)
        stream.write()
        stream.close()

    grow([], stream.STREAM_OPEN)

    def grow_and_look():
        try:
            grow(next(batches), stream.STREAM_OPEN)
        except StopIteration:
            grow([], stream.STREAM_CLOSED)
        look()
        sizes.append(protocol.outputMovies.getSize() if hasattr(protocol, "outputMovies") else 0)

    protocol._checkNewInput = grow_and_look
    protocol._stepsCheckSecs = 0
    run(project, protocol)
    assert protocol.isFinished(), protocol.getErrorMessage()
    return protocol, stream, sizes


def test_any_pattern_of_arrival_puts_each_movie_into_one_output(project, movies, tmp_path):
    whole = open(f"{movies.folder}/movie_1.mrcs", "rb").read()
    other = tmp_path / "other"
    other.mkdir()
    for name in ("slow.mrcs", "burst_1.mrcs", "burst_2.mrcs", "a_1.234.mrcs", "a_1.235.mrcs", "other/slow.mrcs"):
        (tmp_path / name).write_bytes(whole)
    (tmp_path / "cut.mrcs").write_bytes(whole[:5000])
    frames = list(particle_phantom((5, 256, 320), pixel_size_A=PIXEL_A, dose=4, seed=9).frames())
    write_mrc_movie(str(tmp_path / "five.mrcs"), frames, PIXEL_A)
    for name, seconds in (("burst_1.mrcs", 86400 * 365), ("burst_2.mrcs", -86400 * 365)):  # clocks that are wrong
        os.utime(tmp_path / name, times=(time.time() + seconds,) * 2)
    protocol, stream, sizes = streamed(
        project,
        movies,
        tmp_path,
        [
            [tmp_path / "slow.mrcs"],
            [],
            [tmp_path / f"burst_{i}.mrcs" for i in (1, 2)] + [tmp_path / "cut.mrcs", tmp_path / "gone.mrcs"],
            [tmp_path / "a_1.234.mrcs", tmp_path / "a_1.235.mrcs", other / "slow.mrcs"],
            [tmp_path / "slow.mrcs", tmp_path / "five.mrcs"],  # one that was there already
        ],
    )
    done = {m.getObjId() for m in protocol.outputMovies.iterItems()}
    failed = {os.path.basename(m.getFileName()): m.getObjId() for m in protocol.outputMoviesFailed.iterItems()}
    assert set(failed) == {"cut.mrcs", "gone.mrcs"}
    assert not done & set(failed.values()) and len(done) + len(failed) == stream.getSize() == 11
    assert len({m.getFileName() for m in protocol.outputMicrographs.iterItems()}) == len(done)
    frames = {m.getFileName(): m.getFramesRange().getLastFrame() for m in protocol.outputMovies.iterItems()}
    assert frames[str(tmp_path / "five.mrcs")] == 5 and frames[str(tmp_path / "slow.mrcs")] == 8
    assert sizes[-1] > 0 and any(0 < size < len(done) for size in sizes)  # outputs grow while it runs
    for output in (protocol.outputMovies, protocol.outputMicrographs, protocol.outputMoviesFailed):
        assert not output.isStreamOpen()
    with open(protocol._getExtraPath("failed.tsv")) as f:
        reasons = f.read()
    assert "cut.mrcs" in reasons and "gone.mrcs" in reasons


def test_a_movie_that_is_still_being_written_is_waited_for(project, movies, tmp_path):
    whole = open(f"{movies.folder}/movie_1.mrcs", "rb").read()
    late = tmp_path / "late.mrcs"
    late.write_bytes(whole[:100_000])

    def finish():
        with open(late, "ab") as f:
            for start in range(100_000, len(whole), 50_000):
                f.write(whole[start : start + 50_000])
                f.flush()
                time.sleep(0.15)

    writer = threading.Thread(target=finish)
    started = threading.Event()

    class Batches:
        def __iter__(self):
            started.set()
            writer.start()
            yield [late]

    protocol, _, _ = streamed(project, movies, tmp_path, Batches())
    writer.join()
    assert protocol.outputMovies.getSize() == 2 and not hasattr(protocol, "outputMoviesFailed")


def test_an_input_that_closes_without_movies_is_no_success(project, movies, tmp_path):
    shutil.copy(f"{movies.folder}/movie_1.mrcs", tmp_path / "a.mrcs")
    imported = import_movies(project, str(tmp_path), "*.mrcs", PIXEL_A)
    empty = imported._createSetOfMovies("_empty")
    empty.copyInfo(imported.outputMovies)
    imported._defineOutputs(outputEmpty=empty)
    project._storeProtocol(imported)
    protocol = new_alignment(project, imported)
    protocol.inputMovies.setExtended("outputEmpty")
    run(project, protocol)
    assert protocol.isFailed()


def test_an_input_set_that_is_locked_is_read_when_it_is_free(project, movies, tmp_path, monkeypatch):
    """SQLite waits for the end of a lock, but not on every file server: no waiting here."""
    from pyworkflow.mapper.sqlite import SqliteFlatMapperException
    from pyworkflow.mapper.sqlite_db import SqliteDb

    from flexalign_plugin.protocols import ProtFlexAlign

    connect = SqliteDb._createConnection
    monkeypatch.setattr(SqliteDb, "_createConnection", lambda self, name, timeout: connect(self, name, 0))
    shutil.copy(f"{movies.folder}/movie_1.mrcs", tmp_path / "a.mrcs")
    imported = import_movies(project, str(tmp_path), "*.mrcs", PIXEL_A)
    protocol = new_alignment(project, imported, doLocalAlignment=False, doComputePSD=False)
    read, locks = ProtFlexAlign._loadInputList, []

    def read_while_written(self):
        writer = sqlite3.connect(imported.outputMovies.getFileName(), isolation_level=None, check_same_thread=False)
        writer.execute("BEGIN EXCLUSIVE")
        with pytest.raises((sqlite3.OperationalError, SqliteFlatMapperException), match="locked"):
            read.__wrapped__(self)
        locks.append(threading.Timer(1.0, writer.rollback))
        locks[-1].start()
        read(self)
        locks[-1].join()
        writer.close()

    monkeypatch.setattr(ProtFlexAlign, "_loadInputList", read_while_written)
    run(project, protocol)
    assert locks and protocol.isFinished(), protocol.getErrorMessage()
    assert protocol.outputMovies.getSize() == 1


def test_behind_a_live_import_both_in_processes_of_their_own(project, movies, tmp_path):
    """Started as from the project window. Files arrive while both run; one is written slowly, one is truncated."""
    from pwem.protocols import ProtImportMovies

    whole = open(f"{movies.folder}/movie_1.mrcs", "rb").read()
    folder = tmp_path / "microscope"
    folder.mkdir()

    def wait_for(condition):
        deadline = time.monotonic() + 90
        while not condition():
            assert time.monotonic() < deadline, (imported.getStatus(), aligned.getStatus())
            time.sleep(0.3)

    def update(protocol):
        project._updateProtocol(protocol)
        return protocol

    (folder / "m_1.mrcs").write_bytes(whole)
    values = dict(filesPath=str(folder), filesPattern="*.mrcs", samplingRate=PIXEL_A, voltage=300)
    imported = project.newProtocol(ProtImportMovies, dataStreaming=True, timeout=12, fileTimeout=2, **values)
    aligned = new_alignment(project, imported, doLocalAlignment=False, doComputePSD=False, numberOfThreads=3)
    project.launchProtocol(imported)
    wait_for(lambda: hasattr(update(imported), "outputMovies"))
    project.launchProtocol(aligned)
    (folder / "m_2.mrcs").write_bytes(whole)
    with open(folder / "m_3.mrcs", "wb") as slow:
        for i in range(4):
            slow.write(whole[i * len(whole) // 4 : (i + 1) * len(whole) // 4])
            slow.flush()
            time.sleep(1)
    wait_for(lambda: hasattr(update(aligned), "outputMicrographs"))
    assert imported.isActive()  # micrographs are there while the microscope goes on
    for i in (4, 5, 6):
        (folder / f"m_{i}.mrcs").write_bytes(whole if i != 5 else whole[:5000])
    wait_for(lambda: not update(imported).isActive() and not update(aligned).isActive())
    assert imported.isFinished() and aligned.isFinished(), aligned.getErrorMessage()
    aligned = as_stored(project, aligned)
    assert {os.path.basename(m.getFileName()) for m in aligned.outputMoviesFailed} == {"m_5.mrcs"}
    assert {os.path.basename(m.getFileName()) for m in aligned.outputMovies} == {f"m_{i}.mrcs" for i in (1, 2, 3, 4, 6)}
    for output in (aligned.outputMicrographs, aligned.outputMovies, aligned.outputMoviesFailed):
        assert output.isStreamClosed()
