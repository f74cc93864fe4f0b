"""Words about a run: its progress, its summary, its methods text."""

from __future__ import annotations

import math
import time
from typing import Any, List, Optional

from flexalign_plugin.worker import JobResult

SHOWN_FAILURES = 3


class Pace:
    """How fast movies come, for the estimate of the time that is left."""

    def __init__(self) -> None:
        self._since: Optional[float] = None
        self._done = 0

    def start(self) -> None:
        if self._since is None:
            self._since = time.monotonic()

    def text(self, movies_left: int) -> str:
        """Called when one more movie is done."""
        assert self._since is not None
        self._done += 1
        each = (time.monotonic() - self._since) / self._done
        rest = f", about {duration(each * movies_left)} left" if movies_left > 0 else ""
        return f"{each:.1f} s a movie{rest}"


def duration(seconds: float) -> str:
    """`75` -> `1 min 15 s`."""
    minutes, whole = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole} s" if minutes else f"{whole} s"


def counted(movies: int) -> str:
    """`1 movie`, `2 movies`."""
    return f"{movies} movie" + ("" if movies == 1 else "s")


def motion_text(result: JobResult, pixel_size_A: float) -> str:
    """`moved 9.1 px (9.1 A)`: the largest distance between two frames' global shifts."""
    largest = max((math.dist(a, b) for a in result.shifts_px for b in result.shifts_px), default=0.0)
    return f"moved {largest:.1f} px ({largest * pixel_size_A:.1f} A)"


def summary(protocol: Any) -> str:
    aligned = getattr(protocol, "outputMovies", None)
    lines = [f"{counted(aligned.getSize() if aligned is not None else 0)} aligned."]
    micrographs = getattr(protocol, "outputMicrographs", None)
    if micrographs is not None:
        lines.append(f"Micrographs of {micrographs.getSamplingRate():.4g} A/px.")
    if getattr(protocol, "outputMicrographsDoseWeighted", None) is not None:
        lines.append("Dose-weighted micrographs are in outputMicrographsDoseWeighted.")
    failures = protocol._failures
    if failures:
        lines.append(f"*{counted(len(failures))} failed*, listed in outputMoviesFailed and extra/failed.tsv:")
        lines += [f"  {record.error}" for record in list(failures.values())[:SHOWN_FAILURES]]
        lines.append("Continue tries them again.")
    return "\n".join(lines)


def methods(protocol: Any) -> List[str]:
    if not hasattr(protocol, "outputMovies"):
        return []
    local = ""
    if protocol.doLocalAlignment:
        local = (
            f" Local motion was measured in patches of {protocol.minLocalRes.get():g} A and fitted with a cubic "
            "B-spline in space and time."
        )
        if not protocol.autoPatches:
            counts = f"{protocol.patchesX.get()} x {protocol.patchesY.get()}"
            local = local.replace(f"patches of {protocol.minLocalRes.get():g} A", f"{counts} patches")
    weighted = ""
    if hasattr(protocol, "outputMicrographsDoseWeighted"):
        weighted = " Frames were weighted by the dose that the sample had received [grant2015]."
    frames = ""
    first, last = protocol.alignFrame0.get(), protocol.alignFrameN.get()
    if first > 1 or last > 0:
        frames = f" Frames {first} to {last or 'the last'} were used."
    binning = f" Micrographs were binned by {protocol.binFactor.get():g}." if protocol.binFactor.get() > 1 else ""
    return [
        f"{counted(protocol.outputMovies.getSize())} corrected for sample motion with FlexAlign "
        "[strelak2020flexalign], comparing frames to "
        f"{protocol.maxResForCorrelation.get():g} A.{frames}{local}{weighted}{binning}"
    ]
