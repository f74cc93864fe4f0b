"""The protocol in a real, headless Scipion project: imported movies in, registered micrographs out."""

from __future__ import annotations

import os

import mrcfile
import numpy as np
import pytest

from flexalign_plugin.motion import MotionModel
from flexalign_plugin.tests.protocols.conftest import PIXEL_A, SHAPE
from flexalign_plugin.tests.scipion_project import import_movies, new_alignment, run, shifts


@pytest.mark.parametrize("kind", ["mrcs", "tiff", "eer"])
def test_imported_movies_become_micrographs_with_the_true_shifts(project, movies, kind):
    imported = import_movies(
        project, movies.folder, f"*.{kind}", PIXEL_A, gainFile=f"{movies.folder}/gain.mrc", dosePerFrame=1.0
    )
    # The gain was made for the movie's own rows; TIFF and EER rows run the other way than those of an MRC gain.
    order = {"mrcs": 0, "tiff": 1, "eer": 1}[kind]
    protocol = new_alignment(project, imported, nFrames=SHAPE[0], gainRowOrder=order, binFactor=2.0)
    assert protocol.validate() == []
    run(project, protocol)
    assert protocol.isFinished(), protocol.getErrorMessage()

    (micrograph,) = [m.clone() for m in protocol.outputMicrographs]
    assert protocol.outputMicrographs.getSamplingRate() == pytest.approx(2 * PIXEL_A)
    with mrcfile.open(micrograph.getFileName(), permissive=False) as mrc:
        assert mrc.data.shape == (SHAPE[1] // 2, SHAPE[2] // 2)
    for picture in (micrograph.thumbnail, micrograph.plotGlobal, micrograph.psdCorr):
        assert os.path.getsize(picture.getFileName()) > 500

    (movie,) = [m.clone() for m in protocol.outputMovies]
    assert protocol.outputMovies.getSamplingRate() == pytest.approx(PIXEL_A)
    assert movie.getAlignment().getRange() == (1, SHAPE[0])
    x, y = shifts(movie)
    true = np.stack(movies.truths[kind].shift(np.arange(SHAPE[0]), SHAPE[1] / 2, SHAPE[2] / 2))
    error = np.array([y, x]) - true
    error -= error.mean(axis=1, keepdims=True)
    assert np.sqrt((error**2).sum(axis=0).mean()) < 0.25
    model = MotionModel.load(micrograph.getFileName().replace("_aligned_mic.mrc", "_motion.json"))
    assert model.n_aligned == SHAPE[0]
    assert not protocol.outputMicrographs.isStreamOpen() and not protocol.outputMovies.isStreamOpen()
    assert "1 movies aligned" in protocol.summary()[0]
