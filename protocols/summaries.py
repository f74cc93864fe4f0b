"""Texts about a run: its progress, its summary, its methods text."""

from __future__ import annotations

import math
import os
import time
from collections import deque
from typing import Any, Callable, Deque, List, Tuple

from flexalign_plugin.execution.job import JobResult
from flexalign_plugin.result_files import FAILED_MOVIES, REPORT

SHOWN_FAILURES = 3
RECENT_MOVIES = 30  # used to compute the rate
KEEPS_UP_WAITING = 3  # with this many waiting movies a run still keeps up
LEAST_SPAN_S = 10.0  # shortest time over which the rate of arrivals is computed
DOSE_WEIGHTING = " Frames were weighted by the dose that the specimen had received [grant2015]."


class Pace:
    """Rates at which movies arrive and are finished, and the remaining time, for log and summary."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._done: Deque[float] = deque(maxlen=RECENT_MOVIES + 1)  # times at which the last movies were finished
        # (time, number of movies that arrived). The number of the first entry is not used: these movies arrived before
        # the time that is measured.
        self._arrived: Deque[Tuple[float, int]] = deque(maxlen=RECENT_MOVIES)

    def start(self) -> None:
        if not self._done:
            self._done.append(self._clock())

    def finished(self) -> None:
        self._done.append(self._clock())

    def arrived(self, movies: int) -> None:
        self._arrived.append((self._clock(), movies))

    def per_hour(self) -> float:
        """Movies finished per hour, from the last movies; 0 if none is finished."""
        if len(self._done) < 2:
            return 0.0
        return 3600 * (len(self._done) - 1) / max(self._done[-1] - self._done[0], 1e-3)

    def arriving_per_hour(self) -> float:
        """Movies that arrive per hour; 0 if not known yet."""
        if len(self._arrived) < 2:
            return 0.0
        span = self._clock() - self._arrived[0][0]
        return 3600 * sum(n for _, n in list(self._arrived)[1:]) / max(span, LEAST_SPAN_S)

    def text(self, waiting: int, more_come: bool) -> str:
        """`120 movies per hour, keeps up with the input`.

        Parameters
        ----------
        waiting : number of movies that are not finished. more_come : whether the input is still open.
        """
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
            remaining = f"about {duration(3600 * waiting / rate)} left"
            words.append(f"{remaining} for the waiting movies" if more_come else remaining)
        return ", ".join(words)


def duration(seconds: float) -> str:
    """`75` -> `1 min 15 s`."""
    minutes, whole = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole} s" if minutes else f"{whole} s"


def counted(number: int, noun: str = "movie") -> str:
    """`1 movie`, `2 movies`."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def motion_text(result: JobResult) -> str:
    """`moved 9.1 px (9.1 A)`: length of the path of the global shifts, as in plots and report."""
    path = sum(math.dist(a, b) for a, b in zip(result.shifts_px, result.shifts_px[1:]))
    return f"moved {path:.1f} px ({path * result.pixel_size_A:.1f} A)"


def reason(record: JobResult) -> str:
    """The error of a failed movie without the name of the movie."""
    return record.error[:1].upper() + record.error[1:]


def summary(protocol: Any) -> str:
    """Summary of a run of ProtFlexAlign: counts, rate, link to the report, first failures. The outputs are not listed,
    because Scipion shows them above the summary."""
    aligned, failures = getattr(protocol, "outputMovies", None), protocol._failures
    waiting, running = protocol._n_waiting(), not protocol.finished
    counts = [f"{counted(aligned.getSize() if aligned is not None else 0)} aligned"]
    counts += [f"*{len(failures)} failed*"] if failures else []
    counts += [f"{waiting} waiting"] if waiting or running else []
    lines = [", ".join(counts) + "."]
    if running or protocol._pace.per_hour():
        pace = protocol._pace.text(waiting, running and not protocol.streamClosed)
        lines.append(f"{pace[:1].upper()}{pace[1:]}.")
    lines.append(f"Overview of all movies: [[{protocol._getExtraPath(REPORT)}][extra/{REPORT}]]")
    if failures:
        lines.append(f"Failed (all are in outputMoviesFailed and extra/{FAILED_MOVIES}; *Continue* aligns them again):")
        shown = list(failures.values())[:SHOWN_FAILURES]
        lines += [f"  {os.path.basename(record.movie)}: {reason(record)}" for record in shown]
        lines += [f"  and {len(failures) - len(shown)} more."] if len(failures) > len(shown) else []
    return "\n".join(lines)


def compared_to(protocol: Any) -> str:
    """`, comparing frames at resolutions up to 30 A`; empty if the resolution is automatic."""
    resolution = protocol.maxResForCorrelation.get()
    return f", comparing frames at resolutions up to {resolution:g} A" if resolution else ""


def methods(protocol: Any) -> List[str]:
    """Methods text of a run of ProtFlexAlign; empty if there are no outputs yet."""
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
        weighted = DOSE_WEIGHTING
    frames = ""
    first, last = protocol.alignFrame0.get(), protocol.alignFrameN.get()
    if first > 1 or last > 0:
        frames = f" Frames {first} to {last or 'the last one'} were used."
    binning = f" Micrographs were binned by {protocol.binFactor.get():g}." if protocol.binFactor.get() > 1 else ""
    return [
        f"{counted(protocol.outputMovies.getSize())} corrected for specimen motion with FlexAlign "
        f"[strelak2020flexalign]{compared_to(protocol)}.{frames}{local}{weighted}{binning}"
    ]
