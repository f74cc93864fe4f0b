"""What Xmipp's converters and protocols (scipion-em-xmipp) read from our outputs, and our translation of its workflows.

`xmipp3.protocols` as a whole can't be imported with scipion-em-xmipp 29.0.1 and pyworkflow 3.11.7: one of its many
files fails. The two protocols that are used here are imported alone.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import types
from unittest import mock

import mrcfile
import numpy as np
import pytest

from flexalign_plugin.cli import main
from flexalign_plugin.movies import load_corrections, open_movie
from flexalign_plugin.movies.corrections import rotate_and_flip
from flexalign_plugin.phantoms.movie_writers import write_mrc_movie, write_tiff_movie
from flexalign_plugin.settings import GAIN_FLIPS, GAIN_ROTATIONS, GAIN_ROW_ORDERS, Settings

from .. import scipion_project
from .conftest import N_MOVIES, PIXEL_A, SHAPE

xmipp3 = pytest.importorskip("xmipp3")
pytest.importorskip("xmipp3.convert", reason="the converters of xmipp3 can't be imported", exc_type=ImportError)


def protocol_class(file_name, name):
    """A protocol of Xmipp without all the others."""
    if "xmipp3.protocols" not in sys.modules:
        package = types.ModuleType("xmipp3.protocols")
        package.__path__ = [os.path.join(os.path.dirname(xmipp3.__file__), "protocols")]
        sys.modules["xmipp3.protocols"] = package
    return getattr(importlib.import_module(f"xmipp3.protocols.{file_name}"), name)


def global_motion(truth):
    """(n, 2) true shifts (x, y) of whole frames: the mean over the frame."""
    y, x = np.meshgrid(np.linspace(0, SHAPE[1], 9), np.linspace(0, SHAPE[2], 9), indexing="ij")
    shifts = truth.shift(np.arange(SHAPE[0])[:, None, None], y, x)
    return np.stack([values.mean(axis=(1, 2)) for values in shifts[::-1]], axis=1)


def shifts_of(path):
    """(n, 2) shifts (x, y) and n locations of frames in a file of `writeMovieMd`."""
    from pwem import emlib

    table = emlib.MetaData(path)
    columns = [table.getColumnValues(label) for label in (emlib.MDL_SHIFT_X, emlib.MDL_SHIFT_Y, emlib.MDL_IMAGE)]
    return np.stack(columns[:2], axis=1), columns[2]


SOME_FRAMES = {"alignFrame0": 3, "alignFrameN": 7}


# Of EER movies Xmipp reads no range of frames: it compares hardware frames with groups.
@pytest.mark.parametrize(
    "kind, frames", [("mrc", {}), ("tiff", {}), ("eer", {}), ("mrc", SOME_FRAMES), ("tiff", SOME_FRAMES)]
)
def test_each_frame_has_its_shift(aligned, tmp_path, kind, frames):
    """`writeMovieMd(useAlignment=True)`, with which Xmipp extracts particles from movies. Compared with the truth."""
    from xmipp3.convert import writeMovieMd

    run = aligned(kind, doLocalAlignment=False, **frames)
    for number, movie in enumerate(run.protocol.outputMovies.iterItems(), 1):
        begin, end = movie.getAlignment().getRange()
        assert (begin, end) == (frames.get("alignFrame0", 1), frames.get("alignFrameN", SHAPE[0]))
        path = str(tmp_path / "movie.xmd")
        writeMovieMd(movie.clone(), path, begin, end, useAlignment=True, eerFrames=SHAPE[0])
        found, images = shifts_of(path)
        name = movie.getFileName() + {"mrc": ":mrcs", "tiff": "", "eer": f"#{SHAPE[0]},4K,uint16"}[kind]
        assert images == [f"{frame:06d}@{name}" for frame in range(begin, end + 1)]
        true = global_motion(run.truths[number])[begin - 1 : end]
        error, motion = found - true, true - true.mean(axis=0)
        error -= error.mean(axis=0)  # shifts are relative
        assert np.sqrt((error**2).sum(axis=1).mean()) < 0.1
        assert np.sqrt((motion**2).sum(axis=1).mean()) > 0.5


def test_micrographs_keep_their_acquisition(aligned, tmp_path):
    from pwem import emlib
    from xmipp3.convert import writeSetOfMicrographs

    run = aligned("mrc", doLocalAlignment=False)
    writeSetOfMicrographs(run.protocol.outputMicrographs, str(tmp_path / "micrographs.xmd"))
    table = emlib.MetaData(f"Micrographs@{tmp_path}/micrographs.xmd")
    assert table.size() == N_MOVIES
    for label, expected in (
        (emlib.MDL_CTF_VOLTAGE, 300),
        (emlib.MDL_CTF_CS, 2.7),
        (emlib.MDL_CTF_Q0, 0.1),
        (emlib.MDL_SAMPLINGRATE, PIXEL_A),
    ):
        if table.containsLabel(label):
            assert table.getColumnValues(label) == pytest.approx([expected] * N_MOVIES)
    names = [os.path.realpath(name) for name in table.getColumnValues(emlib.MDL_MICROGRAPH)]
    assert names == [os.path.realpath(m.getFileName()) for m in run.protocol.outputMicrographs]


def test_movies_are_sorted_by_their_motion(aligned):
    """Xmipp's protocol *movie maxshift* compares the length of the path in Angstrom with a limit, and takes the
    micrographs of the good movies with them. Limits on both sides of the true lengths."""
    run = aligned("mrc", doLocalAlignment=False)
    paths = [np.diff(global_motion(run.truths[number]), axis=0) for number in (1, 2)]
    lengths = [PIXEL_A * np.hypot(*path.T).sum() for path in paths]
    numbers = [movie.getObjId() for movie in run.protocol.outputMovies]
    cls = protocol_class("protocol_movie_max_shift", "XmippProtMovieMaxShift")
    for limit, output in ((1.1 * max(lengths), ""), (0.9 * min(lengths), "Discarded")):
        protocol = run.project.newProtocol(cls, rejType=cls.REJ_MOVIE, maxMovieShift=float(limit))
        protocol.inputMovies.set(run.protocol)
        protocol.inputMovies.setExtended("outputMovies")
        scipion_project.run(run.project, protocol)
        assert protocol.isFinished(), protocol.getErrorMessage()
        for name in ("outputMovies", "outputMicrographsDoseWeighted"):
            assert [item.getObjId() for item in getattr(protocol, name + output)] == numbers
            other = getattr(protocol, name + ("" if output else "Discarded"), None)
            assert other is None or other.isEmpty()


# ---------------------------------------------- workflows of Xmipp ----------------------------------------------
def exported(folder, **parameters):
    """A workflow file that Scipion has written of Xmipp's own protocol, and the project."""
    import pwem
    from pwem.protocols import ProtImportMovies

    cls = protocol_class("protocol_flexalign", "XmippProtFlexAlign")
    # Scipion would know the class if `xmipp3.protocols` could be imported.
    with mock.patch.dict(pwem.Domain.getProtocols(), {cls.__name__: cls}):
        project = scipion_project.new_project(f"xmipp_{os.path.basename(folder)}")
        movies = {"filesPath": str(folder), "filesPattern": "*.tiff", "gainFile": str(folder / "gain.mrc")}
        imported = project.newProtocol(ProtImportMovies, samplingRate=PIXEL_A, voltage=300, **movies)
        project.saveProtocol(imported)
        protocol = project.newProtocol(cls, **parameters)
        protocol.inputMovies.set(imported)
        protocol.inputMovies.setExtended("outputMovies")
        project.saveProtocol(protocol)
        project.exportProtocols(None, str(folder / "xmipp.json"))
    return project, protocol


