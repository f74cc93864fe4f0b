"""The parent's side of a worker process, which aligns one movie after another.

If native code crashes, the process is killed for lack of memory, or a read hangs, one movie fails and the run goes on.
`Worker` keeps one child process (`worker_process`) and exchanges JSON lines with it. While one movie is aligned, the
next one is read, and the results of the one before are written. If the child dies while it has several movies, each is
retried alone in a new child, to determine which one caused it.

Nothing waits for ever: a child that does not start, and a movie that takes too long, are given up after a time limit.
An unexpected error in a thread of the Worker makes the movies in work fail, with the reason.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import signal
import subprocess
import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from typing import Callable, Deque, Dict, List, Optional, Union

from .. import launch
from ..errors import FlexAlignError
from ..files import remove_leftovers
from .engine import PendingMovie, guarded
from .job import DEVICE_FAILED, KILLED, Job, JobResult, Message, Progress
from .time_limit import TimeLimit

logger = logging.getLogger(__name__)  # unlike `print`, it never raises

IN_FLIGHT = 2  # one movie is aligned while the next is read; in addition results of another may be being written
CLOSE_SECONDS = 5.0  # time for a child to clean up before it is killed
KEPT_LOG_LINES = 20
START_SECONDS = 300.0  # for a child to load its libraries, which takes minutes on a slow network disk
LIMITS = "raise the limits of this account or job on memory (ulimit -v) and processes (ulimit -u)"


@dataclass(eq=False)
class _Task(PendingMovie):
    number: int = 0
    alone: bool = False  # was in a child that died: must not share the next child with another movie
    times_sent: int = 0
    taken: bool = False  # the child has confirmed that it received it
    aligned: bool = False  # only its results must still be written
    when_aligned: Optional[Callable[[], None]] = None


@dataclass(eq=False)
class _Child:
    process: subprocess.Popen[str]
    last_lines: Deque[str]
    log_thread: threading.Thread
    ready: bool = False  # it has started


@dataclass(eq=False)
class _Submitted:
    task: _Task


@dataclass(eq=False)
class _Received:
    child: _Child
    message: Message


@dataclass(eq=False)
class _Died:
    child: _Child


class _Close:
    pass


class _Overdue:
    """The child did not start, or the first movie did not finish, within its time limit."""


_Event = Union[_Submitted, _Received, _Died, _Overdue, _Close]


class Worker:
    """A child process that aligns one movie after another; started when needed, and restarted when it dies.

    Thread-safe. Any failure of a movie (error, crash, kill, timeout) is a `JobResult` with ok=False, never an
    exception. Relative paths are relative to the working folder at the time when the Worker is created.
    """

    def __init__(
        self,
        device: str = "auto",
        threads: Optional[int] = None,
        timeout_s: Optional[float] = None,
        log: Optional[Callable[[str], None]] = None,
        runner: Optional[str] = None,
        gpu_memory_gb: Optional[float] = None,
        tune: bool = True,
        memory: Optional[float] = None,
    ) -> None:
        """
        Parameters
        ----------
        device, threads, gpu_memory_gb, tune : as for `kernels.select_backend`.
        timeout_s : time limit per movie in seconds; None: see `time_limit`.
        log : called, from threads, with each line that the child writes to its standard error.
        runner : "module:function" that is called in the child with (job, progress) instead of `run_job` and returns a
            JobResult, or a function that writes the results and returns it. For tests of crashes and timeouts.
        memory : bytes that the child may use; None: what is free when it starts.

        Raises
        ------
        FlexAlignError : no thread can be started.
        """
        self._command = [*launch.command("flexalign_plugin.execution.worker_process"), "--device", device]
        self._command += ["--parent", str(os.getpid())]
        self._command += ["--threads", str(threads)] if threads else []
        self._command += ["--runner", runner] if runner else []
        self._command += ["--gpu-memory", str(gpu_memory_gb)] if gpu_memory_gb else []
        self._command += [] if tune else ["--no-fft-tuning"]
        self._command += ["--memory", f"{memory:.0f}"] if memory else []
        self._folder = os.getcwd()
        self._limit = TimeLimit(timeout_s)
        self._log = guarded(log, "The log of the worker process")
        self._child: Optional[_Child] = None
        self._waiting: Deque[_Task] = deque()
        self._flight: List[_Task] = []  # sent to the child; the first one is being aligned
        self._head_since = 0.0
        self._submitted = 0
        self._closed = False
        # Guards _closed and _submitted; only the managing thread uses the other attributes.
        self._lock = threading.Lock()
        self._events: queue.Queue[_Event] = queue.Queue()
        self._thread = threading.Thread(target=self._manage, name="flexalign-worker", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            raise FlexAlignError(f"The worker process can't be managed ({error}): {LIMITS}.") from error

    def submit(
        self, job: Job, progress: Optional[Progress] = None, when_aligned: Optional[Callable[[], None]] = None
    ) -> Future[JobResult]:
        """Queue a movie.

        progress, when_aligned : called from a thread of the Worker, with (stage, fraction), and when there is room for
            another movie because only the results of this one must still be written.
        """
        with self._lock:
            self._submitted += 1
            shown = guarded(progress, f"The progress of {job.movie}")
            task = _Task(job, shown, number=self._submitted, when_aligned=when_aligned)
            closed = self._closed
            if not closed:
                self._events.put(_Submitted(task))
        if closed:
            task.give_up()
        return task.future

    def close(self, wait: bool = True) -> None:
        """Stop the child; movies that are not finished fail. May be called more than once."""
        self._events.put(_Close())
        if wait and threading.current_thread() is not self._thread:
            self._thread.join()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _manage(self) -> None:
        """Handles one event after another. All state changes happen in this thread."""
        try:
            while True:
                try:
                    self._send()
                    event = self._next_event()
                    if isinstance(event, _Close):
                        return
                    self._handle(event)
                except Exception as error:
                    logger.exception("The worker process could not be managed.")
                    self._fail_all(f"the worker process could not be managed ({_named(error)}): see the log.")
        finally:
            self._end()

    def _next_event(self) -> _Event:
        try:
            return self._events.get(timeout=self._seconds_left())
        except queue.Empty:
            return _Overdue()

    def _handle(self, event: _Event) -> None:
        if isinstance(event, _Submitted):
            self._waiting.append(event.task)
        elif isinstance(event, _Overdue):
            self._handle_overdue()
        elif isinstance(event, (_Received, _Died)) and event.child is self._child:  # else: of a child that was stopped
            if isinstance(event, _Received):
                self._received(event.child, event.message)
            else:
                self._handle_death(event.child)

    def _send(self) -> None:
        while self._waiting and sum(not task.aligned for task in self._flight) < IN_FLIGHT:
            task = self._waiting[0]
            if self._flight and (task.alone or self._flight[0].alone):
                return
            self._flight.append(self._waiting.popleft())
            if not task.begin():
                self._flight.remove(task)
                continue
            try:
                if len(self._flight) == 1:
                    self._head_since = time.monotonic()
                    # With another movie in work, the event of a dead child must be handled first.
                    if self._child is None or self._child.process.poll() is not None:
                        self._child = self._spawn()
                task.times_sent, task.taken, task.aligned = task.times_sent + 1, False, False
                self._write(task)
            except BrokenPipeError:
                return  # the child has just died; its event follows
            except (OSError, RuntimeError) as error:  # RuntimeError: a thread could not be started
                self._flight.remove(task)
                task.fail(f"the worker process could not be started ({error}): {LIMITS}.")

    def _write(self, task: _Task) -> None:
        assert self._child is not None and self._child.process.stdin is not None
        request = {"number": task.number, **asdict(task.job)}
        self._child.process.stdin.write(json.dumps(request) + "\n")
        self._child.process.stdin.flush()

    def _spawn(self) -> _Child:
        process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self._folder,
            env=_child_environment(),
            encoding="utf-8",
            errors="replace",
        )
        last_lines: Deque[str] = deque(maxlen=KEPT_LOG_LINES)
        log_thread = threading.Thread(target=self._follow_log, args=(process, last_lines), daemon=True)
        child = _Child(process, last_lines, log_thread)
        try:
            log_thread.start()
            threading.Thread(target=self._follow, args=(child,), daemon=True).start()
        except RuntimeError:
            process.kill()
            process.wait()
            raise
        return child

    def _follow(self, child: _Child) -> None:
        """Reads the child's messages. However this thread ends, the child ends too, and the managing thread knows."""
        try:
            assert child.process.stdout is not None
            for line in child.process.stdout:
                if line.endswith("\n"):  # a process that is killed may leave an incomplete line
                    self._events.put(_Received(child, json.loads(line)))
        except Exception as error:
            child.last_lines.append(f"its messages could not be read ({_named(error)})")
            child.process.kill()
        finally:
            self._events.put(_Died(child))

    def _follow_log(self, process: subprocess.Popen[str], last_lines: Deque[str]) -> None:
        """Reads the child's log to its end, because the child would wait for a reader when the pipe is full."""
        assert process.stderr is not None
        for line in process.stderr:
            last_lines.append(line.rstrip())
            self._log(line.rstrip())

    def _received(self, child: _Child, message: Message) -> None:
        if "ready" in message:
            child.ready, self._head_since = True, time.monotonic()
            return
        task = next(task for task in self._flight if task.number == message["number"])
        if "result" in message:
            result = JobResult.from_dict(message["result"])
            if result.ok:
                self._limit.finished(time.monotonic() - self._head_since)
            self._flight.remove(task)
            self._head_since = time.monotonic()
            if result.device_fault == DEVICE_FAILED:
                self._replace_child()
            task.future.set_result(result)
        elif "taken" in message:
            task.taken = True
        elif "aligned" in message:
            task.aligned = True
            if task.when_aligned is not None:
                task.when_aligned()
        elif task.progress is not None:
            task.progress(message["stage"], message["fraction"])

    def _seconds_left(self) -> Optional[float]:
        if not self._flight:
            return None
        limit_s = self._limit.seconds if self._child is not None and self._child.ready else START_SECONDS
        # The operating system takes no longer times.
        return min(max(self._head_since + limit_s - time.monotonic(), 0.0), threading.TIMEOUT_MAX)

    def _replace_child(self) -> None:
        """The child ends by itself because its device failed; the movie that it was reading goes to a new child."""
        self._waiting.extendleft(reversed(self._flight))
        self._flight = []
        self._stop_child(CLOSE_SECONDS)

    def _handle_overdue(self) -> None:
        """If the child did not start, all movies fail, as another one would not start either. If the first movie
        exceeds its time limit it fails, and the others go to a new child."""
        child = self._child
        if child is None or not child.ready:
            last = child.last_lines[-1] if child is not None and child.last_lines else "(none)"
            self._fail_all(
                f"the worker process did not start within {START_SECONDS:g} s: {LIMITS}, and check that the disk with "
                f"the program responds. Its last line was: {last}."
            )
            return
        limit_s = self._limit.seconds
        head, others = self._flight[0], self._flight[1:]
        self._flight = []
        self._waiting.extendleft(reversed(others))
        self._stop_child(grace_s=0.0)
        _remove_leftovers([head, *others])
        head.fail(
            f"gave no result within {limit_s:.4g} s and was stopped: check that its disk responds, or allow more time "
            "(option --timeout; in the form, Time limit per movie).",
            seconds=limit_s,
        )

    def _fail_all(self, reason: str) -> None:
        """Stop the child; the movies that were submitted so far fail."""
        tasks = [*self._flight, *self._waiting]
        self._flight = []
        self._waiting.clear()
        try:
            self._stop_child(grace_s=0.0)
            _remove_leftovers(tasks)
        finally:
            for task in tasks:
                task.fail(reason)

    def _handle_death(self, dead: _Child) -> None:
        """The child has died by itself. If it had one movie, this movie fails; if several, each is retried alone.

        A movie that the child had not confirmed was sent to a dying child and is retried. If the next child does not
        confirm it either, no child can start, and the movie fails with the reason.
        """
        self._child = None
        status = _reap(dead)
        flight, self._flight = self._flight, []
        _remove_leftovers(flight)
        if len(flight) == 1 and (flight[0].taken or flight[0].times_sent > 1):
            task = flight.pop()
            fault = KILLED if status == -signal.SIGKILL else ""
            task.fail(_cause_of_death(status, dead.last_lines), time.monotonic() - self._head_since, fault)
        for task in reversed(flight):
            task.alone = True
            self._waiting.appendleft(task)

    def _stop_child(self, grace_s: float) -> None:
        if self._child is None:
            return
        child, self._child = self._child, None
        assert child.process.stdin is not None
        try:
            child.process.stdin.close()  # asks the child to clean up and leave
        except BrokenPipeError:
            pass  # it has left already
        try:
            child.process.wait(grace_s)
        except subprocess.TimeoutExpired:
            child.process.kill()
        _reap(child)

    def _end(self) -> None:
        try:
            self._stop_child(grace_s=CLOSE_SECONDS)
            _remove_leftovers(self._flight)
        finally:
            with self._lock:  # nothing can be submitted after this
                self._closed = True
            unfinished = [*self._flight, *self._waiting]
            while not self._events.empty():
                event = self._events.get()
                unfinished += [event.task] if isinstance(event, _Submitted) else []
            for task in unfinished:
                task.give_up()


