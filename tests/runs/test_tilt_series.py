"""Tilt series: reading and writing .mdoc files, and the whole command on phantoms with a known motion."""

from __future__ import annotations

import json

import mrcfile
import numpy as np
import pytest

from flexalign_plugin import cli
from flexalign_plugin.errors import MovieError
from flexalign_plugin.execution.job import JobResult
from flexalign_plugin.motion import MotionModel
from flexalign_plugin.phantoms.movie_writers import write_mrc_movie
from flexalign_plugin.phantoms.phantom import particle_phantom
from flexalign_plugin.runs.mdoc import join_mdocs, mdoc_text, prior_doses, read_mdoc
from flexalign_plugin.runs.tilt_series import settings_of_images
from flexalign_plugin.settings import Settings

ANGLES = (0.02, 3.0, -3.0, 6.0, -6.0)  # dose-symmetric, as recorded
DOSES = (3.0, 3.1, 3.2, 3.3, 3.4)
N_FRAMES = 4
HEAD = "PixelSpacing = 1.35\nImageFile = TS_1.mrc\nImageSize = 5760 4092\n\n[T = SerialEM: a title]\n\n"


def section(z, angle, movie=None, **more):
    lines = [f"[ZValue = {z}]", f"TiltAngle = {angle}", "PixelSpacing = 1.35"]
    lines += [f"SubFramePath = X:\\frames\\{movie}"] if movie else []
    return "\n".join(lines + [f"{key} = {value}" for key, value in more.items()]) + "\n\n"


def mdoc_file(folder, *sections):
    path = folder / "TS_1.mrc.mdoc"
    path.write_text(HEAD + "".join(sections))
    return path


def test_mdoc_values_are_read(tmp_path):
    path = mdoc_file(
        tmp_path,
        section(0, -2.5, "a b.tif", ExposureDose=3, DateTime="21-Nov-26  10:00:05", PriorRecordDose=0),
        section(1, 1e1, "c.eer", ExposureDose=0, DateTime="21-Nov-2026  10:00:00"),
        section(2, 0.5, DateTime="never"),
    )
    a, b, c = read_mdoc(str(path)).tilts
    assert (a.z, a.angle, a.movie, a.dose, a.prior_dose) == (0, -2.5, "a b.tif", 3, 0)
    assert (b.angle, b.movie, b.dose, b.prior_dose) == (10, "c.eer", None, None)
    assert (b.time - a.time).total_seconds() == -5
    assert (c.movie, c.time) == ("", None)


@pytest.mark.parametrize("more, want", [
    ([{}, {}, {}], [0, 2, 5]),  # in the order of the file
    ([{"DateTime": f"21-Nov-26  10:00:0{s}"} for s in (5, 0, 9)], [3, 0, 5]),  # of the recording
    ([{"PriorRecordDose": d} for d in (7, 8, 9)], [7, 8, 9]),  # as it says
    ([{"ExposureDose": 0}, {}, {}], [None] * 3),
])  # fmt: skip
def test_dose_before_each_tilt(tmp_path, more, want):
    entries = [{"ExposureDose": dose, **values} for dose, values in zip((2, 3, 4), more)]
    path = mdoc_file(tmp_path, *[section(z, z, "m.mrc", **values) for z, values in enumerate(entries)])
    assert prior_doses(read_mdoc(str(path)).tilts) == want


def test_mdoc_of_a_part_in_another_order(tmp_path):
    mdoc = read_mdoc(str(mdoc_file(tmp_path, *[section(z, 3 * z, f"{z}.mrc", Odd="a = b") for z in range(3)])))
    text = mdoc_text(mdoc, [mdoc.tilts[2], mdoc.tilts[0]], "out/S_stack.mrc", 2.7, (100, 80))
    assert text.startswith(
        "PixelSpacing = 2.7\nImageFile = S_stack.mrc\nImageSize = 100 80\n\n[T = SerialEM: a title]\n\n"
    )
    (tmp_path / "again.mdoc").write_text(text)
    again = read_mdoc(str(tmp_path / "again.mdoc"))
    assert [(t.z, t.angle, t.movie) for t in again.tilts] == [(0, 6, "2.mrc"), (1, 0, "0.mrc")]
    assert text.count("PixelSpacing = 2.7") == 3 and text.count("Odd = a = b") == 2


