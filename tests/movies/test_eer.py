"""EER: our decoder against the known events and against imagecodecs'; grouping; corrupt streams."""

import os

import imagecodecs
import numpy as np
import pytest
import tifffile

from flexalign_plugin.errors import MovieError
from flexalign_plugin.movies import open_movie, settings_of_frames
from flexalign_plugin.phantoms.movie_writers import eer_metadata_text, encode_events, write_eer_movie
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


def spoil(path, numbers, damage):
    """Replace the streams of hardware frames (0-based) by `damage(n_bytes)`."""
    with tifffile.TiffFile(path) as tiff:
        places = [(tiff.pages[k].dataoffsets[0], tiff.pages[k].databytecounts[0]) for k in numbers]
    with open(path, "r+b") as file:
        for start, n in places:
            file.seek(start)
            file.write(damage(n))


DAMAGES = {
    "zeros": bytes,
    "ones": lambda n: b"\xff" * n,
    "random": lambda n: np.random.default_rng(0).bytes(n),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_corrupt_stream_names_the_hardware_frame_if_there_are_too_many(tmp_path, damage):
    """One of six is more than a tenth."""
    path = str(tmp_path / "m.eer")
    write_eer_movie(path, [random_events(0.1)] * 6, SHAPE)
    spoil(path, [4], DAMAGES[damage])
    with open_movie(path, settings(3)) as movie:
        movie.frame(1)
        with pytest.raises(MovieError, match="m.eer: corrupt: the events of hardware frame 5 don't fill the frame"):
            movie.frame(2)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("sampling, zoom", [(1, 0), (4, 2)])
def test_damaged_hardware_frames_are_left_out_of_their_group(tmp_path, damage, sampling, zoom):
    """All other events are in the frames, each once; the groups are those of the whole movie."""
    path, broken = str(tmp_path / "m.eer"), (7, 8, 31)
    frames = [random_events(0.05, seed=k) for k in range(40)]
    write_eer_movie(path, frames, SHAPE)
    spoil(path, broken, DAMAGES[damage])
    with open_movie(path, settings(8, sampling)) as movie:
        assert movie.shape[0] == 8 and movie.hardware_frames_per_frame == 5 and movie.damage() == []
        movie.prefetch(threads=2)
        for i in range(8):
            kept = [rendered(frames[k], (7, 2, 2), zoom) for k in range(5 * i, 5 * i + 5) if k not in broken]
            np.testing.assert_array_equal(movie.frame(i), sum(kept))
        assert movie.damage() == [
            "3 of 40 hardware frames (7.5 % of the dose) are damaged and were left out: 8, 9, 32."
        ]


def test_a_hardware_frame_whose_data_are_outside_the_file_is_damaged(tmp_path):
    path = str(tmp_path / "m.eer")
    frames = [random_events(0.05, seed=k) for k in range(20)]
    write_eer_movie(path, frames, SHAPE)
    with tifffile.TiffFile(path) as tiff:
        value_at = tiff.pages[6].tags[273].offset + 12
    with open(path, "r+b") as file:
        file.seek(value_at)
        file.write((10**9).to_bytes(8, "little"))
    with open_movie(path, settings(4)) as movie:
        want = sum(rendered(frames[k], (7, 2, 2), 0) for k in (5, 7, 8, 9))
        np.testing.assert_array_equal(movie.frame(1), want)
        assert movie.damage()[0].endswith("left out: 7.")


def test_the_limit_of_damaged_hardware_frames_counts_all_groups(tmp_path):
    path = str(tmp_path / "m.eer")
    write_eer_movie(path, [random_events(0.05)] * 40, SHAPE)
    spoil(path, (0, 10, 20, 30), bytes)
    with open_movie(path, settings(4)) as movie:
        movie.prefetch()
        assert "4 of 40 hardware frames (10 % of the dose)" in movie.damage()[0]
    spoil(path, (15,), bytes)
    with open_movie(path, settings(4)) as movie, pytest.raises(MovieError, match="at least 5 of 40"):
        movie.prefetch()


@pytest.mark.parametrize(
    "asked, group",
    [
        ({"eer_group": 6}, 6),
        ({"eer_dose": 1.0, "dose_per_hardware_frame": 0.26}, 4),  # 1.04, closer than 0.78
        ({"eer_dose": 1.0, "total_dose": 46 * 0.18}, 6),  # 1.08
        ({"eer_dose": 1.0, "total_dose": 46 * 4.0}, 1),  # a hardware frame has more already
        ({"eer_dose": 0.5}, 7),  # from the metadata: 4.6 e/px at 1.2 A are 3.194 e/A^2, 0.0694 in a hardware frame
    ],
)
def test_grouped_by_size_or_dose(tmp_path, asked, group):
    path = str(tmp_path / "m.eer")
    frames = [random_events(0.02, seed=k) for k in range(46)]
    write_eer_movie(path, frames, SHAPE, metadata=eer_metadata_text(1.2, 4.6, 46))
    with open_movie(path, Settings(pixel_size=1.2, **asked)) as movie:
        assert (movie.hardware_frames_per_frame, movie.n_frames) == (group, 46 // group)
        want = sum(rendered(events, (7, 2, 2), 0) for events in frames[group : 2 * group])
        np.testing.assert_array_equal(movie.frame(1), want)
        lost = 46 % group
        assert ("left out" in movie.notes[0]) == bool(lost) and (f"the last {lost} are" in movie.notes[0] or not lost)
        from_metadata = asked == {"eer_dose": 0.5}
        assert ["own metadata" in note for note in movie.notes[1:]] == [True] * from_metadata


def test_groups_that_can_not_be_made(tmp_path):
    path = str(tmp_path / "m.eer")
    write_eer_movie(path, [random_events(0.02)] * 20, SHAPE)
    with pytest.raises(MovieError, match="m.eer: frames of 1 e/A.2 need the dose, which is not known"):
        open_movie(path, Settings(eer_dose=1.0))
    with pytest.raises(MovieError, match="20 hardware frames make 1 frames of 11, .*groups of at most 10"):
        open_movie(path, Settings(eer_group=11))


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


def test_a_truncated_movie_is_read_from_its_whole_hardware_frames_if_asked(tmp_path):
    """Cut at many lengths: the frames that are returned are the true ones, and a warning states how many there are."""
    path = str(tmp_path / "m.eer")
    frames = [random_events(0.05, seed=k) for k in range(12)]
    write_eer_movie(path, frames, SHAPE, metadata=eer_metadata_text(1.0, 0.6, 12))
    data = open(path, "rb").read()
    with tifffile.TiffFile(path) as tiff:
        ends = [page.dataoffsets[0] + page.databytecounts[0] for page in tiff.pages]
    for length in range(ends[3] + 1, ends[-1], 331):
        with open(path, "wb") as file:
            file.write(data[:length])
        with pytest.raises(MovieError, match="m.eer: truncated.*--use-whole-frames"):
            open_movie(path, Settings(eer_group=2))
        n = sum(end <= length for end in ends)
        with open_movie(path, Settings(eer_group=2, use_whole_frames=True, total_dose=24)) as movie:
            assert movie.n_frames == n // 2 and movie.n_recorded == 12
            assert len(movie.warnings) == 1 and f"its {n} complete hardware frames are used" in movie.warnings[0]
            for i in range(movie.n_frames):
                want = sum(rendered(events, (7, 2, 2), 0) for events in frames[2 * i : 2 * i + 2])
                np.testing.assert_array_equal(movie.frame(i), want)
            assert settings_of_frames(movie, Settings(total_dose=24)).dose_per_frame == 4
