"""Runs many jobs and yields their results in the order of the jobs."""

from __future__ import annotations

from concurrent.futures import Future
from functools import partial
from typing import Callable, Generator, List

from ..execution.devices import Compute
from ..execution.job import Job, JobResult
from ..execution.sharing import with_workers
from ..execution.worker_pool import WorkerPool
from .console import Report

Results = Generator[JobResult, None, None]


def results_of(
    jobs: List[Job], report: Report, compute: Compute, finished: Callable[[int, JobResult], None]
) -> Results:
    """Align the movies of all jobs; closing the generator stops the movies that are not finished.

    finished : called from threads with the index of a job and its result as soon as it is known, in any order, but not
        for movies that were stopped.

    A single movie too is aligned in a worker process: a file that is truncated while it is read, or a library that
    crashes, would otherwise end the command without a word. The process takes a third of a second to start.
    """
    stopped = False

    def done(index: int, future: Future[JobResult]) -> None:
        if not stopped:
            finished(index, future.result())

    with WorkerPool(with_workers(compute, jobs, len(jobs)), log=report.log) as pool:
        try:
            futures = [pool.submit(job, partial(report.stage, job.movie)) for job in jobs]
            for index, future in enumerate(futures):
                future.add_done_callback(partial(done, index))
            for future in futures:
                yield future.result()
        finally:
            stopped = True
