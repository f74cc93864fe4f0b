"""The results of the form's wizards and the values that they set."""

from __future__ import annotations

import numpy as np
import pytest

from flexalign_plugin.errors import SettingsError
from flexalign_plugin.phantoms.movie_writers import write_mrc_movie
from flexalign_plugin.phantoms.phantom import particle_phantom

from ..scipion_project import import_movies, new_alignment
from .conftest import HARDWARE_FRAMES, PIXEL_A, SHAPE


class Form:
    """Stands for the form's window."""

    root = None

    def __init__(self, protocol):
        self.protocol, self.values = protocol, {}

    def setVar(self, name, value):
        self.values[name] = value


@pytest.fixture
def wizards(monkeypatch):
    from flexalign_plugin import wizard_dialogs
    from flexalign_plugin import wizards as module

    module.said = []
    for where, name in ((module, "showInfo"), (wizard_dialogs, "showError"), (module, "offer")):
        monkeypatch.setattr(where, name, lambda title, text, root: module.said.append(text) or True)
    return module


def test_scipion_finds_the_wizards_of_the_parameters(wizards):
    targets = {}
    for wizard in (wizards.AlignedFramesWizard, wizards.SummedFramesWizard, wizards.GainOrientationWizard):
        (pair,) = wizard._targets
        targets.update(dict.fromkeys(pair[1], pair[0].__name__))
    assert set(targets) == {"alignFrame0", "alignFrameN", "sumFrame0", "sumFrameN", "gainRot", "gainFlip"}
    assert set(targets.values()) == {"ProtFlexAlign"}


def test_the_input_wizard_says_what_the_input_amounts_to(wizards, project, movies):
    """The phantoms have 4 electrons in each pixel of 4 A: 0.25 e/A^2 in each of 8 frames."""
    imported = import_movies(project, movies.folder, "*.mrcs", PIXEL_A, dosePerFrame=0.25)
    wizards.InputWizard().show(Form(new_alignment(project, imported)))
    said = " ".join(wizards.said[0].split())
    assert "movie_1.mrcs: 4 A/px, field 0.13 x 0.1 um, 8 frames x 0.25 = 2 e/A^2; counted in the movie: 2" in said
    assert said.endswith("These values make sense.")


@pytest.mark.parametrize("kind, frames", [("mrcs", SHAPE[0]), ("eer", 5)])
def test_the_frame_range_is_that_of_the_file(wizards, project, movies, kind, frames):
    imported = import_movies(project, movies.folder, f"*.{kind}", PIXEL_A)
    form = Form(new_alignment(project, imported, nFrames=5))
    wizards.AlignedFramesWizard().show(form)
    wizards.SummedFramesWizard().show(form)
    assert form.values == {"alignFrame0": 1, "alignFrameN": frames, "sumFrame0": 1, "sumFrameN": frames}
    assert f"{frames} frames" in wizards.said[0]


def test_the_input_wizard_knows_the_rendering_of_eer(wizards, project, movies):
    """At 8K a pixel is half as large, and the import's dose is that of a hardware frame: 2 e/A^2 in all, as above."""
    imported = import_movies(project, movies.folder, "*.eer", PIXEL_A, dosePerFrame=0.25 * SHAPE[0] / HARDWARE_FRAMES)
    wizards.InputWizard().show(Form(new_alignment(project, imported, nFrames=SHAPE[0], eerSampling=1)))
    said = " ".join(wizards.said[0].split())
    assert ": 2 A/px" in said and "8 frames x 0.25 = 2 e/A^2" in said and said.endswith("These values make sense.")


def test_the_gain_wizard_sets_the_true_orientation(wizards, project, movies, tmp_path):
    """The gain file is the true gain rotated by 90 degrees, so it has to be rotated by 270. One movie suffices."""
    import mrcfile

    from flexalign_plugin.phantoms.movie_writers import write_mrc_movie

    gain = mrcfile.read(f"{movies.folder}/gain.mrc")
    write_mrc_movie(str(tmp_path / "turned.mrc"), [np.ascontiguousarray(np.rot90(gain))])
    imported = import_movies(project, movies.folder, "*.mrcs", PIXEL_A, gainFile=str(tmp_path / "turned.mrc"))
    form = Form(new_alignment(project, imported))
    wizards.GainOrientationWizard().show(form)
    assert form.values == {"gainRot": 3, "gainFlip": 0, "gainConvention": 1}, wizards.said
    ranked = [line for line in wizards.said[0].splitlines() if line.startswith("rotation")]
    assert ranked[0].startswith("rotation 270, flip none, multiply: ") and len(ranked) == 8


