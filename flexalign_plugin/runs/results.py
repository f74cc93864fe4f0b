"""Runs many jobs and yields their results in the order of the jobs."""

from __future__ import annotations

from concurrent.futures import FIRST_COMPLETED, Future, wait
from functools import partial
from typing import Callable, Generator, List, Optional, Sequence

from ..execution.devices import Compute
from ..execution.job import Job, JobResult
from ..execution.sharing import with_workers
from ..execution.worker_pool import WorkerPool
from .console import Report

AHEAD = 2  # movies that are prepared, for each that is aligned or read at the same time
Results = Generator[JobResult, None, None]


def results_of(
    jobs: Sequence[Job],
    report: Report,
    compute: Compute,
    finished: Callable[[int, JobResult], None],
    prepare: Optional[Callable[[Job], Job]] = None,
) -> Results:
    """Align the movies of all jobs; closing the generator stops the movies that are not finished.

    finished : called from threads with the index of a job and its result as soon as it is known, in any order, but not
        for movies that were stopped.
    prepare : changes a job shortly before it starts. It may read the movie's file, which takes seconds on a slow disk.

    A single movie too is aligned in a worker process: a file that is truncated while it is read, or a library that
    crashes, would otherwise end the command without a word. The process takes a third of a second to start.
    """
    stopped = False

    def done(index: int, future: Future[JobResult]) -> None:
        if not stopped:
            finished(index, future.result())

    with WorkerPool(with_workers(compute, jobs, len(jobs)), log=report.log) as pool:
        ahead = AHEAD * pool.capacity
        futures: List[Future[JobResult]] = []
        yielded = 0
        try:
            while yielded < len(jobs):
                if yielded < len(futures) and futures[yielded].done():
                    yield futures[yielded].result()
                    yielded += 1
                    continue
                unfinished = [future for future in futures[yielded:] if not future.done()]
                if len(futures) == len(jobs) or len(unfinished) >= ahead:
                    wait(unfinished, return_when=FIRST_COMPLETED)
                    continue
                job = prepare(jobs[len(futures)]) if prepare is not None else jobs[len(futures)]
                future = pool.submit(job, partial(report.stage, job.movie))
                future.add_done_callback(partial(done, len(futures)))
                futures.append(future)
        finally:
            stopped = True