def _child_environment() -> Dict[str, str]:
    environment = dict(launch.environment(), PYTHONUNBUFFERED="1")
    # The aligner uses its own threads; additional threads of a library would only slow them down.
    environment.setdefault("OPENBLAS_NUM_THREADS", "1")
    return environment


def _reap(child: _Child) -> int:
    """Exit status of a child that has ended or was killed, after its log was read to the end.

    A process that waits for a disk can't even be killed. It is left behind and ends when the disk answers.
    """
    for _ in range(2):
        try:
            child.process.wait(CLOSE_SECONDS)
            break
        except subprocess.TimeoutExpired:  # it closed its output but is still running
            child.process.kill()
    child.log_thread.join(1.0)
    return child.process.returncode if child.process.returncode is not None else -signal.SIGKILL


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _cause_of_death(status: int, last_lines: Deque[str]) -> str:
    if status >= 0:
        last = last_lines[-1] if last_lines else "(none)"
        return f"the process that aligned it ended with status {status}. Its last line was: {last}. See the log."
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    if -status == signal.SIGKILL:
        return (
            f"the process that aligned it was killed ({name}), most often for lack of memory: "
            "align fewer movies at once (option --workers; in the form, Movies at once) or request more memory."
        )
    return (
        f"the process that aligned it crashed ({name}): check that the file is complete, and copy it again if not; "
        "otherwise please report this together with the log."
    )


def _remove_leftovers(tasks: List[_Task]) -> None:
    for task in tasks:
        remove_leftovers(task.job.output_dir, task.job.root)


if __name__ == "__main__":
    from .worker_process import main

    main()