def test_missing_movies_or_gain_are_reported(wizards, project, movies):
    from flexalign_plugin.protocols import ProtFlexAlign

    with pytest.raises(SettingsError, match="input movies first"):
        wizards.frame_count(ProtFlexAlign())
    form = Form(new_alignment(project, import_movies(project, movies.folder, "*.mrcs", PIXEL_A)))
    wizards.GainOrientationWizard().show(form)
    assert not form.values and "No gain reference" in wizards.said[0]


def test_patches_cover_the_frame(wizards, project, movies):
    protocol = new_alignment(project, import_movies(project, movies.folder, "*.mrcs", PIXEL_A), minLocalRes=500.0)
    shown = wizards.preview(protocol)
    along_y, along_x = shown.edges
    assert shown.image.shape == SHAPE[1:] and shown.step == 1 and shown.patch_px == 125 and shown.enough_room
    assert (along_y[0], along_x[0]) == (0, 0) and (along_y[-1] + 125, along_x[-1] + 125) == SHAPE[1:]
    assert len(along_y) == 3 and len(along_x) == 3  # 256 / 125 and 320 / 125, rounded up
    axes = wizards.patches_window(shown).getFigure().axes[0]
    assert len({patch.get_xy() for patch in axes.patches}) == 9
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend == ["one patch, 125 px", "centre of a patch", "control point"]
    protocol.minLocalRes.set(1100.0)
    assert "Make the patches smaller" in wizards.preview_text(wizards.preview(protocol))


@pytest.mark.parametrize("refinement, automatic", [(True, True), (False, True), (False, False)])
def test_control_points_are_those_of_the_aligner(wizards, project, movies, tmp_path, refinement, automatic):
    """The numbers shown are those of an alignment with these values, or with the refinement its limits. The aligned
    movie has the size of the form's, and local motion: without it the refinement has no control points."""
    from flexalign_plugin.aligner import align
    from flexalign_plugin.kernels import select_backend
    from flexalign_plugin.movies import open_movie

    values = dict(doRefinement=refinement, autoControlPoints=automatic, minLocalRes=500.0, alignFrameN=7)
    values.update(controlPointX=4, controlPointY=3, controlPointT=3)
    protocol = new_alignment(project, import_movies(project, movies.folder, "*.mrcs", PIXEL_A), **values)
    shown = wizards.preview(protocol)
    _, settings = wizards.first_movie(protocol)
    bending = particle_phantom(SHAPE, PIXEL_A, dose=4, contrast=0.4, band_limit_A=20, drift_px=6, local_px=8, seed=5)
    write_mrc_movie(str(tmp_path / "bending.mrcs"), bending.frames(), PIXEL_A)
    with open_movie(str(tmp_path / "bending.mrcs"), settings) as movie:
        taken = align(movie, settings, select_backend("cpu", threads=1)).figures.control_points
    text = wizards.preview_text(shown)
    if refinement:
        assert shown.at_most == (5, 5, 5) and "up to 5 x 5 and 5 in time" in text
        assert all(low <= k <= high for low, k, high in zip(shown.control_points, taken, shown.at_most)), taken
    else:
        assert shown.at_most is None and tuple(taken) == shown.control_points
        assert ("the form's" in text) != automatic
    axes = wizards.patches_window(shown).getFigure().axes[0]
    (points,) = [line for line in axes.lines if line.get_label() == "control point"]
    x, y = points.get_data()
    _, ky, kx = shown.control_points
    assert (len(set(x)), len(set(y)), len(x)) == (kx, ky, kx * ky)
    # The outermost ones lie on the frame's edges.
    assert (x.min(), x.max(), y.min(), y.max()) == (0, SHAPE[2], 0, SHAPE[1])
