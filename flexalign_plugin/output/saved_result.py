"""A result that was written before, read from its `_motion.json`, and its motion for another sum of the frames."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Dict, List, Optional, Tuple

from ..errors import SettingsError
from ..motion.model import MotionModel
from ..quality.figures import Figures
from ..result import KnownMotion
from ..result_files import MOTION
from ..settings import MOTION_SETTINGS, Settings
from .motion_json import load_result, saved_settings


@dataclass(frozen=True)
class SavedResult:
    """What a `_motion.json` says.

    Attributes
    ----------
    path : of the file. root : begins the names of the result's files. movie : absolute path of the movie, as far as it
        is known. version : of FlexAlign.
    settings : as they were given. model, figures, warnings : as in `result.MovieResult`.
    files : {ending of the name: bytes} of the other files of the result; None in results of versions before 1.2.0.
    """

    path: str
    root: str
    movie: str
    version: str
    settings: Settings
    model: MotionModel
    figures: Figures
    warnings: List[str]
    files: Optional[Dict[str, int]]

    def is_complete(self) -> bool:
        """Whether all files of the result are there with the sizes that they were written with."""
        if self.files is None:
            return False
        start = os.path.join(os.path.dirname(self.path), self.root)
        try:
            return all(os.path.getsize(start + ending) == size for ending, size in self.files.items())
        except OSError:
            return False


def load_saved_result(path: str) -> SavedResult:
    """Read a `_motion.json`.

    Raises
    ------
    ResultError : the file can't be read or is not a result of FlexAlign.
    """
    content = load_result(path, "settings", "model")
    name = os.path.basename(path)
    return SavedResult(
        path=path,
        root=name[: -len(MOTION)] if name.endswith(MOTION) else name,
        movie=os.path.abspath(content.get("movie_path") or content.get("movie") or ""),
        version=content.get("version", ""),
        settings=saved_settings(content, path),
        model=MotionModel.from_dict(content["model"]),
        figures=Figures.from_dict(content.get("quality", {})),
        warnings=content.get("warnings", []),
        files=content.get("files"),
    )


def known_motion(path: str, settings: Settings, shape: Tuple[int, int, int], movie: str) -> KnownMotion:
    """The motion of an earlier result, to sum the frames of its movie in another way.

    Parameters
    ----------
    path : `_motion.json` of the result. settings : of the new sum. shape : (frames, ny, nx) of the movie.

    Raises
    ------
    ResultError : the file can't be read or is not a result of FlexAlign.
    SettingsError : it is the motion of other frames than those of the movie with these settings.
    """
    saved = load_saved_result(path)
    changed = [name for name in MOTION_SETTINGS if getattr(settings, name) != getattr(saved.settings, name)]
    if changed:
        raise SettingsError(
            f"{path}: its motion was measured with other values of {', '.join(changed)}: align the movie again to "
            "change them."
        )
    model = saved.model
    if shape != (model.n_frames, *model.frame_shape):
        n, ny, nx = shape
        there = f"{model.n_frames} frames of {model.frame_shape[1]} x {model.frame_shape[0]}"
        raise SettingsError(
            f"{movie}: has {n} frames of {nx} x {ny} pixels, but the motion in {path} is that of {there} pixels: it is "
            "not the movie that was aligned."
        )
    note = f"The motion is that of {path}, aligned by FlexAlign {saved.version}."
    return KnownMotion(model, saved.figures.of_motion(), saved.warnings, [note])
