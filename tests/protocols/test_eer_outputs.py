"""Dose, number of frames and pixel size of everything that comes out of an EER movie, for all ways to group and write
it, and what the next protocol takes from it."""

from __future__ import annotations

import dataclasses
import itertools
import os

import mrcfile
import numpy as np
import pytest

from flexalign_plugin.execution.job import run_job
from flexalign_plugin.kernels import select_backend
from flexalign_plugin.movies import open_movie, settings_of_frames
from flexalign_plugin.phantoms.movie_writers import eer_metadata_text, write_eer_movie
from flexalign_plugin.settings import Settings

from ..scipion_project import import_movies, new_alignment

NY, NX, N_HARDWARE, PIXEL_A = 96, 128, 46, 4.0
DOSE, INITIAL = 0.25, 2.0  # e/A^2 of a hardware frame, and before the movie
GROUPINGS = {  # parameters: (hardware frames in a frame, frames)
    "8 frames": (dict(nFrames=8), 5, 8),
    "groups of 6": (dict(eerFractionation=1, eerGroup=6), 6, 7),
    "1 e/A2": (dict(eerFractionation=2, eerDose=1.0), 4, 11),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A movie of one picture that stands still, so that the alignment itself needs no time."""
    rng = np.random.default_rng(4)
    rate = 0.02 + 0.3 * (rng.random((NY, NX)) < 0.05)
    events = []
    for _ in range(N_HARDWARE):
        y, x = np.nonzero(rng.random((NY, NX)) < rate)
        events.append(np.column_stack([y, x, rng.integers(0, 4, (len(y), 2))]))
    path = tmp_path_factory.mktemp("eer")
    own = eer_metadata_text(PIXEL_A, DOSE * N_HARDWARE * PIXEL_A**2, N_HARDWARE)
    write_eer_movie(str(path / "m.eer"), events, (NY, NX), metadata=own)
    return str(path)


def aligned(project, imported, **params):
    """A protocol whose movies were aligned in this process and whose output sets were made."""
    from pyworkflow.object import Set

    from flexalign_plugin.protocols.records import save_record

    protocol = new_alignment(project, imported, doLocalAlignment=False, doComputePSD=False, **params)
    project._setupProtocol(protocol)
    protocol.makePathsAndClean()
    os.makedirs(protocol._getExtraPath("DONE"))
    protocol._roots, protocol._failures = {}, {}
    (movie,) = [m.clone() for m in protocol.inputMovies.get()]
    protocol._roots[movie.getObjId()] = "m"
    job = protocol._job(movie)
    result = run_job(
        dataclasses.replace(job, settings=dataclasses.replace(job.settings, do_plots=False)), select_backend("cpu", 1)
    )
    assert result.ok, result.error
    save_record(protocol._getMovieDone(movie), result)
    protocol._updateOutputSets([movie], Set.STREAM_CLOSED)
    return protocol, result


def stored(output):
    """The set and its only item as the next protocol reads them."""
    again = type(output)(filename=output.getFileName())
    again.loadAllProperties()
    (item,) = [item.clone() for item in again]
    return again, item


def next_settings(project, movies, item, **params):
    """What a second alignment takes from the set, and the movie as it opens it: (settings of the frames, frames)."""
    from flexalign_plugin.protocols import ProtFlexAlign, form_values

    protocol = project.newProtocol(ProtFlexAlign, **params)
    protocol.inputMovies.set(movies)
    settings = Settings(**form_values.settings_values(protocol, item))
    with open_movie(item.getFileName(), settings) as movie:
        return settings_of_frames(movie, settings), movie.shape


@pytest.mark.parametrize("grouping, sampling", [*((grouping, 0) for grouping in GROUPINGS), ("groups of 6", 1)])
def test_every_combination(project, folder, grouping, sampling):
    imported = import_movies(project, folder, "*.eer", PIXEL_A, dosePerFrame=DOSE, doseInitial=INITIAL)
    params, group, n_frames = GROUPINGS[grouping]
    up = 2**sampling
    for save, binning, frames, crop in itertools.product((False, True), (1.0, 2.0), ((1, 0), (3, 6)), (False, True)):
        start, stop = frames[0] - 1, frames[1] or n_frames
        box = dict(cropOffsetX=16, cropOffsetY=8, cropDimX=64, cropDimY=48) if crop else {}
        protocol, result = aligned(
            project,
            imported,
            eerSampling=sampling,
            doSaveMovie=save,
            binFactor=binning,
            alignFrame0=frames[0],
            alignFrameN=frames[1],
            **params,
            **box,
        )
        case = f"{grouping}, 8K {sampling}, saved {save}, binned {binning}, frames {frames}, cropped {crop}"
        size = (64, 48) if crop else (NX * up, NY * up)
        size = tuple(int(n / binning) for n in size)
        finer = PIXEL_A * binning / up
        assert (result.pixel_size_A, result.dose_per_frame) == (PIXEL_A / up, pytest.approx(DOSE * group)), case

        for name in ("outputMicrographs", "outputMicrographsDoseWeighted"):
            micrographs, micrograph = stored(getattr(protocol, name))
            assert micrographs.getSamplingRate() == micrograph.getSamplingRate() == pytest.approx(finer), case
            assert micrographs.getDim()[:2] == size, case
            assert micrographs.getAcquisition().getDosePerFrame() == pytest.approx(DOSE), case
            with mrcfile.open(micrograph.getFileName()) as mrc:
                assert float(mrc.voxel_size.x) == pytest.approx(finer, rel=1e-5), case

        movies, movie = stored(protocol.outputMovies)
        pixel, dose = (finer, DOSE * group) if save else (PIXEL_A, DOSE)
        assert movies.getSamplingRate() == movie.getSamplingRate() == pytest.approx(pixel), case
        for acquisition in (movies.getAcquisition(), movie.getAcquisition()):
            assert acquisition.getDosePerFrame() == pytest.approx(dose), case
            assert acquisition.getDoseInitial() == INITIAL, case
        alignment = movie.getAlignment()
        assert alignment.getRange() == (start + 1, stop) and len(alignment.getShifts()[0]) == stop - start, case
        before = INITIAL + DOSE * group * start  # the true dose before the first aligned frame
        for source in (movies, movie):
            assert protocol._getCorrectedDose(source) == (pytest.approx(before), pytest.approx(dose)), case
        if save:
            assert movies.getDim() == movie.getDim() == (*size, stop - start), case
            assert tuple(movie.getFramesRange()) == (start + 1, stop, 1) and not any(alignment.getRoi()), case
            taken, shape = next_settings(project, movies, movie)
            assert shape == (stop - start, size[1], size[0]), case
            assert taken.pixel_size == pytest.approx(finer) and taken.gain is None, case
            assert taken.dose_per_frame == pytest.approx(DOSE * group), case
            assert taken.pre_exposure == pytest.approx(before), case
        else:
            assert tuple(movies.getDim()) == (NX, NY, N_HARDWARE), case
            assert tuple(movie.getFramesRange()) == (start * group + 1, stop * group, start * group + 1), case
            assert alignment.getRoi() == ([16, 8, 64, 48] if crop else [0, 0, 0, 0]), case
            taken, shape = next_settings(project, movies, movie, nFrames=n_frames, eerSampling=sampling)
            assert shape == (n_frames, NY * up, NX * up), case
            assert taken.pixel_size == PIXEL_A / up and taken.pre_exposure == INITIAL, case
            assert taken.dose_per_frame == pytest.approx(DOSE * (N_HARDWARE // n_frames)), case


@pytest.mark.parametrize("save", [False, True])
@pytest.mark.parametrize(
    "dose", [dict(totalDose=DOSE * N_HARDWARE), dict(dosePerFrame=DOSE * 5)], ids=["total", "per frame"]
)
def test_a_dose_of_the_form_reaches_the_outputs(project, folder, save, dose):
    imported = import_movies(project, folder, "*.eer", PIXEL_A)
    typed = dict(useMovieDose=False, preExposure=INITIAL, **dose)
    protocol, _ = aligned(project, imported, nFrames=8, doSaveMovie=save, **typed)
    for name in ("outputMovies", "outputMicrographs", "outputMicrographsDoseWeighted"):
        output, _ = stored(getattr(protocol, name))
        want = DOSE * (5 if save and name == "outputMovies" else 1)
        assert output.getAcquisition().getDosePerFrame() == pytest.approx(want), name
        assert output.getAcquisition().getDoseInitial() == INITIAL


def test_a_wrong_pixel_size_and_dose_are_named_in_the_form(project, folder):
    """The pixel size of the 8K grid, and the total dose as that of a hardware frame."""
    imported = import_movies(project, folder, "*.eer", PIXEL_A / 2, dosePerFrame=DOSE * N_HARDWARE)
    protocol = new_alignment(project, imported, nFrames=8, eerSampling=1)
    pixel, dose = [text for text in protocol.warnings() if "own metadata" in text]
    assert "pixel size is 2 A" in pixel and "4 A: give that of the 4K grid" in pixel
    assert "529 e/A^2" in dose and "about 11.5, which is 0.25 for each of the 46 hardware frames" in dose
    imported = import_movies(project, folder, "*.eer", PIXEL_A, dosePerFrame=DOSE)
    assert not any("own metadata" in text for text in new_alignment(project, imported, nFrames=8).warnings())