def test_a_workflow_of_xmipps_own_class_is_loaded_as_ours(tmp_path):
    changed = {"gainRot": 3, "gainFlip": 1, "maxShift": 70, "patchesX": 9, "autoPatches": False, "numberOfThreads": 3}
    project, before = exported(tmp_path, **changed)
    assert main(["xmipp-workflow", str(tmp_path / "xmipp.json"), "--output", str(tmp_path / "ours.json")]) == 0
    (_, after) = project.loadProtocols(str(tmp_path / "ours.json")).values()
    assert after.getClassName() == "ProtFlexAlign"
    dropped = {"numberOfThreads", "numberOfMpi", "gainFlip", "inputMovies"}
    values = {name: attribute.get() for name, attribute in before.iterDefinitionAttributes() if name not in dropped}
    assert {name: getattr(after, name).get() for name in values} == values
    assert {**values, **changed}["maxShift"] == after.maxShift.get() == 70
    assert (after.gainFlip.get(), after.gainRowOrder.get()) == (2, 2)  # left right; flipped, as TIFF movies need
    assert after.inputMovies.getObjValue().getClassName() == "ProtImportMovies"


@pytest.mark.parametrize("kind", ["tiff", "mrcs"])
def test_the_gain_is_turned_as_xmipp_turns_it(tmp_path, kind):
    """For all rotations and flips: Xmipp's own code, and ours with the translated values, on the same gain. Xmipp's
    result is displaced by up to one pixel, because it turns about a pixel and not about the centre."""
    from flexalign_plugin.xmipp_workflow import translate

    cls = protocol_class("protocol_flexalign", "XmippProtFlexAlign")
    gain = np.random.default_rng(0).normal(1, 0.1, (64, 64)).astype(np.float32)
    write_mrc_movie(str(tmp_path / "gain.mrc"), [gain])
    movie = str(tmp_path / f"movie.{kind}")
    frames = [np.ones((64, 64), np.uint8)] * 3
    write_tiff_movie(movie, frames) if kind == "tiff" else write_mrc_movie(movie, frames, PIXEL_A)
    import xmipp3.utils

    start = str(tmp_path / "gain.mrc")
    if kind == "tiff":
        os.mkdir(tmp_path / "flipped")
        start = xmipp3.utils.flipYImage(start, outDir=str(tmp_path / "flipped"))
    for rotation in range(4):
        for flip in range(3):
            protocol = cls(gainRot=rotation, gainFlip=flip)
            theirs = start
            if rotation or flip:
                theirs = protocol.transformGain(start, str(tmp_path / f"{rotation}_{flip}.mrc"))
            theirs = np.squeeze(mrcfile.read(theirs))
            imported = {"object.id": "1", "filesPath": str(tmp_path), "filesPattern": f"*.{kind}", "gainFile": start}
            entry = {**protocol.getDefinitionDict(), "object.id": "2", "inputMovies": "1.outputMovies"}
            (_, new), _ = translate([imported, json.loads(json.dumps(entry))])
            settings = Settings(
                gain=str(tmp_path / "gain.mrc"),
                gain_rot=GAIN_ROTATIONS[new["gainRot"]],
                gain_flip=GAIN_FLIPS[new["gainFlip"]],
                gain_row_order=GAIN_ROW_ORDERS[new["gainRowOrder"]],
            )
            with open_movie(movie, settings) as opened:
                ours = load_corrections(opened, settings).gain
            assert match(theirs, ours) > 0.99, (rotation, flip)
            others = [rotate_and_flip(gain, r, f) for r in GAIN_ROTATIONS for f in GAIN_FLIPS]
            assert sum(match(theirs, other) > 0.99 for other in others) <= 2  # mirror images have two names


def match(a, b):
    """Best correlation of two images (n, n), displaced by up to one pixel."""
    inside = np.s_[4:-4, 4:-4]
    moved = (np.roll(b, (dy, dx), (0, 1)) for dy in (-1, 0, 1) for dx in (-1, 0, 1))
    return max(np.corrcoef(a[inside].ravel(), m[inside].ravel())[0, 1] for m in moved)
