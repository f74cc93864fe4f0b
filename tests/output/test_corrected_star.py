"""RELION's list of micrographs: read back, from folders written in several runs, with and without halves and doses."""

from __future__ import annotations

import json
import os

import pytest

from flexalign_plugin.output.corrected_star import write_corrected_micrographs
from flexalign_plugin.result_files import CORRECTED_MICROGRAPHS
from flexalign_plugin.settings import Settings

starfile = pytest.importorskip("starfile")


def result(folder, root, endings=("_aligned_mic.mrc", "_shifts.star"), motion=(6.5, 1.5, 5.0), **settings):
    """Write those files of a result that the list depends on."""
    settings = Settings(**{"pixel_size": 0.8, "dose_per_frame": 1.2, **settings})
    figures = {f"accumulated_motion_{name}_A": x for name, x in zip(("total", "early", "late"), motion)}
    micrograph = {"size_x": 10, "size_y": 10, "pixel_size_A": settings.pixel_size * settings.output_binning}
    values = {"movie": f"{root}.tif", "settings": settings.to_dict(), "quality": figures, "micrograph": micrograph}
    (folder / f"{root}_motion.json").write_text(json.dumps(values))
    for ending in endings:
        (folder / f"{root}{ending}").write_bytes(b"x")


def read(folder):
    return starfile.read(folder / CORRECTED_MICROGRAPHS, always_dict=True)


def test_weighted_halves_and_spectra(tmp_path):
    every = ("_aligned_mic.mrc", "_aligned_mic_DW.mrc", "_aligned_mic_EVN.mrc", "_aligned_mic_ODD.mrc", "_PS.mrc")
    result(
        tmp_path,
        "a b",
        (*every, "_shifts.star"),
        bin_factor=2,
        voltage=200,
        split_even_odd=True,
        do_save_ps=True,
        flip_tiff=True,
    )
    assert write_corrected_micrographs(str(tmp_path), 2.0, 0.07) == []
    blocks = read(tmp_path)
    assert list(blocks) == ["optics", "micrographs"]
    optics, row = blocks["optics"].iloc[0], blocks["micrographs"].iloc[0]
    assert (optics["rlnMicrographOriginalPixelSize"], optics["rlnMicrographPixelSize"]) == (0.8, 1.6)
    assert (optics["rlnVoltage"], optics["rlnSphericalAberration"], optics["rlnAmplitudeContrast"]) == (200, 2, 0.07)
    assert (optics["rlnOpticsGroupName"], optics["rlnOpticsGroup"], row["rlnOpticsGroup"]) == ("opticsGroup1", 1, 1)
    start = os.path.join(str(tmp_path), "a b")
    names = {
        "rlnMicrographName": "_aligned_mic_DW.mrc",
        "rlnMicrographNameNoDW": "_aligned_mic.mrc",
        "rlnMicrographNameEven": "_aligned_mic_EVN.mrc",
        "rlnMicrographNameOdd": "_aligned_mic_ODD.mrc",
        "rlnMicrographMetadata": "_shifts.star",
        "rlnCtfPowerSpectrum": "_PS.mrc",
    }
    assert {column: row[column] for column in names} == {column: start + end for column, end in names.items()}
    motion = [row[f"rlnAccumMotion{when}"] for when in ("Total", "Early", "Late")]
    assert motion == [6.5, 1.5, 5.0]


def test_plain_micrographs_of_an_unknown_dose(tmp_path):
    for root in ("b", "a"):
        result(tmp_path, root, motion=(3.25, None, None), dose_per_frame=None, flip_tiff=True)
    assert write_corrected_micrographs(str(tmp_path)) == []
    table = read(tmp_path)["micrographs"]
    assert list(table["rlnMicrographName"]) == [str(tmp_path / f"{root}_aligned_mic.mrc") for root in "ab"]
    assert list(table["rlnAccumMotionTotal"]) == [3.25, 3.25]
    absent = {"rlnMicrographNameNoDW", "rlnMicrographNameEven", "rlnAccumMotionEarly", "rlnAccumMotionLate"}
    assert not absent & set(table.columns)


