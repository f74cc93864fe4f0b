"""RELION's protocol for Bayesian polishing converts our outputs: it gets the numbers of `_shifts.star`."""

from __future__ import annotations

import glob
import json
import os

import mrcfile
import numpy as np
import pytest
from emtable import Table

from flexalign_plugin.motion.model import MotionModel

from ..output.relion_reader import Micrograph
from .conftest import DOSE, HARDWARE_PER_FRAME, N_MOVIES, PIXEL_A, SHAPE

pytest.importorskip("relion.protocols")

FLIPPED = {"flipTiff": True}  # for TIFF: RELION's frames are upside down


def particles_of(run, micrographs, path):
    """Two particles of each micrograph, aligned, with an image stack that exists."""
    from pwem.constants import ALIGN_PROJ
    from pwem.objects import Coordinate, CTFModel, Particle, SetOfParticles, Transform

    stack = os.path.join(os.path.dirname(path), "particles.mrcs")
    with mrcfile.new(stack, np.zeros((2 * N_MOVIES, 32, 32), np.float32), overwrite=True) as file:
        file.voxel_size = micrographs.getSamplingRate()
    particles = SetOfParticles(filename=path)
    particles.copyInfo(micrographs)
    particles.setSamplingRate(micrographs.getSamplingRate())
    particles.setHasCTF(True)
    particles.setAlignment(ALIGN_PROJ)
    index = 0
    for micrograph in micrographs:
        for x, y in ((60, 80), (100, 40)):
            index += 1
            particle = Particle(location=(index, stack))
            coordinate = Coordinate(x=x, y=y)
            coordinate.setMicrograph(micrograph)
            particle.setCoordinate(coordinate)
            particle.setCTF(CTFModel(defocusU=1e4, defocusV=1e4, defocusAngle=0))
            particle.setTransform(Transform())
            particle.setSamplingRate(micrographs.getSamplingRate())
            particles.append(particle)
    particles.write()
    return particles


def as_stored(output):
    """The set as its file has it, which another protocol reads."""
    again = type(output)(filename=output.getFileName())
    again.loadAllProperties()
    return again


def converted(run, tmp_path):
    """{name of a movie: RELION's micrograph} as the plugin's own converter writes it, and its list of micrographs."""
    from relion.protocols import ProtRelionBayesianPolishing, ProtRelionPostprocess

    micrographs = as_stored(run.protocol.outputMicrographs)
    particles = particles_of(run, micrographs, str(tmp_path / "particles.sqlite"))
    polishing = run.project.newProtocol(ProtRelionBayesianPolishing)
    polishing.inputMovies.set(as_stored(run.protocol.outputMovies))
    polishing.inputParticles.set(particles)
    polishing.inputPostprocess.set(run.project.newProtocol(ProtRelionPostprocess))
    run.project._setupProtocol(polishing)
    polishing.makePathsAndClean()
    polishing._createFilenameTemplates()
    polishing.convertInputStep(1, 2, 3)
    micrographs = {}
    for path in glob.glob(polishing._getPath("input", "*.star")):
        with open(path) as file:
            micrographs[os.path.splitext(os.path.basename(path))[0]] = Micrograph(file.read() + "\n")
    return micrographs, polishing


def model_of(run, name):
    return MotionModel.load(run.protocol._getExtraPath(f"{name}_motion.json"))


@pytest.mark.parametrize(
    "kind, parameters",
    [
        ("mrc", {}),
        ("mrc", {"useAlignToSum": True, "alignFrame0": 2, "alignFrameN": 7, "binFactor": 2.0}),
        ("mrc", {"doLocalAlignment": False}),
        ("tiff", FLIPPED),
        ("eer", {}),
    ],
)
def test_polishing_gets_the_numbers_of_our_own_file(aligned, tmp_path, kind, parameters):
    run = aligned(kind, **parameters)
    micrographs, polishing = converted(run, tmp_path)
    assert sorted(micrographs) == ["movie_1", "movie_2"]
    for name, theirs in micrographs.items():
        with open(run.protocol._getExtraPath(f"{name}_shifts.star")) as file:
            ours = Micrograph(file.read())
        model, general = model_of(run, name), theirs.general
        assert (theirs.width, theirs.height, theirs.n_frames) == (SHAPE[2], SHAPE[1], SHAPE[0])
        assert os.path.samefile(general["rlnMicrographMovieName"], ours.general["rlnMicrographMovieName"])
        assert os.path.samefile(general["rlnMicrographGainName"], ours.general["rlnMicrographGainName"])
        assert float(general["rlnMicrographOriginalPixelSize"]) == PIXEL_A
        assert float(general["rlnMicrographBinning"]) == parameters.get("binFactor", 1)
        assert float(general["rlnMicrographDoseRate"]) == pytest.approx(DOSE)
        assert general.get("rlnEERGrouping") == (str(HARDWARE_PER_FRAME) if kind == "eer" else None)
        assert general.get("rlnEERUpsampling") == ("1" if kind == "eer" else None)
        assert theirs.first_frame == model.first_frame + 1
        assert theirs.hot_pixels == ours.hot_pixels and len(ours.hot_pixels) >= 2
        observed = [i for i, row in enumerate(theirs.shifts) if row[0] != -9999]
        assert observed == list(model.aligned_frames)
        assert general["rlnMotionModelVersion"] == ("1" if model.is_local else "0")
        assert model.is_local == parameters.get("doLocalAlignment", True)
        with open(run.protocol._getExtraPath(f"{name}_motion.json")) as file:
            misfit = json.load(file)["quality"].get("relion_fit_max_px", 0.0)
        first = theirs.first_frame
        for frame in [i + 1 for i in observed]:
            # Where particles can be, which the misfit is for.
            for y, x in ((33, 41), (128, 160), (40, 270), (222, 278)):
                # All is relative to the first aligned frame, as the converter writes it.
                got = np.subtract(theirs.shift(frame, y, x), theirs.shift(first, y, x))
                same = np.subtract(ours.shift(frame, y, x), ours.shift(first, y, x))
                # It writes six decimals; the terms in space add up to 2.75 in a corner.
                z = frame - first
                np.testing.assert_allclose(got, same, atol=0.5e-6 * 2.75 * (z + z**2 + z**3) + 3e-6)
                true = np.subtract(model.shift(frame - 1, y, x), model.shift(first - 1, y, x))
                # Twice the misfit, because both frames have it.
                assert np.hypot(*(got - true)) <= 2 * misfit + 0.02
    (listed,) = rows_of(polishing, "input_mics", "micrographs", "rlnMicrographMetadata", "movie_1.star")
    picked = rows_of(polishing, "input_particles", "particles", "rlnMicrographName", "movie_1")
    assert len(picked) == 2 and {p.rlnMicrographName for p in picked} == {listed.rlnMicrographName}


