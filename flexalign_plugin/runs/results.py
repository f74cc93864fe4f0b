"""The results of many jobs, in the order of the jobs, as they come."""

from __future__ import annotations

from functools import partial
from typing import Generator, List, Optional

from ..execution.devices import Compute
from ..execution.job import Job, JobResult, run_job
from ..execution.worker_pool import WorkerPool
from .console import Report

Results = Generator[JobResult, None, None]


def results_of(jobs: List[Job], report: Report, compute: Compute, timeout_s: Optional[float] = None) -> Results:
    """Align the movies of all jobs; closing the generator stops what is not finished.

    One movie is aligned in this very process, which saves starting another. Several, and whatever goes to a GPU or has
    a time limit, go through a `WorkerPool`: a crash costs one movie only, and the next movie is read while this one is
    aligned.
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
