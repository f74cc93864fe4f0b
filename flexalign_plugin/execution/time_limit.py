"""The time limit of a movie: a number that the user gives, else a multiple of what the movies before took.

A movie takes longer than 20 times the median only if something is stuck: a disk that does not answer, a driver that
hangs. Without a limit such a movie would stop the run for ever.
"""

from __future__ import annotations

from collections import deque
from typing import Deque, Optional

TIMES_THE_MEDIAN = 20.0
LEAST_S = 600.0  # a busy machine or disk may hold up a short movie for minutes
FIRST_S = 7200.0  # until a movie is finished
MOVIES_KEPT = 100  # for the median
# For the help of the option and of the form's parameter.
DEFAULT = (
    f"{TIMES_THE_MEDIAN:g} times the median of the movies before, at least {LEAST_S / 60:g} min; {FIRST_S / 3600:g} h "
    "until the first movie is finished"
)


class TimeLimit:
    """The limit of one worker process. Not thread-safe."""

    def __init__(self, fixed_s: Optional[float] = None) -> None:
        """fixed_s : limit in seconds; None: `DEFAULT`."""
        self._fixed_s = fixed_s
        self._taken_s: Deque[float] = deque(maxlen=MOVIES_KEPT)

    def finished(self, seconds: float) -> None:
        """Note what an aligned movie took."""
        self._taken_s.append(seconds)

    @property
    def seconds(self) -> float:
        if self._fixed_s is not None:
            return self._fixed_s
        return max(TIMES_THE_MEDIAN * _median(self._taken_s), LEAST_S) if self._taken_s else FIRST_S


def _median(values: Deque[float]) -> float:
    return sorted(values)[len(values) // 2]