@pytest.mark.parametrize("text, why", [
    ("", "contains no section"),
    ("[Image = 0]\nTiltAngle = 3\n", "contains no section"),
    ("[FrameSet = 4]\nSubFramePath = a.mrc\n", "frame set 4 has no TiltAngle"),
    ("[ZValue = 4]\nSubFramePath = a.mrc\n", "section 4 has no TiltAngle"),
    ("[ZValue = 4]\nTiltAngle = steep\n", "section 4: TiltAngle is 'steep', but it must be a number from -360 to 360"),
])  # fmt: skip
def test_files_that_are_not_a_tilt_series(tmp_path, text, why):
    (tmp_path / "a.mdoc").write_text(text)
    with pytest.raises(MovieError, match=f"a.mdoc: {why}"):
        join_mdocs([read_mdoc(str(tmp_path / "a.mdoc"))])
    with pytest.raises(MovieError, match=r"b.mdoc: can't be read"):
        read_mdoc(str(tmp_path / "b.mdoc"))


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """Five tilts, aligned: the one at -3 degrees is a damaged file, and one more section has no movie."""
    folder = tmp_path_factory.mktemp("tilts")
    (folder / "frames").mkdir()
    sections, truths = [], {}
    for z, (angle, dose) in enumerate(zip(ANGLES, DOSES)):
        phantom = particle_phantom((N_FRAMES, 256, 320), 3.0, 6.0, drift_px=5, local_px=0, seed=z)
        write_mrc_movie(str(folder / "frames" / f"tilt_{z}.mrc"), list(phantom.frames()), 3.0)
        truths[angle] = phantom.truth
        sections.append(section(z, angle, f"tilt_{z}.mrc", ExposureDose=dose))
    damaged = folder / "frames" / "tilt_2.mrc"
    damaged.write_bytes(damaged.read_bytes()[:5000])
    path = mdoc_file(folder, *sections, section(5, 9.0, ExposureDose=1))
    words = ["tilt-series", str(path), "--movies", str(folder / "frames"), "--output", str(folder / "out")]
    words += "--pixel-size 3 --no-do-local-alignment --no-do-plots --no-do-compute-psd --split-even-odd".split()
    status = cli.main([*words, "--bin-factor", "2", "--pre-exposure", "1", "--threads", "1"])
    return folder, status, truths, words


def stack(folder, ending):
    with mrcfile.open(folder / "out" / f"TS_1_stack{ending}.mrc") as file:
        assert file.is_image_stack() and file.voxel_size.x == pytest.approx(6)
        return file.data.copy()


def test_stacks_are_sorted_by_angle_and_leave_failed_tilts_out(series):
    folder, status, _, _ = series
    assert status == 1
    order = [(4, -6.0), (0, 0.02), (1, 3.0), (3, 6.0)]
    for name in ("TS_1_stack.rawtlt", "TS_1_stack.tlt"):
        assert (folder / "out" / name).read_text() == "".join(f"{angle:.2f}\n" for _, angle in order)
    endings = {"": "", "_DW": "_DW", "_EVN": "_EVN", "_ODD": "_ODD"}
    for ending, of_stack in endings.items():
        images = stack(folder, of_stack)
        assert images.shape == (4, 128, 160) and images.dtype == np.float32
        for image, (z, _) in zip(images, order):
            with mrcfile.open(folder / "out" / f"tilt_{z}_aligned_mic{ending}.mrc") as file:
                np.testing.assert_array_equal(image, file.data)
        tilts = read_mdoc(str(folder / "out" / f"TS_1_stack{ending}.mrc.mdoc")).tilts
        assert [(tilt.z, tilt.movie) for tilt in tilts] == [(i, f"tilt_{z}.mrc") for i, (z, _) in enumerate(order)]
    failed = (folder / "out" / "TS_1_failed.tsv").read_text().splitlines()
    assert [line.split("\t")[0] for line in failed] == ["id", "2", "5"]
    assert "tilt_2.mrc" in failed[1] and "truncated" in failed[1] and "has no SubFramePath" in failed[2]


def test_each_tilt_has_its_dose_and_its_motion(series):
    """The dose of the damaged tilt counts too, because it has exposed the specimen."""
    folder, _, truths, _ = series
    for z, angle in enumerate(ANGLES):
        if z == 2:
            continue
        path = folder / "out" / f"tilt_{z}_motion.json"
        result = json.loads(path.read_text())
        settings = result["settings"]
        assert settings["total_dose"] == DOSES[z]
        assert result["frames"]["dose_per_frame"] == pytest.approx(DOSES[z] / N_FRAMES)
        assert settings["pre_exposure"] == pytest.approx(1 + sum(DOSES[:z]))
        model, truth = MotionModel.load(path), truths[angle]
        t = np.arange(N_FRAMES)
        found = np.stack(model.shift(t, 128.0, 160.0), axis=1)
        true = np.stack(truth.shift(t, 128.0, 160.0), axis=1)
        error = (found - found.mean(axis=0)) - (true - true.mean(axis=0))
        assert np.abs(error).max() < 0.3