def rows_of(polishing, file, table, column, part):
    rows = Table(fileName=polishing._getFileName(file), tableName=table)
    return [row for row in rows if part in getattr(row, column)]


def replaced_of(polishing, micrograph):
    """All pixels that RELION replaces: those of the defect file, read as RELION reads it, and the hot pixels."""
    pixels = set(micrograph.hot_pixels)
    name = micrograph.general["rlnMicrographDefectFile"]
    if name:
        with open(name) as file:
            text = file.read()
        assert name.endswith(".txt") and not text.endswith("\n")  # the last line is read twice otherwise
        regions = np.array(text.split(), int).reshape(-1, 4)
        pixels |= {(x + i, y + j) for x, y, w, h in regions for j in range(h) for i in range(w)}
    return pixels


def test_a_turned_gain_is_named_as_it_was_applied(aligned, tmp_path):
    run = aligned("mrc", gainRot=2, gainFlip=2, doLocalAlignment=False)
    micrographs, _ = converted(run, tmp_path)
    (name,) = {m.general["rlnMicrographGainName"] for m in micrographs.values()}
    assert not os.path.isabs(name)
    with mrcfile.open(os.path.join(run.folder, "movie_1_gain.mrc")) as raw, mrcfile.open(name) as turned:
        given = raw.data.reshape(SHAPE[1:])
        given = np.where(given == 0, 1, given)  # dead pixels, which are listed as such
        # A rotation by 180 degrees and a flip left to right.
        np.testing.assert_allclose(turned.data.reshape(SHAPE[1:]), given[::-1, ::-1][:, ::-1], rtol=1e-6)


def test_many_defects_are_written_once(aligned, tmp_path):
    from flexalign_plugin.protocols.relion_handover import MOST_HOT_PIXELS

    defects = np.zeros(SHAPE[1:], np.int8)
    defects[100:130, 40:70] = 1
    defects[:, 200] = 1
    with mrcfile.new(str(tmp_path / "map.mrc"), defects):
        pass
    run = aligned("mrc", defectMap=str(tmp_path / "map.mrc"), doLocalAlignment=False)
    micrographs, polishing = converted(run, tmp_path)
    for name, theirs in micrographs.items():
        with open(run.protocol._getExtraPath(f"{name}_shifts.star")) as file:
            ours = set(Micrograph(file.read()).hot_pixels)
        assert len(ours) > defects.sum() > MOST_HOT_PIXELS
        assert ours <= replaced_of(polishing, theirs)
        assert len(replaced_of(polishing, theirs) - ours) < 10  # hot pixels of the other movie
    for movie in as_stored(run.protocol.outputMovies):
        assert len(movie._rlnHotPixels.get()) < 12 * MOST_HOT_PIXELS


@pytest.mark.parametrize(
    "kind, parameters, reason, asked",
    [
        ("mrc", {"cropOffsetX": 64, "cropDimX": 192}, "cropped", True),
        ("mrc", {"referenceFrame": 1}, "geometry of a middle frame", True),
        ("tiff", {}, "upside down", False),
    ],
)
def test_what_polishing_cannot_use_is_told(aligned, tmp_path, kind, parameters, reason, asked):
    """Before the run, but for TIFF movies, whose users would be asked in every run."""
    run = aligned(kind, **parameters)
    (told,) = [text for text in run.protocol.summary() if "Bayesian polishing" in text]
    assert reason in told and (told in run.protocol._warnings()) == asked
    micrographs, _ = converted(run, tmp_path)
    assert {m.general["rlnMotionModelVersion"] for m in micrographs.values()} == {"0"}
    assert [text for text in aligned("mrc").protocol._warnings() if "polishing" in text] == []


@pytest.mark.parametrize("kind", ["mrc", "eer"])
def test_saved_movies_are_polished_as_they_are(aligned, tmp_path, kind):
    """Gain, defects and motion are applied in them, and they are MRC files."""
    run = aligned(kind, doSaveMovie=True)
    assert [text for text in run.protocol._warnings() if "polishing" in text] == []
    micrographs, _ = converted(run, tmp_path)
    for theirs in micrographs.values():
        assert theirs.general["rlnMotionModelVersion"] == "0" and theirs.hot_pixels == []
        assert theirs.general["rlnMicrographGainName"] == theirs.general["rlnMicrographDefectFile"] == ""
        assert "rlnEERGrouping" not in theirs.general
        assert theirs.n_frames == SHAPE[0] and not theirs.shifts.any()
