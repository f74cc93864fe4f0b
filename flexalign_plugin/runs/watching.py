"""Aligns movies as they appear in a folder (`flexalign watch`). Several watchers may share a folder."""

from __future__ import annotations

import fnmatch
import os
import time
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import closing
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from ..execution.job import Job, JobResult
from ..execution.sharing import with_workers
from ..execution.worker_pool import WorkerPool
from ..files import prepare_folder, remove_leftovers
from ..inputs import State, file_state
from ..output.corrected_star import write_corrected_micrographs
from ..output.replacing import check_list_replaceable, is_same_movie
from ..report_pages import LiveReport, holds_results
from ..result_files import FAILED_MOVIES, is_result_file
from ..settings import Settings
from .claims import Claims
from .earlier import check_settings, earlier_result, is_done
from .failure_list import FailureList
from .movies import Run, prepared
from .names import Names, correction_files

MOVIES = ("*.mrc", "*.mrcs", "*.tif", "*.tiff", "*.eer", "*.mrc.bz2", "*.mrc.gz", "*.mrcs.bz2", "*.mrcs.gz")
SECOND_OF_A_NAME = 2  # number of the name of a movie if another movie, from another folder, has its name
MOST_WAIT_S = 1.0  # so that a movie that is finished is followed by the next one soon


class Watched(NamedTuple):
    """What is watched, and for how long.

    folder : with its subfolders. patterns : of the names of movies. settle_s : a movie is complete when its file has
    not changed for this time. until : time of `time.time` at which no further movie is begun; idle_s : without a new or
    growing movie and without work, after which the watch ends; None: no end.
    """

    folder: str
    patterns: Sequence[str] = MOVIES
    settle_s: float = 10.0
    until: Optional[float] = None
    idle_s: Optional[float] = None


class Counts(NamedTuple):
    """Number of movies that this watcher has aligned, that failed, and that were done by others or before."""

    aligned: int
    failed: int
    done_before: int


def watch(watched: Watched, output_dir: str, settings: Settings, run: Run, report: bool = True) -> Counts:
    """Align movies as they appear, each once, until the end that is asked for.

    Movies with complete results of the same settings are left alone. A movie that failed is tried again when its file
    changes, and by a new watch.

    Parameters
    ----------
    report : whether report.html is kept up to date.

    Raises
    ------
    SettingsError : a device can't be used, or a result of other settings would be replaced.
    OutputError : the folder can't be written to.
    """
    run.compute.check()
    if run.optics is not None:
        check_list_replaceable(output_dir)
    prepare_folder(output_dir)
    failures = FailureList(os.path.join(output_dir, FAILED_MOVIES), run.report.log)
    live = LiveReport(output_dir, run.report.log) if report else None
    try:
        with closing(Claims(output_dir)) as claims:
            watcher = _Watcher(watched, output_dir, settings, run, claims, failures, live)
            claims.tidy()
            watcher.check_earlier()
            run.report.say("note", [f"Watching {watched.folder} and its subfolders; Ctrl-C ends the watch."])
            watcher.work()
    finally:  # also after Ctrl-C, with which most watches end
        failures.write()
        if run.optics is not None:
            for problem in write_corrected_micrographs(output_dir, *run.optics):
                run.report.log(problem)
        if live is not None and holds_results(output_dir):
            live.finish()
    return Counts(watcher.aligned, watcher.failed, watcher.done_before)


class _SharedNames(Names):
    """Names of results that are also not those of movies which other watchers are aligning."""

    def __init__(self, folder: str, claims: Claims) -> None:
        super().__init__(folder)
        self._claims = claims

    def __contains__(self, root: object) -> bool:
        return super().__contains__(root) or self.is_of_another(str(root), self._movie)

    def is_of_another(self, root: str, movie: str) -> bool:
        """Whether a watcher has claimed the name for another movie."""
        holder = self._claims.holder(root)
        return bool(holder) and not is_same_movie(str(holder), movie)


