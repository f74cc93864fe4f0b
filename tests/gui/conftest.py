"""One screen for all scenes, and the movies that they import."""

from __future__ import annotations

import os
import shutil

import mrcfile
import numpy as np
import pytest

from flexalign_plugin.phantoms.movie_writers import write_mrc_movie

from ..protocols.conftest import movies  # noqa: F401
from .display import Screen, missing


@pytest.fixture(scope="session")
def screen():
    reason = missing()
    if reason:
        pytest.skip(f"windows are not tested: {reason}")
    with Screen() as screen:
        yield screen


@pytest.fixture(scope="session")
def folder(screen, movies, tmp_path_factory):  # noqa: F811
    """movie_*.mrcs, .tiff, .eer; turned/gain.mrc, the gain turned by 90 degrees; three movies in broken/, one of them
    cut off."""
    folder = str(tmp_path_factory.mktemp("gui"))
    shutil.copytree(movies.folder, folder, dirs_exist_ok=True)
    for name in ("turned", "broken"):
        os.mkdir(os.path.join(folder, name))
    gain = mrcfile.read(os.path.join(folder, "gain.mrc"))
    write_mrc_movie(os.path.join(folder, "turned", "gain.mrc"), [np.ascontiguousarray(np.rot90(gain))])
    for name in ("a", "broken", "c"):
        shutil.copy(os.path.join(folder, "movie_1.mrcs"), os.path.join(folder, "broken", f"{name}.mrcs"))
    os.truncate(os.path.join(folder, "broken", "broken.mrcs"), 200_000)
    return folder
