"""The child's side of `worker.Worker`: reads jobs as JSON lines, answers with progress and results.

The main thread aligns, one thread reads requests, one opens and decodes the next movie meanwhile.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import json
import logging
import os
import queue
import signal
import sys
import threading
import time
import traceback
from dataclasses import asdict, replace
from typing import Any, Callable, List, Optional, TextIO, Tuple

from ..errors import FlexAlignError
from ..movies.corrections_cache import CorrectionsCache
from ..settings import Settings
from .job import DEVICE_FAILED, Job, JobResult, Progress, failure, run_job

CLEAN_UP_SECONDS = 5.0
PARENT_CHECK_SECONDS = 2.0
PROGRESS_SECONDS = 0.1  # least time between two reports of the same stage


class _Service:
    def __init__(self, output: TextIO, options: argparse.Namespace) -> None:
        self._output, self._output_lock = output, threading.Lock()
        self._options = options
        self._runner: Optional[Callable[[Job, Progress], JobResult]] = None
        if options.runner:
            module, _, function = options.runner.partition(":")
            self._runner = getattr(importlib.import_module(module), function)
        self._requests: queue.Queue[Tuple[int, Job]] = queue.Queue()
        self._opened: queue.Queue[Tuple[int, Job, Any]] = queue.Queue(maxsize=1)
        self._backend: Any = None
        self._cache = CorrectionsCache()

    def run(self) -> None:
        for target in (self._read_requests, self._open_movies, self._leave_with_parent):
            threading.Thread(target=target, daemon=True).start()
        while True:
            number, job, movie = self._opened.get()
            result = self._align(number, job, movie)
            self._say(number=number, result=asdict(result))
            if result.device_fault == DEVICE_FAILED:
                return  # nothing that was on the device can be trusted any more: the parent starts a fresh process

    def _align(self, number: int, job: Job, movie: Any) -> JobResult:
        said: Tuple[float, str] = (0.0, "")

        def progress(stage: str, fraction: float) -> None:
            nonlocal said
            now = time.monotonic()
            if stage != said[1] or now - said[0] > PROGRESS_SECONDS:
                said = (now, stage)
                self._say(number=number, stage=stage, fraction=float(fraction))

        if self._runner is not None:
            return self._runner(job, progress)
        try:
            if self._backend is None:
                from ..kernels import select_backend

                options = self._options
                self._backend = select_backend(options.device, options.threads, options.gpu_memory, options.tune)
        except FlexAlignError as error:
            return replace(failure(job, error), device_fault=DEVICE_FAILED)
        except Exception as error:
            return failure(job, error)
        return run_job(job, self._backend, progress, movie, self._cache)

    def _say(self, **message: Any) -> None:
        # Figures of the fit may be numpy's own numbers.
        line = json.dumps(message, default=lambda value: value.item()) + "\n"
        with self._output_lock:
            self._output.write(line)
            self._output.flush()

    def _read_requests(self) -> None:
        for line in sys.stdin:
            request = json.loads(line)
            number, settings = request.pop("number"), Settings.from_dict(request.pop("settings"))
            self._say(number=number, taken=True)
            self._requests.put((number, Job(**request, settings=settings)))
        _leave()

    def _open_movies(self) -> None:
        while True:
            number, job = self._requests.get()
            ahead = self._runner is None and not job.settings.low_memory
            movie = _read_ahead(job, self._options.threads) if ahead else None
            self._opened.put((number, job, movie))

    def _leave_with_parent(self) -> None:
        """For the case that another process inherited the parent's end of the pipe and holds it open."""
        parent = os.getppid()
        while os.getppid() == parent:
            time.sleep(PARENT_CHECK_SECONDS)
        _leave()


def _read_ahead(job: Job, threads: Optional[int]) -> Any:
    """The movie, open and decoded if it fits; or None, so that `run_job` opens it again and reports the error."""
    from ..movies import open_movie

    movie = None
    try:
        movie = open_movie(job.movie, job.settings)
        movie.prefetch(threads=threads)
        return movie
    except Exception:
        if movie is not None:
            movie.close()
        return None


def _leave() -> None:
    """End this process: the main thread cleans up what it was writing; if native code keeps it, don't wait for ever."""
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
    time.sleep(CLEAN_UP_SECONDS)
    os._exit(1)


def _stop(*_: object) -> None:
    raise SystemExit(0)


def main(argv: Optional[List[str]] = None) -> None:
    """Serve requests from standard input until it closes or the device fails; never returns."""
    # The protocol keeps the real standard output for itself: a library's print must not get between.
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    faulthandler.enable()
    logger = logging.getLogger("flexalign_plugin")
    logger.addHandler(logging.StreamHandler())  # what the search for FFT sizes found, for the parent's log
    logger.setLevel(logging.INFO)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    signal.signal(signal.SIGTERM, _stop)
    parser = argparse.ArgumentParser(prog="python -m flexalign_plugin.execution.worker_process", description=__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--gpu-memory", type=float)
    parser.add_argument("--no-fft-tuning", dest="tune", action="store_false")
    parser.add_argument("--runner", help="module:function called in place of the aligner; for tests")
    args = parser.parse_args(argv)
    status = 0
    try:
        _Service(output, args).run()
    except SystemExit:
        status = 0
    except BaseException:
        traceback.print_exc()
        status = 1
    # Not sys.exit: it would wait for threads that read and decode.
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
