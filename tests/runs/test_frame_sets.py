"""`.mdoc` files with frame sets, several tilts in one movie, and frames of different dose.

The texts below have the keys and the form of files that SerialEM writes, with numbers made up for these tests.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

from flexalign_plugin import cli
from flexalign_plugin.errors import MovieError
from flexalign_plugin.frame_doses import each_dose, parse_doses
from flexalign_plugin.motion import MotionModel
from flexalign_plugin.phantoms.movie_writers import write_mrc_movie
from flexalign_plugin.phantoms.phantom import particle_phantom
from flexalign_plugin.runs.mdoc import join_mdocs, prior_doses, read_mdoc
from flexalign_plugin.runs.shared_movie import frames_of_tilts, read_saved_list
from flexalign_plugin.runs.tilt_doses import dose_settings, span_settings

HEAD = "T = SerialEM: a microscope and its camera          08-Oct-21  07:47:29    \nVoltage = 300\n\n"


def frame_set(number=0, **values):
    lines = [f"[FrameSet = {number}]", *(f"{key} = {value}" for key, value in values.items())]
    return "\n".join(lines) + "\n\n"


def tilt(number, first, last, prior, angle=3.0, dose=4.8):
    values = {"TiltAngle": angle, "FrameTSStartEndFrames": f"{first} {last}"}
    values.update(PriorRecordDose=prior, ExposureDose=dose)
    return frame_set(number, **values).replace("FrameSet", "ZValue")


def mdoc(folder, *sections, name="movie.tif.mdoc"):
    path = folder / name
    path.write_text(HEAD + "".join(sections))
    return path


def test_frame_sets_are_tilts_with_their_movies(tmp_path):
    path = mdoc(
        tmp_path,
        frame_set(0, TiltAngle=0.01, SubFramePath="X:\\a b\\one.tif", ExposureDose=4, PixelSpacing=1.28),
        frame_set(1, TiltAngle=-3, SubFramePath="/frames/two.eer", FrameDosesAndNumber="0.5 10  0.25 4"),
    )
    one, two = read_mdoc(str(path)).tilts
    assert (one.z, one.angle, one.movie, one.dose, one.pixel_size_A) == (0, 0.01, "one.tif", 4, 1.28)
    assert (two.z, two.angle, two.movie, two.dose) == (1, -3, "two.eer", 6.0)
    assert two.frame_doses == [(0.5, 10), (0.25, 4)]


def test_the_name_of_the_file_stands_for_a_movie_that_is_not_named(tmp_path):
    path = mdoc(tmp_path, frame_set(TiltAngle=3), name="TS_1_003.mrc.MDOC")
    assert [t.movie for t in read_mdoc(str(path)).tilts] == ["TS_1_003.mrc"]


def test_several_files_make_one_series(tmp_path):
    times = ("06-Jun-23  23:54:46", "06-Jun-23  23:53:46", "06-Jun-2023  23:52:46")
    paths = [
        mdoc(tmp_path, frame_set(TiltAngle=k, ExposureDose=2, DateTime=time), name=f"TS_{k}.mrc.mdoc")
        for k, time in enumerate(times)
    ]
    tilts = join_mdocs([read_mdoc(str(path)) for path in paths]).tilts
    assert [(t.z, t.angle, t.movie) for t in tilts] == [(k, k, f"TS_{k}.mrc") for k in range(3)]
    assert prior_doses(tilts) == [4, 2, 0]


def test_tilts_of_one_movie_share_its_name_and_frame_doses(tmp_path):
    shared = frame_set(SubFramePath="D:\\all.tif", TiltAngle=33, FrameDosesAndNumber="0.4 24", ExposureDose=20)
    tilts = read_mdoc(str(mdoc(tmp_path, shared, tilt(0, 0, 12, 0), tilt(1, 22, 34, 4.8, -3)))).tilts
    assert [(t.movie, t.span, t.angle, t.dose, t.prior_dose) for t in tilts] == [
        ("all.tif", (0, 12), 3, 4.8, 0),
        ("all.tif", (22, 34), -3, 4.8, 4.8),
    ]
    assert all(t.frame_doses == [(0.4, 24)] and t.lines[0] == "SubFramePath = D:\\all.tif" for t in tilts)
    (bad,) = read_mdoc(str(mdoc(tmp_path, shared, tilt(3, 7, "", 0)))).tilts
    assert "section 3 has FrameTSStartEndFrames = 7: two numbers" in bad.problem


SPANS = [(0, 12), (22, 34), (44, 56)]


def test_all_frames_were_saved():
    assert frames_of_tilts(SPANS, 60) == [range(0, 12), range(22, 34), range(44, 56)]
    # One tilt begins where the other ends: the last frame counts.
    assert frames_of_tilts([(0, 4), (5, 9)], 10) == [range(0, 5), range(5, 10)]


def test_only_exposed_frames_were_saved():
    assert frames_of_tilts(SPANS, 36) == [range(0, 12), range(12, 24), range(24, 36)]
    assert frames_of_tilts(SPANS, 39) == [range(0, 13), range(13, 26), range(26, 39)]
    # One of the tilts has 13 frames, and nothing says which: only frames that surely belong to a tilt are taken.
    assert frames_of_tilts(SPANS, 37) == [range(0, 12), range(13, 24), range(25, 37)]
    for extra in range(3):
        lengths = [12 + (k == extra) for k in range(3)]
        starts = np.cumsum([0, *lengths])
        for sure, start, stop in zip(frames_of_tilts(SPANS, 37), starts, starts[1:]):
            assert start <= sure.start and sure.stop <= stop
    for n_frames in (20, 43):
        with pytest.raises(ValueError, match="put the list of saved frames"):
            frames_of_tilts(SPANS, n_frames)


def test_with_the_list_of_saved_frames():
    """The camera counts from its start, 30 frames before the first exposure."""
    saved = [*range(30, 43), *range(52, 64), *range(75, 87)]
    assert frames_of_tilts(SPANS, 37, saved) == [range(0, 13), range(13, 25), range(25, 37)]
    gaps = [*range(30, 42), -1, *range(52, 64), -1, *range(74, 86)]
    assert frames_of_tilts(SPANS, 38, gaps) == [range(0, 12), range(13, 25), range(26, 38)]
    # Two exposures without a gap between them, and a tilt whose frames were lost.
    assert frames_of_tilts(SPANS, 40, list(range(40))) == [range(0, 12), range(22, 34), range(0)]
    with pytest.raises(ValueError, match="has 36 numbers, but the movie has 37 frames"):
        frames_of_tilts(SPANS, 37, saved[1:])


@pytest.mark.parametrize("spans", [[(5, 9), (0, 4)], [(0, 0), (1, 3)], [(-1, 3)]])
def test_spans_that_make_no_sense(spans):
    with pytest.raises(ValueError, match="no rising numbers"):
        frames_of_tilts(spans, 30)


def test_a_list_that_is_none(tmp_path):
    (tmp_path / "m_saved.txt").write_text("1\n2\n\nx\n")
    with pytest.raises(MovieError, match="no list of saved frames"):
        read_saved_list(str(tmp_path / "m.tif"))
    assert read_saved_list(str(tmp_path / "other.tif")) is None


def one_tilt(tmp_path, **values):
    return read_mdoc(str(mdoc(tmp_path, frame_set(TiltAngle=0, **values)))).tilts[0]


@pytest.mark.parametrize("stated, n_frames, hardware, want", [
    (dict(ExposureDose=6, FrameDosesAndNumber="0.5 4 1 4"), 8, None, [0.5] * 4 + [1] * 4),
    (dict(ExposureDose=6, FrameDosesAndNumber="0.6 10"), 10, None, [0.6] * 10),
    # Doses of the camera's own frames, whose sum is a seventh of the exposure: as a Falcon's.
    (dict(ExposureDose=7, FrameDosesAndNumber="0.05 2  0.15 6"), 8, None, [0.35] * 2 + [1.05] * 6),
    (dict(ExposureDose=0, FrameDosesAndNumber="0 8"), 8, None, None),
    (dict(ExposureDose=8), 8, None, [1] * 8),
    # Another number of frames: the exposure is shared equally.
    (dict(ExposureDose=8, FrameDosesAndNumber="1 6 2 1"), 4, None, [2] * 4),
    (dict(FrameDosesAndNumber="0.1 20 0.2 21"), 4, 10, [1, 1, 2, 2]),
])  # fmt: skip
def test_doses_of_frames(tmp_path, stated, n_frames, hardware, want):
    found = dose_settings(one_tilt(tmp_path, **stated), n_frames, hardware)
    if want is None:
        assert found == {}
    elif found.get("dose_per_frame") is not None:
        assert [found["dose_per_frame"]] * n_frames == pytest.approx(want)
    elif found.get("total_dose") is not None:
        assert [found["total_dose"] / n_frames] * n_frames == pytest.approx(want)
    else:
        assert each_dose(parse_doses(found["frame_doses"])) == pytest.approx(want, rel=1e-4)


def test_frames_of_other_tilts_have_no_dose(tmp_path):
    shared = frame_set(SubFramePath="all.tif", FrameDosesAndNumber="0.4 10 0.8 14")
    tilts = read_mdoc(str(mdoc(tmp_path, shared, tilt(0, 0, 12, 0), tilt(1, 12, 24, 4.8)))).tilts
    text = span_settings(tilts[0], range(0, 12), 24, None)["frame_doses"]
    assert each_dose(parse_doses(text)) == [0.4] * 10 + [0.8] * 2 + [0] * 12
    text = span_settings(tilts[1], range(12, 24), 30, None)["frame_doses"]  # other frames than stated
    assert each_dose(parse_doses(text)) == pytest.approx([0] * 12 + [4.8 / 12] * 12 + [0] * 6)
    assert each_dose(parse_doses(span_settings(tilts[1], range(12, 24), 30, 0.1)["frame_doses"]))[13] == 0.1


ANGLES = (0.0, 3.0, -3.0)
N_FRAMES = 5


@pytest.fixture(scope="module")
def shared_movie(tmp_path_factory):
    """Three tilts in one movie, which are three phantoms with motions of their own."""
    folder = tmp_path_factory.mktemp("shared")
    phantoms = [particle_phantom((N_FRAMES, 256, 320), 3.0, 6.0, drift_px=5, local_px=0, seed=z) for z in range(3)]
    write_mrc_movie(str(folder / "movie.mrc"), [frame for phantom in phantoms for frame in phantom.frames()], 3.0)
    tilts = [tilt(z, 8 * z, 8 * z + N_FRAMES, 3.0 * z, angle, dose=3.0) for z, angle in enumerate(ANGLES)]
    path = mdoc(folder, frame_set(SubFramePath="X:\\movie.mrc", FrameDosesAndNumber="0.6 15"), *tilts)
    words = ["tilt-series", str(path), "--output", str(folder / "out"), "--pixel-size", "3", "--threads", "1"]
    words += "--no-do-local-alignment --no-do-plots --no-do-compute-psd".split()
    return folder, cli.main(words), [phantom.truth for phantom in phantoms], words


def test_each_tilt_has_its_own_frames_motion_and_dose(shared_movie):
    folder, status, truths, _ = shared_movie
    assert status == 0
    assert (folder / "out" / "movie_stack.tlt").read_text() == "-3.00\n0.00\n3.00\n"
    for z, truth in enumerate(truths):
        path = folder / "out" / f"movie_{z:03d}_motion.json"
        content = json.loads(path.read_text())
        frames, settings = content["frames"], content["settings"]
        assert (frames["first_aligned"], frames["last_aligned"]) == (N_FRAMES * z + 1, N_FRAMES * z + N_FRAMES)
        assert settings["pre_exposure"] == pytest.approx(3.0 * z)
        doses = np.zeros(15)
        doses[N_FRAMES * z : N_FRAMES * z + N_FRAMES] = 0.6
        assert each_dose(parse_doses(settings["frame_doses"])) == doses.tolist()
        t = np.arange(N_FRAMES)
        found = np.stack(MotionModel.load(path).shift(t + N_FRAMES * z, 128.0, 160.0), axis=1)
        true = np.stack(truth.shift(t, 128.0, 160.0), axis=1)
        error = (found - found.mean(axis=0)) - (true - true.mean(axis=0))
        assert np.abs(error).max() < 0.3
    again = read_mdoc(str(folder / "out" / "movie_stack.mrc.mdoc"))
    assert [(one.z, one.angle, one.movie) for one in again.tilts] == [
        (0, -3, "movie.mrc"),
        (1, 0, "movie.mrc"),
        (2, 3, "movie.mrc"),
    ]


def test_a_movie_that_does_not_fit_is_named(shared_movie, tmp_path, capsys):
    folder, _, _, words = shared_movie
    path = mdoc(tmp_path, frame_set(SubFramePath="movie.mrc"), tilt(0, 0, 40, 0), tilt(1, 50, 90, 3))
    status = cli.main(["tilt-series", str(path), "--movies", str(folder), "--output", str(tmp_path / "o"), *words[4:]])
    assert status == 1
    assert "put the list of saved frames (<movie>_saved.txt) next to it" in capsys.readouterr().err
