"""Runs many jobs and yields their results in the order of the jobs."""

from __future__ import annotations

from functools import partial
from typing import Generator, List, Optional

from ..execution.devices import Compute
from ..execution.job import Job, JobResult, run_job
from ..execution.worker_pool import WorkerPool
from .console import Report

Results = Generator[JobResult, None, None]


def results_of(jobs: List[Job], report: Report, compute: Compute, timeout_s: Optional[float] = None) -> Results:
    """Align the movies of all jobs; closing the generator stops the movies that are not finished.

    A single movie is aligned in this process, which saves the time to start a worker process. Several movies, and
    movies on a GPU or with a time limit, go through a `WorkerPool`: if a worker process crashes only one movie fails,
    and the next movie is read while one is aligned.
    """
    if len(jobs) > 1 or timeout_s is not None or compute.on_gpus:
        return _in_workers(jobs, report, compute, timeout_s)
    return _here(jobs, report, compute)


def _here(jobs: List[Job], report: Report, compute: Compute) -> Results:
    from ..kernels import select_backend

    for job in jobs:
        yield run_job(job, select_backend(compute.devices[0], compute.threads), partial(report.stage, job.movie))


def _in_workers(jobs: List[Job], report: Report, compute: Compute, timeout_s: Optional[float]) -> Results:
    with WorkerPool(compute, timeout_s, log=report.log) as pool:
        for future in [pool.submit(job, partial(report.stage, job.movie)) for job in jobs]:
            yield future.result()
