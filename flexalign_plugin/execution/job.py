"""What is done with one movie, in whatever process: open, correct, align, write; every failure becomes a result."""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional

from ..errors import FlexAlignError
from ..settings import Settings

if TYPE_CHECKING:
    from ..backend import Backend
    from ..movies import Movie
    from ..movies.corrections_cache import CorrectionsCache

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
    ok : the results are there.
    error : otherwise why not and what to do, in one sentence that does not name the movie again; see `message`.
    files : {what: path}, see `output.write_result`.
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

    @property
    def message(self) -> str:
        """The error with the movie that it concerns."""
        return f"{self.movie}: {self.error}"


def run_job(
    job: Job,
    backend: Backend,
    progress: Optional[Progress] = None,
    movie: Optional[Movie] = None,
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
        # Only now: who merely sends jobs elsewhere need not load the numerics.
        from ..aligner import align
        from ..files import prepare_folder
        from ..movies import open_movie
        from ..movies.corrections_cache import CorrectionsCache
        from ..output import write_result

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
        quality=result.figures.to_dict(),
        seconds=time.monotonic() - started,
        first_frame=result.model.first_frame,
        shifts_px=result.model.global_shifts_px.tolist(),
    )


def failure(job: Job, error: Exception, seconds: float = 0.0) -> JobResult:
    """The result of a movie that could not be aligned; what the user can't understand is printed with its traceback."""
    if isinstance(error, FlexAlignError):
        text = str(error)
        movie = f"{job.movie}: "
        # Most errors of a movie begin with its path.
        text = text[len(movie) :] if text.startswith(movie) else text
    elif isinstance(error, MemoryError):
        text = "there is not enough memory to align it: use fewer workers at once or a larger machine."
    else:
        traceback.print_exception(type(error), error, error.__traceback__)
        text = f"unexpected {type(error).__name__}: {error}. Please report it together with the log."
    return JobResult(job.movie, ok=False, error=text, seconds=seconds, device_fault=_device_fault(error))


def given_up(job: Job) -> JobResult:
    """The result of a movie that was left over when the run was stopped."""
    return JobResult(job.movie, ok=False, error="was not aligned, because the run was stopped.")


def _device_fault(error: Exception) -> str:
    from ..kernels.device import DeviceError, DeviceOutOfMemory, DeviceTooSmall

    if isinstance(error, DeviceError):
        return DEVICE_FAILED
    return DEVICE_TOO_SMALL if isinstance(error, (DeviceOutOfMemory, DeviceTooSmall)) else ""
