"""MRC inside bzip2 and gzip: same frames, in any order; truncated and corrupt archives."""

import bz2
import gzip
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from flexalign_plugin.errors import MovieError
from flexalign_plugin.movies import bzip2, open_movie
from flexalign_plugin.phantoms.movie_writers import write_mrc_movie
from flexalign_plugin.settings import Settings

SETTINGS = Settings()
PACKERS = {"bz2": bz2, "gz": gzip}


@pytest.fixture(params=["bz2", "gz"])
def packed(request, tmp_path):
    frames = np.random.default_rng(0).integers(0, 9, (5, 60, 70)).astype("i2")
    write_mrc_movie(str(tmp_path / "m.mrc"), frames)
    path = tmp_path / f"m.mrc.{request.param}"
    path.write_bytes(PACKERS[request.param].compress((tmp_path / "m.mrc").read_bytes()))
    return path, frames


def test_frames_in_any_order_and_thread(packed):
    path, frames = packed
    with open_movie(str(path), SETTINGS) as movie, ThreadPoolExecutor(4) as pool:
        assert movie.shape == frames.shape and movie.dtype == frames.dtype
        order = [3, 0, 4, 4, 2, 1, 3]
        for i, frame in zip(order, pool.map(movie.frame, order)):
            np.testing.assert_array_equal(frame, frames[i])


def test_frame_by_frame_when_memory_is_short(packed):
    path, frames = packed
    with open_movie(str(path), SETTINGS) as movie:
        movie.prefetch(frames.nbytes - 1)
        assert movie.decoded_bytes == 0
        for i in (0, 1, 4, 2):
            np.testing.assert_array_equal(movie.frame(i), frames[i])
        assert movie.frame(1) is not movie.frame(1)
        movie.prefetch(frames.nbytes)
        assert movie.decoded_bytes == frames.nbytes and movie.frame(1) is movie.frame(1)


def test_truncated(packed):
    path, _ = packed
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(
        MovieError, match=r"m.mrc.(bz2|gz): truncated or corrupt in .*: copy or compress the file again"
    ):
        open_movie(str(path), SETTINGS).frame(4)
    path.write_bytes(data[:20])
    with pytest.raises(MovieError, match="m.mrc.* in its header"):
        open_movie(str(path), SETTINGS)


def test_corrupt(packed):
    path, _ = packed
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)
    with pytest.raises(MovieError, match="corrupt"):
        open_movie(str(path), SETTINGS).prefetch()


def test_too_short_for_its_header(packed):
    path, _ = packed
    packer = PACKERS[path.suffix[1:]]
    path.write_bytes(packer.compress(packer.decompress(path.read_bytes())[:30000]))
    with pytest.raises(MovieError, match=r"truncated or corrupt in frame 4 of 5 \(the data ends\)"):
        open_movie(str(path), SETTINGS).prefetch()


def test_something_else_inside(tmp_path):
    (tmp_path / "a.tif.gz").write_bytes(gzip.compress(b"II*\0" + bytes(5000)))
    with pytest.raises(MovieError, match="a.tif.gz: holds no readable MRC stack: .* decompress it"):
        open_movie(str(tmp_path / "a.tif.gz"), SETTINGS)


@pytest.mark.parametrize("level, streams", [(1, 1), (9, 1), (1, 3)])
def test_bzip2_blocks_in_parallel(tmp_path, level, streams):
    """Many blocks, at any bit, and several streams one behind the other as parallel compressors write them."""
    frames = np.random.default_rng(0).poisson(1, (5, 600, 700)).astype("u1")
    write_mrc_movie(str(tmp_path / "m.mrc"), frames)
    data = (tmp_path / "m.mrc").read_bytes()
    parts = [data[k * len(data) // streams : (k + 1) * len(data) // streams] for k in range(streams)]
    path = tmp_path / "m.mrc.bz2"
    path.write_bytes(b"".join(bz2.compress(part, level) for part in parts))
    blocks = list(bzip2.decompress(str(path), 3))
    assert len(blocks) >= 3 and b"".join(block.tobytes() for block in blocks) == data
    with open_movie(str(path), SETTINGS) as movie:
        movie.prefetch(threads=2)
        np.testing.assert_array_equal([movie.frame(i) for i in range(5)], frames)