class _Watcher:
    def __init__(
        self,
        watched: Watched,
        output_dir: str,
        settings: Settings,
        run: Run,
        claims: Claims,
        failures: FailureList,
        live: Optional[LiveReport],
    ) -> None:
        self.aligned = self.failed = self.done_before = 0
        self._watched, self._output_dir, self._settings, self._run = watched, output_dir, settings, run
        self._claims, self._failures, self._live = claims, failures, live
        self._names = _SharedNames(output_dir, claims)
        self._not_movies = {os.path.realpath(path) for path in correction_files(settings)}
        self._states: Dict[str, Tuple[State, float]] = {}  # {movie: (state, since when)}
        self._finished: Dict[str, State] = {}  # {movie: state of the file that was aligned, or failed}
        self._roots: Dict[str, str] = {}
        self._changed_at = time.monotonic()  # when a file or a result was last new

    def check_earlier(self) -> None:
        """SettingsError if there are results of other settings, which may not be replaced."""
        if not self._run.overwrite:
            jobs = [self._job(path) for path in self._movies()]
            earlier = [(job, saved) for job in jobs for saved in [earlier_result(job)] if saved is not None]
            check_settings(earlier, self._run.use_mdoc)

    def work(self) -> None:
        report = self._run.report
        first = [self._job(path) for path in self._movies()]
        with WorkerPool(with_workers(self._run.compute, first), log=report.log) as pool:
            running: Dict[Future[JobResult], Tuple[Job, State]] = {}
            while True:
                busy = {job.movie for job, _ in running.values()}
                waiting = [(path, state) for path, state in self._complete_movies() if path not in busy]
                if not self._is_over():
                    for path, state in waiting:
                        if len(running) >= pool.capacity:
                            break
                        job = self._claimed(path)
                        if job is not None:
                            running[pool.submit(job)] = (job, state)
                begun = {job.movie for job, _ in running.values()} - busy
                report.expect(self.aligned + self.failed + len(running) + len(waiting) - len(begun))
                done, _ = wait(running, min(self._watched.settle_s / 2, MOST_WAIT_S), FIRST_COMPLETED)
                if not running:
                    if self._is_over() or self._is_idle():
                        return
                    time.sleep(min(self._watched.settle_s / 2, MOST_WAIT_S))
                for future in done:
                    self._take_result(future.result(), *running.pop(future))

    def _movies(self) -> Iterator[str]:
        """Paths of the files in the folder that have names of movies, in the order of their names."""
        output = os.path.realpath(self._output_dir)
        for folder, subfolders, names in os.walk(self._watched.folder):
            here = os.path.realpath(folder)
            subfolders[:] = sorted(n for n in subfolders if n[0] != "." and os.path.join(here, n) != output)
            for name in sorted(names):
                is_movie = any(fnmatch.fnmatch(name.lower(), pattern.lower()) for pattern in self._watched.patterns)
                is_result = here == output and is_result_file(name)
                path = os.path.join(folder, name)
                if is_movie and name[0] != "." and not is_result and os.path.realpath(path) not in self._not_movies:
                    yield path

    def _complete_movies(self) -> List[Tuple[str, State]]:
        """Movies whose files have not changed for a while and that this watcher has not finished, with their states."""
        now = time.monotonic()
        complete: List[Tuple[str, State]] = []
        for path in self._movies():
            state = file_state(path)
            if state is None or self._finished.get(path) == state:
                continue
            if self._states.get(path, (None, 0.0))[0] != state:
                self._states[path] = (state, now)
                self._changed_at = now
            if now - self._states[path][1] >= self._watched.settle_s:
                complete.append((path, state))
        return complete

    def _job(self, path: str) -> Job:
        root = self._roots.get(path)
        if root is None or self._names.is_of_another(root, path):
            root = self._roots[path] = self._names.root(path, SECOND_OF_A_NAME)
        return Job(path, self._output_dir, root, self._settings, keep_others=True)

    def _claimed(self, path: str) -> Optional[Job]:
        """The job for a movie that no other watcher has; None if it is done, or is being aligned by another one."""
        job = self._job(path)
        if self._is_done(job) or not self._claims.take(job.root, path):
            return None
        if self._is_done(job):  # another watcher has finished it between the two steps
            self._claims.release(job.root)
            return None
        remove_leftovers(self._output_dir, job.root)
        return prepared(job, self._run)

    def _is_done(self, job: Job) -> bool:
        saved = earlier_result(job)
        if saved is None or not is_done(job, saved, self._run.use_mdoc):
            return False
        self._finished[job.movie] = file_state(job.movie)
        self.done_before += 1
        return True

    def _take_result(self, result: JobResult, job: Job, state: State) -> None:
        self.aligned, self.failed = self.aligned + result.ok, self.failed + (not result.ok)
        self._changed_at = time.monotonic()
        self._finished[job.movie] = state
        self._run.report.result(result)
        self._failures.add(self.aligned + self.failed, result)
        if result.ok:
            self._claims.release(job.root)
        else:
            self._claims.failed(job.root, job.movie, state)
        if self._live is not None:
            self._live.update()

    def _is_over(self) -> bool:
        return self._watched.until is not None and time.time() >= self._watched.until

    def _is_idle(self) -> bool:
        idle = self._watched.idle_s
        return idle is not None and time.monotonic() - self._changed_at >= idle