def test_order_of_the_file_and_a_series_that_fails_altogether(series, tmp_path, capsys):
    folder, _, _, words = series
    path = mdoc_file(tmp_path, section(0, 6.0, "tilt_3.mrc"), section(1, -6.0, "tilt_4.mrc"))
    again = [word if word != str(folder / "TS_1.mrc.mdoc") else str(path) for word in words]
    again[again.index(str(folder / "out"))] = str(tmp_path / "out")
    assert cli.main([*again, "--order", "mdoc"]) == 0
    assert (tmp_path / "out" / "TS_1_stack.tlt").read_text() == "6.00\n-6.00\n"
    assert not (tmp_path / "out" / "TS_1_stack_DW.mrc").exists()  # no dose is known
    assert "micrograph_even: " in capsys.readouterr().out
    path = mdoc_file(tmp_path, section(0, 6.0, "gone.mrc"))
    assert cli.main(again) == 1
    assert "gone.mrc: no such file" in (tmp_path / "out" / "TS_1_failed.tsv").read_text()


def test_a_tilt_of_another_size_is_listed(series, tmp_path):
    folder, _, _, words = series
    write_mrc_movie(
        str(folder / "frames" / "small.mrc"), np.random.default_rng(0).poisson(9, (4, 128, 128)).astype("u1")
    )
    names = ("tilt_0.mrc", "tilt_1.mrc", "small.mrc")
    path = mdoc_file(tmp_path, *[section(z, z, name) for z, name in enumerate(names)])
    again = [word if word != str(folder / "TS_1.mrc.mdoc") else str(path) for word in words]
    again[again.index(str(folder / "out"))] = str(tmp_path / "out")
    assert cli.main(again) == 1
    assert "was left out of the stack" in (tmp_path / "out" / "TS_1_failed.tsv").read_text()
    assert (tmp_path / "out" / "TS_1_stack.tlt").read_text() == "0.00\n1.00\n"


@pytest.mark.parametrize("key, value", [
    ("TiltAngle", "nan"), ("TiltAngle", "steep"), ("TiltAngle", ""), ("ExposureDose", "inf"), ("ExposureDose", "-3"),
    ("ExposureDose", "nan"), ("PriorRecordDose", "1e999"), ("PriorRecordDose", "-inf"),
])  # fmt: skip
def test_a_tilt_with_an_impossible_number_is_left_out_and_named(tmp_path, key, value):
    """The others are aligned and stacked; nothing that can't be a number gets into the angles."""
    frames = np.random.default_rng(0).poisson(3.0, (3, 64, 64)).astype(np.uint8)
    for z in range(3):
        write_mrc_movie(tmp_path / f"{z}.mrc", frames, 2.0)
    sections = [section(z, 3 * z, f"{z}.mrc", ExposureDose=3, PriorRecordDose=3 * z) for z in range(3)]
    lines = [f"{key} = {value}" if line.startswith(f"{key} =") else line for line in sections[1].splitlines()]
    path = mdoc_file(tmp_path, sections[0], "\n".join(lines) + "\n\n", sections[2])
    out = tmp_path / "out"
    words = ["tilt-series", path, "--movies", tmp_path, "--output", out, "--pixel-size", "2", "--quiet"]
    words += ["--no-do-local-alignment", "--no-do-plots", "--no-do-compute-psd", "--device", "cpu"]
    assert cli.main([str(word) for word in words]) == 1
    assert (out / "TS_1_stack.tlt").read_text().split() == ["0.00", "6.00"]
    (failed,) = [line for line in (out / "TS_1_failed.tsv").read_text().splitlines() if line.startswith("1\t")]
    assert "TS_1.mrc.mdoc: section 1" in failed and key in failed and value in failed


def test_stacks_of_eer_movies_have_the_pixel_size_of_the_rendering():
    """Records of version 1.0.0 hold none; their settings have it."""
    given = Settings(pixel_size=1.2, eer_sampling=2, bin_factor=3)
    now, then = JobResult("a.eer", ok=True, pixel_size_A=0.6), JobResult("a.eer", ok=True)
    assert settings_of_images(given, [now]).micrograph_pixel_size == pytest.approx(1.8)
    assert settings_of_images(given, [then]).micrograph_pixel_size == pytest.approx(3.6)
