"""write_result: every file that applies, the same bytes twice, and nothing at all when the disk is full."""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import subprocess

import mrcfile
import numpy as np
import pytest

from flexalign_plugin.errors import OutputError
from flexalign_plugin.motion import MotionModel
from flexalign_plugin.output import write_result

from .synthetic import motion_model, movie_result

ENDINGS = {
    "micrograph": "_aligned_mic.mrc",
    "psd": "_psd.mrc",
    "psd_image": "_psd.png",
    "plot_psd": "_plot_psd.png",
    "plot_global": "_plot_global.png",
    "plot_local": "_plot_local.png",
    "thumbnail": "_thumbnail.png",
    "shifts_star": "_shifts.star",
    "motion": "_motion.json",
}


@pytest.fixture(scope="module")
def result():
    return movie_result(motion_model((400, 512), n_frames=12))


def test_every_file_and_its_name(result, tmp_path):
    folder = tmp_path / "new" / "folder"
    files = write_result(result, str(folder), "mov_1")
    assert files == {what: str(folder / f"mov_1{ending}") for what, ending in ENDINGS.items()}
    assert sorted(os.listdir(folder)) == sorted(os.path.basename(path) for path in files.values())
    with mrcfile.open(files["micrograph"]) as mrc:
        np.testing.assert_array_equal(mrc.data, result.images.micrograph)
        labels = [label.strip() for label in mrc.get_labels()]
        assert labels[0].startswith("mean of 12 frames, FlexAlign ")
        assert labels[1] == "frames 1 to 12 of movie_01.mrc"
    with mrcfile.open(files["psd"]) as mrc:
        assert mrc.data.shape == (384, 384)
    saved = json.loads((folder / "mov_1_motion.json").read_text())
    assert saved["quality"] == result.figures.to_dict()
    assert saved["quality"]["pairs_rejected"] == 0.03 and "patches" not in saved["quality"]
    sy, sx = MotionModel.load(files["motion"]).shift(3, 100, 200)
    assert (sy, sx) == result.model.shift(3, 100, 200)


def test_same_result_same_bytes(result, tmp_path):
    first = write_result(result, str(tmp_path / "a"), "m")
    second = write_result(result, str(tmp_path / "b"), "m")
    assert sorted(first) == sorted(second) == sorted(ENDINGS)
    for what, path in first.items():
        with open(path, "rb") as one, open(second[what], "rb") as other:
            assert one.read() == other.read(), what


def test_only_selected_files_are_written(tmp_path):
    model = motion_model((256, 300), n_frames=4, local_px=0)
    result = movie_result(model, do_save_ave_mic=False, do_compute_psd=False, do_plots=False, do_save_movie=True)
    frames = np.ones((4, 256, 300), np.float32)
    result = dataclasses.replace(result, images=dataclasses.replace(result.images, movie=frames))
    files = write_result(result, str(tmp_path), "m")
    assert sorted(files) == ["aligned_movie", "motion", "shifts_star"]
    assert sorted(os.listdir(tmp_path)) == ["m_aligned_movie.mrcs", "m_motion.json", "m_shifts.star"]
    with mrcfile.open(files["aligned_movie"]) as mrc:
        assert mrc.is_image_stack()
        assert mrc.data.shape == (4, 256, 300)
        assert mrc.get_labels()[1].strip() == "frames 1 to 4 of movie_01.mrc"


def test_without_local_alignment_there_is_no_local_plot(tmp_path):
    model = motion_model((256, 256), n_frames=4, local_px=0)
    files = write_result(movie_result(model, do_local_alignment=False), str(tmp_path), "a")
    assert sorted(files) == sorted(set(ENDINGS) - {"plot_local"})
    files = write_result(movie_result(model), str(tmp_path), "b")
    assert sorted(files) == sorted(ENDINGS)


def test_failure_keeps_the_earlier_result(result, tmp_path, monkeypatch):
    files = write_result(result, str(tmp_path), "m")
    before = {path: open(path, "rb").read() for path in files.values()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # No file may grow beyond 300 kB: the operating system really cuts the micrograph (800 kB) in the middle.
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    try:
        with pytest.raises(OutputError, match=r"m_aligned_mic\.mrc: can't be written because the file is larger than"):
            write_result(result, str(tmp_path), "m")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {str(tmp_path / name) for name in os.listdir(tmp_path)} == set(before)
    assert all(open(path, "rb").read() == content for path, content in before.items())


@pytest.fixture
def small_disk(tmp_path, request):
    """A file system of one megabyte; its parameter is a further mount option."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ",".join(["size=1m", *([request.param] if hasattr(request, "param") else [])])
    command = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
    try:
        mounted = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("a small tmpfs can't be mounted here (needs the superuser)")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_full_disk(result, small_disk):
    # The micrograph (800 kB) fits, the spectrum after it does not.
    with pytest.raises(OutputError, match=r"m_psd\.mrc: can't be written because the disk is full: free some space"):
        write_result(result, str(small_disk), "m")
    assert os.listdir(small_disk) == []
    assert os.statvfs(small_disk).f_bfree == os.statvfs(small_disk).f_blocks


@pytest.mark.parametrize("small_disk", ["ro"], indirect=True)
def test_read_only_disk(result, small_disk):
    with pytest.raises(OutputError, match="/disk: can't be written because the disk is mounted read-only"):
        write_result(result, str(small_disk), "m")


def test_folder_that_can_not_be_made(result, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file, not a folder"):
        write_result(result, str(tmp_path / "file" / "out"), "m")


def test_a_gain_that_relion_would_apply_otherwise_is_written_once(tmp_path):
    gain = np.random.default_rng(0).uniform(0.8, 1.2, (512, 512)).astype(np.float32)
    result = movie_result(gain="refs/cam.mrc", gain_rot="90", do_compute_psd=False, do_plots=False)
    result = dataclasses.replace(result, turned_gain=gain)
    for root in ("a", "b"):
        write_result(result, str(tmp_path), root)
    (written,) = tmp_path.glob("cam_relion_*.mrc")
    with mrcfile.open(written) as mrc:
        np.testing.assert_array_equal(mrc.data, gain)
    for root in ("a", "b"):
        assert f"_rlnMicrographGainName              {written}\n" in (tmp_path / f"{root}_shifts.star").read_text()
    write_result(dataclasses.replace(result, turned_gain=gain[::-1]), str(tmp_path), "c")
    assert len(list(tmp_path.glob("cam_relion_*.mrc"))) == 2
    write_result(dataclasses.replace(result, turned_gain=None), str(tmp_path), "d")
    assert "_rlnMicrographGainName              refs/cam.mrc\n" in (tmp_path / "d_shifts.star").read_text()
