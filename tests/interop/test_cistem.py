"""What cisTEM's protocols (scipion-em-cistem) hand to their programs when our outputs are their input."""

from __future__ import annotations

import os

import mrcfile
import numpy as np
import pytest

from .. import scipion_project
from ..protocols.test_templates import load
from .conftest import DOSE, GAIN, PIXEL_A, SAVED_MOVIES, SHAPE, recorded_command

pytest.importorskip("cistem")

SPECTRUM_A = PIXEL_A  # coarser than the 1.4 A of ctffind


def ctffind_on(run, output, **parameters):
    """Program call and its standard input, line by line, for each micrograph of an output: ctffind's own conversion."""
    from cistem.protocols import CistemProtCTFFind

    protocol = run.project.newProtocol(CistemProtCTFFind, lowRes=30.0, highRes=10.0, **parameters)
    protocol.inputMicrographs.set(run.protocol)
    protocol.inputMicrographs.setExtended(output)
    return commands_of(run.project, protocol, getattr(run.protocol, output))


def commands_of(project, protocol, micrographs):
    project._setupProtocol(protocol)
    protocol.makePathsAndClean()
    assert protocol._validate() == []  # cisTEM itself is not needed
    protocol._defineCtfParamsDict()
    calls = []
    for micrograph in micrographs.iterItems():
        linked = []
        with recorded_command(protocol, lambda args, linked=linked: linked.append(os.path.realpath(args[1]))) as lines:
            protocol._doCtfEstimation(micrograph.clone())
        calls.append((lines[0], linked[0]))
    return calls


@pytest.mark.parametrize("binning", [1.0, 2.0])
def test_ctffind_reads_our_spectra(aligned, binning):
    """Its input is the amplitude spectrum with the pixel size of the spectrum, whatever the micrograph's binning."""
    run = aligned("mrc", doSavePs=True, binFactor=binning, doLocalAlignment=False)
    for output in ("outputMicrographs", "outputMicrographsDoseWeighted"):
        calls = ctffind_on(run, output, usePowerSpectra=True)
        assert len(calls) == 2
        for number, (args, linked) in enumerate(calls, 1):
            assert "--amplitude-spectrum-input" in args[0]
            assert linked == os.path.realpath(run.protocol._getExtraPath(f"movie_{number}_PS.mrc"))
            # pixel size, voltage, spherical aberration, amplitude contrast
            assert [float(value) for value in args[3:7]] == pytest.approx([SPECTRUM_A, 300, 2.7, 0.1], rel=1e-6)
            with mrcfile.open(linked, permissive=False) as mrc:
                side = min(SHAPE[1:])
                assert mrc.data.shape == (side, side) and np.isfinite(mrc.data).all() and mrc.data.min() >= 0
                assert float(mrc.voxel_size.x) == pytest.approx(SPECTRUM_A)


@pytest.mark.parametrize("binning", [1.0, 2.0])
def test_ctffind_reads_our_micrographs(aligned, binning):
    run = aligned("mrc", doSavePs=True, binFactor=binning, doLocalAlignment=False)
    for args, linked in ctffind_on(run, "outputMicrographs"):
        assert "--amplitude-spectrum-input" not in args[0]
        assert float(args[3]) == pytest.approx(binning * PIXEL_A)
        with mrcfile.open(linked, permissive=False) as mrc:
            assert mrc.data.shape == (round(SHAPE[1] / binning), round(SHAPE[2] / binning))
            assert float(mrc.voxel_size.x) == pytest.approx(binning * PIXEL_A)


def test_without_spectra_ctffind_says_that_there_are_none(aligned):
    from cistem.protocols import CistemProtCTFFind

    run = aligned("mrc", doLocalAlignment=False)
    protocol = run.project.newProtocol(CistemProtCTFFind, usePowerSpectra=True)
    protocol.inputMicrographs.set(run.protocol)
    protocol.inputMicrographs.setExtended("outputMicrographs")
    assert protocol._validate() == ["Input micrographs do not have associated power spectra."]


def test_unblur_reads_our_aligned_movies(aligned):
    """Its own files are read with their pixel size, without gain, and from the dose before their first frame on."""
    from cistem.protocols import CistemProtUnblur

    run = aligned("mrc", **SAVED_MOVIES)
    protocol = run.project.newProtocol(CistemProtUnblur, doApplyDoseFilter=True)
    protocol.inputMovies.set(run.protocol)
    protocol.inputMovies.setExtended("outputMovies")
    run.project._setupProtocol(protocol)
    protocol.samplingRate = protocol.inputMovies.get().getSamplingRate()
    movie = protocol.inputMovies.get().getFirstItem().clone()
    protocol._argsUnblur(movie)
    _, name, _, pixel_size, binning, filtered, voltage, dose, before, *_, corrected, first, last, _, _, _ = (
        protocol._args.splitlines()
    )
    assert os.path.samefile(name, run.protocol._getExtraPath("movie_1_aligned_movie.mrcs"))
    assert float(pixel_size) == pytest.approx(2 * PIXEL_A) and float(binning) == 1
    assert (filtered, float(voltage)) == ("YES", 300)
    assert float(dose) == pytest.approx(DOSE) and float(before) == pytest.approx(2 * DOSE)
    assert corrected == "YES" and (first, last) == ("1", "0")
    with mrcfile.open(name, permissive=False) as mrc:
        assert mrc.data.shape == (5, SHAPE[1] // 2, SHAPE[2] // 2)


def test_the_template_goes_from_movies_to_ctffind_on_our_spectra(movies):
    """Opened with ctffind's protocol there; its program is not run."""
    project = scipion_project.new_project("interop_template")
    folder = movies("tiff").folder
    values = dict(moviesPath=folder, pattern="movie_?.tif", sampling=str(PIXEL_A), dose=str(DOSE))
    values.update(gain=os.path.join(folder, GAIN["tiff"]), timeout="3", fileTimeout="1", threads="2")
    imported, protocol, ctffind = load(project, "SPA_movies_to_CTF", protocols=3, **values)
    for first in (imported, protocol):
        scipion_project.run(project, first)
        assert first.isFinished(), first.getErrorMessage()
    ctffind = project.getProtocol(ctffind.getObjId())
    assert ctffind.usePowerSpectra.get()
    calls = commands_of(project, ctffind, ctffind.inputMicrographs.get())
    linked = {os.path.realpath(protocol._getExtraPath(f"movie_{number}_PS.mrc")) for number in (1, 2)}
    assert {file for _, file in calls} == linked
    assert all(float(args[3]) == pytest.approx(SPECTRUM_A) for args, _ in calls)
