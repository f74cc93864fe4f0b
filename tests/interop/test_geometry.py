"""RELION's polishing in Scipion takes the first aligned frame as the reference: there our micrograph must be.

The plugin's own converter writes the motion of our output movies. A particle that is picked on our micrograph and moved
back by this motion must be where it is in every frame.
"""

from __future__ import annotations

import os

import mrcfile
import numpy as np
import pytest

from flexalign_plugin.phantoms.movie_writers import write_mrc_movie

from ..relion_motion import RelionMotion
from ..scipion_project import import_movies, new_alignment, new_project, run
from ..test_geometry import NOISE, PIXEL_A, Drifting, N, found

pytest.importorskip("relion.protocols", reason="needs scipion-em-relion and emtools")

FIRST, MIDDLE_MOST = 0, 1  # of the form


@pytest.fixture(scope="module")
def movie(tmp_path_factory):
    """Folder of a movie of drifting spots, its truth, and its frames without noise."""
    truth, folder = Drifting(), tmp_path_factory.mktemp("spots")
    frames = truth.frames()
    noise = np.random.default_rng(5).normal(0, NOISE, frames.shape)
    write_mrc_movie(str(folder / "spots.mrcs"), (frames + noise).astype(np.float32), PIXEL_A)
    return str(folder), truth, frames


def converted(project, alignment):
    """The motion as the polishing protocol writes it for RELION from the output movies of an alignment."""
    from pwem.objects import Coordinate, CTFModel, Particle, Transform
    from relion.protocols import ProtRelionBayesianPolishing

    polishing = project.newProtocol(ProtRelionBayesianPolishing)
    project._setupProtocol(polishing)
    polishing.makePathsAndClean()
    polishing._createFilenameTemplates()
    (micrograph,) = [m.clone() for m in alignment.outputMicrographs]
    stack = polishing._getPath("particles.mrcs")
    with mrcfile.new(stack, np.zeros((1, 32, 32), np.float32)):
        pass
    particles = polishing._createSetOfParticles()
    particles.setSamplingRate(PIXEL_A)
    particles.setAcquisition(alignment.outputMicrographs.getAcquisition())
    particles.setAlignmentProj()
    particles.setHasCTF(True)
    particle = Particle(location=(1, stack))
    particle.setSamplingRate(PIXEL_A)
    particle.setAcquisition(alignment.outputMicrographs.getAcquisition())
    particle.setTransform(Transform())
    particle.setCTF(CTFModel(defocusU=10000, defocusV=10000, defocusAngle=0))
    particle.setCoordinate(Coordinate(x=100, y=100, micId=micrograph.getObjId(), micName=micrograph.getMicName()))
    particles.append(particle)
    particles.write()
    polishing.inputMovies.set(alignment.outputMovies)
    polishing.inputParticles.set(particles)
    polishing.convertInputStep(None, None, None)
    (movie,) = [m.clone() for m in alignment.outputMovies]
    return RelionMotion(polishing._getMovieStar(movie))


@pytest.mark.parametrize("first", [1, 3])
@pytest.mark.parametrize("reference", [FIRST, MIDDLE_MOST])
def test_polishing_finds_the_particle(movie, reference, first):
    folder, truth, frames = movie
    project = new_project(f"geometry_{reference}_{first}")
    imported = import_movies(project, folder, "*.mrcs", PIXEL_A, dosePerFrame=1.0)
    alignment = new_alignment(
        project, imported, referenceFrame=reference, alignFrame0=first, doLocalAlignment=False, removeHotPixels=False
    )
    run(project, alignment)
    assert alignment.isFinished(), alignment.getErrorMessage()
    star = converted(project, alignment)
    assert star.start == first
    (micrograph,) = [m.getFileName() for m in alignment.outputMicrographs]
    with mrcfile.open(os.path.abspath(micrograph)) as mrc:
        image = mrc.data.copy()
    assert np.isfinite(image).all()

    # The reference frame is the one whose places are nearest to those on the micrograph.
    distances = []
    for t in range(N):
        places = truth.in_frame(t)
        distances.append(np.hypot(*(np.stack([found(image, p) for p in places]) - places).T).max())
    shown = int(np.argmin(distances))
    picks = np.stack([found(image, place) for place in truth.in_frame(shown)])
    errors = []
    for t in range(first - 1, N):
        positions = picks - np.stack(star.shift(t + 1, *picks.T), -1)
        errors.append(np.hypot(*(positions - truth.in_frame(t)).T).max())
    if reference == FIRST:
        assert shown == first - 1 and max(errors) < 0.1
    else:  # the converter's zero is not that of the micrograph: off by the same distance in all frames
        assert shown > first - 1 and min(errors) > 1 and np.ptp(errors) < 0.1
