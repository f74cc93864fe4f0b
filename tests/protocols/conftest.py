"""Small phantom movies in every format, with a gain and a known motion."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from flexalign_plugin.phantoms.movie_writers import write_eer_movie, write_mrc_movie, write_tiff_movie
from flexalign_plugin.phantoms.phantom import particle_phantom

from .. import scipion_project

SHAPE = (8, 256, 320)
PIXEL_A = 4.0
HARDWARE_FRAMES = 40


@dataclasses.dataclass
class Movies:
    """Folder with movie_1.EXT, movie_2.EXT, ..., gain.mrc; truth of each movie."""

    folder: str
    truths: dict


def _gained(seed):
    phantom = particle_phantom(
        SHAPE, pixel_size_A=PIXEL_A, dose=4, contrast=0.4, band_limit_A=20, drift_px=6, local_px=0.0, seed=seed
    )
    gain = np.random.default_rng(1).normal(1, 0.15, SHAPE[1:]).clip(0.5, 1.5).astype(np.float32)
    return dataclasses.replace(phantom, gain=gain)


def _events(phantom):
    """Hardware frames of a short exposure, with at most one electron in a pixel."""
    rng = np.random.default_rng(phantom.seed)
    share = HARDWARE_FRAMES // SHAPE[0]
    for i in range(HARDWARE_FRAMES):
        y, x = np.nonzero(phantom.counts(float(i // share), exposure=1 / share, stream=1000 + i))
        yield np.column_stack([y, x, rng.integers(0, 4, (len(y), 2))])


@pytest.fixture(scope="session")
def movies(tmp_path_factory):
    folder = tmp_path_factory.mktemp("movies")
    truths = {}
    for seed, kind in zip(itertools.count(1), ("mrcs", "tiff", "eer")):
        phantom = _gained(seed)
        path = str(folder / f"movie_{seed}.{kind}")
        if kind == "mrcs":
            write_mrc_movie(path, phantom.frames(), PIXEL_A)
        elif kind == "tiff":
            write_tiff_movie(path, phantom.frames(), compression="lzw")
        else:
            write_eer_movie(path, _events(phantom), SHAPE[1:])
        truths[kind] = phantom.truth
    write_mrc_movie(str(folder / "gain.mrc"), [phantom.gain], PIXEL_A)
    return Movies(str(folder), truths)


@pytest.fixture
def project(request):
    return scipion_project.new_project(request.node.name.replace("[", "_").replace("]", ""))
