"""`open_movie` on files of every kind under any name, and on what is no movie at all."""

import os

import numpy as np
import pytest

from flexalign_plugin.errors import MovieError
from flexalign_plugin.movies import open_movie
from flexalign_plugin.phantoms.movie_writers import write_eer_movie, write_mrc_movie, write_tiff_movie
from flexalign_plugin.settings import Settings

SETTINGS = Settings(n_frames=2)
FRAMES = np.arange(2 * 16 * 16, dtype="u2").reshape(2, 16, 16)


def test_content_decides_not_the_name(tmp_path):
    path = str(tmp_path / "movie.dat")
    write_mrc_movie(path, FRAMES)
    assert open_movie(path, SETTINGS).kind == "MRC"
    write_tiff_movie(path, FRAMES)
    assert open_movie(path, SETTINGS).kind == "TIFF"
    write_eer_movie(path, [np.array([[1, 2, 0, 0]])] * 2, (16, 16))
    assert open_movie(path, SETTINGS).kind == "EER"


def test_single_frame_opens(tmp_path):
    write_mrc_movie(str(tmp_path / "m.mrc"), FRAMES[:1])
    assert open_movie(str(tmp_path / "m.mrc"), SETTINGS).shape == (1, 16, 16)


@pytest.mark.parametrize("name", ["m.mrc", "m.tif", "m.eer", "m.mrc.bz2"])
def test_empty_missing_link_folder(tmp_path, name):
    path = tmp_path / name
    with pytest.raises(MovieError, match=f"{name}: no such file: check the name"):
        open_movie(str(path), SETTINGS)
    path.write_bytes(b"")
    with pytest.raises(MovieError, match=rf"{name}: is empty \(0 bytes\): copy the file again"):
        open_movie(str(path), SETTINGS)
    path.unlink()
    path.symlink_to(tmp_path / "gone.mrc")
    with pytest.raises(MovieError, match=f"{name}: broken link to .*gone.mrc: restore"):
        open_movie(str(path), SETTINGS)
    path.unlink()
    path.mkdir()
    with pytest.raises(MovieError, match=f"{name}: is a folder: give a file"):
        open_movie(str(path), SETTINGS)


def test_neither_kind(tmp_path):
    (tmp_path / "m.txt").write_text("hello " * 500)
    with pytest.raises(
        MovieError, match="m.txt: its content is neither MRC .*, TIFF or EER: give a file in one of these"
    ):
        open_movie(str(tmp_path / "m.txt"), SETTINGS)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable(tmp_path):
    write_mrc_movie(str(tmp_path / "m.mrc"), FRAMES)
    os.chmod(tmp_path / "m.mrc", 0)
    with pytest.raises(MovieError, match="m.mrc: can't be opened .*: check its permissions"):
        open_movie(str(tmp_path / "m.mrc"), SETTINGS)


def test_links_to_movies_are_fine(tmp_path):
    write_mrc_movie(str(tmp_path / "m.mrc"), FRAMES)
    (tmp_path / "link.mrc").symlink_to("m.mrc")
    np.testing.assert_array_equal(open_movie(str(tmp_path / "link.mrc"), SETTINGS).frame(1), FRAMES[1])
