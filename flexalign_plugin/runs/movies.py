"""Aligns a list of movies (`flexalign align`), or sums their frames again with the motion of earlier results
(`flexalign sum`). Movies that fail are listed in the output folder."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Dict, List, Optional, Sequence, Tuple

from ..execution.devices import Compute
from ..execution.job import Job, JobResult
from ..files import prepare_folder
from ..output.corrected_star import write_corrected_micrographs
from ..output.replacing import check_list_replaceable
from ..output.saved_result import SavedResult
from ..result_files import FAILED_MOVIES
from ..settings import Settings
from .console import Report
from .earlier import check_settings, earlier_result, is_done
from .failure_list import FailureList
from .names import Names, check_inputs, correction_files
from .own_mdoc import with_own_mdoc
from .results import results_of


@dataclass(frozen=True)
class Run:
    """How the movies of a run are processed.

    Attributes
    ----------
    optics : spherical aberration in mm and amplitude contrast for RELION's list of all micrographs in the folder, which
        is written at the end; None: no list.
    use_mdoc : whether the dose of a movie's own `.mdoc` is used if the settings have none, and compared with theirs.
    skip_done : whether movies with complete results of the same settings are left alone.
    overwrite : whether results of other settings may be replaced.
    """

    report: Report
    compute: Compute
    optics: Optional[Tuple[float, float]] = (2.7, 0.1)
    use_mdoc: bool = True
    skip_done: bool = False
    overwrite: bool = False


def align_movies(
    movies: Sequence[str], output_dir: str, settings: Settings, run: Run, denoiser_pairs: int = 0
) -> List[JobResult]:
    """Align movies and write their results to `output_dir`; returns those that failed.

    Parameters
    ----------
    denoiser_pairs : number of movies, from the first, whose even and odd frames are also summed separately, regardless
        of the settings.

    Raises
    ------
    SettingsError : a device can't be used, or a result would replace an input or a result of other settings.
    OutputError : the folder can't be created or written to, or has a list for RELION of another program.
    """
    return run_jobs(_jobs(movies, output_dir, settings, denoiser_pairs), output_dir, run)


def run_jobs(jobs: Sequence[Job], output_dir: str, run: Run) -> List[JobResult]:
    """Process the movies of the jobs, whose results go to `output_dir`; returns those that failed. Raises as
    `align_movies`."""
    report = run.report
    run.compute.check()
    if run.optics is not None:
        check_list_replaceable(output_dir)
    inputs = {path for job in jobs for path in (job.movie, *correction_files(job.settings))}
    check_inputs(output_dir, [job.root for job in jobs], sorted(inputs))
    prepare_folder(output_dir)
    jobs = _to_do(jobs, run)
    failures_path = os.path.join(output_dir, FAILED_MOVIES)
    failed: List[JobResult] = []
    failures = FailureList(failures_path, report.log)
    report.start(len(jobs))
    try:
        prepare = partial(prepared, run=run)
        found = results_of(jobs, report, run.compute, lambda i, result: failures.add(i + 1, result), prepare)
        with closing(found) as results:
            for result in results:
                report.result(result)
                if not result.ok:
                    failed.append(result)
    finally:
        report.close()
        failures.write()
    if run.optics is not None:
        for problem in write_corrected_micrographs(output_dir, *run.optics):
            report.log(problem)
    report.end(failed, failures_path)
    return failed


def _to_do(jobs: Sequence[Job], run: Run) -> List[Job]:
    """The jobs without those that are done already, if these are to be left alone."""
    earlier = [(job, saved) for job in jobs for saved in [earlier_result(job)] if saved is not None]
    if not run.overwrite:
        check_settings(earlier, run.use_mdoc)
    if not run.skip_done:
        return list(jobs)
    done = {job.root for job, saved in earlier if is_done(job, saved, run.use_mdoc)}
    if done:
        run.report.say("note", [f"Done with these settings and left alone: {len(done)} of {len(jobs)} movies."])
    return [job for job in jobs if job.root not in done]


def prepared(job: Job, run: Run) -> Job:
    """The job with the dose of the movie's own `.mdoc`, if that is to be used."""
    if not run.use_mdoc:
        return job
    settings, notes, warnings = with_own_mdoc(job.settings, job.movie)
    run.report.say("note", notes)
    run.report.say("warning", warnings)
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


def sum_again(
    motions: Sequence[SavedResult], settings: Sequence[Settings], output_dir: str, run: Run
) -> List[JobResult]:
    """Sum the frames of movies with the motion of earlier results, each with its settings; returns those that failed.

    Raises as `align_movies`.
    """
    names = Names(output_dir)
    jobs = [
        Job(m.movie, output_dir, names.root(m.movie, number, m.root + ".mrc"), own, keep_others=True, motion=m.path)
        for number, (m, own) in enumerate(zip(motions, settings), 1)
    ]
    return run_jobs(jobs, output_dir, run)
