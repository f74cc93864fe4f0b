"""Gain, dark and defects: orientation by single marked pixels, conventions, sizes, and files that can't be right."""

import struct

import numpy as np
import pytest
import tifffile

from flexalign_plugin.errors import CorrectionError
from flexalign_plugin.movies import load_corrections, open_movie
from flexalign_plugin.phantoms.movie_writers import write_eer_movie, write_mrc_movie, write_tiff_movie
from flexalign_plugin.settings import Settings

NY, NX = 40, 64


def movie_of(tmp_path, kind, shape=(NY, NX), sampling=1):
    path = str(tmp_path / f"movie.{kind}")
    if kind == "mrc":
        write_mrc_movie(path, np.zeros((2, *shape), "u1"))
    elif kind == "tif":
        write_tiff_movie(path, np.zeros((2, *shape), "u1"))
    else:
        write_eer_movie(path, [np.array([[1, 2, 0, 0]])] * 2, shape)
    return open_movie(path, Settings(n_frames=2, eer_sampling=sampling))


def random_gain(shape=(NY, NX), seed=0):
    return np.random.default_rng(seed).uniform(0.8, 1.2, shape).astype("f4")


def save(tmp_path, image, name="gain.mrc"):
    path = str(tmp_path / name)
    if name.endswith(".mrc"):
        write_mrc_movie(path, [image])
    else:
        tifffile.imwrite(path, image)
    return path


def load(tmp_path, image, kind="mrc", name="gain.mrc", **settings):
    with movie_of(tmp_path, kind) as movie:
        return load_corrections(movie, Settings(gain=save(tmp_path, image, name), **settings))


def test_without_corrections(tmp_path):
    got = load_corrections(movie_of(tmp_path, "mrc"), Settings())
    assert got.dark is None and got.gain is None and got.defects is None and got.notes == []


@pytest.mark.parametrize("kind, name", [("mrc", "gain.mrc"), ("tif", "gain.tif"), ("eer", "gain.tiff")])
def test_plain_gain_is_used_as_it_is(tmp_path, kind, name):
    got = load(tmp_path, random_gain(), kind, name)
    assert got.gain.dtype == np.float32 and got.gain.flags.c_contiguous and got.defects is None and got.notes == []
    np.testing.assert_array_equal(got.gain, random_gain())


@pytest.mark.parametrize("rotation, flip, at", [
    ("none", "none", (3, 10)),
    ("90", "none", (NY - 1 - 10, 3)),  # counter-clockwise with row 0 at the top: the right edge becomes the first row
    ("180", "none", (NX - 1 - 3, NY - 1 - 10)),
    ("270", "none", (10, NX - 1 - 3)),
    ("none", "upside-down", (NX - 1 - 3, 10)),
    ("none", "left-right", (3, NY - 1 - 10)),
    ("90", "upside-down", (10, 3)),  # the transpose
    ("90", "left-right", (NY - 1 - 10, NX - 1 - 3)),
    ("270", "upside-down", (NY - 1 - 10, NX - 1 - 3)),
])  # fmt: skip
def test_a_marked_pixel_is_rotated_and_then_flipped(tmp_path, rotation, flip, at):
    """Sensor of 64 rows x 40 columns, pixel (row 3, column 10) marked; the movie is 40 x 64 after a quarter turn."""
    sensor = np.ones((NX, NY), "f4")
    sensor[3, 10] = 1.5
    shape = (NY, NX) if rotation in ("90", "270") else (NX, NY)
    movie = movie_of(tmp_path, "mrc", shape)
    gain = load_corrections(movie, Settings(gain=save(tmp_path, sensor), gain_rot=rotation, gain_flip=flip)).gain
    assert gain.shape == shape
    np.testing.assert_array_equal(np.argwhere(gain == 1.5), [at])


@pytest.mark.parametrize("kind, name, order, flipped", [
    ("tif", "g.mrc", "auto", True),
    ("eer", "g.mrc", "auto", True),
    ("mrc", "g.mrc", "auto", False),
    ("tif", "g.tif", "auto", False),
    ("eer", "g.tif", "auto", False),
    ("mrc", "g.tif", "auto", True),
    ("tif", "g.mrc", "same", False),
    ("tif", "g.tif", "flipped", True),
])  # fmt: skip
def test_row_order(tmp_path, kind, name, order, flipped):
    got = load(tmp_path, random_gain(), kind, name, gain_row_order=order)
    np.testing.assert_array_equal(got.gain, random_gain()[::-1] if flipped else random_gain())
    assert any("flipped upside-down first" in note for note in got.notes) == flipped


