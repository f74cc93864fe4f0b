"""Results that the output folder already holds: which movies are done, and which results a run would replace."""

from __future__ import annotations

import os
from typing import Iterable, List, Optional, Tuple

from ..errors import FlexAlignError, SettingsError
from ..execution.job import Job
from ..inputs import shortened
from ..output.replacing import is_same_movie
from ..output.saved_result import SavedResult, load_saved_result
from ..result_files import MOTION
from ..settings import Settings
from .own_mdoc import with_own_mdoc

WITHOUT_EFFECT = ("low_memory",)  # settings that change no result
NAMED = 3  # settings that a message lists


def earlier_result(job: Job) -> Optional[SavedResult]:
    """The result of the job's movie with the names of its own; None if there is none that can be read."""
    path = os.path.join(job.output_dir, job.root + MOTION)
    if not os.path.exists(path):
        return None
    try:
        saved = load_saved_result(path)
    except FlexAlignError:
        return None
    return saved if is_same_movie(saved.movie, job.movie) else None


def is_done(job: Job, saved: SavedResult, use_mdoc: bool) -> bool:
    """Whether the result has the settings of the job, is complete, and is newer than the movie."""
    return not differences(job, saved.settings, use_mdoc) and saved.is_complete() and not _has_changed(job, saved.path)


def differences(job: Job, other: Settings, use_mdoc: bool) -> List[str]:
    """Names of the settings that are not those of the job, with the dose of its `.mdoc` if that is used."""
    settings = with_own_mdoc(job.settings, job.movie)[0] if use_mdoc else job.settings
    names = [name for name in Settings.__dataclass_fields__ if name not in WITHOUT_EFFECT]
    return [name for name in names if getattr(settings, name) != getattr(other, name)]


def check_settings(results: Iterable[Tuple[Job, SavedResult]], use_mdoc: bool) -> None:
    """SettingsError if results with other settings would be replaced."""
    changed = []
    for job, saved in results:
        names = differences(job, saved.settings, use_mdoc)
        if names:
            changed.append((job, saved, names))
    if not changed:
        return
    job, saved, names = changed[0]
    values = [f"{name} {shortened(getattr(saved.settings, name))}" for name in names[:NAMED]]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    others = f" (and those of {len(changed) - 1} more movies)" if len(changed) > 1 else ""
    raise SettingsError(
        f"{saved.path}: is the result of this movie with other settings ({', '.join(values)}{more}) and would be "
        f"replaced{others}: choose another output folder, or allow it with --overwrite."
    )


def _has_changed(job: Job, result: str) -> bool:
    """Whether the movie was written after its result."""
    try:
        return os.stat(job.movie).st_mtime_ns > os.stat(result).st_mtime_ns
    except OSError:  # the movie fails with its reason
        return True
