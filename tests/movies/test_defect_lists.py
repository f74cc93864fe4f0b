"""Lists of defects: each key and element by single marked pixels, the way rows run, lists that make no sense."""

import time

import numpy as np
import pytest
import tifffile

from flexalign_plugin.errors import CorrectionError
from flexalign_plugin.movies import load_corrections, open_movie
from flexalign_plugin.movies.defect_lists import EER_DEFECTS_TAG, defects_of_xml, read_defect_file
from flexalign_plugin.phantoms.movie_writers import write_eer_movie, write_mrc_movie, write_tiff_movie
from flexalign_plugin.settings import Settings

NY, NX = 40, 64
SIZE = f"CameraSizeX {NX}\nCameraSizeY {NY}\n"


def movie_of(tmp_path, kind, shape=(NY, NX), sampling=1):
    path = str(tmp_path / f"movie.{kind}")
    if kind == "mrc":
        write_mrc_movie(path, np.zeros((2, *shape), "u1"))
    elif kind == "tif":
        write_tiff_movie(path, np.zeros((2, *shape), "u1"))
    else:
        write_eer_movie(path, [np.array([[1, 2, 0, 0]])] * 2, shape)
    return open_movie(path, Settings(n_frames=2, eer_sampling=sampling))


def listed(tmp_path, text, kind="tif", **movie):
    path = tmp_path / "defects.txt"
    path.write_text(text)
    with movie_of(tmp_path, kind, **movie) as opened:
        return load_corrections(opened, Settings(defect_file=str(path)))


def box(y, x, shape=(NY, NX)):
    mask = np.zeros(shape, bool)
    mask[y, x] = True
    return mask


@pytest.mark.parametrize("line, want", [
    ("BadPixels 3 5", box(5, 3)),
    ("BadPixels\t3 5 63 39", box(5, 3) | box(39, 63)),
    ("badcolumns 7 9", box(slice(None), [7, 9])),
    ("BadRows 4", box(4, slice(None))),
    ("PartialBadColumn 7 2 10 12", box(slice(10, 13), slice(7, 9))),
    ("PartialBadRow 7 2 10 12", box(slice(7, 9), slice(10, 13))),
    ("UsableArea 1 0 0 0", box(0, slice(None))),
    ("UsableArea 0 2 38 62", box(39, slice(None)) | box(slice(None), [0, 1, 63])),
    ("UsableArea 0 0 39 63\nBadPixels 1 1", box(1, 1)),
    ("WasScaled 1\nBadPixels 6 8", box(slice(8, 10), slice(6, 8))),
    ("RotationAndFlip 7\nK2Type 2\nSomethingNew a b\nBadPixels 0 0", box(0, 0)),
])  # fmt: skip
def test_every_key_of_serialem(tmp_path, line, want):
    """TIFF stores the top row first, as the list counts."""
    got = listed(tmp_path, "# a comment\n" + SIZE + line + "\n")
    np.testing.assert_array_equal(got.defects, want)
    assert got.counts == {"defect_file": np.count_nonzero(want)}
    assert got.notes == [f"Defect file marks {np.count_nonzero(want)} pixels."]


def test_rows_from_the_top_are_the_last_ones_of_an_mrc_movie(tmp_path):
    text = SIZE + "BadPixels 3 0\nPartialBadColumn 10 1 2 5\n"
    got = listed(tmp_path, text, "mrc")
    np.testing.assert_array_equal(got.defects, box(NY - 1, 3) | box(slice(NY - 6, NY - 2), 10))
    assert any("flipped upside-down" in note for note in got.notes)
    for kind in ("tif", "eer"):
        np.testing.assert_array_equal(listed(tmp_path, text, kind).defects, box(0, 3) | box(slice(2, 6), 10))
    # Rectangles count the rows of the file.
    np.testing.assert_array_equal(listed(tmp_path, "3 0 1 1\n", "mrc").defects, box(0, 3))


