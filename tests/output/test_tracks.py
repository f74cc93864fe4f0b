"""Particles traced through the frames: against an analytic motion, and against images that went the whole way."""

from __future__ import annotations

import json

import numpy as np
import pytest

from flexalign_plugin.backend import FrameSource
from flexalign_plugin.cli import main
from flexalign_plugin.correction.resampling import fourier_bin, plain_mix
from flexalign_plugin.errors import MovieError, SettingsError
from flexalign_plugin.kernels import select_backend
from flexalign_plugin.motion.model import MotionModel
from flexalign_plugin.output.saved_result import load_saved_result
from flexalign_plugin.output.tracks import frame_positions, read_coordinates
from flexalign_plugin.settings import Settings

from ..in_memory import Stack

SHAPE = (300, 400)


def linear_model(first=2, n=6):
    """Shifts known by hand: sy = drift + g t (y - c), sx alike; cubic splines hold a linear function exactly."""
    rng = np.random.default_rng(3)
    drift = rng.normal(0, 4, (n, 2))
    greville = np.array([0, 1, 3, 5, 6]) / 6  # of 5 clamped cubic control points
    t = np.array([0, 1 / 3, 2 / 3, 1])
    coefficients = np.zeros((2, 4, 5, 5))
    coefficients[0] = 6 * t[:, None, None] * greville[None, :, None]
    coefficients[1] = -4 * t[:, None, None] * greville[None, None, :]
    return MotionModel(SHAPE, 9, first, drift, coefficients, 1.1), drift


def true_position(drift, k, n, y, x):
    progress = k / (n - 1)
    sy, sx = drift[k] + [6 * progress * y / (SHAPE[0] - 1), -4 * progress * x / (SHAPE[1] - 1)]
    return y - sy, x - sx


@pytest.mark.parametrize("settings, to_frame", [
    (Settings(), lambda y, x: (y, x)),
    (Settings(bin_factor=2), lambda y, x: (2 * y, 2 * x)),
    (Settings(fcrop_factor=0.4, bin_factor=1.25), lambda y, x: (3.125 * y, 3.125 * x)),
    (Settings(crop_offset_x=40, crop_offset_y=20, crop_dim_x=300), lambda y, x: (y + 20, x + 40)),
    (Settings(bin_factor=2, crop_offset_x=40, crop_offset_y=20, crop_dim_x=320, crop_dim_y=260),
     lambda y, x: (2 * y + 20, 2 * x + 40)),
])  # fmt: skip
def test_positions_of_an_analytic_motion(settings, to_frame):
    model, drift = linear_model()
    y, x = np.array([0.0, 31.25, 87.0]), np.array([0.0, 77.5, 12.0])
    got = frame_positions(model, settings, y, x)
    assert got.shape == (3, 6, 2)
    for i in range(3):
        whole = to_frame(y[i], x[i])
        for k in range(6):
            np.testing.assert_allclose(got[i, k], true_position(drift, k, 6, *whole), atol=1e-9)


def spots(places, shape, sigma=4.0):
    y, x = np.mgrid[: shape[0], : shape[1]]
    return sum(np.exp(-((y - a) ** 2 + (x - b) ** 2) / 2 / sigma**2) for a, b in places).astype(np.float32)


def centre(image, y, x, reach=14):
    """Centre of mass around a place."""
    y0, x0 = int(round(y)) - reach, int(round(x)) - reach
    part = image[y0 : y0 + 2 * reach + 1, x0 : x0 + 2 * reach + 1].astype(float)
    rows, cols = np.mgrid[: part.shape[0], : part.shape[1]]
    return (part * rows).sum() / part.sum() + y0, (part * cols).sum() / part.sum() + x0


