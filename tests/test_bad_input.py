"""Bad input for `flexalign align`: one clear sentence names the file, the other movies are aligned, and no incomplete
result is written.
"""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys

import numpy as np
import pytest
import tifffile

from flexalign_plugin import cli
from flexalign_plugin.execution.worker import _child_environment
from flexalign_plugin.phantoms.movie_writers import write_mrc_movie, write_tiff_movie

N, NY, NX = 6, 96, 128


def align(movies, output, *words, limit_files_to=None) -> subprocess.CompletedProcess:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_files_to, limit_files_to))

    return subprocess.run(
        [sys.executable, "-m", "flexalign_plugin", "align", *map(str, movies), "--output", str(output)]
        + ["--pixel-size", "3", *map(str, words)],
        capture_output=True,
        text=True,
        env=_child_environment(),
        timeout=120,
        preexec_fn=limit if limit_files_to else None,
    )


def noise(seed: int = 0) -> list:
    """Frames of noise with a fixed pattern that can be aligned."""
    rng = np.random.default_rng(seed)
    image = 5 + np.cumsum(np.cumsum(rng.normal(0, 0.3, (NY, NX)), 0), 1) * 0.05
    return list(rng.poisson(image.clip(1, 20), (N, NY, NX)).astype(np.uint8))


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "good.mrc"
    write_mrc_movie(str(path), noise(), 3.0)
    return path


def cut(path, fraction=0.6) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * fraction)])


def truncated_mrc(path):
    write_mrc_movie(str(path), noise())
    cut(path)


def truncated_tiff(path):
    write_tiff_movie(str(path), noise(), compression="lzw")
    cut(path)


def truncated_eer(path):
    words = f"phantom --size {NX} {NY} --frames {N} --format eer --hardware-frames 2 --local 0 --drift 1"
    assert cli.main([*words.split(), "--output", str(path.parent), "--name", path.stem]) == 0
    (path.parent / f"{path.stem}_truth.json").unlink()
    cut(path)


def header_only(path):
    write_mrc_movie(str(path), noise())
    path.write_bytes(path.read_bytes()[:1024])


def zero_bytes(path):
    path.touch()


def missing(path):
    pass


def broken_link(path):
    path.symlink_to(path.parent / "moved_away.mrc")


def folder(path):
    path.mkdir()


def no_movie(path):
    path.write_text("x y z\n" * 1000)


def one_frame(path):
    write_mrc_movie(str(path), noise()[:1])


