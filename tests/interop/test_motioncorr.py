"""What MotionCor's protocol (scipion-em-motioncorr) reads from our movies when it aligns them again."""

from __future__ import annotations

import os

import pytest

from .conftest import DOSE, PIXEL_A, SAVED_MOVIES, recorded_command

pytest.importorskip("motioncorr")


def arguments_on(run, **parameters):
    """The options that MotionCor would get for each movie of `outputMovies`: {option: value}."""
    from motioncorr.protocols import ProtMotionCorr

    protocol = run.project.newProtocol(ProtMotionCorr, doApplyDoseFilter=True, **parameters)
    protocol.inputMovies.set(run.protocol)
    protocol.inputMovies.setExtended("outputMovies")
    run.project._setupProtocol(protocol)
    protocol.makePathsAndClean()
    # Its checks of our sets; those of the program itself are pyworkflow's.
    assert protocol._validate() == []
    protocol._convertInputStep()
    found = []
    for movie in run.protocol.outputMovies.iterItems():
        with recorded_command(protocol, lambda _: None) as commands:
            protocol._processMovie(movie.clone())
        words = " ".join(commands[0]).split()
        starts = [i for i, word in enumerate(words) if word.startswith("-") and word[1:2].isalpha()]
        found.append(
            {words[a]: " ".join(words[a + 1 : b]).strip('"') for a, b in zip(starts, [*starts[1:], len(words)])}
        )
    return found


def test_aligned_movies_have_no_gain_and_the_dose_before_their_first_frame(aligned):
    run = aligned("mrc", **SAVED_MOVIES)
    for number, options in enumerate(arguments_on(run), 1):
        assert options["-InMrc"] == f"movie_{number}_aligned_movie.mrcs"
        assert float(options["-PixSize"]) == pytest.approx(2 * PIXEL_A)
        assert float(options["-kV"]) == 300 and "-Gain" not in options
        assert float(options["-FmDose"]) == pytest.approx(DOSE)
        assert float(options["-InitDose"]) == pytest.approx(2 * DOSE)
        assert (options["-Throw"], options["-Trunc"]) == ("0", "0")


@pytest.mark.parametrize("kind, option", [("mrc", "-InMrc"), ("tiff", "-InTiff"), ("eer", "-InEer")])
def test_movies_with_shifts_are_the_imported_ones(aligned, kind, option):
    """Aligned movies are not saved by default: the input's files, gain and dose."""
    run = aligned(kind, doLocalAlignment=False)
    imported = run.imported.outputMovies
    for number, options in enumerate(arguments_on(run, eerGroup=6), 1):
        assert options[option].startswith(f"movie_{number}.")
        assert float(options["-PixSize"]) == pytest.approx(PIXEL_A)
        assert os.path.samefile(options["-Gain"], imported.getGain())
        assert float(options["-InitDose"]) == 0
        if kind != "eer":
            assert float(options["-FmDose"]) == pytest.approx(DOSE)
