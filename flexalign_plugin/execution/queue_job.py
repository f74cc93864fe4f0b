"""One queue job: aligns the movies listed in a request file and appends events and results to an answer file.

These two files are the only communication between the run and its queue jobs on other machines. The answer has one JSON
line per event, so the results of a job that is killed are kept, and a job that the queue restarts continues after them.
If the request file is deleted, the job ends after the movies that it is processing.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Callable, Dict, List, Optional, Sequence, Set, Tuple, TypedDict

from ..errors import FlexAlignError, SettingsError
from ..files import atomic_path, output_error
from ..inputs import JSON_BYTES, dataclass_of, has_type, json_value, read_json, read_text
from ..settings import Settings
from .devices import Compute, device_names
from .job import Job, JobResult
from .sharing import with_workers
from .worker_pool import WorkerPool

REQUEST_ENDING, ANSWER_ENDING = ".json", ".answer"
REQUEST_FORMAT = "flexalign-request-1"


@dataclass
class Answer:
    """What a queue job has reported so far.

    Attributes
    ----------
    results : {index of the movie in the request: its result}.
    begun : whether the command was started; `machine` and `gpus` : where it was started last.
    taken : indices of the movies that were started there, or read ahead.
    ended : if the job was stopped before the last movie, the reason.
    unfit : if the machine can't be used, the reason.
    n_events : number of events.
    """

    results: Dict[int, JobResult] = field(default_factory=dict)
    begun: bool = False
    taken: Set[int] = field(default_factory=set)
    machine: str = ""
    gpus: str = ""
    ended: str = ""
    unfit: str = ""
    n_events: int = 0


class _Start(TypedDict):
    machine: str
    gpus: str


class _Event(TypedDict, total=False):
    """One line of the answer: begun, taken, unfit and ended as in `Answer`, or an index `movie` with its `result`."""

    begun: _Start
    taken: int
    unfit: str
    ended: str
    movie: int
    result: Dict[str, object]
    time: float


_TYPES = {"begun": Dict[str, str], "taken": int, "unfit": str, "ended": str, "movie": int, "result": Dict[str, object]}


def write_request(path: str, jobs: Sequence[Job], device: str, compute: Compute) -> None:
    """Write a request for `run_request`.

    Parameters
    ----------
    path : ends with REQUEST_ENDING.
    device : as on the command line; the job resolves it, because its machine's GPUs are not known here.
    compute : threads, memory and so on; its `devices` are not used.
    """
    request = {
        "format": REQUEST_FORMAT,
        "device": device,
        "compute": asdict(compute),
        "jobs": [asdict(job) for job in jobs],
    }
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        json.dump(request, file)
    # Created before the job starts, because shared disks may hide a new file for a minute after a failed look-up.
    with open(answer_path(path), "w", encoding="utf-8"):
        pass


def answer_path(request_path: str) -> str:
    return request_path[: -len(REQUEST_ENDING)] + ANSWER_ENDING


def read_answer(request_path: str) -> Answer:
    """The events written so far. A line that is not complete yet is skipped."""
    answer = Answer()
    try:
        lines = read_text(answer_path(request_path), JSON_BYTES, errors="replace").split("\n")
    except FileNotFoundError:
        return answer
    for line in lines:
        event = _event(line)
        answer.n_events += bool(event)
        if "begun" in event:
            answer.begun, answer.ended, answer.unfit, answer.taken = True, "", "", set()
            answer.machine, answer.gpus = event["begun"].get("machine", ""), event["begun"].get("gpus", "")
        elif "unfit" in event:
            answer.unfit = event["unfit"]
        elif "taken" in event:
            answer.taken.add(event["taken"])
        elif "ended" in event:
            answer.ended = event["ended"]
        elif "movie" in event:
            with contextlib.suppress(ValueError):  # of another version: the movie has no result
                answer.results[event["movie"]] = JobResult.from_file(event["result"])
    return answer


def _event(line: str) -> _Event:
    """The event of a line; empty if the line is not complete yet, or no event."""
    try:
        event = json_value(line)
    except ValueError:
        return {}
    if not isinstance(event, dict) or not all(has_type(event[name], _TYPES[name]) for name in event if name in _TYPES):
        return {}
    if ("movie" in event) != ("result" in event):
        return {}
    return event  # type: ignore[return-value]


def run_request(path: str, log: Callable[[str], None], runner: Optional[str] = None) -> List[JobResult]:
    """Align the movies of a request that have no result yet; returns the results of all its movies.

    KeyboardInterrupt (Ctrl-C, or the queue's SIGTERM) is noted in the answer and raised again.

    Parameters
    ----------
    log : called with lines for the log. runner : for tests, see `worker.Worker`.

    Raises
    ------
    SettingsError : the request can't be read, or the requested device can't be used on this machine.
    OutputError : the answer can't be written.
    """
    jobs, device, compute = _read_request(path)
    # Failed movies have a result too and are not tried again here: the run decides about that.
    answer = read_answer(path)
    todo = [i for i in range(len(jobs)) if i not in answer.results]
    try:
        append_event(path, {"begun": {"machine": _machine(), "gpus": os.environ.get("CUDA_VISIBLE_DEVICES", "")}})
        try:
            compute = replace(compute, devices=device_names(device))
            compute.check()
        except FlexAlignError as error:
            append_event(path, {"unfit": str(error)})
            raise
        else:
            _align(path, jobs, todo, compute, log, runner)
    except KeyboardInterrupt:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # queues send it twice
        append_event(path, {"ended": "the queue or a user ended it"})
        raise
    results = read_answer(path).results
    return [results[i] for i in sorted(results)]


def _align(
    path: str, jobs: List[Job], todo: List[int], compute: Compute, log: Callable[[str], None], runner: Optional[str]
) -> None:
    waiting = deque(todo)
    running: Dict[Future[JobResult], int] = {}
    compute = with_workers(compute, [jobs[i] for i in todo], len(todo))
    with WorkerPool(compute, log=log, runner=runner) as pool:
        while waiting or running:
            while waiting and len(running) < pool.capacity:
                if not os.path.exists(path):
                    log(f"{path} was deleted: the remaining {len(waiting)} movies are not aligned.")
                    waiting.clear()
                    break
                i = waiting.popleft()
                append_event(path, {"taken": i})
                running[pool.submit(jobs[i])] = i
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                append_result(path, running.pop(future), future.result())


def _read_request(path: str) -> Tuple[List[Job], str, Compute]:
    try:
        request = read_json(path)
        if not has_type(request, Dict[str, Any]) or request.get("format", REQUEST_FORMAT) != REQUEST_FORMAT:
            raise ValueError("another format")
        jobs = [dataclass_of(Job, {**job, "settings": Settings.from_dict(job["settings"])}) for job in request["jobs"]]
        return jobs, str(request["device"]), dataclass_of(Compute, {**request["compute"], "devices": ()})
    except OSError as error:
        raise SettingsError(
            f"{path}: can't be read ({error.strerror}): check that its folder exists on this machine."
        ) from error
    except (ValueError, KeyError, TypeError, SettingsError) as error:
        raise SettingsError(
            f"{path}: is not a request of this version of FlexAlign: continue the run that wrote it."
        ) from error


def _machine() -> str:
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def append_result(path: str, i: int, result: JobResult) -> None:
    """Append the result of movie `i` of the request `path` to its answer."""
    append_event(path, {"movie": i, "result": asdict(result)})


def append_event(path: str, event: _Event) -> None:
    """Append an event and its time to the answer of the request `path`; OutputError if it can't be written."""
    # The newline in front separates the event from a line that was cut off by a kill. Quality figures may be NumPy
    # scalars.
    line = "\n" + json.dumps({**event, "time": time.time()}, default=lambda value: value.item()) + "\n"
    try:
        with open(answer_path(path), "a", encoding="utf-8") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise output_error(answer_path(path), error) from error
