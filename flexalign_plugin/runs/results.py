"""Runs many jobs and yields their results in the order of the jobs."""

from __future__ import annotations

from functools import partial
from typing import Generator, List

from ..execution.devices import Compute
from ..execution.job import Job, JobResult
from ..execution.worker_pool import WorkerPool
from .console import Report

Results = Generator[JobResult, None, None]


def results_of(jobs: List[Job], report: Report, compute: Compute) -> Results:
    """Align the movies of all jobs; closing the generator stops the movies that are not finished.

    A single movie too is aligned in a worker process: a file that is truncated while it is read, or a library that
    crashes, would otherwise end the command without a word. The process takes a third of a second to start.
    """
    with WorkerPool(compute, log=report.log) as pool:
        for future in [pool.submit(job, partial(report.stage, job.movie)) for job in jobs]:
            yield future.result()
