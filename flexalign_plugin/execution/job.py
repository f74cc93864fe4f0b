"""Aligns one movie: open, correct, align, write. Every failure becomes a `JobResult`."""

from __future__ import annotations

import os
import time
import traceback
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Callable, Dict, List, Mapping, Optional, TypedDict, Union

from ..errors import FlexAlignError
from ..inputs import dataclass_of, printable
from ..settings import Settings

if TYPE_CHECKING:
    from ..backend import Backend
    from ..movies import Movie
    from ..movies.corrections_cache import CorrectionsCache
    from ..result import MovieResult

Progress = Callable[[str, float], None]
DEVICE_FAILED = "device failed"  # the process must end, because its device can't be used any more
DEVICE_TOO_SMALL = "device too small"  # the movie does not fit into the device's memory
KILLED = "killed"  # the process was killed, most often for lack of memory; only between a worker and its pool


@dataclass(frozen=True)
class Job:
    """One movie to align; the results are `<output_dir>/<root>_*`.

    keep_others : whether the result of another movie with these names is kept, and this movie fails.
    motion : `_motion.json` with the motion of the movie, if it is not to be measured again; else "".
    """

    movie: str
    output_dir: str
    root: str
    settings: Settings
    keep_others: bool = False
    motion: str = ""


@dataclass(frozen=True)
class JobResult:
    """Result of one movie.

    Attributes
    ----------
    ok : whether the movie was aligned and its results were written.
    error : if not, the reason and what to do, without the name of the movie; see `message`.
    files : {kind of file: path}, see `output.write_result`. sizes : {kind of file: bytes}; empty in old records.
    quality : `quality.figures.Figures` as a dictionary.
    input_line, input_doubts : what the input amounts to, and what about it makes no sense; see `sanity`.
    seconds : wall time.
    first_frame : 0-based first aligned frame; shifts_px : global shift [sy, sx] of each aligned frame.
    pixel_size_A, dose_per_frame : of the frames as they were aligned (EER: after rendering and grouping); the dose in
        e/A^2 is None if it is not known. hardware_frames : hardware frames in a frame of an EER movie, else None.
    device_fault : DEVICE_FAILED or DEVICE_TOO_SMALL if the movie failed because of the device, else "".
    """

    movie: str
    ok: bool
    error: str = ""
    files: Dict[str, str] = field(default_factory=dict)
    sizes: Dict[str, int] = field(default_factory=dict)
    warnings: List[str] = field(default_factory=list)
    notes: List[str] = field(default_factory=list)
    input_line: str = ""
    input_doubts: List[str] = field(default_factory=list)
    quality: Dict[str, object] = field(default_factory=dict)
    seconds: float = 0.0
    first_frame: int = 0
    shifts_px: List[List[float]] = field(default_factory=list)
    device_fault: str = ""
    pixel_size_A: float = 0.0
    dose_per_frame: Optional[float] = None
    hardware_frames: Optional[int] = None

    @property
    def message(self) -> str:
        """The error, preceded by the name of the movie."""
        return f"{printable(self.movie)}: {self.error}"

    def has_its_files(self, folder: Optional[str] = None) -> bool:
        """Whether all files are there with the sizes that they were written with.

        folder : where to look; None: where they were written, which may be outdated if the project was moved.
        """
        return files_complete(self.files, self.sizes, folder)

    @classmethod
    def from_dict(cls, values: Dict[str, object]) -> JobResult:
        """The result from `dataclasses.asdict`, as sent by a process of this run."""
        return cls(**values)  # type: ignore[arg-type]

    @classmethod
    def from_file(cls, values: object) -> JobResult:
        """The result from `dataclasses.asdict`, as read from a file.

        Raises
        ------
        ValueError : the values are not those of a result of this version or an earlier one.
        """
        result = dataclass_of(cls, values)
        if any(len(shift) != 2 for shift in result.shifts_px):
            raise ValueError("its shifts are not pairs of numbers")
        return result


def files_complete(files: Mapping[str, str], sizes: Mapping[str, int], folder: Optional[str] = None) -> bool:
    """Whether the files {key: path} exist with their sizes, as far as these are known; `folder` replaces their own."""
    for key, path in files.items():
        try:
            status = os.stat(path if folder is None else os.path.join(folder, os.path.basename(path)))
        except OSError:
            return False
        if sizes.get(key, status.st_size) != status.st_size:
            return False
    return True


ToWrite = Callable[[], JobResult]  # writes the results of an aligned movie


class Message(TypedDict, total=False):
    """A JSON line of a worker process: `ready` when it has started, or about the movie `number`: `taken`, or `stage`
    and `fraction`, or `aligned` when only its results must still be written, or `result`."""

    ready: bool
    number: int
    taken: bool
    aligned: bool
    stage: str
    fraction: float
    result: Dict[str, object]


