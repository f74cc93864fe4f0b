"""What is done with one movie, in whatever process: open, correct, align, write; every failure becomes a result."""

from __future__ import annotations

import itertools
import os
import time
import traceback
from dataclasses import dataclass, field, fields
from typing import Any, Callable, Collection, Dict, Iterable, Iterator, List, Optional, Tuple

from .errors import FlexAlignError
from .settings import Settings

Progress = Callable[[str, float], None]
DEVICE_FAILED = "device failed"  # the process that used it must not go on
DEVICE_TOO_SMALL = "device too small"  # for this movie


@dataclass(frozen=True)
class Job:
    """One movie to align; the results are `<output_dir>/<root>_*`."""

    movie: str
    output_dir: str
    root: str
    settings: Settings


@dataclass(frozen=True)
class JobResult:
    """What became of one movie.

    Attributes
    ----------
    ok : the results are there; otherwise `error` says in one sentence why not and what to do.
    files : {what: path}, see `micrographs.write_result`.
    first_frame : 0-based first aligned frame; shifts_px : its and the following frames' global [sy, sx].
    device_fault : why the GPU could not, when the movie is not to blame: DEVICE_FAILED, DEVICE_TOO_SMALL or "".
    """

    movie: str
    ok: bool
    error: str = ""
    files: Dict[str, str] = field(default_factory=dict)
    warnings: List[str] = field(default_factory=list)
    notes: List[str] = field(default_factory=list)
    quality: Dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    first_frame: int = 0
    shifts_px: List[List[float]] = field(default_factory=list)
    device_fault: str = ""


class CorrectionsCache:
    """Gain, dark and defects of the last movie, used again while neither their files nor the kind of movie change."""

    def __init__(self) -> None:
        self._key: Any = None
        self._corrections: Any = None

    def get(self, movie: Any, settings: Settings) -> Any:
        from .movies import load_corrections

        # Every setting that starts so says how the corrections are read; a file counts with its time and size.
        names = [f.name for f in fields(settings) if f.name.startswith(("gain", "dark", "defect", "eer_sampling"))]
        values = [getattr(settings, name) for name in names]
        key = (movie.kind, movie.top_row_first, movie.shape[1:], [(v, _file_state(v)) for v in values])
        if key != self._key:
            self._corrections, self._key = load_corrections(movie, settings), key
        return self._corrections


def _file_state(path: Any) -> Optional[Tuple[int, int]]:
    if not isinstance(path, str) or not os.path.exists(path):
        return None
    status = os.stat(path)
    return status.st_mtime_ns, status.st_size


def run_job(
    job: Job,
    backend: Any,
    progress: Optional[Progress] = None,
    movie: Any = None,
    cache: Optional[CorrectionsCache] = None,
) -> JobResult:
    """Align one movie and write its results, in this process; every failure becomes a JobResult.

    Parameters
    ----------
    backend : from `kernels.select_backend`.
    progress : called with the name of the stage and the fraction of the whole that is done.
    movie : the job's movie if it is open already; it is closed at the end.
    cache : keeps gain and dark between movies.
    """
    started = time.monotonic()
    try:
        from .aligner import align
        from .micrographs import write_result
        from .micrographs.files import prepare_folder
        from .movies import open_movie

        prepare_folder(job.output_dir)  # say so before the work, not after it
        with movie if movie is not None else open_movie(job.movie, job.settings) as opened:
            if not job.settings.low_memory:
                opened.prefetch(threads=backend.threads)  # the aligner reads frames more than once
            corrections = (cache or CorrectionsCache()).get(opened, job.settings)
            result = align(opened, job.settings, backend, corrections, progress)
        if progress is not None:
            progress("write results", 0.9)
        files = write_result(result, job.output_dir, job.root)
    except Exception as error:
        return failure(job, error, time.monotonic() - started)
    return JobResult(
        movie=job.movie,
        ok=True,
        files=files,
        warnings=list(result.warnings),
        notes=list(result.notes),
        quality=dict(result.quality),
        seconds=time.monotonic() - started,
        first_frame=result.model.first_frame,
        shifts_px=result.model.global_shifts_px.tolist(),
    )


def failure(job: Job, error: Exception, seconds: float = 0.0) -> JobResult:
    """The result of a movie that could not be aligned; what the user can't understand is printed with its traceback."""
    fault = _device_fault(error)
    if fault:
        text = f"{job.movie}: {error}"
    elif isinstance(error, FlexAlignError):
        text = str(error)
    elif isinstance(error, MemoryError):
        text = f"{job.movie}: there is not enough memory to align it: use fewer workers at once or a larger machine."
    else:
        traceback.print_exception(type(error), error, error.__traceback__)
        text = f"{job.movie}: unexpected {type(error).__name__}: {error}. Please report it together with the log."
    return JobResult(movie=job.movie, ok=False, error=text, seconds=seconds, device_fault=fault)


def _device_fault(error: Exception) -> str:
    from .kernels.device import DeviceError, DeviceOutOfMemory, DeviceTooSmall

    if isinstance(error, DeviceError):
        return DEVICE_FAILED
    return DEVICE_TOO_SMALL if isinstance(error, (DeviceOutOfMemory, DeviceTooSmall)) else ""


def unique_root(name: str, taken: Collection[str], number: int) -> str:
    """Start of the output files of a movie, different from all others.

    Only the movie's own endings are cut off: `a_1.234.tif` and `a_1.235.tif` are two movies. Where two folders hold
    movies of one name, the later gets its number.
    """
    root = os.path.basename(name)
    for ending in (".bz2", ".gz"):
        if root.lower().endswith(ending):
            root = root[: -len(ending)]
    root = os.path.splitext(root)[0]
    return root if root not in taken else next(r for r in _numbered(root, number) if r not in taken)


def _numbered(root: str, number: int) -> Iterator[str]:
    yield f"{root}_{number:06d}"
    yield from (f"{root}_{number:06d}_{again}" for again in itertools.count(2))


def read_failures(path: str) -> List[Tuple[str, str, str]]:
    """Lines of such a table; none where there is no table."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as f:
            lines = [line.rstrip("\n").split("\t") for line in f][1:]
    except OSError:
        return []
    return [(line[0], line[1], line[2]) for line in lines if len(line) >= 3]


def write_failures(path: str, failures: Iterable[Tuple[Any, str, str]]) -> None:
    """Table of (number, movie, reason) for people and scripts, tab separated."""
    from .micrographs.files import atomic_path

    lines = ["id\tmovie\treason"]
    lines += ["\t".join((str(i), movie, " ".join(reason.split()))) for i, movie, reason in failures]
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", errors="surrogateescape") as f:
        f.write("\n".join(lines) + "\n")
