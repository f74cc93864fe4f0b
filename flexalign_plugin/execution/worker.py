"""The parent's side of a worker process, which aligns one movie after another.

If native code crashes, the process is killed for lack of memory, or a read hangs, one movie fails and the run goes on.
`Worker` keeps one child process (`worker_process`) and exchanges JSON lines with it. While one movie is aligned, the
next one is read. If the child dies while it has two movies, each is retried alone in a new child, to determine which
one caused it.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from typing import Callable, Deque, Dict, List, Optional, TextIO, Union

from .. import launch
from ..files import remove_leftovers
from .engine import PendingMovie
from .job import DEVICE_FAILED, Job, JobResult, Message, Progress

IN_FLIGHT = 2  # one movie is aligned while the next is read
CLOSE_SECONDS = 5.0  # time for a child to clean up before it is killed
KEPT_LOG_LINES = 20


@dataclass(eq=False)
class _Task(PendingMovie):
    number: int = 0
    alone: bool = False  # was in a child that died: must not share the next child with another movie
    times_sent: int = 0
    taken: bool = False  # the child has confirmed that it received it


@dataclass(eq=False)
class _Child:
    process: subprocess.Popen[str]
    last_lines: Deque[str]
    log_thread: threading.Thread


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


_Event = Union[_Submitted, _Received, _Died, _Close]


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
    ) -> None:
        """
        Parameters
        ----------
        device, threads, gpu_memory_gb, tune : as for `kernels.select_backend`.
        timeout_s : time limit per movie in seconds; None: no limit.
        log : called, from threads, with each line that the child writes to its standard error.
        runner : "module:function" that is called in the child with (job, progress) instead of `run_job` and returns a
            JobResult. For tests of crashes and timeouts.
        """
        self._command = [*launch.command("flexalign_plugin.execution.worker_process"), "--device", device]
        self._command += ["--threads", str(threads)] if threads else []
        self._command += ["--runner", runner] if runner else []
        self._command += ["--gpu-memory", str(gpu_memory_gb)] if gpu_memory_gb else []
        self._command += [] if tune else ["--no-fft-tuning"]
        self._folder = os.getcwd()
        self._timeout_s = timeout_s
        self._log = log
        self._child: Optional[_Child] = None
        self._waiting: Deque[_Task] = deque()
        self._flight: List[_Task] = []  # sent to the child; the first one is being aligned
        self._head_since = 0.0
        self._submitted = 0
        self._closed = False
        self._lock = (
            threading.Lock()
        )  # guards _closed and _submitted; only the managing thread uses the other attributes
        self._events: queue.Queue[_Event] = queue.Queue()
        self._thread = threading.Thread(target=self._manage, name="flexalign-worker", daemon=True)
        self._thread.start()

    def submit(self, job: Job, progress: Optional[Progress] = None) -> Future[JobResult]:
        """Queue a movie. `progress(stage, fraction)` is called from a thread of the Worker."""
        with self._lock:
            self._submitted += 1
            task = _Task(job, progress, number=self._submitted)
            if self._closed:
                task.give_up()
            else:
                self._events.put(_Submitted(task))
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
                self._send()
                try:
                    event = self._events.get(timeout=self._seconds_left())
                except queue.Empty:
                    self._handle_timeout()
                    continue
                if isinstance(event, _Close):
                    return
                if isinstance(event, _Submitted):
                    self._waiting.append(event.task)
                elif event.child is self._child:  # else: from a child that was stopped
                    if isinstance(event, _Received):
                        self._received(event.message)
                    else:
                        self._handle_death()
        finally:
            self._end()

    def _send(self) -> None:
        while self._waiting and len(self._flight) < IN_FLIGHT:
            task = self._waiting[0]
            if self._flight and (task.alone or self._flight[0].alone):
                return
            self._waiting.popleft()
            if not task.begin():
                continue
            try:
                if self._child is None or self._child.process.poll() is not None:
                    self._child = self._spawn()
                if not self._flight:
                    self._head_since = time.monotonic()
                self._flight.append(task)
                task.times_sent, task.taken = task.times_sent + 1, False
                self._write(task)
            except BrokenPipeError:
                return  # the child has just died; its event follows
            except OSError as error:
                task.fail(f"the worker process could not be started: {error}.")

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
        assert process.stderr is not None
        log_thread = threading.Thread(target=self._follow_log, args=(process.stderr, last_lines), daemon=True)
        child = _Child(process, last_lines, log_thread)
        log_thread.start()
        threading.Thread(target=self._follow, args=(child,), daemon=True).start()
        return child

    def _follow(self, child: _Child) -> None:
        assert child.process.stdout is not None
        for line in child.process.stdout:
            if line.endswith("\n"):  # a process that is killed may leave an incomplete line
                self._events.put(_Received(child, json.loads(line)))
        self._events.put(_Died(child))

    def _follow_log(self, stream: TextIO, last_lines: Deque[str]) -> None:
        for line in stream:
            last_lines.append(line.rstrip())
            if self._log is not None:
                self._log(line.rstrip())

    def _received(self, message: Message) -> None:
        task = next(task for task in self._flight if task.number == message["number"])
        if "result" in message:
            self._flight.remove(task)
            self._head_since = time.monotonic()
            result = JobResult.from_dict(message["result"])
            if result.device_fault == DEVICE_FAILED:
                self._replace_child()
            task.future.set_result(result)
        elif "taken" in message:
            task.taken = True
        elif task.progress is not None:
            task.progress(message["stage"], message["fraction"])

    def _seconds_left(self) -> Optional[float]:
        if self._timeout_s is None or not self._flight:
            return None
        return max(self._head_since + self._timeout_s - time.monotonic(), 0.0)

    def _replace_child(self) -> None:
        """The child ends by itself because its device failed; the movie that it was reading goes to a new child."""
        self._waiting.extendleft(reversed(self._flight))
        self._flight = []
        self._stop_child(CLOSE_SECONDS)

    def _handle_timeout(self) -> None:
        """The first movie exceeds the time limit: stop the child; the other movie goes to a new child."""
        assert self._timeout_s is not None
        head, others = self._flight[0], self._flight[1:]
        self._flight = []
        self._waiting.extendleft(reversed(others))
        self._stop_child(grace_s=0.0)
        _remove_leftovers([head, *others])
        head.fail(
            f"gave no result within {self._timeout_s:g} s and was stopped: check that its disk responds, or allow more "
            "time.",
            seconds=self._timeout_s,
        )

    def _handle_death(self) -> None:
        """The child has died by itself. If it had one movie, this movie fails; if it had two, each is retried alone.

        A movie that the child had not confirmed was sent to a dying child and is retried. If the next child does not
        confirm it either, no child can start, and the movie fails with the reason.
        """
        assert self._child is not None
        dead, self._child = self._child, None
        status = _reap(dead)
        flight, self._flight = self._flight, []
        _remove_leftovers(flight)
        if len(flight) == 1 and (flight[0].taken or flight[0].times_sent > 1):
            task = flight.pop()
            task.fail(_cause_of_death(status, dead.last_lines), seconds=time.monotonic() - self._head_since)
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
        self._stop_child(grace_s=CLOSE_SECONDS)
        with self._lock:  # nothing can be submitted after this
            self._closed = True
        unfinished = [*self._flight, *self._waiting]
        _remove_leftovers(self._flight)
        while not self._events.empty():
            event = self._events.get()
            unfinished += [event.task] if isinstance(event, _Submitted) else []
        for task in unfinished:
            task.give_up()


def _child_environment() -> Dict[str, str]:
    """Environment in which the child imports the same package as this process, also from a checkout."""
    environment = dict(os.environ, PYTHONUNBUFFERED="1")
    # The aligner uses its own threads; additional threads of a library would only slow them down.
    environment.setdefault("OPENBLAS_NUM_THREADS", "1")
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    # Without relative and empty entries, which stand for the working folder.
    folders = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if os.path.isabs(folder)]
    # site-packages is on the path anyway; in PYTHONPATH it would hide modules of the standard library.
    if os.path.basename(root) not in ("site-packages", "dist-packages"):
        folders.insert(0, root)
    environment["PYTHONPATH"] = os.pathsep.join(folders)
    return environment


def _reap(child: _Child) -> int:
    """Exit status of a child that has ended or was killed, after its log was read to the end."""
    try:
        child.process.wait(CLOSE_SECONDS)
    except subprocess.TimeoutExpired:  # it closed its output but is still running
        child.process.kill()
    child.log_thread.join(1.0)
    return child.process.wait()


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
            "use fewer worker processes or request more memory."
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
