"""The child's side of `worker.Worker`: reads jobs as JSON lines, and writes progress and results as JSON lines.

The main thread aligns. At the same time one thread reads requests, one opens and decodes the next movie, and one draws
the plots of the movie before and writes its results. If any thread ends with an error, the process ends, because the
main thread would wait for it for ever.
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
from typing import TYPE_CHECKING, Callable, List, Optional, TextIO, Tuple, Union

from ..errors import FlexAlignError
from ..files import remove_leftovers
from ..memory import available_bytes
from ..movies.corrections_cache import CorrectionsCache
from ..settings import Settings
from .job import DEVICE_FAILED, Job, JobResult, Message, Progress, ToWrite, align_job, failure
from .sharing import PROCESS_BYTES, USED_SHARE, working_bytes

if TYPE_CHECKING:
    from ..backend import Backend
    from ..movies import Movie


CLEAN_UP_SECONDS = 5.0  # time to clean up before the process ends in any case
WRITE_SECONDS = 3.0  # of these, time to complete the results that are being written
PARENT_CHECK_SECONDS = 2.0
PROGRESS_SECONDS = 0.1  # shortest time between two progress messages of the same stage


class _Aligner:
    """Aligns the movies that are requested on standard input; writes messages to `output`."""

    def __init__(self, output: TextIO, options: argparse.Namespace) -> None:
        self._output, self._output_lock = output, threading.Lock()
        self._options = options
        self._runner: Optional[Callable[[Job, Progress], Union[JobResult, ToWrite]]] = None
        if options.runner:
            module, _, function = options.runner.partition(":")
            self._runner = getattr(importlib.import_module(module), function)
        self._requests: queue.Queue[Tuple[int, Job]] = queue.Queue()
        self._opened: queue.Queue[Tuple[int, Job, Optional[Movie]]] = queue.Queue(maxsize=1)
        self._to_write: queue.Queue[Tuple[int, ToWrite]] = queue.Queue()
        self._written_last: Optional[Job] = None  # or being written
        self._opened_last: Optional[Movie] = None  # the next movie, or the one in work
        self._backend: Optional[Backend] = None
        self._cache = CorrectionsCache()

    def run(self) -> None:
        for target in (self._read_requests, self._open_movies, self._write_results, self._leave_with_parent):
            threading.Thread(target=target, daemon=True).start()
        if self._runner is None:
            _load_libraries()
        self._send({"ready": True})
        while True:
            number, job, movie = self._opened.get()
            if not self._pass_on(number, job, self._align(number, job, movie)):
                return

    def _pass_on(self, number: int, job: Job, outcome: Union[JobResult, ToWrite]) -> bool:
        """Send a movie's result, or leave it to the thread that writes results; False if the process must end."""
        # The results of one movie are written at a time, because they stay in memory until then.
        self._to_write.join()
        if isinstance(outcome, JobResult):
            self._send({"number": number, "result": asdict(outcome)})
            # Data on a device that failed can't be trusted any more: the parent starts a new process.
            return outcome.device_fault != DEVICE_FAILED
        self._written_last = job
        self._send({"number": number, "aligned": True})  # before the other thread can send the result
        self._to_write.put((number, outcome))
        return True

    def _align(self, number: int, job: Job, movie: Optional[Movie]) -> Union[JobResult, ToWrite]:
        sent_at, sent_stage = 0.0, ""

        def progress(stage: str, fraction: float) -> None:
            nonlocal sent_at, sent_stage
            now = time.monotonic()
            if stage != sent_stage or now - sent_at > PROGRESS_SECONDS:
                sent_at, sent_stage = now, stage
                self._send({"number": number, "stage": stage, "fraction": float(fraction)})

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
        decoded = None if movie is None else self._room_for_frames(movie, job)
        return align_job(job, self._backend, progress, movie, self._cache, decoded)

    def _room_for_frames(self, movie: Movie, job: Job) -> Optional[float]:
        """Bytes that decoded frames of this movie and the next one may take together; None if unknown."""
        memory = self._options.memory
        if memory is None:
            free = available_bytes()
            memory = None if free is None else USED_SHARE * free
        return None if memory is None else memory - PROCESS_BYTES - working_bytes(movie, job.settings)

    def _write_results(self) -> None:
        while True:
            number, write = self._to_write.get()
            self._send({"number": number, "result": asdict(write())})
            del write  # it holds the images
            self._to_write.task_done()

    def finish_writing(self) -> None:
        """Complete the results that are being written, or remove their files if that takes too long."""
        end = time.monotonic() + WRITE_SECONDS
        while self._to_write.unfinished_tasks:
            if time.monotonic() > end:
                assert self._written_last is not None
                remove_leftovers(self._written_last.output_dir, self._written_last.root)
                return
            time.sleep(0.02)

    def _send(self, message: Message) -> None:
        # Quality figures may be NumPy scalars.
        line = json.dumps(message, default=lambda value: value.item()) + "\n"
        with self._output_lock:
            self._output.write(line)
            self._output.flush()

    def _read_requests(self) -> None:
        for line in sys.stdin:
            request = json.loads(line)
            number, settings = request.pop("number"), Settings.from_dict(request.pop("settings"))
            self._send({"number": number, "taken": True})
            self._requests.put((number, Job(**request, settings=settings)))
        _leave()

    def _open_movies(self) -> None:
        while True:
            number, job = self._requests.get()
            ahead = self._runner is None and not job.settings.low_memory
            self._opened_last = self._read_ahead(job) if ahead else None
            self._opened.put((number, job, self._opened_last))

    def _read_ahead(self, job: Job) -> Optional[Movie]:
        """The open movie, with as many decoded frames as fit into memory beside those of the movie in work; None on an
        error, which `align_job` reports when it opens it."""
        from ..movies import open_movie

        movie = None
        try:
            movie = open_movie(job.movie, job.settings)
            room = self._room_for_frames(movie, job)
            if room is not None and self._opened_last is not None:
                room -= self._opened_last.decoded_bytes
            movie.prefetch(room, self._options.threads, job.settings.frame_ranges(movie.n_frames, job.movie)[0])
            return movie
        except Exception:
            if movie is not None:
                movie.close()
            return None

    def _leave_with_parent(self) -> None:
        """End if the parent has ended but the pipe stays open, because another process inherited its end."""
        while os.getppid() == self._options.parent:
            time.sleep(PARENT_CHECK_SECONDS)
        _leave()


