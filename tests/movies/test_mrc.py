"""MRC stacks: every mode and byte order gives back what was written; damaged headers and sizes are told apart."""

import os
import struct

import mrcfile
import numpy as np
import pytest

from flexalign_plugin.errors import MovieError
from flexalign_plugin.movies import open_movie, settings_of_frames
from flexalign_plugin.movies.mrc import IMOD_FLAGS_AT, IMOD_STAMP, IMOD_STAMP_AT
from flexalign_plugin.phantoms.movie_writers import pack_4bit, write_mrc_movie
from flexalign_plugin.settings import Settings

SETTINGS = Settings()


def random_frames(dtype, shape=(4, 33, 51), seed=0):
    return np.random.default_rng(seed).integers(0, 100, shape).astype(dtype)


def read_all(path, settings=SETTINGS):
    with open_movie(str(path), settings) as movie:
        return np.stack([movie.frame(i) for i in range(movie.shape[0])])


@pytest.mark.parametrize("byte_order", "<>")
@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "f4", "f2"])
def test_writing_and_reading_gives_back_the_frames(tmp_path, dtype, byte_order):
    frames = random_frames(dtype)
    write_mrc_movie(str(tmp_path / "m.mrc"), iter(frames), 1.1, byte_order=byte_order)
    got = read_all(tmp_path / "m.mrc")
    assert got.dtype == frames.dtype and got.dtype.isnative
    np.testing.assert_array_equal(got, frames)


def test_mrcfile_reads_what_we_write_and_we_read_what_it_writes(tmp_path):
    frames = random_frames("i2")
    write_mrc_movie(str(tmp_path / "m.mrc"), frames, 1.25)
    with mrcfile.open(str(tmp_path / "m.mrc")) as mrc:
        np.testing.assert_array_equal(mrc.data, frames)
        assert mrc.voxel_size.x == pytest.approx(1.25)
    for dtype in ("i1", "i2", "u2", "f4", "f2"):
        with mrcfile.new(str(tmp_path / "n.mrcs"), random_frames(dtype), overwrite=True) as mrc:
            mrc.set_extended_header(np.zeros(96, "V1"))
        np.testing.assert_array_equal(read_all(tmp_path / "n.mrcs"), random_frames(dtype))


@pytest.mark.parametrize("nx", [50, 51])
def test_packed_4bit_mode_101(tmp_path, nx):
    frames = random_frames("u1", (3, 20, nx)) % 16
    write_mrc_movie(str(tmp_path / "m.mrc"), frames, mode=101)
    assert os.path.getsize(tmp_path / "m.mrc") == 1024 + 3 * 20 * ((nx + 1) // 2)
    got = read_all(tmp_path / "m.mrc")
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, frames)


def test_packed_4bit_pixels_in_bytes_marked_by_imod(tmp_path):
    frames = random_frames("u1", (3, 20, 50)) % 16
    write_mrc_movie(str(tmp_path / "m.mrc"), [pack_4bit(frame) for frame in frames])
    set_imod_flags(tmp_path / "m.mrc", 16)
    np.testing.assert_array_equal(read_all(tmp_path / "m.mrc"), frames)


def set_imod_flags(path, flags):
    data = bytearray(path.read_bytes())
    data[IMOD_STAMP_AT : IMOD_FLAGS_AT + 4] = struct.pack("<ii", IMOD_STAMP, flags)
    path.write_bytes(data)


def test_bytes_are_signed_or_not_as_the_header_says(tmp_path):
    path = tmp_path / "m.mrc"
    frames = np.full((2, 8, 8), 200, np.uint8)
    write_mrc_movie(str(path), frames)
    assert read_all(path).dtype == np.uint8
    set_imod_flags(path, 1)
    assert read_all(path)[0, 0, 0] == 200 - 256
    data = bytearray(path.read_bytes())
    data[IMOD_STAMP_AT : IMOD_FLAGS_AT + 4] = bytes(8)
    path.write_bytes(data)  # without IMOD's mark the maximum decides
    with open_movie(str(path), SETTINGS) as movie:
        assert movie.dtype == np.uint8 and "unsigned" in movie.notes[0]


def test_frames_are_mapped_not_copied(tmp_path):
    write_mrc_movie(str(tmp_path / "m.mrc"), random_frames("u2"))
    with open_movie(str(tmp_path / "m.mrc"), SETTINGS) as movie:
        movie.prefetch()
        assert movie.memory_mapped and not movie.frame(1).flags.owndata and not movie.frame(1).flags.writeable
        assert movie.frame(1).flags.c_contiguous and movie.shape == (4, 33, 51)
        with pytest.raises(IndexError, match="frame 4 of 4"):
            movie.frame(4)


