"""Progress and results of a run of particles on the console."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, List, Optional, Set, TextIO

import numpy as np

from ..result_files import PARTICLES

if TYPE_CHECKING:
    from tqdm import tqdm

    from .particles import ParticleResult

SECONDS = 30.0  # between lines of progress, where there is no terminal
SURE = 0.9  # posterior of a pose
FEW_SURE = 0.5  # with a smaller share of sure poses something is usually wrong


class ParticleConsole:
    """A progress bar with the time left at a terminal, else a line now and then."""

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._bar: Optional[tqdm] = None
        self._said: Set[str] = set()
        self._started = self._last = time.monotonic()
        self._first: Optional[int] = None  # particles that were done before

    def progress(self, done: int, total: int) -> None:
        if self._first is None:
            self._first, self._started = done, time.monotonic()
            self._start(done, total)
        if self._bar is not None:
            self._bar.update(done - self._bar.n)
        elif not self._quiet and done > self._first and (done == total or time.monotonic() - self._last >= SECONDS):
            self._last = time.monotonic()
            seconds = (self._last - self._started) * (total - done) / (done - self._first)
            left = f", {_duration(seconds)} left" if done < total else f" in {_duration(self._last - self._started)}"
            self._write(f"{done:,} of {total:,} particles{left}")

    def _start(self, done: int, total: int) -> None:
        if done and not self._quiet:
            self._write(f"{done:,} of {total:,} particles were done before.")
        if sys.stderr.isatty() and not self._quiet:
            from tqdm import tqdm

            self._bar = tqdm(initial=done, total=total, unit=" particles", file=sys.stderr, leave=False, smoothing=0.05)

    def say(self, kind: str, sentence: str) -> None:
        """Print a note or a warning, each once."""
        if sentence not in self._said and not (self._quiet and kind == "note"):
            self._said.add(sentence)
            self._write(f"{kind}: {sentence}", sys.stderr if kind == "warning" else None)

    def files(self, paths: List[str]) -> None:
        """Print the names of files that were written."""
        if not self._quiet:
            for path in paths:
                self._write(path)

    def end(self, result: ParticleResult, n_volumes: int, folder: str) -> None:
        """Print what was found."""
        self.close()
        found = result.found[result.found["aligned"]]
        if result.failures:
            self._write(
                f"{len(result.failures):,} of {len(result.found):,} particles could not be aligned; see "
                f"{result.failures_path}.",
                sys.stderr,
            )
        if self._quiet:
            return
        sure = 100 * float((found["posterior"] >= SURE).mean())
        if sure < 100 * FEW_SURE:
            self._write(
                f"warning: only {sure:.0f} % of the particles have a pose of probability {SURE:g} or more: check the "
                "pixel sizes of particles and volume (--volume-pixel-size), the defocus and the mask diameter, and "
                "that the volume shows these particles."
            )
        self._write(
            f"{len(found):,} particles aligned in {_duration(time.monotonic() - self._started)}: predicted error "
            f"{float(np.median(found['angle_sd'])):.2f} degrees and {float(np.median(found['shift_sd'])):.2f} px "
            f"(median); {sure:.0f} % have a pose of probability {SURE:g} or more."
        )
        self._write(os.path.join(folder, PARTICLES))
        if n_volumes > 1:
            for number in range(1, n_volumes + 1):
                own = found["volume"] == number
                self._write(f"volume {number}: {100 * float(own.mean()):.1f} % of the particles")

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _write(self, line: str, file: Optional[TextIO] = None) -> None:
        file = file or sys.stdout
        if self._bar is not None:
            self._bar.write(line, file=file)
        else:
            print(line, file=file)
        file.flush()


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
