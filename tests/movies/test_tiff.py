"""TIFF movies: compressions, strips, tiles, predictors and byte orders against tifffile; damaged files."""

import os
import struct
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tifffile

from flexalign_plugin.errors import MovieError
from flexalign_plugin.movies import load_corrections, open_movie
from flexalign_plugin.phantoms.movie_writers import pack_4bit, write_mrc_movie, write_tiff_movie
from flexalign_plugin.settings import Settings

SETTINGS = Settings()
COMPRESSIONS = [None, "lzw", "deflate", "zstd"]


def random_frames(dtype="u1", shape=(4, 33, 51), seed=0):
    return np.random.default_rng(seed).integers(0, 100, shape).astype(dtype)


def read_all(path):
    with open_movie(str(path), SETTINGS) as movie:
        movie.prefetch()
        return np.stack([movie.frame(i) for i in range(movie.shape[0])])


@pytest.mark.parametrize("layout", [{}, {"rows_per_strip": 10}, {"tile": (16, 32)}, {"bigtiff": True}])
@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "f4"])
def test_writing_and_reading_gives_back_the_frames(tmp_path, dtype, compression, layout):
    frames = random_frames(dtype)
    for byte_order in "<>":
        for predictor in (False, True)[: 1 if compression is None else 2]:
            path = str(tmp_path / "m.tif")
            write_tiff_movie(path, frames, compression, predictor=predictor, byte_order=byte_order, **layout)
            np.testing.assert_array_equal(tifffile.imread(path), frames)
            got = read_all(path)
            assert got.dtype == frames.dtype and got.dtype.isnative
            np.testing.assert_array_equal(got, frames)


def test_frames_may_be_read_in_many_threads_at_once(tmp_path):
    frames = random_frames("u2", (16, 200, 300))
    write_tiff_movie(str(tmp_path / "m.tiff"), frames, "lzw", rows_per_strip=17)
    with open_movie(str(tmp_path / "m.tiff"), SETTINGS) as movie, ThreadPoolExecutor(8) as pool:
        order = np.random.default_rng(1).integers(0, 16, 200)
        for i, frame in zip(order, pool.map(movie.frame, order)):
            np.testing.assert_array_equal(frame, frames[i])


def test_prefetch_keeps_as_many_frames_as_fit(tmp_path):
    write_tiff_movie(str(tmp_path / "m.tif"), random_frames(), "lzw")
    with open_movie(str(tmp_path / "m.tif"), SETTINGS) as movie:
        for bytes_allowed, n_kept in ((4 * 33 * 51 - 1, 3), (33 * 51, 3), (4 * 33 * 51, 4)):
            movie.prefetch(bytes_allowed)
            assert [movie.frame(i) is movie.frame(i) for i in range(4)] == [i < n_kept for i in range(4)]
            assert movie.decoded_bytes == n_kept * 33 * 51
    assert movie.decoded_bytes == 0


def test_prefetched_frames_are_decoded_once(tmp_path, monkeypatch):
    write_tiff_movie(str(tmp_path / "m.tif"), random_frames(), "lzw")
    with open_movie(str(tmp_path / "m.tif"), SETTINGS) as movie:
        decoded, read = [], movie._read
        monkeypatch.setattr(movie, "_read", lambda i: decoded.append(i) or read(i))
        movie.prefetch(threads=2, frames=range(1, 4))
        movie.prefetch(threads=2)
        for i in (0, 1, 2, 3, 0, 2):
            movie.frame(i)
        assert sorted(decoded) == [0, 1, 2, 3]


def test_4bit_samples(tmp_path):
    """Two samples a byte, the first in the high half (TIFF's own order); an odd width fills up its last byte."""
    frames = random_frames(shape=(1, 6, 5)) % 16
    padded = np.pad(frames[0], ((0, 0), (0, 1)))
    write_tiff_movie(str(tmp_path / "m.tif"), [padded[:, 0::2] << 4 | padded[:, 1::2]])
    with tifffile.TiffFile(str(tmp_path / "m.tif"), mode="r+") as tiff:
        tiff.pages[0].tags[258].overwrite(4)
        tiff.pages[0].tags[256].overwrite(5)
    np.testing.assert_array_equal(read_all(tmp_path / "m.tif"), frames)


def test_super_resolution_frames_packed_into_half_the_width(tmp_path):
    frame = np.random.default_rng(0).integers(0, 16, (7676, 7420)).astype("u1")
    write_tiff_movie(str(tmp_path / "m.tif"), [pack_4bit(frame)], "zstd")
    with open_movie(str(tmp_path / "m.tif"), SETTINGS) as movie:
        assert "7420 x 7676" in movie.notes[0]
        np.testing.assert_array_equal(movie.frame(0), frame)


def test_frames_of_different_sizes(tmp_path):
    frames = [np.zeros((20, 30), "u1"), np.zeros((20, 30), "u1"), np.zeros((20, 31), "u1")]
    write_tiff_movie(str(tmp_path / "m.tif"), frames)
    with pytest.raises(MovieError, match=r"m.tif: frame 3 is 31 x 20 uint8, but frame 1 is 30 x 20 uint8: all frames"):
        open_movie(str(tmp_path / "m.tif"), SETTINGS)