@pytest.mark.parametrize("frame, want", [
    ((2 * NY, 2 * NX), box(slice(10, 12), slice(6, 8), (2 * NY, 2 * NX))),
    ((NY // 2, NX // 2), box(2, 1, (NY // 2, NX // 2))),
])  # fmt: skip
def test_super_resolution_and_binned_frames(tmp_path, frame, want):
    np.testing.assert_array_equal(listed(tmp_path, SIZE + "BadPixels 3 5", "tif", shape=frame).defects, want)


def test_eer_at_16k_of_a_4k_list(tmp_path):
    got = listed(tmp_path, SIZE + "BadPixels 3 5", "eer", sampling=4)
    np.testing.assert_array_equal(np.argwhere(got.defects)[[0, -1]], [[20, 12], [23, 15]])
    assert np.count_nonzero(got.defects) == 16


@pytest.mark.parametrize("text, why", [
    ("BadPixels 1 1\n", "the size of the camera is missing"),
    (SIZE + "BadPixels 1 1 2\n", "line 3 is 'BadPixels 1 1 2': BadPixels is followed by pairs of whole numbers"),
    (SIZE + "BadColumns\n", "line 3 is 'BadColumns': BadColumns is followed by whole numbers"),
    (SIZE + "BadRows -3\n", "line 3 is 'BadRows -3'"),
    (SIZE + "BadRows 40\n", "line 3 marks x 0 to 63, y 40 to 40, which is not inside its camera of 64 x 40"),
    (SIZE + "BadPixels 64 1\n", "line 3 marks x 64"),
    (SIZE + "PartialBadColumn 5 1 10 9\n", "line 3 marks x 5 to 5, y 10 to 9"),
    (SIZE + "PartialBadRow 5 0 1 9\n", "line 3 marks"),
    (SIZE + "PartialBadRow 5 1 1\n", "line 3 is .* followed by 4 whole numbers"),
    ("CameraSizeX 40\nCameraSizeY 64\nBadRows 1\n", "its camera has 40 x 64 pixels, but the frames of .*64 x 40"),
    ("CameraSizeX 100\nCameraSizeY 100\nBadRows 1\n", "its camera has 100 x 100"),
    ("CameraSizeX ten\n", "line 1 is 'CameraSizeX ten': CameraSizeX is followed by a whole number"),
    ("hello\n", "line 1 is 'hello': write four whole numbers"),
    ("<defects><point>1</point></defects>", "'1' is no point"),
    ("<defects><row>41</row></defects>", "the row 41 .* is outside its 64 x 40 pixels"),
    ("<gain/>", "its XML holds 'gain'"),
    ("<defects>", "its XML can't be read"),
])  # fmt: skip
def test_invalid_lists(tmp_path, text, why):
    with pytest.raises(CorrectionError, match=f"Defect file .*defects.txt: {why}"):
        listed(tmp_path, text)


def test_missing_and_binary_files(tmp_path):
    with pytest.raises(CorrectionError, match="Defect file .*none.txt: no such file"):
        read_defect_file(str(tmp_path / "none.txt"), (NY, NX))
    (tmp_path / "a.txt").write_bytes(bytes([255, 254, 0, 128]))
    with pytest.raises(CorrectionError, match="is no text file: .*an image is given as defect map"):
        read_defect_file(str(tmp_path / "a.txt"), (NY, NX))


XML = (
    "<?xml version='1.0'?><defects><point>3,5</point><nonmaskingpoint>4, 6</nonmaskingpoint>"
    "<area>10,20,12,21</area><col>30-31,40</col><row>7</row><other>x</other></defects>"
)
WANT = box(5, 3) | box(6, 4) | box(slice(20, 22), slice(10, 13)) | box(slice(None), [30, 31, 40])
WANT |= box(7, slice(None))


def test_xml_of_points_areas_columns_and_rows(tmp_path):
    np.testing.assert_array_equal(defects_of_xml(XML, (NY, NX)), WANT)
    np.testing.assert_array_equal(listed(tmp_path, XML, "eer").defects, WANT)


def gain_with_list(path, xml, gain=None):
    gain = np.random.default_rng(0).uniform(0.8, 1.2, (NY, NX)).astype("f4") if gain is None else gain
    data = xml.encode()
    tifffile.imwrite(path, gain, extratags=[(EER_DEFECTS_TAG, 7, len(data), data, True)])
    return gain


@pytest.mark.parametrize("kind", ["eer", "mrc"])
def test_defects_listed_in_an_eer_gain(tmp_path, kind):
    """They are oriented like the gain and are left out of the mean by which the gain is divided."""
    gain = np.full((NY, NX), 2.0, "f4")
    gain[::2] = 4.0
    gain[WANT] = 100.0
    gain[0, 0] = 0
    gain_with_list(tmp_path / "camera.gain", XML, gain)
    with movie_of(tmp_path, kind) as movie:
        got = load_corrections(movie, Settings(gain=str(tmp_path / "camera.gain"), gain_flip="left-right"))
    want = (WANT | box(0, 0))[:, ::-1]
    good = ~(WANT | box(0, 0))
    factor = np.where(good, gain[good].mean() / np.where(gain == 0, 1, gain), 1)[:, ::-1]
    if kind == "mrc":
        want, factor = want[::-1], factor[::-1]
    np.testing.assert_array_equal(got.defects, want)
    np.testing.assert_allclose(got.gain, factor, rtol=1e-6)
    assert got.counts == {"gain": 1, "gain_list": np.count_nonzero(WANT)}
    assert f"Gain: the list in its file marks {np.count_nonzero(WANT)} of its pixels as defects." in got.notes


def test_a_gain_list_is_enlarged_with_its_gain(tmp_path):
    gain_with_list(tmp_path / "camera.gain", "<defects><point>3,5</point></defects>")
    with movie_of(tmp_path, "eer", sampling=2) as movie:
        got = load_corrections(movie, Settings(gain=str(tmp_path / "camera.gain")))
    np.testing.assert_array_equal(np.argwhere(got.defects), [[10, 6], [10, 7], [11, 6], [11, 7]])
    assert got.counts == {"gain_list": 4}


@pytest.mark.parametrize(
    "xml", ["<defects><point>64,5</point></defects>", "nonsense", "<defects><col>a</col></defects>"]
)
def test_an_invalid_gain_list_is_left_out_with_a_note(tmp_path, xml):
    gain = gain_with_list(tmp_path / "gain.tif", xml)
    with movie_of(tmp_path, "tif") as movie:
        got = load_corrections(movie, Settings(gain=str(tmp_path / "gain.tif")))
    np.testing.assert_array_equal(got.gain, gain)
    assert got.defects is None and got.counts == {}
    assert len(got.notes) == 1 and "listed in its file are left out, because" in got.notes[0]


@pytest.mark.parametrize("text, words", [
    ("<defects><row>" + "0-999999," * 3000 + "1</row></defects>", "is outside its 64 x 40 pixels"),
    ("<defects>" + "<area>0,0,63,39</area>" * 20_000 + "</defects>", "marks more than twice as many pixels"),
    ("0 0 64 40\n" * 20_000, "up to line 3 it marks more than twice as many pixels as the 64 x 40"),
    ("0 0 999999999 999999999\n" * 20_000, "up to line 3 it marks"),
    (SIZE + "UsableArea 40 0 0 0\n" * 20_000, "up to line 5 it marks"),
    ("CameraSizeX 999999999\nCameraSizeY 999999999\n", "can't be that of frames of 64 x 40"),
    (SIZE + "WasScaled 999999999\nBadPixels 0 0\n", "scaled 999999999 times, can't be"),
    ('<!DOCTYPE d [<!ENTITY a "1">]><defects><row>&a;</row></defects>', "XML has definitions of its own"),
    ("1 1 1 1\n" * 2_000_001, "has more than 16 MB"),
    ("9" * 5000 + "\n", "line 1 is '9999"),
    (SIZE + "BadPixels " + "x" * 5000 + "\n", "line 3 is 'BadPixels xxx"),
])  # fmt: skip
def test_no_list_takes_for_ever(tmp_path, text, words):
    """Each of these built maps or lists of billions of items; the frame has 2,560 pixels."""
    started = time.monotonic()
    with pytest.raises(CorrectionError, match=words) as refused:
        listed(tmp_path, text)
    assert time.monotonic() - started < 10
    assert len(str(refused.value)) < 500


def test_a_range_may_be_listed_often(tmp_path):
    got = listed(tmp_path, "<defects><row>" + "1-2," * 100_000 + "1</row></defects>")
    np.testing.assert_array_equal(got.defects, box(slice(1, 3), slice(None)))


@pytest.mark.parametrize("text", ["<point>1-2,3</point>", "<area>0-3,1,2,3</area>", "<row>7-3</row>"])
def test_ranges_that_make_no_sense(text):
    with pytest.raises(ValueError, match="of its list of defects"):
        defects_of_xml(f"<defects>{text}</defects>", (NY, NX))