def test_micrographs_that_polishing_cannot_use_have_no_metadata(tmp_path):
    """Movies whose frames RELION reads upside down, and micrographs that are stretched."""
    result(tmp_path, "a")
    result(tmp_path, "b", flip_tiff=True)
    result(tmp_path, "c")
    result(tmp_path, "d", flip_tiff=True, do_mag_cor=True, scale_maj=1.01)
    mirrored, stretched = write_corrected_micrographs(str(tmp_path))
    assert mirrored.startswith("corrected_micrographs.star: 2 of 4 micrographs can't be used for Bayesian polishing")
    assert "--flip-tiff" in mirrored and "1 of 4" in stretched and "magnification" in stretched
    text = (tmp_path / CORRECTED_MICROGRAPHS).read_text()
    assert all(f"# {sentence.split(': ', 1)[1]}\n" in text for sentence in (mirrored, stretched))
    metadata = list(read(tmp_path)["micrographs"]["rlnMicrographMetadata"].fillna("None"))
    assert metadata == ["None", str(tmp_path / "b_shifts.star"), "None", "None"]


def test_eer_movies_with_different_groups_are_told(tmp_path):
    """RELION reads the number from the first movie only."""
    for root, grouping in (("a", 7), ("b", 7), ("c", 12)):
        result(tmp_path, root, flip_tiff=True)
        if grouping == 12:
            assert write_corrected_micrographs(str(tmp_path)) == []
        (tmp_path / f"{root}_shifts.star").write_text(f"data_general\n\n_rlnEERGrouping {grouping}\n")
    (problem,) = write_corrected_micrographs(str(tmp_path))
    assert "frames of 7 or 12 hardware frames" in problem
    assert problem.split(": ", 1)[1] in (tmp_path / CORRECTED_MICROGRAPHS).read_text()
    assert len(read(tmp_path)["micrographs"]["rlnMicrographMetadata"]) == 3


def test_without_any_metadata_relion_misses_the_column(tmp_path):
    result(tmp_path, "a")
    assert len(write_corrected_micrographs(str(tmp_path))) == 1
    assert "rlnMicrographMetadata" not in read(tmp_path)["micrographs"].columns


def test_a_second_run_adds_to_the_list_and_has_its_own_optics(tmp_path):
    result(tmp_path, "a", flip_tiff=True)
    write_corrected_micrographs(str(tmp_path))
    result(tmp_path, "b", fcrop_factor=0.5, flip_tiff=True)
    result(tmp_path, "c", flip_tiff=True)
    (tmp_path / ".d_motion.json.1234.part").write_text("half written")
    assert write_corrected_micrographs(str(tmp_path)) == []
    blocks = read(tmp_path)
    assert "--flip-tiff" not in (tmp_path / CORRECTED_MICROGRAPHS).read_text()
    assert list(blocks["optics"]["rlnMicrographPixelSize"]) == [0.8, 1.6]
    assert list(blocks["micrographs"]["rlnOpticsGroup"]) == [1, 2, 1]
    assert not [name for name in os.listdir(tmp_path) if name.startswith(f".{CORRECTED_MICROGRAPHS}")]


def test_files_of_an_earlier_result_are_not_taken_for_this_one(tmp_path):
    """The movie was aligned again without weights and halves; the old files still exist."""
    result(
        tmp_path, "a", ("_aligned_mic.mrc", "_aligned_mic_DW.mrc", "_aligned_mic_EVN.mrc"), do_apply_dose_filter=False
    )
    write_corrected_micrographs(str(tmp_path))
    table = read(tmp_path)["micrographs"]
    assert list(table["rlnMicrographName"]) == [str(tmp_path / "a_aligned_mic.mrc")]
    assert "rlnMicrographNameEven" not in table.columns and "rlnMicrographNameNoDW" not in table.columns


def test_no_micrographs_and_invalid_results(tmp_path):
    result(tmp_path, "a", ("_shifts.star",), do_save_ave_mic=False)
    assert write_corrected_micrographs(str(tmp_path)) == []
    assert not (tmp_path / CORRECTED_MICROGRAPHS).exists()
    result(tmp_path, "c", flip_tiff=True)
    for i, text in enumerate(("{}", "{", '{"settings": {"nonsense": 1}}', "[]")):
        (tmp_path / f"b{i}_motion.json").write_text(text)
    problems = write_corrected_micrographs(str(tmp_path))
    assert len(problems) == 4 and "b1_motion.json: is left out of corrected_micrographs.star" in problems[1]
    assert list(read(tmp_path)["micrographs"]["rlnMicrographName"]) == [str(tmp_path / "c_aligned_mic.mrc")]