def test_rows_are_brought_into_order_before_the_rotation(tmp_path):
    sensor = random_gain((NX, NY))
    got = load(tmp_path, sensor, "tif", gain_rot="90", gain_flip="left-right")
    np.testing.assert_array_equal(got.gain, np.fliplr(np.rot90(np.flipud(sensor))))


@pytest.mark.parametrize("name, convention, divides", [
    ("x.gain", "auto", True),
    ("x.gain", "multiply", False),
    ("x.tif", "auto", False),
    ("x.tif", "divide", True),
])  # fmt: skip
def test_convention(tmp_path, name, convention, divides):
    image = random_gain() * 700
    image[5, 6] = 0
    got = load(tmp_path, image, "tif", name, gain_convention=convention)
    good = image != 0
    want = image[good].mean() / np.where(good, image, 1) if divides else image
    np.testing.assert_allclose(got.gain[good], want[good], rtol=1e-6)
    assert got.gain[5, 6] == 1
    np.testing.assert_array_equal(np.argwhere(got.defects), [[5, 6]])


def test_bad_gain_pixels_become_defects(tmp_path):
    image = random_gain()
    image[0, 0], image[1, 2], image[3, 4], image[5, 6] = 0, np.nan, np.inf, -1
    got = load(tmp_path, image)
    np.testing.assert_array_equal(np.argwhere(got.defects), [[0, 0], [1, 2], [3, 4], [5, 6]])
    assert (got.gain[got.defects] == 1).all() and np.isfinite(got.gain).all()
    assert "4 pixels are zero, negative, NaN or infinite" in got.notes[0]


def test_too_many_bad_gain_pixels(tmp_path):
    image = random_gain()
    image[:6] = 0
    with pytest.raises(
        CorrectionError, match="Gain reference .*gain.mrc: 15% of its pixels are zero.* more than 10%: give"
    ):
        load(tmp_path, image)
    with pytest.raises(CorrectionError, match="100%"):
        load(tmp_path, np.full((NY, NX), np.nan, "f4"))


def test_gain_of_ones_is_noted_as_without_effect(tmp_path):
    got = load(tmp_path, np.ones((NY, NX), "f4"))
    assert "Gain is 1 at every pixel, so it corrects nothing" in got.notes[0]


def test_gain_twice_the_size_is_averaged(tmp_path):
    image = random_gain((2 * NY, 2 * NX))
    image[20, 30] = 0
    got = load(tmp_path, image)
    want = (image[0::2, 0::2] + image[1::2, 0::2] + image[0::2, 1::2] + image[1::2, 1::2]) / 4
    good = np.ones((NY, NX), bool)
    good[10, 15] = False
    np.testing.assert_allclose(got.gain[good], want[good], rtol=1e-6)
    np.testing.assert_array_equal(got.defects, ~good)
    assert any(f"Gain is {2 * NX} x {2 * NY}, the movie's frames are {NX} x {NY}" in note for note in got.notes)


