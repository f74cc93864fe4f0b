"""Movies as one job of a queue: a request file names them, and next to it the answer grows while they are aligned.

The two files are all that the one who asks and the job on some other machine share. The answer is one JSON line an
event, so that a job that is killed leaves what it had finished, and one that the queue starts again goes on from there.
A job whose request has been taken away ends after the movies it works on.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Callable, Dict, List, Optional, Sequence, Set, Tuple

from ..errors import FlexAlignError, SettingsError
from ..files import atomic_path, output_error
from ..settings import Settings
from .devices import Compute, device_names
from .job import Job, JobResult
from .worker_pool import WorkerPool

REQUEST_ENDING, ANSWER_ENDING = ".json", ".answer"


@dataclass
class Answer:
    """What a job has said so far.

    Attributes
    ----------
    results : of the movies by their place in the request.
    begun : whether the command was started; `machine` and `gpus` say where the last time.
    taken : movies that were begun then, or read ahead.
    ended : why it stopped before the last movie, if it was asked to.
    unfit : why this machine can't compute, if it can't.
    said : number of its lines.
    """

    results: Dict[int, JobResult] = field(default_factory=dict)
    begun: bool = False
    taken: Set[int] = field(default_factory=set)
    machine: str = ""
    gpus: str = ""
    ended: str = ""
    unfit: str = ""
    said: int = 0


def write_request(path: str, jobs: Sequence[Job], device: str, compute: Compute) -> None:
    """Write a request for `run_request`.

    Parameters
    ----------
    path : ends with REQUEST_ENDING.
    device : as on the command line; where the request is written, the other machine's GPUs are not known.
    compute : everything else about what computes.
    """
    request = {"device": device, "compute": asdict(compute), "jobs": [asdict(job) for job in jobs]}
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        json.dump(request, file)
    # There before the job is: on shared disks a name that was looked for in vain may stay unseen for a minute.
    with open(answer_path(path), "w", encoding="utf-8"):
        pass


def answer_path(request_path: str) -> str:
    return request_path[: -len(REQUEST_ENDING)] + ANSWER_ENDING


def read_answer(request_path: str) -> Answer:
    """What is there so far. A line that is not whole yet is left for the next time."""
    answer = Answer()
    try:
        with open(answer_path(request_path), encoding="utf-8") as file:
            lines = file.read().split("\n")
    except FileNotFoundError:
        return answer
    for line in lines:
        event = _whole(line)
        answer.said += bool(event)
        if "begun" in event:
            answer.begun, answer.ended, answer.unfit, answer.taken = True, "", "", set()
            answer.machine, answer.gpus = event["begun"]["machine"], event["begun"]["gpus"]
        elif "unfit" in event:
            answer.unfit = event["unfit"]
        elif "taken" in event:
            answer.taken.add(event["taken"])
        elif "ended" in event:
            answer.ended = event["ended"]
        elif "movie" in event:
            answer.results[event["movie"]] = JobResult(**event["result"])
    return answer


def _whole(line: str) -> Dict[str, Any]:
    try:
        event = json.loads(line)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}


def run_request(path: str, log: Callable[[str], None], runner: Optional[str] = None) -> List[JobResult]:
    """Align the movies of a request that have no result yet; returns the results of all.

    KeyboardInterrupt (Ctrl-C, or the queue's SIGTERM) is noted in the answer and passed on.

    Raises
    ------
    SettingsError : the request can't be read, or this machine can't compute as asked.
    OutputError : the answer can't be written.
    """
    jobs, device, compute = _read_request(path)
    # A result that tells of a failure stays, too: trying again is for the one who asked.
    answer = read_answer(path)
    todo = [i for i in range(len(jobs)) if i not in answer.results]
    try:
        _say(path, begun={"machine": _machine(), "gpus": os.environ.get("CUDA_VISIBLE_DEVICES", "")})
        try:
            compute = replace(compute, devices=device_names(device))
            compute.check()
        except FlexAlignError as error:
            _say(path, unfit=str(error))
            raise
        else:
            _align(path, jobs, todo, compute, log, runner)
    except KeyboardInterrupt:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # queues say it twice
        _say(path, ended="the queue or a user ended it")
        raise
    results = read_answer(path).results
    return [results[i] for i in sorted(results)]


def _align(
    path: str, jobs: List[Job], todo: List[int], compute: Compute, log: Callable[[str], None], runner: Optional[str]
) -> None:
    waiting = deque(todo)
    running: Dict[Future[JobResult], int] = {}
    with WorkerPool(compute, log=log, runner=runner) as pool:
        while waiting or running:
            while waiting and len(running) < pool.capacity:
                if not os.path.exists(path):
                    log(f"{path} was taken away: {len(waiting)} movies are not begun any more.")
                    waiting.clear()
                    break
                i = waiting.popleft()
                _say(path, taken=i)
                running[pool.submit(jobs[i])] = i
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                _say_result(path, running.pop(future), future.result())


def _read_request(path: str) -> Tuple[List[Job], str, Compute]:
    try:
        with open(path, encoding="utf-8") as file:
            request = json.load(file)
        jobs = [Job(**{**job, "settings": Settings.from_dict(job["settings"])}) for job in request["jobs"]]
        return jobs, request["device"], Compute(**{**request["compute"], "devices": tuple()})
    except OSError as error:
        raise SettingsError(
            f"{path}: can't be read ({error.strerror}): is this folder there on this machine?"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise SettingsError(f"{path}: is no request of this version: let the run that wrote it continue.") from error


def _machine() -> str:
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def _say_result(path: str, i: int, result: JobResult) -> None:
    _say(path, movie=i, result=asdict(result))


def _say(path: str, **event: Any) -> None:
    # A line that was cut off by a kill must not spoil the next one. Figures of the fit may be numpy's own numbers.
    line = "\n" + json.dumps({**event, "time": time.time()}, default=lambda value: value.item()) + "\n"
    try:
        with open(answer_path(path), "a", encoding="utf-8") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise output_error(answer_path(path), error) from error
