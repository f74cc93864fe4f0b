"""How the movies of a run share the cores and the memory of a machine without GPUs.

On several cores a movie keeps some of them waiting, because some of its steps can't be divided. So each core aligns a
movie of its own, unless there are fewer movies than cores or too little memory.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, List, Optional, Sequence

from ..errors import FlexAlignError
from ..kernels import usable_cores
from ..memory import available_bytes
from ..settings import Settings
from .devices import Compute
from .job import Job

if TYPE_CHECKING:
    from ..movies import Movie

USED_SHARE = 0.8  # of the memory that is free at the start; the rest is for pages of files and other programs
MOVIES_TRIED = 3  # that are opened to learn the size of the movies
UNKNOWN_MOVIE_BYTES = 4e9  # if none of them can be opened, e.g. because they are still being written

PROCESS_BYTES = 400e6  # a worker process without a movie
FLOAT_BYTES = 4
# Images of a frame's size, as 32-bit floats, that the alignment needs at its peak: more than
# `benchmarks/batch.py --memory` measures, because a process that is killed costs more than a core without a movie.
IMAGES, IMAGES_FOR_A_FRAME = 8.0, 0.1
IMAGES_FOR_WEIGHTS, IMAGES_FOR_HALVES, IMAGES_FOR_SPECTRA = 2.0, 6.0, 8.0


def with_workers(compute: Compute, jobs: Sequence[Job], n_movies: Optional[int] = None) -> Compute:
    """The same with the number of movies that the CPU aligns at once, if it is not chosen yet.

    Parameters
    ----------
    jobs : the movies, or the first of them. n_movies : how many there are; None: more may follow.
    """
    if compute.on_gpus or compute.workers is not None:
        return compute
    most = 1 if any(job.settings.low_memory for job in jobs) else compute.threads or usable_cores()
    most = most if n_movies is None else min(most, n_movies)
    if most > 1:
        memory = run_memory()
        most = min(most, 1 if memory is None else int(memory // bytes_of_movies(jobs)))
    return replace(compute, workers=max(most, 1))


def thread_shares(threads: Optional[int], workers: int) -> List[int]:
    """Threads of each worker, at least 1. They add up to all threads, unless there are more workers."""
    each, rest = divmod(threads or usable_cores(), workers)
    return [max(each + (i < rest), 1) for i in range(workers)]


def run_memory() -> Optional[float]:
    """Bytes that all workers of a run together may use; None if the free memory is unknown."""
    free = available_bytes()
    return None if free is None else USED_SHARE * free


def bytes_of_movies(jobs: Sequence[Job]) -> float:
    """Memory of a worker process that aligns one movie after another, from the first movie that can be opened."""
    from ..movies import open_movie  # a run of one movie starts without the libraries of the readers

    for job in jobs[:MOVIES_TRIED]:
        try:
            with open_movie(job.movie, job.settings) as movie:
                # While a movie is aligned, the next one is decoded.
                decoded = 0 if movie.memory_mapped or job.settings.low_memory else 2 * movie.n_bytes
                return PROCESS_BYTES + working_bytes(movie, job.settings) + decoded
        except FlexAlignError:
            continue  # it fails when its turn comes
    return UNKNOWN_MOVIE_BYTES


def working_bytes(movie: Movie, settings: Settings) -> float:
    """Memory that the alignment of a movie needs at its peak, without the process itself and the decoded frames."""
    n_frames, ny, nx = movie.shape
    images = IMAGES + IMAGES_FOR_A_FRAME * n_frames
    images += n_frames if settings.do_save_movie else 0
    if not settings.low_memory:
        images += IMAGES_FOR_WEIGHTS if settings.is_dose_weighted else 0
        images += IMAGES_FOR_HALVES if settings.split_even_odd else 0
        images += IMAGES_FOR_SPECTRA if settings.do_save_ps else 0
    return FLOAT_BYTES * images * ny * nx