@pytest.mark.parametrize("byte_order", ["<", ">"])
@pytest.mark.parametrize("dtype, mode", [("u1", None), ("i2", None), ("f4", None), ("u1", 101)])
def test_low_memory_reads_frames_without_mapping_the_file(tmp_path, dtype, mode, byte_order):
    frames = random_frames(dtype) % 16
    write_mrc_movie(str(tmp_path / "m.mrc"), frames, mode=mode, byte_order=byte_order)
    with open_movie(str(tmp_path / "m.mrc"), Settings(low_memory=True)) as movie:
        assert not movie.memory_mapped
        for i in (2, 0, 3):
            got = movie.frame(i)
            assert got.dtype.isnative
            np.testing.assert_array_equal(got, frames[i])
        assert movie.frame(0) is not movie.frame(0)
    with pytest.raises(ValueError, match="closed"):
        movie.frame(1)


def test_truncated_file_is_reported_with_its_size(tmp_path):
    write_mrc_movie(str(tmp_path / "m.mrc"), random_frames("u2"))
    os.truncate(tmp_path / "m.mrc", 1024 + 2 * 33 * 51 * 2 + 33 * 51)
    with pytest.raises(
        MovieError, match=r"m.mrc: truncated: its header specifies 4 frames of 51 x 33 .* holds 2.5 .*copy"
    ):
        open_movie(str(tmp_path / "m.mrc"), SETTINGS)


def test_bytes_behind_the_last_frame_are_noted(tmp_path):
    write_mrc_movie(str(tmp_path / "m.mrc"), random_frames("u2"))
    with open(tmp_path / "m.mrc", "ab") as file:
        file.write(b"x" * 10)
    with open_movie(str(tmp_path / "m.mrc"), SETTINGS) as movie:
        assert movie.notes == ["10 bytes after the 4 frames of the header are not read."]


@pytest.mark.parametrize("mode, name", [(4, "complex"), (16, "RGB"), (7, "unknown")])
def test_unsupported_mode(tmp_path, mode, name):
    write_mrc_movie(str(tmp_path / "m.mrc"), random_frames("u2"))
    data = bytearray((tmp_path / "m.mrc").read_bytes())
    data[12:16] = struct.pack("<i", mode)
    (tmp_path / "m.mrc").write_bytes(data)
    with pytest.raises(MovieError, match=f"m.mrc: MRC mode {mode} .*{name}.* can't be a movie: use mode 0, 1, 2"):
        open_movie(str(tmp_path / "m.mrc"), SETTINGS)


def test_damaged_header(tmp_path):
    (tmp_path / "m.mrc").write_bytes(b"\xff" * 5000)
    with pytest.raises(MovieError, match="m.mrc: its MRC header is truncated or damaged: copy"):
        open_movie(str(tmp_path / "m.mrc"), SETTINGS)


def test_a_failing_writer_leaves_nothing_behind(tmp_path):
    with pytest.raises(ValueError, match="frame 1 is"):
        write_mrc_movie(str(tmp_path / "m.mrc"), [np.zeros((4, 4), "u2"), np.zeros((5, 4), "u2")])
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("mode", ["u1", "f4"])
def test_whole_frames_of_a_truncated_file(tmp_path, mode):
    """Cut anywhere in the last two frames. The dose of the whole movie is still spread over all recorded frames."""
    frames = np.random.default_rng(0).integers(0, 100, (5, 33, 51)).astype(mode)
    path = str(tmp_path / "m.mrc")
    write_mrc_movie(path, frames)
    data, frame = open(path, "rb").read(), frames[0].nbytes
    for missing, whole in ((1, 4), (frame - 1, 4), (frame, 4), (frame + 1, 3), (2 * frame, 3)):
        with open(path, "wb") as file:
            file.write(data[: len(data) - missing])
        with pytest.raises(MovieError, match="m.mrc: truncated: .*--use-whole-frames"):
            open_movie(path, Settings())
        asked = Settings(use_whole_frames=True, total_dose=20)
        with open_movie(path, asked) as movie:
            assert movie.shape == (whole, 33, 51) and movie.n_recorded == 5
            assert len(movie.warnings) == 1 and f"its {whole} complete frames are used" in movie.warnings[0]
            np.testing.assert_array_equal(np.stack([movie.frame(i) for i in range(whole)]), frames[:whole])
            assert settings_of_frames(movie, asked).dose_per_frame == 4
    with open(path, "wb") as file:
        file.write(data[: 1024 + frame // 2])
    with pytest.raises(MovieError, match="m.mrc: truncated"):
        open_movie(path, Settings(use_whole_frames=True))
