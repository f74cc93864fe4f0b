"""Stacks of particle images, as programs really write them."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import mrcfile
import numpy as np
import pytest

from flexalign_plugin.errors import ParticleError
from flexalign_plugin.particles.io_stack import Stacks, found_in, open_stack, read_images

N, BOX = 6, 16
MODES = {"int8": 0, "int16": 1, "float32": 2, "uint16": 6, "float16": 12}


def write(path, data, volume=False):
    with mrcfile.new(str(path), overwrite=True) as file:
        file.set_data(data)
        if volume:
            file.set_volume()
        else:
            file.set_image_stack()
    return str(path)


@pytest.fixture()
def images():
    return np.random.default_rng(1).integers(0, 100, (N, BOX, BOX))


@pytest.mark.parametrize("dtype", MODES)
@pytest.mark.parametrize("volume", [False, True])
def test_every_kind_of_number_and_header_is_read(tmp_path, images, dtype, volume):
    path = write(tmp_path / "a.mrcs", images.astype(dtype), volume)
    stack = open_stack(path)
    assert (stack.n, stack.box) == (N, BOX)
    read = read_images(stack, np.array([4, 0, 4]))
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, images[[4, 0, 4]])


@pytest.mark.parametrize("order", ["<", ">"])
def test_both_byte_orders_and_extended_headers_are_read(tmp_path, images, order):
    path = write(tmp_path / "a.mrcs", images.astype("f4"))
    with mrcfile.open(path, "r+") as file:
        file.set_extended_header(np.zeros(64, "V4"))
    stack = open_stack(path)
    with open(path, "rb") as file:
        content = file.read()
    if order == ">":
        header = np.frombuffer(content, "<i4", 56).byteswap().tobytes()
        header = header[:208] + b"MAP " + b"\x11\x11\0\0" + header[216:]
        data = np.frombuffer(content, "<f4", offset=stack.offset).byteswap().tobytes()
        with open(path, "wb") as file:
            file.write(header + content[224 : stack.offset] + data)
    np.testing.assert_array_equal(read_images(open_stack(path), np.arange(N)), images)


def test_an_image_of_its_own_is_a_stack_of_one(tmp_path, images):
    with mrcfile.new(str(tmp_path / "a.mrc")) as file:
        file.set_data(images[0].astype("f4"))
    np.testing.assert_array_equal(read_images(open_stack(str(tmp_path / "a.mrc")), np.array([0]))[0], images[0])


def test_an_odd_box_keeps_its_centre(tmp_path):
    data = np.zeros((1, 15, 15), "f4")
    data[0, 7, 7] = 1
    stack = open_stack(write(tmp_path / "odd.mrcs", data))
    assert stack.box == 14
    read = read_images(stack, np.array([0]))[0]
    assert read.shape == (14, 14) and read[7, 7] == 1  # 14 // 2 is the origin of the even box


def test_bad_images_are_named_and_do_not_stop_the_others(tmp_path, images):
    data = images.astype("f4")
    data[1, 3, 3], data[2, 0, 0], data[3] = np.nan, np.inf, 7
    good = write(tmp_path / "a.mrcs", data)
    cut = write(tmp_path / "cut.mrcs", images.astype("f4"))
    os.truncate(cut, 1024 + 2 * BOX * BOX * 4 + 10)
    flat = write(tmp_path / "wide.mrcs", np.ones((2, 16, 20), "f4"))
    other = write(tmp_path / "other.mrcs", np.random.default_rng(2).normal(size=(2, 20, 20)).astype("f4"))
    text = tmp_path / "text.mrcs"
    text.write_text("hello" * 500)
    stacks = Stacks([good, cut, str(tmp_path / "nowhere.mrcs"), flat, other, str(text)])
    file = np.array([0, 0, 0, 0, 0, 0, 1, 1, 2, 3, 4, 5])
    index = np.array([0, 1, 2, 3, 99, -1, 1, 2, 0, 0, 0, 0])
    read, problems = stacks.read(file, index, BOX)
    assert sorted(problems) == [1, 2, 3, 4, 5, 7, 8, 9, 10, 11]
    np.testing.assert_array_equal(read[0], data[0])
    np.testing.assert_array_equal(read[6], images[1])
    assert all((read[i] == 0).all() for i in problems)
    assert "not numbers (NaN or infinite)" in problems[1] and "not numbers" in problems[2]
    assert "its image is empty (all pixels are 7)" in problems[3]
    assert problems[4].startswith(f"image 100 is not in {good}, which holds 6 images")
    assert problems[7].startswith(f"image 3 is not in {cut}, which holds 2 images")
    assert "No such file" in problems[8] and "nowhere.mrcs" in problems[8]
    assert "20 x 16 pixels are not square" in problems[9]
    assert "its images have 20 pixels a side, others of the same optics group 16" in problems[10]
    assert "text.mrcs" in problems[11]
    assert all(problem.endswith(".") for problem in problems.values())


@pytest.mark.parametrize("size", [0, 10, 1023, 1024])
def test_a_file_without_images_is_refused(tmp_path, images, size):
    path = write(tmp_path / "a.mrcs", images.astype("f4"))
    os.truncate(path, size)
    _, problems = Stacks([path]).read(np.array([0]), np.array([0]), BOX)
    assert path in problems[0]


def test_folders_and_pipes_are_refused_at_once(tmp_path):
    os.mkfifo(str(tmp_path / "pipe.mrcs"))
    for name in ("pipe.mrcs", ""):
        with pytest.raises(ParticleError, match="it is"):
            open_stack(str(tmp_path / name))


def test_more_stacks_than_open_files_are_read_by_several_threads(tmp_path):
    """Each image holds its own number; no file stays open."""
    data = np.arange(40 * 3, dtype="f4").reshape(40, 3, 1, 1) + np.linspace(0, 0.5, 256).reshape(16, 16).astype("f4")
    stacks = Stacks([write(tmp_path / f"{i}.mrcs", part) for i, part in enumerate(data)])
    before = len(os.listdir("/proc/self/fd"))
    rng = np.random.default_rng(3)
    wanted = [(rng.integers(0, 40, 50), rng.integers(0, 3, 50)) for _ in range(20)]
    with ThreadPoolExecutor(4) as pool:
        for (file, index), (read, problems) in zip(wanted, pool.map(lambda w: stacks.read(*w, BOX), wanted)):
            assert not problems
            np.testing.assert_array_equal(read[:, 0, 0], 3 * file + index)
    assert len(os.listdir("/proc/self/fd")) <= before


def test_stacks_are_found_from_the_project_folder(tmp_path, monkeypatch):
    job = tmp_path / "project" / "Extract" / "job007"
    (job / "Movies").mkdir(parents=True)
    (job / "Movies" / "a.mrcs").write_bytes(b"")
    star, name = str(job / "particles.star"), "Extract/job007/Movies/a.mrcs"
    monkeypatch.chdir(tmp_path)
    project = str(tmp_path / "project")
    assert found_in([name, "Extract/job007/Movies/b.mrcs"], star) == [
        os.path.join(project, name),
        os.path.join(project, "Extract/job007/Movies/b.mrcs"),
    ]
    monkeypatch.chdir(project)
    assert found_in([name], star) == [name]
    assert found_in(["nowhere.mrcs"], star) == ["nowhere.mrcs"] and found_in([], star) == []
