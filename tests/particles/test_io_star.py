"""Particles in STAR files: what is read, what is written, and what passes through."""

from __future__ import annotations

import os

import numpy as np
import pytest

from flexalign_plugin.errors import OutputError, ParticleError
from flexalign_plugin.particles.io_star import read_star, write_star
from flexalign_plugin.particles.results import DTYPE

NEW = """
# version 50001

data_general

_rlnTomoSubTomosAre2DStacks   0
_oddValue "with a blank"

# version 50001

data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnVoltage #3
_rlnSphericalAberration #4
_rlnAmplitudeContrast #5
_rlnImagePixelSize #6
_rlnImageSize #7
_rlnImageDimensionality #8
_rlnOddZernike #9
opticsGroup7  7  300.0  2.7  0.1  1.25  196  2  [0.1,-2,3]
other         3  200.0  1.4  0.07 2.50   98  2  [0,0,0]


# version 50001

data_particles

loop_
_rlnCoordinateX #1
_rlnImageName #2
_rlnMicrographName #3
_rlnOpticsGroup #4
_rlnDefocusU #5
_rlnDefocusV #6
_rlnDefocusAngle #7
_rlnPhaseShift #8
_rlnAngleRot #9
_rlnAngleTilt #10
_rlnAnglePsi #11
_rlnOriginXAngst #12
_rlnOriginYAngst #13
_rlnRandomSubset #14
_myOwnColumn #15
 11.5 000003@a.mrcs 'mic one.mrc'  7 15000.5 14000.25 -33.125 0  10.5 20.25 -170.125  1.5 -2.5 1 "two words"
 12.5 000001@b/c.mrcs mic2.mrc     3 16000 15500 90 45.5  -1 179.5 3  0 0.25 2 abc # a comment
 13.5 000002@a.mrcs   data_mic.mrc 7 17000 16500 0 0  0 0 0  0 0 1 'it''s'

data_last

_value 5
"""

OLD = """
data_images

loop_
_rlnImageName #1
_rlnMicrographName #2
_rlnDefocusU #3
_rlnDefocusV #4
_rlnDefocusAngle #5
_rlnVoltage #6
_rlnSphericalAberration #7
_rlnAmplitudeContrast #8
_rlnMagnification #9
_rlnDetectorPixelSize #10
_rlnAngleRot #11
_rlnAngleTilt #12
_rlnAnglePsi #13
_rlnOriginX #14
_rlnOriginY #15
_rlnGroupNumber #16
1@a.mrcs m1.mrc 15000 14000 10 300 2.7 0.1 50000 5.0 1 2 3  2.0 -4.0 17
2@a.mrcs m1.mrc 15100 14100 11 200 2.7 0.1 50000 10.0 4 5 6  1.0 1.5 18
3@a.mrcs m1.mrc 15200 14200 12 300 2.7 0.1 50000 5.0 7 8 9  0.0 0.0 19
"""


def written(tmp_path, text, name="in.star"):
    path = str(tmp_path / name)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def found_for(table, seed=1):
    rng = np.random.default_rng(seed)
    found = np.zeros(len(table), DTYPE)
    found["row"] = table.row
    for name in ("rot", "psi"):
        found[name] = rng.uniform(-180, 180, len(table))
    found["tilt"] = rng.uniform(0, 180, len(table))
    for name in ("x_A", "y_A", "score", "angle_sd", "shift_sd"):
        found[name] = rng.normal(size=len(table))
    found["posterior"], found["class_posterior"] = rng.uniform(size=(2, len(table)))
    found["volume"], found["aligned"] = 2, True
    return found


def test_optics_groups_and_known_poses_are_read(tmp_path):
    table, source = read_star(written(tmp_path, NEW))
    assert len(table) == 3 and not source.old
    assert [(g.optics.pixel_A, g.optics.voltage_kV, g.optics.cs_mm) for g in table.groups] == [
        (1.25, 300.0, 2.7),
        (2.5, 200.0, 1.4),
    ]
    assert table.groups[0].name == f"optics group 7 of {tmp_path}/in.star"
    np.testing.assert_array_equal(table.group, [0, 1, 0])
    np.testing.assert_array_equal(table.index, [2, 0, 1])
    assert [table.files[i] for i in table.file] == ["a.mrcs", "b/c.mrcs", "a.mrcs"]
    np.testing.assert_allclose(table.defocus.u_A, [15000.5, 16000, 17000])
    np.testing.assert_allclose(table.defocus.phase_deg, [0, 45.5, 0])
    np.testing.assert_array_equal(table.known.angles[0], [10.5, 20.25, -170.125])
    np.testing.assert_allclose(table.known.shifts_A[0], [1.5, -2.5])
    np.testing.assert_array_equal(table.known.half, [1, 2, 1])
    assert table.known.volume is None


