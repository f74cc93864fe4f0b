"""Pixel size and dose of EER movies as MotionCor's and RELION's protocols in Scipion take them from the same sets."""

from __future__ import annotations

import numpy as np
import pytest

from flexalign_plugin.phantoms.movie_writers import write_eer_movie

from .. import scipion_project

N_HARDWARE, PIXEL_A, DOSE, INITIAL = 40, 1.0, 0.25, 2.0
GROUP = 5


def protocol_of(plugin: str):
    """The class of the plugin's protocol. The plugins can be imported only when Scipion has loaded them."""
    pytest.importorskip(plugin)
    import pwem

    if plugin not in pwem.Domain.getPlugins():
        pytest.skip(f"Scipion can't load the plugin {plugin}")
    name = {"motioncorr": "ProtMotionCorr", "relion": "ProtRelionMotioncor"}[plugin]
    return getattr(pytest.importorskip(f"{plugin}.protocols"), name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A movie that stands still."""
    rng = np.random.default_rng(4)
    rate = 0.02 + 0.3 * (rng.random((96, 128)) < 0.05)
    events = []
    for _ in range(N_HARDWARE):
        y, x = np.nonzero(rng.random(rate.shape) < rate)
        events.append(np.column_stack([y, x, rng.integers(0, 4, (len(y), 2))]))
    path = tmp_path_factory.mktemp("eer")
    write_eer_movie(str(path / "m.eer"), events, rate.shape)
    return str(path)


@pytest.mark.parametrize("plugin", ["motioncorr", "relion"])
@pytest.mark.parametrize("sampling, binning", [(0, 1.0), (0, 2.0), (1, 1.0), (1, 2.0)])
def test_the_same_import_gives_the_same_pixel_size_and_dose(folder, plugin, sampling, binning):
    """The import has the pixel size of the 4K grid and the dose of a hardware frame. The other plugin computes pixel
    size and dose from the import, and once more from our output, whose movies are the imported ones."""
    other_class = protocol_of(plugin)
    project = scipion_project.new_project(f"eer_{plugin}_{sampling}_{binning:g}")
    imported = scipion_project.import_movies(project, folder, "*.eer", PIXEL_A, dosePerFrame=DOSE, doseInitial=INITIAL)
    ours = scipion_project.new_alignment(
        project,
        imported,
        eerFractionation=1,
        eerGroup=GROUP,
        eerSampling=sampling,
        binFactor=binning,
        doLocalAlignment=False,
    )
    scipion_project.run(project, ours)
    assert ours.isFinished(), ours.getErrorMessage()
    for source, output in ((imported, "outputMovies"), (ours, "outputMovies")):
        other = project.newProtocol(other_class, eerGroup=GROUP, eerSampling=sampling, binFactor=binning)
        other.inputMovies.set(source)
        other.inputMovies.setExtended(output)
        other.isEER = True
        movies = getattr(source, output)
        pixel = movies.getSamplingRate() * other._getBinFactor()
        assert pixel == pytest.approx(PIXEL_A * binning / 2**sampling)
        assert ours.outputMicrographs.getSamplingRate() == pytest.approx(pixel)
        arguments = () if plugin == "motioncorr" else (movies,)
        before, dose = other._getCorrectedDose(*arguments)
        assert (before, dose * GROUP) == (pytest.approx(INITIAL), pytest.approx(DOSE * GROUP))
        assert movies.getDim()[2] == N_HARDWARE and movies.getFramesRange()[1] == N_HARDWARE


@pytest.mark.parametrize("plugin", ["motioncorr", "relion"])
def test_the_dose_of_a_saved_movie_is_that_of_its_frames(folder, plugin):
    """Saved from the third frame on, which has received the dose of two."""
    other_class = protocol_of(plugin)
    project = scipion_project.new_project(f"saved_eer_{plugin}")
    imported = scipion_project.import_movies(project, folder, "*.eer", PIXEL_A, dosePerFrame=DOSE, doseInitial=INITIAL)
    ours = scipion_project.new_alignment(
        project, imported, nFrames=8, doSaveMovie=True, alignFrame0=3, doLocalAlignment=False
    )
    scipion_project.run(project, ours)
    assert ours.isFinished(), ours.getErrorMessage()
    other = project.newProtocol(other_class)
    other.inputMovies.set(ours)
    other.inputMovies.setExtended("outputMovies")
    movies = ours.outputMovies
    before, dose = other._getCorrectedDose(*(() if plugin == "motioncorr" else (movies,)))
    assert (before, dose) == (pytest.approx(INITIAL + 2 * DOSE * GROUP), pytest.approx(DOSE * GROUP))
    assert movies.getDim()[2] == 6 and movies.getSamplingRate() == PIXEL_A
