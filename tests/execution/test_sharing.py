"""Movies share cores and memory: as many at once as both allow, with the same results."""

from __future__ import annotations

import json
import os

import pytest

from flexalign_plugin import cli
from flexalign_plugin.errors import SettingsError
from flexalign_plugin.execution import sharing
from flexalign_plugin.execution.devices import Compute
from flexalign_plugin.execution.job import Job
from flexalign_plugin.execution.sharing import bytes_of_movies, thread_shares, with_workers
from flexalign_plugin.phantoms.movie_writers import write_mrc_movie, write_tiff_movie
from flexalign_plugin.phantoms.phantom import particle_phantom
from flexalign_plugin.result_files import MOTION
from flexalign_plugin.settings import Settings


@pytest.fixture
def movie(tmp_path):
    """Makes a movie of 3 frames of 100 x 200 zeros and returns its job."""

    def make(name: str, **settings) -> Job:
        path = str(tmp_path / name)
        frames = particle_phantom((3, 100, 200), dose=1.0, contrast=0.1, seed=1).frames()
        write_mrc_movie(path, frames) if name.endswith(".mrc") else write_tiff_movie(path, frames, "lzw")
        return Job(path, str(tmp_path), name, Settings(**settings))

    return make


@pytest.mark.parametrize(
    "threads, workers, shares",
    [(2, 1, [2]), (2, 2, [1, 1]), (64, 64, [1] * 64), (64, 40, [2] * 24 + [1] * 16), (2, 3, [1, 1, 1])],
)
def test_all_threads_are_shared_out(threads, workers, shares):
    assert thread_shares(threads, workers) == shares


@pytest.mark.parametrize(
    "threads, n_movies, movies_in_memory, workers",
    [
        (16, None, 100, 16),  # a movie for each core
        (16, 3, 100, 3),
        (16, None, 5, 5),
        (16, None, 0.5, 1),  # one is always tried
        (1, None, 100, 1),
        (16, 1, 0.5, 1),
    ],
)
def test_cores_movies_and_memory_limit_the_movies_at_once(
    movie, monkeypatch, threads, n_movies, movies_in_memory, workers
):
    jobs = [movie("a.mrc")]
    free = movies_in_memory * bytes_of_movies(jobs) / sharing.USED_SHARE
    monkeypatch.setattr(sharing, "available_bytes", lambda: int(free) + 1)
    assert with_workers(Compute(threads=threads), jobs, n_movies).workers == workers


def test_what_was_chosen_is_kept(movie):
    assert with_workers(Compute(threads=16, workers=3), [movie("a.mrc")], 2).workers == 3
    gpus = Compute(("cuda:0", "cuda:1"))
    assert with_workers(gpus, [movie("a.mrc")]) is gpus
    with pytest.raises(SettingsError, match="Movies at once is 2: .* leave it out"):
        Compute(("cuda:0",), workers=2).check()


def test_unknown_memory_means_one_movie(movie, monkeypatch):
    monkeypatch.setattr(sharing, "available_bytes", lambda: None)
    assert with_workers(Compute(threads=16), [movie("a.mrc")]).workers == 1


def test_low_memory_means_one_movie(movie):
    assert with_workers(Compute(threads=16), [movie("a.mrc", low_memory=True)]).workers == 1
    assert with_workers(Compute(threads=16, workers=3), [movie("a.mrc", low_memory=True)]).workers == 3


def test_memory_of_a_movie(movie, tmp_path):
    mapped, decoded = bytes_of_movies([movie("a.mrc")]), bytes_of_movies([movie("a.tif")])
    assert decoded - mapped == 2 * 3 * 100 * 200  # the one in work and the next one
    assert bytes_of_movies([movie("a.tif", low_memory=True)]) == mapped
    assert bytes_of_movies([movie("a.mrc", split_even_odd=True)]) > mapped
    damaged = Job(str(tmp_path / "none.mrc"), str(tmp_path), "none", Settings())
    assert bytes_of_movies([damaged, movie("a.mrc")]) == mapped
    assert bytes_of_movies([damaged]) == sharing.UNKNOWN_MOVIE_BYTES


def results(folder) -> dict:
    """{name: content} of all files in a folder, without the times."""
    found = {}
    for name in sorted(os.listdir(folder)):
        content = (folder / name).read_bytes().replace(str(folder).encode(), b"FOLDER")
        if name.endswith(MOTION):
            content = json.dumps({**json.loads(content), "timings_s": None}).encode()
        found[name] = content
    return found


def test_the_same_bytes_for_any_number_of_workers_and_threads(tmp_path, capsys):
    movies = []
    for seed in range(3):
        movies.append(str(tmp_path / f"m{seed}.mrc"))
        phantom = particle_phantom((6, 160, 192), pixel_size_A=2.0, dose=4.0, contrast=0.4, band_limit_A=20, seed=seed)
        write_mrc_movie(movies[-1], phantom.frames(), 2.0)
    outcomes = []
    # The first run compiles what is not compiled yet. With numba for Python 3.8 such code rounds differently in the
    # process that compiles it.
    for workers, threads in ((1, 2), (1, 1), (2, 3)):
        folder = tmp_path / f"{workers}x{threads}"
        words = f"--output {folder} --pixel-size 2 --dose-per-frame 1 --patches-x 2 --patches-y 2 --no-report --quiet"
        options = [*words.split(), "--workers", str(workers), "--threads", str(threads)]
        assert cli.main(["align", *movies, *options]) == 0
        outcomes.append(results(folder))
    assert len(outcomes[0]) > 3 * 8
    assert outcomes[1] == outcomes[2]


def test_workers_are_for_the_cpu(tmp_path, capsys):
    words = f"align a.mrc --output {tmp_path / 'out'} --pixel-size 1 --device cuda:0 --workers 2"
    assert cli.main(words.split()) == 2
    assert "Movies at once is 2" in capsys.readouterr().err