def test_frames_that_hold_a_particle_at_its_traced_places_align_it_to_where_it_was_picked():
    """The other way round: spots painted where the track says, through warp, crop and binning, back to the pick."""
    model, _ = linear_model(first=0)
    model = MotionModel(SHAPE, 6, 0, model.global_shifts_px, model.coefficients_px, 1.1)
    settings = Settings(bin_factor=2, crop_offset_x=40, crop_offset_y=20, crop_dim_x=320, crop_dim_y=260)
    y, x = np.array([33.3, 90.6]), np.array([40.2, 121.9])
    tracks = frame_positions(model, settings, y, x)
    frames = np.stack([spots(tracks[:, k], SHAPE) for k in range(6)])
    backend = select_backend("cpu")
    for k in range(6):  # each frame alone: an error of one is not hidden by the others
        total = backend.warp_sum(FrameSource(Stack(frames), None, None, None), model, [k], np.ones((1, 1)), np.zeros(1))
        (image,) = backend.mix(total, [plain_mix(model, [k])])
        micrograph = fourier_bin(image[settings.crop_window(*SHAPE, "")], 2, backend)
        for i in range(2):
            np.testing.assert_allclose(centre(micrograph, y[i], x[i], 8), (y[i], x[i]), atol=0.02)


@pytest.fixture
def saved(tmp_path):
    model, _ = linear_model()
    path = tmp_path / "mic 1_motion.json"
    path.write_text(json.dumps({"settings": Settings(bin_factor=2).to_dict(), "model": model.to_dict()}))
    return path, frame_positions(model, Settings(bin_factor=2), [10.5, 20.0], [30.0, 40.25])


def test_a_result_of_an_earlier_version_is_read_as_middle_most(saved):
    path, want = saved
    content = json.loads(path.read_text())
    assert load_saved_result(str(path)).settings.reference_frame == "first"
    del content["settings"]["reference_frame"]
    path.write_text(json.dumps(content))
    motion = load_saved_result(str(path))
    assert motion.settings.reference_frame == "middle-most"
    np.testing.assert_array_equal(frame_positions(motion.model, motion.settings, [10.5, 20.0], [30.0, 40.25]), want)


STAR = """
data_optics

loop_
_rlnOpticsGroup #1
1

data_particles

loop_
_rlnMicrographName #1
_rlnCoordinateY #2
_rlnCoordinateX #3
"a/mic 1_aligned_mic_DW.mrc" 10.5 30
a/mic 2_aligned_mic.mrc 1 2
"b/mic 1_aligned_mic_DW.mrc" 20 40.25
""".replace("a/mic 2_aligned_mic.mrc", '"a/mic 2_aligned_mic.mrc"')


@pytest.mark.parametrize("name, text", [
    ("picks.star", STAR),
    ("picks.star", "data_\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n30 10.5\n40.25 20\n"),
    ("picks.txt", "# x y\n30 10.5\n\n40.25, 20, 0.9\n"),
])  # fmt: skip
def test_the_command_on_star_and_text(saved, tmp_path, capsys, name, text):
    starfile = pytest.importorskip("starfile")
    motion, want = saved
    (tmp_path / name).write_text(text)
    assert main(["trace", str(motion), "--coords", str(tmp_path / name)]) == 0
    assert "2 particles in 6 frames" in capsys.readouterr().out
    table = starfile.read(tmp_path / "picks_tracks.star")
    assert list(table["rlnParticleNumber"]) == [1] * 6 + [2] * 6
    assert list(table["rlnMicrographFrameNumber"]) == [3, 4, 5, 6, 7, 8] * 2
    np.testing.assert_allclose(table[["rlnCoordinateY", "rlnCoordinateX"]], want.reshape(12, 2), atol=1e-4)

    assert main(["trace", str(motion), "--coords", str(tmp_path / name), "--output", str(tmp_path / "t.csv")]) == 0
    lines = (tmp_path / "t.csv").read_text().splitlines()
    assert lines[0] == "particle,frame,x_px,y_px" and len(lines) == 13
    np.testing.assert_allclose(np.loadtxt(lines[1:], delimiter=",")[:, 3], want.reshape(12, 2)[:, 0], atol=1e-4)


