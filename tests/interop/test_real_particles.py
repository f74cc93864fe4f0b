"""Real particle files, as programs have written them: RELION 3, 3.1 and 5, and Frealign's stacks.

They are those of cryoDRGN's tests (Zhong et al. 2021), in its source package on the Python package index, which is
downloaded here and not shipped: its licence is the GPL-3. Without a network the tests are skipped.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile

import numpy as np
import pytest

from flexalign_plugin.particles import noise, poses
from flexalign_plugin.particles.band import Band
from flexalign_plugin.particles.io_stack import Stacks
from flexalign_plugin.particles.io_star import read_star, write_star
from flexalign_plugin.particles.results import DTYPE, matrices_of
from flexalign_plugin.particles.settings import ParticleSettings
from flexalign_plugin.particles.simulate import chains
from flexalign_plugin.particles.volumes import Volume
from flexalign_plugin.runs.particles import align_star

PACKAGE = "cryodrgn==4.3.1"
FILES = ("relion31.star", "relion31.v2.star", "relion31.6opticsgroups.star", "relion5.star", "sta_testing_bin8.star")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The folder of cryoDRGN's test data."""
    folder = tmp_path_factory.mktemp("cryodrgn")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--timeout", "10", "--retries", "1"]
    command += ["--no-binary", ":all:", PACKAGE, "--dest", str(folder)]
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=300, check=False)
    archives = list(folder.glob("cryodrgn*.tar.gz"))
    if not archives:
        pytest.skip(f"{PACKAGE} can't be downloaded from the Python package index")
    with tarfile.open(str(archives[0])) as archive:
        for member in archive.getmembers():
            parts = member.name.split("/")
            if parts[1:3] == ["tests", "data"] and len(parts) == 4 and member.isfile():
                (folder / parts[3]).write_bytes(archive.extractfile(member).read())
    return folder


def columns(starfile, path):
    tables = starfile.read(str(path), always_dict=True)
    return next(table for table in tables.values() if hasattr(table, "columns") and "rlnImageName" in table.columns)


@pytest.mark.parametrize("name", FILES)
def test_numbers_are_those_that_starfile_reads(data, tmp_path, name):
    starfile = pytest.importorskip("starfile")
    table, source = read_star(str(data / name))
    theirs = columns(starfile, data / name)
    assert len(table) == len(theirs)
    np.testing.assert_allclose(table.defocus.u_A, theirs["rlnDefocusU"], rtol=1e-6)
    np.testing.assert_allclose(table.defocus.angle_deg, theirs["rlnDefocusAngle"], atol=1e-4)
    np.testing.assert_array_equal(table.known.angles[:, 1], theirs["rlnAngleTilt"])
    assert [table.index[0] + 1] == [int(theirs["rlnImageName"].iloc[0].split("@")[0])]
    # Written with new poses and read again, by both readers; what is not ours is as it was.
    found = np.zeros(len(table), DTYPE)
    found["row"], found["rot"], found["aligned"] = table.row, np.linspace(-179, 179, len(table)), True
    out = str(tmp_path / "out.star")
    write_star(out, source, found)
    again, rewritten = read_star(out)[0], columns(starfile, out)
    np.testing.assert_allclose(again.known.angles[:, 0], found["rot"], atol=1e-6)
    np.testing.assert_allclose(rewritten["rlnAngleRot"], found["rot"], atol=1e-6)
    assert [g.optics for g in again.groups] == [g.optics for g in table.groups]
    np.testing.assert_array_equal(again.group, table.group)
    kept = [c for c in theirs.columns if c in rewritten.columns and not c.startswith(("rlnAngle", "rlnOrigin"))]
    assert {"rlnImageName", "rlnDefocusV", "rlnMicrographName"} <= set(kept)
    for column in kept:
        if column != "rlnClassNumber":
            assert list(rewritten[column]) == list(theirs[column]), column


def test_six_optics_groups_have_their_own_optics(data):
    table, _ = read_star(str(data / "relion31.6opticsgroups.star"))
    assert len(table.groups) == 6 and set(table.group) <= set(range(6)) and len(set(table.group)) > 1
    assert {g.optics.pixel_A for g in table.groups} == {1.24, 1.25}
    assert {g.optics.cs_mm for g in table.groups} == {2.6, 2.7}


def test_real_images_have_coloured_noise_that_is_measured(data):
    """Around the 7 ribosomes of EMPIAR-10076 noise has 2.6 times more power at low than at high frequencies; white
    noise would have 1.0, with an error of 0.05."""
    table, source = read_star(str(data / "empiar_10076_7.star"))
    assert source.old and table.groups[0].optics.pixel_A == pytest.approx(1.31, abs=1e-3)
    assert table.groups[0].optics.amplitude_contrast == 0.07
    images, problems = Stacks(table.files).read(table.file, table.index, 320)
    assert not problems and images.shape == (7, 320, 320)
    power = noise.noise_power(images, 250 / 1.31, Band.of(320, 100))
    assert (power > 0).all() and 2 < power[:40].mean() / power[-500:].mean() < 4


def test_real_particles_are_aligned_without_complaint(data, tmp_path):
    """Five real particles with a volume that is not theirs: poses mean nothing, but nothing fails either."""
    table, _ = read_star(str(data / "relion31.star"))
    volume = Volume("phantom", chains(64, 8.0, 250.0, 3000, seed=1), 8.0)
    settings = ParticleSettings(max_resolution=24.0, mask_diameter=300.0, max_shift=20.0, threads=1)
    said = []
    _, result = align_star(
        str(data / "relion31.star"), [volume], settings, str(tmp_path), say=lambda kind, text: said.append(text)
    )
    assert result.found["aligned"].all() and np.isfinite(result.found["score"]).all()
    assert ((result.found["posterior"] > 0) & (result.found["posterior"] <= 1)).all()
    assert any("has only 5 particles" in text for text in said)
    assert any("its voxels of 8 A are rescaled to 2.806 A" in text for text in said)
    read, _ = read_star(str(tmp_path / "particles.star"))
    written = poses.matrices(*read.known.angles.T)
    assert poses.distances(written, matrices_of(result.found)).max() < 1e-4