def test_unknown_compression_is_named(tmp_path):
    write_tiff_movie(str(tmp_path / "m.tif"), random_frames())
    with tifffile.TiffFile(str(tmp_path / "m.tif"), mode="r+") as tiff:
        tiff.pages[0].tags[259].overwrite(7)
    with pytest.raises(MovieError, match=r"m.tif: TIFF compression 7 \(JPEG\) is not supported: save it as"):
        open_movie(str(tmp_path / "m.tif"), SETTINGS)
    with tifffile.TiffFile(str(tmp_path / "m.tif"), mode="r+") as tiff:
        tiff.pages[0].tags[259].overwrite(12345)
    with pytest.raises(MovieError, match="m.tif: .*12345"):
        open_movie(str(tmp_path / "m.tif"), SETTINGS)


def test_colour_pages(tmp_path):
    tifffile.imwrite(str(tmp_path / "m.tif"), np.zeros((20, 30, 3), "u1"), photometric="rgb")
    with pytest.raises(MovieError, match="m.tif: it has 3 values per pixel"):
        open_movie(str(tmp_path / "m.tif"), SETTINGS)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_truncated_at_any_length(tmp_path, compression):
    """Wherever the file is cut, opening or reading it is an error: no frame is invented or lost."""
    path = str(tmp_path / "m.tif")
    write_tiff_movie(path, random_frames(), compression, rows_per_strip=20)
    size = os.path.getsize(path)
    data = open(path, "rb").read()
    for length in list(range(1, size - 1, 211)) + [size - 200, size - 2]:
        with open(path, "wb") as file:
            file.write(data[:length])
        with pytest.raises(MovieError, match="m.tif: .*: (copy|give)"):
            read_all(path)


@pytest.mark.parametrize("compression", COMPRESSIONS[1:])
def test_corrupt_strip_names_the_frame(tmp_path, compression):
    path = str(tmp_path / "m.tif")
    write_tiff_movie(path, random_frames("u2"), compression)
    with tifffile.TiffFile(path) as tiff:
        start, n = tiff.pages[2].dataoffsets[0], tiff.pages[2].databytecounts[0]
    with open(path, "r+b") as file:
        file.seek(start)
        file.write(b"\xff" * n)
    with open_movie(path, SETTINGS) as movie:
        np.testing.assert_array_equal(movie.frame(1), random_frames("u2")[1])
        with pytest.raises(MovieError, match="m.tif: corrupt: frame 3 can't be decoded"):
            movie.frame(2)
        with pytest.raises(MovieError, match="frame 3"):
            movie.prefetch()


def test_pages_that_go_round_in_circles(tmp_path):
    path = str(tmp_path / "m.tif")
    write_tiff_movie(path, random_frames(), bigtiff=False)
    with tifffile.TiffFile(path) as tiff:
        first, third = tiff.pages[0].offset, tiff.pages[2]
        link = third.offset + 2 + 12 * len(third.tags)
    with open(path, "r+b") as file:
        file.seek(link)
        file.write(struct.pack("<I", first))
    with pytest.raises(MovieError, match="m.tif: truncated or damaged: .*page 4 is an earlier one again"):
        open_movie(path, SETTINGS)


def test_flipped_upside_down(tmp_path):
    """As RELION reads it. An MRC gain then has the frames' row order, and a TIFF gain is flipped with them."""
    frames = np.random.default_rng(0).integers(0, 99, (3, 40, 64)).astype("u1")
    gain = np.random.default_rng(1).uniform(0.8, 1.2, (40, 64)).astype("f4")
    for compression in (None, "lzw"):
        write_tiff_movie(str(tmp_path / "m.tif"), frames, compression, rows_per_strip=7)
        settings = Settings(flip_tiff=True)
        with open_movie(str(tmp_path / "m.tif"), settings) as movie:
            for i in range(3):
                np.testing.assert_array_equal(movie.frame(i), frames[i, ::-1])
                assert movie.frame(i).flags.c_contiguous
            assert not movie.top_row_first and movie.notes == ["Frames are turned upside down, as asked for."]
            for name, stored in (("gain.mrc", gain), ("gain.tif", gain[::-1])):
                if name == "gain.mrc":
                    write_mrc_movie(str(tmp_path / name), [stored])
                else:
                    write_tiff_movie(str(tmp_path / name), [stored])
                got = load_corrections(movie, Settings(flip_tiff=True, gain=str(tmp_path / name)))
                np.testing.assert_array_equal(got.gain, gain)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_whole_frames_of_a_truncated_file(tmp_path, compression):
    """Cut at any length after the first two frames: as many frames as have all their data, each the true one."""
    path, frames = str(tmp_path / "m.tif"), random_frames(shape=(6, 33, 51))
    write_tiff_movie(path, frames, compression, rows_per_strip=8)
    data, asked = open(path, "rb").read(), Settings(use_whole_frames=True)
    with tifffile.TiffFile(path) as tiff:
        ends = [max(a + b for a, b in zip(p.dataoffsets, p.databytecounts)) for p in tiff.pages]
    seen = set()
    for length in range(ends[1] + 1, ends[-1], 67):
        with open(path, "wb") as file:
            file.write(data[:length])
        with pytest.raises(MovieError, match="m.tif: truncated.*--use-whole-frames"):
            open_movie(path, SETTINGS)
        with open_movie(path, asked) as movie:
            assert movie.n_frames == sum(end <= length for end in ends)
            assert len(movie.warnings) == 1 and f"its {movie.n_frames} complete frames are used" in movie.warnings[0]
            read = np.stack([movie.frame(i) for i in range(movie.n_frames)])
            np.testing.assert_array_equal(read, frames[: movie.n_frames])
            seen.add(movie.n_frames)
    assert seen == {2, 3, 4, 5}
    with open_movie(path, Settings(use_whole_frames=True, total_dose=20)) as movie:
        assert "does not tell how many frames were recorded" in movie.warnings[1]