def run_job(
    job: Job,
    backend: Backend,
    progress: Optional[Progress] = None,
    movie: Optional[Movie] = None,
    cache: Optional[CorrectionsCache] = None,
) -> JobResult:
    """Align one movie and write its results in this process; the parameters are those of `align_job`."""
    outcome = align_job(job, backend, progress, movie, cache)
    return outcome if isinstance(outcome, JobResult) else outcome()


def align_job(
    job: Job,
    backend: Backend,
    progress: Optional[Progress] = None,
    movie: Optional[Movie] = None,
    cache: Optional[CorrectionsCache] = None,
    decoded_bytes: Optional[float] = None,
) -> Union[JobResult, ToWrite]:
    """Align one movie in this process.

    Parameters
    ----------
    backend : from `kernels.select_backend`.
    progress : called with the name of the stage and the fraction done, from 0 to 1.
    movie : the job's movie if it is already open; it is closed at the end.
    cache : keeps gain and dark between movies.
    decoded_bytes : memory for decoded frames; None: half of what is free.

    Returns
    -------
    A function that writes the results and returns the JobResult; any thread may call it. If the movie could not be
    aligned, the JobResult.
    """
    started = time.monotonic()
    try:
        # Imported here, because processes that only send jobs elsewhere don't need the numerical modules.
        from ..aligner import align
        from ..files import prepare_folder
        from ..movies import open_movie
        from ..movies.corrections_cache import CorrectionsCache
        from ..output.replacing import check_replaceable
        from ..output.saved_result import known_motion
        from ..star_format import check_sayable

        # First, so that an error is reported before the alignment.
        prepare_folder(job.output_dir)
        check_sayable(job.movie, os.path.join(job.output_dir, job.root), job.settings.gain)
        check_replaceable(job.output_dir, job.root, job.movie, job.keep_others)
        with movie if movie is not None else open_movie(job.movie, job.settings) as opened:
            if not job.settings.low_memory:
                # The aligner reads frames more than once.
                aligned, _ = job.settings.frame_ranges(opened.n_frames, job.movie)
                opened.prefetch(decoded_bytes, backend.threads, aligned)
            corrections = (cache or CorrectionsCache()).get(opened, job.settings)
            known = known_motion(job.motion, job.settings, opened.shape, job.movie) if job.motion else None
            result = align(opened, job.settings, backend, corrections, progress, known)
            opened.check_unchanged()
    except Exception as error:
        return failure(job, error, time.monotonic() - started)
    return partial(_write, job, result, progress, started)


def _write(job: Job, result: MovieResult, progress: Optional[Progress], started: float) -> JobResult:
    """Write the results of a movie; `started` is the time when its alignment began."""
    from ..output import write_result

    try:
        if progress is not None:
            progress("write results", 0.9)
        files = write_result(result, job.output_dir, job.root, job.keep_others)
        sizes = {key: os.path.getsize(path) for key, path in files.items()}
    except Exception as error:
        return failure(job, error, time.monotonic() - started)
    return JobResult(
        movie=job.movie,
        ok=True,
        files=files,
        sizes=sizes,
        warnings=list(result.warnings),
        notes=list(result.notes),
        input_line="" if result.facts is None else result.facts.line,
        input_doubts=[] if result.facts is None else result.facts.doubts,
        quality=result.figures.to_dict(),
        seconds=time.monotonic() - started,
        first_frame=result.model.first_frame,
        shifts_px=result.model.global_shifts_px.tolist(),
        pixel_size_A=result.settings.pixel_size,
        dose_per_frame=result.settings.dose_per_frame,
        hardware_frames=result.hardware_frames,
    )


def failure(job: Job, error: Exception, seconds: float = 0.0) -> JobResult:
    """The result of a movie that could not be aligned; the traceback of an unexpected error is printed."""
    if isinstance(error, FlexAlignError):
        text = str(error)
        movie = f"{printable(job.movie)}: "
        # Most errors of a movie begin with its path.
        text = text[len(movie) :] if text.startswith(movie) else text
    elif isinstance(error, MemoryError):
        text = (
            "there is not enough memory to align it: switch on the low-memory mode or use a machine with more memory."
        )
    elif isinstance(error, RuntimeError) and "start new thread" in str(error):
        text = (
            "no thread could be started to align it: use fewer threads, or raise the limits of this account or job on "
            "memory (ulimit -v) and processes (ulimit -u)."
        )
    else:
        traceback.print_exception(type(error), error, error.__traceback__)
        text = f"unexpected {type(error).__name__}: {error}. Please report it together with the log."
    return JobResult(job.movie, ok=False, error=text, seconds=seconds, device_fault=_device_fault(error))


def given_up(job: Job) -> JobResult:
    """The result of a movie that was not finished when the run was stopped."""
    return JobResult(job.movie, ok=False, error="was not aligned, because the run was stopped.")


def _device_fault(error: Exception) -> str:
    from ..kernels.device import DeviceError, DeviceOutOfMemory, DeviceTooSmall

    if isinstance(error, DeviceError):
        return DEVICE_FAILED
    return DEVICE_TOO_SMALL if isinstance(error, (DeviceOutOfMemory, DeviceTooSmall)) else ""