def _load_libraries() -> None:
    """Load what the first movie needs. If that fails or hangs, the parent knows that the process can't start."""
    from .. import aligner, output
    from ..kernels import cpu

    assert aligner and output and cpu


def _leave() -> None:
    """End this process: the main thread cleans up; if native code blocks it, the process ends after a while anyway."""
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
    time.sleep(CLEAN_UP_SECONDS)
    os._exit(1)


def _stop(*_: object) -> None:
    raise SystemExit(0)


def _end_with_reason(args: threading.ExceptHookArgs) -> None:
    """For a thread that ends with an error. The last line on standard error is the reason that the parent states."""
    try:
        if args.exc_type is not SystemExit:
            traceback.print_exception(args.exc_type, args.exc_value, args.exc_traceback)
            sys.stderr.flush()
    finally:
        os._exit(1)


def _unraisable(args: sys.UnraisableHookArgs) -> None:
    """A thread for which there is not enough memory dies before Python runs it."""
    sys.__unraisablehook__(args)
    if "thread" in (args.err_msg or ""):
        _end_with_reason(threading.ExceptHookArgs((args.exc_type, args.exc_value, args.exc_traceback, None)))


def main(argv: Optional[List[str]] = None) -> None:
    """Process requests from standard input until it is closed or the device fails; never returns."""
    # Messages use the original standard output; what libraries print goes to standard error.
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    faulthandler.enable()
    logger = logging.getLogger("flexalign_plugin")
    logger.addHandler(logging.StreamHandler())  # e.g. the FFT sizes that were chosen, for the parent's log
    logger.setLevel(logging.INFO)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group; the parent ends this process
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the same when the terminal is closed
    signal.signal(signal.SIGTERM, _stop)
    threading.excepthook = _end_with_reason
    sys.unraisablehook = _unraisable
    parser = argparse.ArgumentParser(prog="python -m flexalign_plugin.execution.worker_process", description=__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--gpu-memory", type=float)
    parser.add_argument("--no-fft-tuning", dest="tune", action="store_false")
    parser.add_argument("--memory", type=float)
    # Not asked for when the process has started: on a busy machine the parent may have ended by then.
    parser.add_argument("--parent", type=int, default=os.getppid(), help="process that must be running")
    parser.add_argument("--runner", help="module:function called instead of the aligner; for tests")
    args = parser.parse_args(argv)
    status = 0
    aligner = _Aligner(output, args)
    try:
        aligner.run()
    except SystemExit:
        aligner.finish_writing()
    except BaseException:
        traceback.print_exc()
        status = 1
    # Not sys.exit, which would wait for the threads that read and decode.
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
