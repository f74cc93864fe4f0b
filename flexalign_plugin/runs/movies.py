"""Aligns a list of movies (`flexalign align`). Movies that fail are listed in the output folder."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Dict, List, Optional, Sequence, Tuple

from ..execution.devices import Compute
from ..execution.job import Job, JobResult
from ..files import prepare_folder
from ..output.corrected_star import write_corrected_micrographs
from ..output.replacing import check_list_replaceable
from ..result_files import FAILED_MOVIES
from ..settings import Settings
from .console import Report
from .failure_list import FailureList
from .names import Names, check_inputs, correction_files
from .own_mdoc import with_own_mdoc
from .results import results_of


def align_movies(
    movies: Sequence[str],
    output_dir: str,
    settings: Settings,
    report: Report,
    compute: Compute,
    denoiser_pairs: int = 0,
    optics: Optional[Tuple[float, float]] = (2.7, 0.1),
    use_mdoc: bool = True,
) -> List[JobResult]:
    """Align movies and write their results to `output_dir`; returns those that failed.

    Parameters
    ----------
    denoiser_pairs : number of movies, from the first, whose even and odd frames are also summed separately, regardless
        of the settings.
    optics : spherical aberration in mm and amplitude contrast for RELION's list of all micrographs in the folder, which
        is written at the end; None: no list.
    use_mdoc : whether the dose of a movie's own `.mdoc` is used if the settings have none, and compared with theirs.

    Raises
    ------
    SettingsError : a device can't be used, or a result would replace an input.
    OutputError : the folder can't be created or written to, or has a list for RELION of another program.
    """
    compute.check()
    jobs = _jobs(movies, output_dir, settings, denoiser_pairs)
    if optics is not None:
        check_list_replaceable(output_dir)
    check_inputs(output_dir, [job.root for job in jobs], [*movies, *correction_files(settings)])
    prepare_folder(output_dir)
    failures_path = os.path.join(output_dir, FAILED_MOVIES)
    failed: List[JobResult] = []
    failures = FailureList(failures_path, report.log)
    report.start(len(jobs))
    try:
        prepare = partial(_with_own_mdoc, report=report) if use_mdoc else None
        found = results_of(jobs, report, compute, lambda i, result: failures.add(i + 1, result), prepare)
        with closing(found) as results:
            for result in results:
                report.result(result)
                if not result.ok:
                    failed.append(result)
    finally:
        report.close()
        failures.write()
    if optics is not None:
        for problem in write_corrected_micrographs(output_dir, *optics):
            report.log(problem)
    report.end(failed, failures_path)
    return failed


def _with_own_mdoc(job: Job, report: Report) -> Job:
    settings, notes, warnings = with_own_mdoc(job.settings, job.movie)
    report.say("note", notes)
    report.say("warning", warnings)
    return replace(job, settings=settings)


def _jobs(movies: Sequence[str], output_dir: str, settings: Settings, denoiser_pairs: int) -> List[Job]:
    """A job for each movie; movies that are listed twice are aligned once."""
    jobs = []
    names = Names(output_dir)
    distinct: Dict[str, str] = {}
    for movie in movies:
        distinct.setdefault(os.path.abspath(movie), movie)
    for number, movie in enumerate(distinct.values(), 1):
        root = names.root(movie, number)
        split = settings.split_even_odd or number <= denoiser_pairs
        jobs.append(Job(movie, output_dir, root, replace(settings, split_even_odd=split), keep_others=True))
    return jobs
