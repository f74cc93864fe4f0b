"""What became of each movie: one small JSON file beside its done marker, so that outputs survive Continue."""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Optional

from flexalign_plugin.jobs import JobResult


def save_record(path: str, result: JobResult) -> None:
    _write(path, json.dumps(dataclasses.asdict(result)))


def load_record(path: str) -> Optional[JobResult]:
    """The record, or None where there is none (the movie was never finished)."""
    try:
        with open(path, encoding="utf-8") as f:
            return JobResult(**json.load(f))
    except FileNotFoundError:
        return None


def _write(path: str, text: str) -> None:
    temporary = f"{path}.{os.getpid()}.tmp"
    with open(temporary, "w", encoding="utf-8") as f:
        f.write(text)
    os.replace(temporary, path)