@pytest.mark.parametrize("text, why", [
    ("1 2\n3\n", "line 2 is '3': write two numbers"),
    ("", "holds no coordinates of mic"),
    ("data_\n\nloop_\n_rlnMagnification #1\n1\n", "has no columns rlnCoordinateX"),
    (STAR.replace("mic 1", "mic 7"), "holds no coordinates of mic"),
    ("data_\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\nx 1\n", "is not a number"),
])  # fmt: skip
def test_invalid_coordinates(tmp_path, text, why):
    (tmp_path / "picks").write_text(text)
    with pytest.raises(MovieError, match=f"picks: .*{why}"):
        read_coordinates(str(tmp_path / "picks"), "mic 1")


def test_positions_outside_and_invalid_files(saved, tmp_path, capsys):
    model, _ = linear_model()
    with pytest.raises(SettingsError, match="Particle 2 at x 300, y 10 is outside the micrograph of 200 x 150"):
        frame_positions(model, Settings(bin_factor=2), [5, 10], [5, 300])
    (tmp_path / "p.txt").write_text("1 1")
    for motion, why in (("none.json", "can't be read"), ("p.txt", "is not a result of this version of FlexAlign")):
        assert main(["trace", str(tmp_path / motion), "--coords", str(tmp_path / "p.txt")]) == 2
        assert why in capsys.readouterr().err
    assert main(["trace", str(saved[0]), "--coords", str(tmp_path / "none.txt")]) == 2


def test_particles_outside_are_named_and_the_others_traced_with_their_numbers(saved, tmp_path, capsys):
    motion, want = saved
    picks, out = tmp_path / "p.txt", tmp_path / "t.csv"
    words = ["trace", str(motion), "--coords", str(picks), "--output", str(out)]
    picks.write_text("300 1\n30 10.5\n2 nan\n-1 5\n5 150\n40.25 20\n199.5 149.5\n")
    assert main(words) == 0
    told = capsys.readouterr()
    assert "3 particles in 6 frames" in told.out
    assert f"{picks}: 4 of 7 particles are outside the micrograph of 200 x 150 pixels and left out" in told.err
    assert "(particle 1 at x 300, y 1; 3 at x 2, y nan; 4 at x -1, y 5; ...)" in told.err
    rows = np.loadtxt(out, delimiter=",", skiprows=1)
    assert rows[:, 0].tolist() == [2] * 6 + [6] * 6 + [7] * 6
    np.testing.assert_allclose(rows[:12, [3, 2]], want.reshape(12, 2), atol=1e-4)
    out.unlink()
    picks.write_text("300 1\n")
    assert main(words) == 1 and not out.exists()
    assert "1 of 1 particles" in capsys.readouterr().err


@pytest.mark.parametrize(
    "row, words", [("1 2", "line 6 has 2 values instead of 3"), ("1 2 3 4", "line 6 has 4 values instead of 3")]
)
def test_an_odd_row_is_refused_because_particles_are_numbered_by_their_rows(tmp_path, row, words):
    columns = "data_\nloop_\n_rlnCoordinateX\n_rlnCoordinateY\n_rlnClassNumber\n"
    (tmp_path / "a.star").write_text(columns + row + "\n5 6 1\n")
    with pytest.raises(MovieError, match=words):
        read_coordinates(str(tmp_path / "a.star"), "mic")


def test_names_in_any_quotes_are_read(tmp_path):
    columns = "data_\nloop_\n_rlnMicrographName\n_rlnCoordinateX\n_rlnCoordinateY\n"
    rows = '\'my mic_aligned_mic.mrc\' 1 2\n"my mic_aligned_mic.mrc" 3 4\n"other.mrc" 5 6 # comment\n'
    (tmp_path / "a.star").write_text(columns + rows)
    y, x = read_coordinates(str(tmp_path / "a.star"), "my mic")
    assert (x.tolist(), y.tolist()) == ([1, 3], [2, 4])