def test_gain_half_the_size_is_repeated(tmp_path):
    image = random_gain((NY // 2, NX // 2))
    np.testing.assert_array_equal(load(tmp_path, image).gain, np.kron(image, np.ones((2, 2), "f4")))


def test_eer_rendered_at_16k_takes_the_4k_gain(tmp_path):
    movie = movie_of(tmp_path, "eer", sampling=4)
    got = load_corrections(movie, Settings(gain=save(tmp_path, random_gain(), "x.gain"), eer_sampling=4, n_frames=2))
    assert got.gain.shape == (4 * NY, 4 * NX) == movie.shape[1:]


@pytest.mark.parametrize("shape", [(NY + 1, NX), (4 * NY, 4 * NX), (NY, 2 * NX), (NX, NY)])
def test_wrong_size_prints_both(tmp_path, shape):
    advice = "rotate it by 90" if shape == (NX, NY) else "give the file of this camera"
    size = (
        f"is {shape[1]} x {shape[0]} pixels after orientation, but the frames of .*movie.mrc are {NX} x {NY}: {advice}"
    )
    with pytest.raises(CorrectionError, match=f"Gain reference .*gain.mrc {size}"):
        load(tmp_path, random_gain(shape))


def test_stack_of_one_is_a_gain_and_of_more_is_not(tmp_path):
    tifffile.imwrite(str(tmp_path / "one.tif"), random_gain()[None])
    movie = movie_of(tmp_path, "tif")
    np.testing.assert_array_equal(load_corrections(movie, Settings(gain=str(tmp_path / "one.tif"))).gain, random_gain())
    with pytest.raises(CorrectionError, match="Gain reference .*movie.tif: holds 2 images, but one image is needed"):
        load_corrections(movie, Settings(gain=str(tmp_path / "movie.tif")))
    write_eer_movie(str(tmp_path / "m.eer"), [np.array([[1, 2, 0, 0]])] * 60, (NY, NX))
    with pytest.raises(CorrectionError, match="Gain reference .*m.eer: is an EER movie, but one image is needed"):
        load_corrections(movie, Settings(gain=str(tmp_path / "m.eer")))


def test_files_that_cannot_be_read(tmp_path):
    movie = movie_of(tmp_path, "mrc")
    for name, what in (("gain", "Gain reference"), ("dark", "Dark reference"), ("defect_map", "Defect map")):
        with pytest.raises(CorrectionError, match=f"{what} .*gone.mrc: no such file"):
            load_corrections(movie, Settings(**{name: str(tmp_path / "gone.mrc")}))
    (tmp_path / "bad.dm4").write_bytes(b"\0\0\0\4" + bytes(100))
    with pytest.raises(CorrectionError, match="Gain reference .*bad.dm4: this DigitalMicrograph file can't be read"):
        load_corrections(movie, Settings(gain=str(tmp_path / "bad.dm4")))


def test_dark_is_oriented_like_the_gain_and_must_be_finite(tmp_path):
    dark = random_gain((NX, NY))
    movie = movie_of(tmp_path, "mrc")
    got = load_corrections(movie, Settings(dark=save(tmp_path, dark, "dark.mrc"), gain_rot="90"))
    np.testing.assert_array_equal(got.dark, np.rot90(dark))
    assert got.gain is None
    dark[0, 0] = np.nan
    with pytest.raises(CorrectionError, match="Dark reference .*dark.mrc: 1 of its pixels are NaN"):
        load_corrections(movie, Settings(dark=save(tmp_path, dark, "dark.mrc"), gain_rot="90"))
    with pytest.raises(CorrectionError, match="Dark reference .*dark.mrc is 40 x 64 .*: rotate it"):
        load_corrections(movie, Settings(dark=str(tmp_path / "dark.mrc")))


def test_defect_list_and_map(tmp_path):
    (tmp_path / "defects.txt").write_text("# x y w h\n3 5 2 1\n\n60, 38, 100, 100  # to the corner\n")
    mask = np.zeros((NY, NX), "f4")
    mask[20, 7] = 1
    movie = movie_of(tmp_path, "mrc")
    settings = Settings(defect_file=str(tmp_path / "defects.txt"), defect_map=save(tmp_path, mask, "map.mrc"))
    got = load_corrections(movie, settings)
    want = mask > 0
    want[5, 3:5] = True
    want[38:, 60:] = True
    np.testing.assert_array_equal(got.defects, want)
    assert got.notes == ["Defect map marks 1 pixels.", "Defect file marks 10 pixels."]


@pytest.mark.parametrize("line, why", [
    ("1 2 3", "line 2 is '1 2 3': write four whole numbers"),
    ("1 2 3 x", "line 2 is"),
    ("-1 2 3 4", "line 2 is"),
    ("1 2 0 4", "line 2 is"),
    ("64 2 3 4", "line 2 starts at x 64, y 2, outside the frames of 64 x 40"),
])  # fmt: skip
def test_bad_defect_lines(tmp_path, line, why):
    (tmp_path / "defects.txt").write_text("1 1 1 1\n" + line + "\n")
    with pytest.raises(CorrectionError, match=f"Defect file .*defects.txt: {why}"):
        load_corrections(movie_of(tmp_path, "mrc"), Settings(defect_file=str(tmp_path / "defects.txt")))


def test_defects_over_a_tenth_of_the_frame(tmp_path):
    (tmp_path / "defects.txt").write_text(f"0 0 {NX} {NY // 4}")
    with pytest.raises(CorrectionError, match="movie.mrc: 25% of its pixels are marked as defects"):
        load_corrections(movie_of(tmp_path, "mrc"), Settings(defect_file=str(tmp_path / "defects.txt")))
    (tmp_path / "defects.txt").write_bytes(bytes([255, 254, 0, 128]))
    with pytest.raises(CorrectionError, match="Defect file .*defects.txt: is no text file"):
        load_corrections(movie_of(tmp_path, "mrc"), Settings(defect_file=str(tmp_path / "defects.txt")))


def dm4_file(image):
    """A minimal dm4 file with one float32 image: tag groups of tags, sizes big-endian, values little-endian."""

    def group(*entries):
        return b"\0\0" + struct.pack(">Q", len(entries)) + b"".join(entries)

    def tag(name, type_, value):
        body = b"%%%%" + struct.pack(">QQ", 1, type_) + value
        return struct.pack(">BH", 21, len(name)) + name + struct.pack(">Q", len(body)) + body

    def array(name, type_, values):
        body = b"%%%%" + struct.pack(">QQQQ", 3, 20, type_, len(values)) + values.tobytes()
        return struct.pack(">BH", 21, len(name)) + name + struct.pack(">Q", len(body)) + body

    def sub(name, *entries):
        body = group(*entries)
        return struct.pack(">BH", 20, len(name)) + name + struct.pack(">Q", len(body)) + body

    long, f4 = 3, 6
    dimensions = [
        sub(
            b"",
            *[tag(key, f4, struct.pack("<f", 1)) for key in (b"Origin", b"Scale")],
            array(b"Units", 4, np.zeros(2, "u2")),
        )
        for _ in range(2)
    ]
    data = sub(
        b"ImageData",
        sub(b"Calibrations", sub(b"Dimension", *dimensions)),
        array(b"Data", f4, image.astype("<f4").reshape(-1)),
        tag(b"DataType", long, struct.pack("<i", 2)),
        sub(b"Dimensions", *[tag(b"", long, struct.pack("<i", n)) for n in image.shape[::-1]]),
    )
    root = group(sub(b"ImageList", sub(b"", data)))
    return struct.pack(">IQI", 4, len(root), 1) + root


def test_dm4_gain_has_its_top_row_first(tmp_path):
    (tmp_path / "gain.dm4").write_bytes(dm4_file(random_gain()))
    got = load_corrections(movie_of(tmp_path, "tif"), Settings(gain=str(tmp_path / "gain.dm4")))
    np.testing.assert_array_equal(got.gain, random_gain())
    got = load_corrections(movie_of(tmp_path, "mrc"), Settings(gain=str(tmp_path / "gain.dm4")))
    np.testing.assert_array_equal(got.gain, random_gain()[::-1])


@pytest.mark.parametrize("movie, name, settings, plain", [
    ("mrc", "gain.mrc", {}, True),
    ("mrc", "gain.tif", {}, True),  # RELION turns a TIFF, and so does auto
    ("mrc", "gain.mrc", {"gain_row_order": "flipped"}, False),
    ("mrc", "gain.mrc", {"gain_flip": "left-right"}, False),
    ("mrc", "gain.mrc", {"gain_convention": "divide"}, False),
    ("mrc", "gain.gain", {}, False),
    ("tif", "gain.mrc", {"flip_tiff": True}, True),
    ("tif", "gain.tif", {"flip_tiff": True}, True),
    ("tif", "gain.mrc", {"flip_tiff": True, "gain_flip": "upside-down"}, False),
    ("tif", "gain.mrc", {}, True),  # nothing would help: RELION's frames are upside down
    ("eer", "gain.gain", {}, True),
    ("eer", "gain.mrc", {}, False),  # auto turns it, RELION does not
    ("eer", "gain.mrc", {"gain_row_order": "same"}, True),
    ("eer", "gain.tif", {}, False),  # RELION turns it, although EER movies stay as they are
])  # fmt: skip
def test_whether_relion_applies_the_gain_as_we_do(tmp_path, movie, name, settings, plain):
    path = save(tmp_path, random_gain(), name)
    movie_of(tmp_path, movie).close()
    wanted = Settings(gain=path, n_frames=2, **settings)
    with open_movie(str(tmp_path / f"movie.{movie}"), wanted) as opened:
        assert load_corrections(opened, wanted).plain_gain is plain
