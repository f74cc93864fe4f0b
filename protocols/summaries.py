"""Words about a run: its progress, its summary, its methods text."""

from __future__ import annotations

import math
import os
import time
from collections import deque
from typing import Any, Callable, Deque, List, Tuple

from flexalign_plugin.execution.job import JobResult
from flexalign_plugin.result_files import REPORT

SHOWN_FAILURES = 3
RECENT_MOVIES = 30  # of which the pace is taken
KEEPS_UP_WAITING = 3  # so few may wait without being behind
LEAST_SPAN_S = 10.0  # arrivals of a shorter time make no rate


class Pace:
    """How fast movies come in and go out: for the log, the summary and the time that is left."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._done: Deque[float] = deque(maxlen=RECENT_MOVIES + 1)  # when the last movies were finished
        # (time, movies) that came in; what was there at the start says nothing of the microscope's pace.
        self._arrived: Deque[Tuple[float, int]] = deque(maxlen=RECENT_MOVIES)

    def start(self) -> None:
        if not self._done:
            self._done.append(self._clock())

    def finished(self) -> None:
        self._done.append(self._clock())

    def arrived(self, movies: int) -> None:
        self._arrived.append((self._clock(), movies))

    def per_hour(self) -> float:
        """Movies finished in an hour at the pace of the last ones; 0 where none is."""
        if len(self._done) < 2:
            return 0.0
        return 3600 * (len(self._done) - 1) / max(self._done[-1] - self._done[0], 1e-3)

    def arriving_per_hour(self) -> float:
        """Movies that come in in an hour, 0 where that is not known yet."""
        if len(self._arrived) < 2:
            return 0.0
        span = self._clock() - self._arrived[0][0]
        return 3600 * sum(n for _, n in list(self._arrived)[1:]) / max(span, LEAST_SPAN_S)

    def text(self, waiting: int, more_come: bool) -> str:
        """`120 movies per hour, keeps up with the input`."""
        rate = self.per_hour()
        if not rate:
            return "no movie is finished yet"
        words = [f"{rate:.0f} movies per hour"]
        arriving = self.arriving_per_hour()
        if more_come and arriving:
            if waiting <= KEEPS_UP_WAITING or rate >= arriving:
                words.append("keeps up with the input" if waiting <= KEEPS_UP_WAITING else "catches up with the input")
            else:
                words.append(f"falls behind by {arriving - rate:.0f} movies per hour")
        if waiting:
            left = f"about {duration(3600 * waiting / rate)} left"
            words.append(f"{left} for those that are here" if more_come else left)
        return ", ".join(words)


def duration(seconds: float) -> str:
    """`75` -> `1 min 15 s`."""
    minutes, whole = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole} s" if minutes else f"{whole} s"


def counted(number: int, what: str = "movie") -> str:
    """`1 movie`, `2 movies`."""
    return f"{number} {what}" + ("" if number == 1 else "s")


def motion_text(result: JobResult, pixel_size_A: float) -> str:
    """`moved 9.1 px (9.1 A)`: the length of the path of the global shifts, as plots and report give it."""
    path = sum(math.dist(a, b) for a, b in zip(result.shifts_px, result.shifts_px[1:]))
    return f"moved {path:.1f} px ({path * pixel_size_A:.1f} A)"


def reason(record: JobResult) -> str:
    """Why a movie failed, for those who show the name of the movie beside it."""
    return record.error[:1].upper() + record.error[1:]


def summary(protocol: Any) -> str:
    """First what a look at the project window is for; what the outputs are stands above it in that window."""
    aligned, failures = getattr(protocol, "outputMovies", None), protocol._failures
    waiting, running = protocol._n_waiting(), not protocol.finished
    counts = [f"{counted(aligned.getSize() if aligned is not None else 0)} aligned"]
    counts += [f"*{len(failures)} failed*"] if failures else []
    counts += [f"{waiting} waiting"] if waiting or running else []
    lines = [", ".join(counts) + "."]
    if running or protocol._pace.per_hour():
        pace = protocol._pace.text(waiting, running and not protocol.streamClosed)
        lines.append(f"{pace[:1].upper()}{pace[1:]}.")
    lines.append(f"All movies at a glance: [[{protocol._getExtraPath(REPORT)}][extra/{REPORT}]]")
    if failures:
        lines.append("Failed (all in outputMoviesFailed and extra/failed.tsv; Continue tries them again):")
        shown = list(failures.values())[:SHOWN_FAILURES]
        lines += [f"  {os.path.basename(record.movie)}: {reason(record)}" for record in shown]
        lines += [f"  and {len(failures) - len(shown)} more."] if len(failures) > len(shown) else []
    return "\n".join(lines)


def compared_to(protocol: Any) -> str:
    """`, comparing frames to 30 A`; empty where that is automatic."""
    resolution = protocol.maxResForCorrelation.get()
    return f", comparing frames to {resolution:g} A" if resolution else ""


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
        f"[strelak2020flexalign]{compared_to(protocol)}.{frames}{local}{weighted}{binning}"
    ]
