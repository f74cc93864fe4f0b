"""Progress and results on the console: a progress bar at a terminal, else lines of text, or JSON lines."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
import time
from typing import TYPE_CHECKING, Dict, List, Optional, Set, TextIO

from ..execution.job import JobResult

if TYPE_CHECKING:
    from tqdm import tqdm


class Report:
    """Writes results to standard output, and failures and progress to standard error."""

    def __init__(self, json_lines: bool = False, quiet: bool = False) -> None:
        self._json, self._quiet = json_lines, quiet
        self._bar: Optional[tqdm] = None
        self._fractions: Dict[str, float] = {}  # fraction done of each movie that is being aligned
        self._total = self._done = 0
        self._printed_notes: Set[str] = set()  # without their numbers
        self._started = time.monotonic()

    def start(self, n_movies: int) -> None:
        self._total = n_movies
        if sys.stderr.isatty() and not self._quiet:
            from tqdm import tqdm

            self._bar = tqdm(
                total=n_movies,
                file=sys.stderr,
                bar_format="{percentage:3.0f}% |{bar}| {desc} [{elapsed}<{remaining}]",
                leave=False,
            )

    def expect(self, n_movies: int) -> None:
        """The number of movies that are known by now, where more may follow."""
        self._total = n_movies

    def stage(self, movie: str, stage: str, fraction: float) -> None:
        """`fraction` of the movie is done and `stage` begins."""
        if self._bar is not None:
            self._fractions[movie] = fraction
            self._bar.n = self._done + sum(list(self._fractions.values()))
            self._bar.set_description_str(f"{self._done + 1}/{self._total} {os.path.basename(movie)}: {stage}")

    def result(self, result: JobResult) -> None:
        self._done += 1
        self._fractions.pop(result.movie, None)
        if self._bar is not None:
            self._bar.n = self._done + sum(list(self._fractions.values()))
            self._bar.refresh()
        if self._json:
            self._write(json_line(result))
        if not result.ok:
            self._write(f"{self._counter()} FAILED {result.message}", sys.stderr)
        elif not self._quiet and not self._json:
            self._write(f"{self._counter()} {result.movie}: {_summary(result)}")
            if result.input_line and self._is_new(result.input_line):
                self._write(f"    input: {result.input_line}")
            for doubt in result.input_doubts:
                if self._is_new(doubt):
                    self._write(f"    warning: {doubt}")
            for warning in result.warnings:
                self._write(f"    warning: {warning}")
            for note in result.notes:
                if self._is_new(note):
                    self._write(f"    note: {note}")

    def say(self, kind: str, sentences: List[str]) -> None:
        """Print notes or warnings about the run, each once."""
        for sentence in sentences:
            if not self._quiet and not self._json and self._is_new(sentence):
                self._write(f"{kind}: {sentence}")

    def _is_new(self, sentence: str) -> bool:
        """Sentences that differ in their numbers only are printed once per run."""
        without_numbers = re.sub(r"[\d.]+", "", sentence)
        is_new = without_numbers not in self._printed_notes
        self._printed_notes.add(without_numbers)
        return is_new

    def log(self, line: str) -> None:
        """Print a log line of a worker process, e.g. a library's warning or the traceback of a crash."""
        if not self._quiet:
            self._write(line, sys.stderr)

    def end(self, failed: List[JobResult], failures_path: str) -> None:
        self.close()
        if failed and self._total > 1:
            print(f"\n{len(failed)} of {self._total} movies failed (see {failures_path}):", file=sys.stderr)
            for result in failed:
                print(f"  {result.message}", file=sys.stderr)
        elif not failed and self._total > 1 and not self._quiet and not self._json:
            print(f"{self._total} movies aligned in {time.monotonic() - self._started:.0f} s.")

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _counter(self) -> str:
        return f"[{self._done}/{self._total}]"

    def _write(self, line: str, file: Optional[TextIO] = None) -> None:
        file = file or sys.stdout
        if self._bar is not None:
            self._bar.write(line, file=file)
        else:
            print(line, file=file)
        file.flush()


def json_line(result: JobResult) -> str:
    """The result as one line of JSON; numbers that are not finite become null."""
    from ..output.motion_json import json_text

    return json.dumps(
        json.loads(json_text({**dataclasses.asdict(result), "error": "" if result.ok else result.message}))
    )


def _summary(result: JobResult) -> str:
    motion = result.quality.get("accumulated_motion_total_A")
    motion_A = motion if isinstance(motion, (int, float)) else 0.0
    micrographs = [path for kind, path in result.files.items() if kind.startswith("micrograph")]
    written = micrographs[0] if micrographs else result.files["motion"]
    others = ", ".join(os.path.splitext(path)[0].rsplit("_", 1)[-1] for path in micrographs[1:])
    return f"moved {motion_A:.1f} A, {result.seconds:.1f} s, {written}" + (f" (and {others})" if others else "")