def test_the_optics_groups_may_follow_the_particles(tmp_path):
    first = NEW.index("# version 50001\n\ndata_optics")
    second = NEW.index("# version 50001\n\ndata_particles")
    last = NEW.index("data_last")
    swapped = NEW[:first] + NEW[second:last] + NEW[first:second] + NEW[last:]
    a, _ = read_star(written(tmp_path, NEW))
    b, source = read_star(written(tmp_path, swapped, "swapped.star"))
    np.testing.assert_array_equal(a.group, b.group)
    assert [g.optics for g in a.groups] == [g.optics for g in b.groups] and not source.old


def test_one_optics_group_may_be_a_list_of_single_values(tmp_path):
    text = NEW.replace("other         3  200.0  1.4  0.07 2.50   98  2  [0,0,0]\n", "").replace("mic2.mrc     3", "x 7")
    lines = text.split("\n")
    start, end = lines.index("_rlnOpticsGroupName #1"), lines.index("_rlnOddZernike #9")
    names = [line.split()[0] for line in lines[start : end + 1]]
    values = lines[end + 1].split()
    lines[start - 1 : end + 2] = [f"{name} {value}" for name, value in zip(names, values)]
    table, _ = read_star(written(tmp_path, "\n".join(lines)))
    assert table.groups[0].optics.pixel_A == 1.25 and (table.group == 0).all()


def test_old_files_are_read_in_pixels_and_written_in_angstrom(tmp_path):
    table, source = read_star(written(tmp_path, OLD))
    assert source.old and [g.optics.pixel_A for g in table.groups] == [1.0, 2.0]
    np.testing.assert_array_equal(table.group, [0, 1, 0])
    np.testing.assert_allclose(table.known.shifts_A, [[2, -4], [2, 3], [0, 0]])
    out = str(tmp_path / "out.star")
    found = found_for(table)
    assert write_star(out, source, found) == 3
    again, source = read_star(out)
    assert not source.old
    assert [g.optics for g in again.groups] == [g.optics for g in table.groups]
    np.testing.assert_array_equal(again.group, table.group)
    for name in ("rlnOriginX", "rlnOriginY", "rlnMagnification", "rlnVoltage"):
        assert name not in source.columns
    assert "rlnGroupNumber" in source.columns and "rlnMicrographName" in source.columns
    text = open(out).read()
    # RELION takes a file without this mark for one of an old version.
    assert text.lstrip().startswith("# version 30001") and "data_images" not in text


def test_unknown_columns_and_tables_pass_through_unchanged(tmp_path):
    table, source = read_star(written(tmp_path, NEW))
    out = str(tmp_path / "out.star")
    found = found_for(table)[::-1]  # in any order
    found["aligned"][found["row"] == 2] = False
    assert write_star(out, source, found) == 2
    text = open(out).read()
    start = NEW.index("data_particles")
    assert text.startswith(NEW[:start]) and text.endswith("data_last\n\n_value 5\n")
    rows = [line for line in text.split("\n") if "@" in line]
    assert len(rows) == 2
    assert rows[0].startswith("11.5 000003@a.mrcs 'mic one.mrc' 7 15000.5 14000.25 -33.125 0 ")
    assert '"two words"' in rows[0] and "'it''s'" in rows[1] and "data_mic.mrc" in rows[1]


def test_numbers_are_written_with_enough_digits(tmp_path):
    table, source = read_star(written(tmp_path, NEW))
    out = str(tmp_path / "out.star")
    found = found_for(table)
    write_star(out, source, found)
    again, _ = read_star(out)
    np.testing.assert_allclose(again.known.angles[:, 0], found["rot"], atol=5.1e-7)
    np.testing.assert_allclose(again.known.angles[:, 2], found["psi"], atol=5.1e-7)
    np.testing.assert_allclose(again.known.shifts_A[:, 0], found["x_A"], atol=1e-6)
    np.testing.assert_array_equal(again.known.volume, [2, 2, 2])
    np.testing.assert_array_equal(again.known.half, table.known.half)


@pytest.mark.parametrize("content", [NEW.replace("'it''s'", "its"), OLD])
def test_other_readers_read_the_same(tmp_path, content):
    starfile = pytest.importorskip("starfile")
    emtable = pytest.importorskip("emtable")
    table, source = read_star(written(tmp_path, content))
    out = str(tmp_path / "out.star")
    found = found_for(table)
    write_star(out, source, found)
    tables = starfile.read(out, always_dict=True)
    particles = tables["particles"]
    np.testing.assert_allclose(particles["rlnAngleRot"], found["rot"], atol=1e-6)
    np.testing.assert_allclose(particles["rlnOriginYAngst"], found["y_A"], atol=1e-6)
    np.testing.assert_allclose(particles["swiftPosterior"], found["posterior"], atol=1e-6)
    if content != OLD:
        assert list(particles["myOwnColumn"]) == ["two words", "abc", "its"]
        assert particles["rlnMicrographName"][0] == "mic one.mrc"
    assert len(tables["optics"]) == 2
    # emtable knows no quotes.
    if content == OLD:
        rows = list(emtable.Table.iterRows(f"particles@{out}"))
        np.testing.assert_allclose([row.rlnAngleTilt for row in rows], found["tilt"], atol=1e-6)