def unequal_frames(path):
    frames = noise()
    frames[3] = frames[3][: NY // 2]
    with tifffile.TiffWriter(str(path)) as tiff:
        for frame in frames:
            tiff.write(frame, contiguous=False, metadata=None)


def all_zero(path):
    write_mrc_movie(str(path), [np.zeros((NY, NX), np.uint8)] * N)


def one_zero_frame(path):
    frames = noise()
    frames[4] = np.zeros((NY, NX), np.uint8)
    write_tiff_movie(str(path), frames)


def nan_pixels(path):
    frames = [frame.astype(np.float32) for frame in noise()]
    frames[2][10, 20] = np.nan
    write_mrc_movie(str(path), frames)


def unknown_compression(path):
    """A valid TIFF with an unknown compression tag in every page."""
    write_tiff_movie(str(path), noise())
    with tifffile.TiffFile(str(path)) as tiff:
        at = [page.tags["Compression"].valueoffset for page in tiff.pages]
    data = bytearray(path.read_bytes())
    for offset in at:
        data[offset : offset + 2] = (31337).to_bytes(2, "little")
    path.write_bytes(bytes(data))


def truncated_bz2(path):
    import bz2

    write_mrc_movie(str(path), noise())
    path.write_bytes(bz2.compress(path.read_bytes()))
    cut(path)


# What every reason ends with: something to do, or what is needed.
ADVICE = re.compile(
    r"[:;,] (ask|check|choose|convert|copy|give|leave|remove|restore|save|sum|use|write)\b|at least 2 are needed"
)
# Function that makes the file, ending of its name, a word in the reason.
BAD = [
    (truncated_mrc, ".mrc", "truncated"),
    (header_only, ".mrcs", "truncated"),
    (truncated_tiff, ".tif", "truncated"),
    (truncated_eer, ".eer", "truncated"),
    (truncated_bz2, ".mrc.bz2", "truncated"),
    (zero_bytes, ".mrc", "empty"),
    (zero_bytes, ".tif", "empty"),
    (zero_bytes, ".eer", "empty"),
    (missing, ".mrc", "no such file"),
    (broken_link, ".mrc", "broken link"),
    (folder, ".mrc", "folder"),
    (no_movie, ".mrc", "damaged"),
    (one_frame, ".mrc", "at least 2"),
    (unequal_frames, ".tif", "frame"),
    (all_zero, ".mrc", "all pixels are 0"),
    (one_zero_frame, ".tif", "frame 5"),
    (nan_pixels, ".mrc", "NaN"),
    (unknown_compression, ".tif", "compression"),
]


def assert_only_complete_results(folder, *roots) -> None:
    """Every file except for the lists belongs to one of these results, and each result is complete."""
    names = sorted(set(os.listdir(folder)) - {"failed.tsv", "corrected_micrographs.star", "report.html"})
    assert not [n for n in names if not n.startswith(tuple(f"{root}_" for root in roots))]
    for root in roots:
        assert f"{root}_aligned_mic.mrc" in names
        json.loads((folder / f"{root}_motion.json").read_text())


def test_bad_movies_are_named_and_the_good_ones_go_on(good, tmp_path):
    bad = []
    for make, ending, word in BAD:
        path = tmp_path / f"{make.__name__}_{ending.strip('.').replace('.', '_')}{ending}"
        make(path)
        bad.append((path, word))
    second = tmp_path / "second.mrc"
    second.symlink_to(good)
    movies = [bad[0][0], good, *(path for path, _ in bad[1:]), second]
    done = align(movies, tmp_path / "out", "--n-frames", N)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert f"{len(bad)} of {len(bad) + 2} movies failed" in done.stderr
    rows = [line.split("\t") for line in (tmp_path / "out" / "failed.tsv").read_text().splitlines()[1:]]
    reasons = {movie: reason for _, movie, reason in rows}
    assert set(reasons) == {str(path) for path, _ in bad}
    for path, word in bad:
        reason = reasons[str(path)]
        assert reason.startswith(str(path)) and word in reason, reason
        assert "unexpected" not in reason and "crashed" not in reason, reason
        assert ADVICE.search(reason[len(str(path)) :]), f"says not what to do: {reason}"
        assert reason in done.stderr
    assert_only_complete_results(tmp_path / "out", "good", "second")


@pytest.mark.parametrize("make, ending, word", BAD[:4])
def test_a_single_bad_movie_fails_in_the_same_way(make, ending, word, tmp_path):
    path = tmp_path / f"alone{ending}"
    make(path)
    done = align([path], tmp_path / "out", "--n-frames", N)
    assert done.returncode == 1
    assert f"FAILED {path}" in done.stderr and word in done.stderr and "Traceback" not in done.stderr
    assert os.listdir(tmp_path / "out") == ["failed.tsv"]


def gain(tmp_path, where=(), value=1.0, shape=(NY, NX)):
    path = tmp_path / "gain.mrc"
    image = np.random.default_rng(1).normal(1, 0.05, shape).astype(np.float32)
    if where != ():
        image[where] = value
    write_mrc_movie(str(path), [image])
    return path


def test_a_gain_of_another_size_fails_every_movie_with_both_sizes(good, tmp_path):
    path = gain(tmp_path, shape=(NX, NY))
    done = align([good], tmp_path / "out", "--gain", path)
    assert done.returncode == 1
    for words in (str(path), f"{NY} x {NX}", f"{NX} x {NY}", "rotate"):
        assert words in done.stderr
    assert os.listdir(tmp_path / "out") == ["failed.tsv"]
    assert align([good], tmp_path / "turned", "--gain", path, "--gain-rot", "90").returncode == 0


def test_a_gain_that_is_missing_or_mostly_zero_is_named(good, tmp_path):
    done = align([good], tmp_path / "out", "--gain", tmp_path / "nowhere.mrc")
    assert done.returncode == 2 and "nowhere.mrc: no such file" in done.stderr
    assert not (tmp_path / "out").exists()  # reported before anything is written
    path = gain(tmp_path, np.s_[: NY // 2], 0)
    done = align([good], tmp_path / "out", "--gain", path)
    assert done.returncode == 1 and f"{path}: 50%" in done.stderr
    assert os.listdir(tmp_path / "out") == ["failed.tsv"]


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_zeros_and_nan_in_a_gain_are_defects_and_leave_no_hole(good, tmp_path, value):
    import mrcfile

    done = align([good], tmp_path / "out", "--gain", gain(tmp_path, np.s_[40:43, 60:63], value))
    assert done.returncode == 0, done.stderr
    with mrcfile.open(tmp_path / "out" / "good_aligned_mic.mrc") as mrc:
        assert np.isfinite(mrc.data).all()
        assert mrc.data[38:45, 58:65].min() > 0.2 * mrc.data.mean()
    notes = json.loads((tmp_path / "out" / "good_motion.json").read_text())["notes"]
    assert any("9 pixels" in note and "defects" in note for note in notes), notes


def test_a_gain_of_ones_works_and_is_remarked_on(good, tmp_path):
    done = align([good], tmp_path / "out", "--gain", gain(tmp_path, np.s_[:], 1))
    assert done.returncode == 0, done.stderr
    notes = json.loads((tmp_path / "out" / "good_motion.json").read_text())["notes"]
    assert any("gain.mrc" in note and "corrects nothing" in note for note in notes), notes


def test_an_output_folder_that_is_a_file_is_named_at_once(good, tmp_path):
    (tmp_path / "taken").write_text("not a folder")
    done = align([good, good.parent / "x.mrc"], tmp_path / "taken" / "out")
    assert done.returncode == 1
    assert done.stderr.startswith(f"flexalign: {tmp_path / 'taken' / 'out'}: ") and done.stderr.count("\n") == 1
    assert os.listdir(tmp_path) == ["taken"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_named_at_once(good, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    done = align([good], tmp_path / "locked")
    assert done.returncode == 1 and f"{tmp_path / 'locked'}: can't be written" in done.stderr


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 64 kB, less than one micrograph; skipped where the system does not allow making one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a small tmpfs")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_read_only_disk_is_named_at_once(good, small_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    done = align([good], small_disk / "out")
    assert done.returncode == 1
    assert str(small_disk / "out") in done.stderr and "read-only" in done.stderr


@pytest.mark.parametrize("n_movies", [1, 2])
def test_a_full_disk_leaves_nothing_of_the_result(good, small_disk, tmp_path, n_movies):
    movies = [good, tmp_path / "second.mrc"][:n_movies]
    (tmp_path / "second.mrc").symlink_to(good)
    done = align(movies, small_disk)
    assert done.returncode == 1
    assert done.stderr.count("FAILED") == n_movies and "disk is full" in done.stderr
    assert str(small_disk / "good_") in done.stderr and "Traceback" not in done.stderr
    assert set(os.listdir(small_disk)) <= {"failed.tsv"}


def test_a_file_size_limit_leaves_nothing_of_the_result(good, tmp_path):
    done = align([good], tmp_path / "out", limit_files_to=30_000)
    assert done.returncode == 1
    assert "good_aligned_mic.mrc: can't be written" in done.stderr and "Traceback" not in done.stderr
    assert os.listdir(tmp_path / "out") == ["failed.tsv"]


def test_only_a_movie_that_is_replaced_by_a_shorter_one_while_read_fails(good, tmp_path):
    """Reading memory-mapped data that is gone is a bus error: the process dies, and the next movie is aligned."""
    from flexalign_plugin.execution.job import Job
    from flexalign_plugin.execution.worker import Worker
    from flexalign_plugin.settings import Settings

    path = tmp_path / "shrinks.mrc"
    write_mrc_movie(str(path), [f for k in range(60) for f in noise(k)])
    with Worker("cpu") as worker:
        # Its data is gone when the stage "spectra" begins.
        def shrink(stage: str, fraction: float) -> None:
            os.truncate(path, 2048)

        settings = Settings(pixel_size=3.0, do_plots=False)
        first = worker.submit(Job(str(path), str(tmp_path / "out"), "shrinks", settings), shrink)
        second = worker.submit(Job(str(good), str(tmp_path / "out"), "good", settings))
        assert not first.result(60).ok and str(path) in first.result().message
        assert second.result(60).ok, second.result().message
    assert_only_complete_results(tmp_path / "out", "good")
