"""EER: our decoder against the known events and against imagecodecs'; grouping; corrupt streams."""

import os

import imagecodecs
import numpy as np
import pytest
import tifffile

from flexalign_plugin.errors import MovieError
from flexalign_plugin.movies import open_movie
from flexalign_plugin.phantoms.movie_writers import encode_events, write_eer_movie
from flexalign_plugin.settings import Settings

SHAPE = (96, 160)
CODINGS = [
    (65000, (8, 2, 2)),
    (65001, (7, 2, 2)),
    (65002, (7, 2, 2)),
    (65002, (8, 2, 2)),
    (65002, (7, 1, 1)),
    (65002, (5, 3, 2)),
]
DOSES = (0.02, 0.3, 0.001, 0.0, 0.9, 0.1)


def random_events(dose, bits=(7, 2, 2), shape=SHAPE, seed=0):
    """Events (n, 4) y, x, sub_y, sub_x, at most one a pixel, in random order."""
    rng = np.random.default_rng([seed, int(1000 * dose)])
    position = rng.permutation(np.nonzero(rng.random(shape[0] * shape[1]) < dose)[0])
    sub = [rng.integers(0, 1 << b, len(position)) for b in (bits[2], bits[1])]
    return np.stack([position // shape[1], position % shape[1], *sub], 1)


def rendered(events, bits, zoom, shape=SHAPE):
    """Counts on the grid refined by 2**zoom: the truth, from the events themselves."""
    image = np.zeros((shape[0] << zoom, shape[1] << zoom), int)
    y = (events[:, 0] << zoom) + (events[:, 2] >> bits[2] - zoom)
    x = (events[:, 1] << zoom) + (events[:, 3] >> bits[1] - zoom)
    np.add.at(image, (y, x), 1)
    return image


def settings(n_frames=2, sampling=1):
    return Settings(n_frames=n_frames, eer_sampling=sampling)


@pytest.mark.parametrize("compression, bits", CODINGS)
@pytest.mark.parametrize("sampling, zoom", [(1, 0), (2, 1), (4, 2)])
def test_every_coding_at_every_sampling(tmp_path, compression, bits, sampling, zoom):
    if zoom > min(bits[1:]):
        pytest.skip("not enough sub-pixel bits")
    frames = [random_events(dose, bits) for dose in DOSES]
    write_eer_movie(str(tmp_path / "m.eer"), frames, SHAPE, compression, bits)
    with open_movie(str(tmp_path / "m.eer"), settings(2, sampling)) as movie:
        assert movie.kind == "EER" and movie.dtype == np.uint8
        for i in range(2):
            want = sum(rendered(events, bits, zoom) for events in frames[3 * i : 3 * i + 3])
            np.testing.assert_array_equal(movie.frame(i), want)


@pytest.mark.skipif(not hasattr(imagecodecs, "eer_decode"), reason="not in the last imagecodecs for Python 3.8")
def test_imagecodecs_decodes_the_same():
    events = random_events(0.3)
    stream = encode_events(events, SHAPE, (7, 2, 2))
    np.testing.assert_array_equal(imagecodecs.eer_decode(stream, SHAPE, 7, 2, 2), rendered(events, (7, 2, 2), 0))


def test_tifffile_opens_what_is_written(tmp_path):
    write_eer_movie(str(tmp_path / "m.eer"), [random_events(0.3)] * 2, SHAPE)
    with tifffile.TiffFile(str(tmp_path / "m.eer")) as tiff:
        assert len(tiff.pages) == 2 and tiff.pages[0].compression == 65001 and tiff.pages[0].shape == SHAPE


def test_remainder_is_left_out_and_noted(tmp_path):
    frames = [random_events(0.1, seed=k) for k in range(23)]
    write_eer_movie(str(tmp_path / "m.eer"), frames, SHAPE)
    with open_movie(str(tmp_path / "m.eer"), settings(7)) as movie:
        assert movie.shape == (7, *SHAPE) and movie.hardware_frames_per_frame == 3
        assert movie.notes[0].startswith("23 hardware frames summed by 3 into 7 frames; the last 2 are left out")
        want = sum(rendered(events, (7, 2, 2), 0) for events in frames[18:21])
        np.testing.assert_array_equal(movie.frame(6), want)


def test_losing_much_suggests_another_number(tmp_path):
    write_eer_movie(str(tmp_path / "m.eer"), [random_events(0.01)] * 19, SHAPE)
    with open_movie(str(tmp_path / "m.eer"), settings(10)) as movie:
        assert "9 of 19 hardware frames are left out: 9 EER frames would use 18 of them." in movie.notes


def test_many_hardware_frames_need_wider_counts(tmp_path):
    events = np.array([[3, 5, 0, 0]])
    write_eer_movie(str(tmp_path / "m.eer"), [events] * 600, (16, 16))
    with open_movie(str(tmp_path / "m.eer"), settings(2)) as movie:
        assert movie.dtype == np.uint16 and movie.frame(1)[3, 5] == 300 and movie.frame(1).sum() == 300


def test_events_at_the_corners_and_long_gaps(tmp_path):
    corners = np.array([[0, 0, 3, 0], [0, 159, 0, 3], [95, 0, 1, 2], [95, 159, 2, 1]])
    last_only = corners[3:]
    write_eer_movie(str(tmp_path / "m.eer"), [corners, last_only], SHAPE)
    with open_movie(str(tmp_path / "m.eer"), settings(2, 4)) as movie:
        np.testing.assert_array_equal(movie.frame(0), rendered(corners, (7, 2, 2), 2))
        np.testing.assert_array_equal(movie.frame(1), rendered(last_only, (7, 2, 2), 2))


def test_more_frames_wanted_than_there_are(tmp_path):
    write_eer_movie(str(tmp_path / "m.eer"), [random_events(0.1)] * 5, SHAPE)
    with pytest.raises(MovieError, match="m.eer: 5 hardware frames can't be grouped into 40 frames: ask for at most 5"):
        open_movie(str(tmp_path / "m.eer"), Settings())


def test_too_few_subpixel_bits(tmp_path):
    write_eer_movie(str(tmp_path / "m.eer"), [random_events(0.1, (7, 1, 1))] * 5, SHAPE, 65002, (7, 1, 1))
    with pytest.raises(
        MovieError, match="m.eer: its events have 1 sub-pixel bits, too few for EER sampling 4: use 2 or"
    ):
        open_movie(str(tmp_path / "m.eer"), settings(2, 4))


def test_corrupt_stream_names_the_hardware_frame(tmp_path):
    path = str(tmp_path / "m.eer")
    write_eer_movie(path, [random_events(0.1)] * 6, SHAPE)
    with tifffile.TiffFile(path) as tiff:
        start, n = tiff.pages[4].dataoffsets[0], tiff.pages[4].databytecounts[0]
    with open(path, "r+b") as file:
        good = file.read()
        for damage in (bytes(n), b"\xff" * n, np.random.default_rng(0).bytes(n)):
            file.seek(start)
            file.write(damage)
            file.flush()
            with open_movie(path, settings(3)) as movie:
                movie.frame(1)
                with pytest.raises(
                    MovieError, match="m.eer: corrupt: the events of hardware frame 5 don't fill the frame"
                ):
                    movie.frame(2)
    assert len(good) == os.path.getsize(path)


def test_truncated_at_any_length(tmp_path):
    path = str(tmp_path / "m.eer")
    write_eer_movie(path, [random_events(0.1)] * 4, SHAPE)
    data = open(path, "rb").read()
    for length in range(1, len(data) - 16, 97):  # the last bytes are padding
        with open(path, "wb") as file:
            file.write(data[:length])
        with pytest.raises(MovieError, match="m.eer: .*: (copy|give)"), open_movie(path, settings(4)) as movie:
            movie.prefetch()


def test_no_file_handle_is_left_open(tmp_path):
    path = str(tmp_path / "m.eer")
    write_eer_movie(path, [random_events(0.1)] * 4, SHAPE)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with open_movie(path, settings(2)) as movie:
            movie.prefetch()
        with pytest.raises(MovieError, match="4 hardware frames can't be grouped into 5 frames"):
            open_movie(path, settings(5))
    assert len(os.listdir("/proc/self/fd")) == before