def test_a_row_whose_numbers_make_no_sense_is_kept_to_fail_alone(tmp_path):
    text = (
        NEW.replace("000003@a.mrcs", "x3@a.mrcs")
        .replace("16000 15500", "much 15500")
        .replace("data_mic.mrc 7", "data_mic.mrc 9")
    )
    table, _ = read_star(written(tmp_path, text))
    assert table.index[0] == -1 and np.isnan(table.defocus.u_A[1]) and table.group[2] == -1


def with_flag(column):
    """The file with a flag that is 1 for the optics group 3."""
    return NEW.replace("_rlnOddZernike", column).replace("[0,0,0]", "1").replace("[0.1,-2,3]", "0")


WRONG = [
    ("", "is not a STAR file of particles"),
    ("hello\n", "is not a STAR file: give a list"),
    ("a\0b", "is not a STAR file: give a list"),
    ("x" * 1_100_000, "is not a STAR file: give a list"),
    ("data_particles\n\nloop_\n_rlnImageName #1\n", "holds no particles"),
    ("data_micrographs\n\nloop_\n_rlnMicrographName #1\na.mrc\n", "holds no particles"),
    ("data_x\n\nhello there\n", "line 3 is neither a table nor a value of one ('hello there')"),
    (NEW.replace("_rlnDefocusV #6\n", "_rlnNo #6\n"), "its particles have no CTF (no column rlnDefocusV): estimate"),
    (NEW[: NEW.index("000002@a")], "line 49 has 1 values, but the table data_particles has 15 columns"),
    (NEW.replace("_rlnVoltage #3\n", "_rlnNo #3\n"), "optics group 7 of {path}: has no column rlnVoltage"),
    (NEW.replace("300.0  2.7", "0.3  2.7"), "optics group 7 of {path}: its voltage is 0.3 kV: it must be at least 10"),
    (NEW.replace("300.0  2.7", "nan  2.7"), "optics group 7 of {path}: rlnVoltage is 'nan': give a number"),
    (NEW.replace("0.1  1.25", "10  1.25"), "its amplitude contrast is 10: it must be at least 0 and at most 1"),
    (NEW.replace("1.25  196", "0  196"), "optics group 7 of {path}: its pixel size is 0 A"),
    (NEW.replace("196  2", "196  3"), "optics group 7 of {path}: holds volumes, not images"),
    (
        with_flag("_rlnCtfDataAreCtfPremultiplied"),
        "optics group 3 of {path}: its images are multiplied by the CTF",
    ),
    (NEW.replace("_rlnOpticsGroup #4", "_rlnNo #4"), "has 2 optics groups, but its particles have no column"),
    (OLD.replace("_rlnMagnification", "_rlnNo"), "has no pixel size (no column rlnImagePixelSize"),
]


@pytest.mark.parametrize("text, sentence", WRONG)
def test_files_that_are_no_particles_are_refused_with_a_sentence(tmp_path, text, sentence):
    path = written(tmp_path, text)
    with pytest.raises(ParticleError) as caught:
        read_star(path)
    message = str(caught.value)
    assert path in message and sentence.format(path=path) in message and message.endswith(".")


def test_files_that_can_not_be_read_are_named(tmp_path):
    os.mkfifo(str(tmp_path / "pipe"))
    for name, reason in (("nowhere", "No such file"), ("", "it is a folder"), ("pipe", "it is not a regular file")):
        with pytest.raises(ParticleError, match=reason):
            read_star(str(tmp_path / name))


def test_phase_flipped_images_are_known_as_such(tmp_path):
    text = (
        NEW.replace("_rlnOddZernike", "_rlnCtfDataArePhaseFlipped").replace("[0,0,0]", "1").replace("[0.1,-2,3]", "0")
    )
    table, _ = read_star(written(tmp_path, text))
    assert [g.optics.phase_flipped for g in table.groups] == [False, True]


def test_nothing_is_written_if_the_source_was_changed_or_the_disk_is_wrong(tmp_path):
    path = written(tmp_path, NEW)
    table, source = read_star(path)
    with pytest.raises(OutputError):
        write_star(str(tmp_path / "in.star" / "out.star"), source, found_for(table))
    with open(path, "a") as file:
        file.write("\n")
    with pytest.raises(ParticleError, match="was changed while its particles were aligned"):
        write_star(str(tmp_path / "out.star"), source, found_for(table))
    assert sorted(os.listdir(str(tmp_path))) == ["in.star"]


def test_the_fingerprint_of_the_first_particles_does_not_depend_on_those_after(tmp_path):
    whole, _ = read_star(written(tmp_path, NEW))
    first, _ = read_star(written(tmp_path, NEW[: NEW.index(" 13.5 0")], "first.star"))
    assert whole.fingerprint(2) == first.fingerprint(2) != whole.fingerprint(3)
    other, _ = read_star(written(tmp_path, NEW.replace("15000.5", "15000.6"), "other.star"))
    assert other.fingerprint(2) != whole.fingerprint(2)
