"""`flexalign particles`: from simulated files to poses and a consensus; exit statuses and messages."""

from __future__ import annotations

import os
import shutil

import mrcfile
import numpy as np
import pytest

from flexalign_plugin import cli
from flexalign_plugin.particles import poses
from flexalign_plugin.particles.io_star import read_star
from flexalign_plugin.star_format import star_loop

SIMULATE = "particles simulate --box 32 --pixel-size 5 --snr 0.5 --shift 5 --max-shift 10 --particles 100"
ALIGN = "particles align sim/truth.star --volume sim/map.mrc --max-resolution 15 --max-shift 12 --threads 1"


def run(command, capsys):
    """(exit status, standard output, standard error)."""
    try:
        status = cli.main(command.split())
    except SystemExit as end:
        status = end.code
    output = capsys.readouterr()
    return status, output.out, output.err


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Simulated particles, and their alignment."""
    path = tmp_path_factory.mktemp("commands")
    before = os.getcwd()
    os.chdir(str(path))
    assert cli.main(f"{SIMULATE} --output sim --quiet".split()) == 0
    assert cli.main(f"{ALIGN} --output out --quiet".split()) == 0
    os.chdir(before)
    (path / "text").write_text("hello\n")
    for name in ("movies", "foreign"):
        (path / name).mkdir()
    (path / "movies" / "a_motion.json").write_text("{}")
    with mrcfile.new(str(path / "foreign" / "particles.mrcs")) as file:
        file.set_data(np.ones((2, 8, 8), "f4"))
    shutil.copy(str(path / "sim" / "truth.star"), str(path / "flat.star"))
    return path


@pytest.fixture(autouse=True)
def in_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)


def errors_deg(star):
    a, b = read_star(star)[0], read_star("sim/truth.star")[0]
    return poses.distances(poses.matrices(*a.known.angles.T), poses.matrices(*b.known.angles.T))


def test_simulated_particles_are_aligned(folder):
    assert (errors_deg("out/particles.star") < 13.4).mean() > 0.95
    pictures = {"directions.png", "histograms.png", "posterior.png", "examples.png", "directions.bild"}
    assert {*pictures, "report.html", "particles.star", "parts"} == set(os.listdir("out"))
    assert "sim/truth.star" in open("out/report.html", encoding="utf-8").read()


def test_what_was_found_is_printed(capsys):
    status, out, err = run(f"{ALIGN} --output out", capsys)
    assert status == 0 and err == ""
    assert "100 of 100 particles were done before." in out
    assert "The particle is" in out and "A in diameter, as measured in the volume" in out
    assert "100 particles aligned in" in out and "have a pose of probability 0.9 or more" in out
    for name in ("particles.star", "directions.png", "histograms.png", "posterior.png", "report.html"):
        assert os.path.join("out", name) in out


def test_every_setting_reaches_the_alignment(capsys):
    """A setting that was changed is seen by the checkpoint of the run, whose results belong to the others."""
    for option in (
        "--max-resolution 16",
        "--mask-diameter 90",
        "--max-shift 11",
        "--symmetry C2",
        "--max-psi 90",
        "--coarse-resolution 25",
        "--local-only",
    ):
        name = option.split()[0].strip("-").replace("-", " ")
        status, _, err = run(f"{ALIGN} {option} --output out", capsys)
        assert status == 2 and f"holds a run with another {name} (" in err, err
    for option in ("--threads 2", "--memory 20", "--no-report"):
        assert run(f"{ALIGN} {option} --output out", capsys)[0] == 0


def test_two_volumes_and_some_failures(capsys):
    with open("sim/truth.star") as file:
        text = file.read()
    with open("some.star", "w") as file:
        file.write(text.replace("000007@", "000777@"))
    command = ALIGN.replace("truth.star", "../some.star") + " --volume sim/map.mrc --no-report --output some"
    status, out, err = run(command, capsys)
    assert status == 1
    assert "1 of 100 particles could not be aligned; see some/failed.tsv" in err
    assert "volume 1:" in out and "volume 2:" in out
    with open("some/failed.tsv") as file:
        head, line, _ = file.read().split("\n")
    assert head == "id\tparticle\treason" and line.startswith("7\t000777@sim/particles.mrcs\timage 777 is not in")


def test_consensus_of_runs(capsys):
    status, out, err = run("particles consensus out/particles.star sim/truth.star --output both", capsys)
    assert status == 0 and err == ""
    kept, _ = read_star("both/particles.star")
    assert f"{len(kept)} of 100 particles have alignments that agree; their spread is" in out
    assert len(kept) >= 95 and np.median(errors_deg_of(kept)) < np.median(errors_deg("out/particles.star"))
    assert {"particles.star", "rejected.star", "spreads.tsv", "agreement.png"} == set(os.listdir("both"))


def errors_deg_of(table):
    truth = read_star("sim/truth.star")[0]
    a, b = (poses.matrices(*angles.T) for angles in (table.known.angles, truth.known.angles[table.index]))
    return poses.distances(a, b)


def turned_star(name):
    """The particles with all orientations far off."""
    table, _ = read_star("sim/truth.star")
    rows = [(table.image_name(i), "1", 1e4, 1e4, 0, 0, float(i % 180), 90 + i) for i in range(len(table))]
    columns = ("rlnImageName", "rlnOpticsGroup", "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle")
    optics = ("rlnOpticsGroup", "rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast", "rlnImagePixelSize")
    with open(name, "w") as file:
        file.write(star_loop("optics", optics, [("1", 300, 2.7, 0.1, 5)]) + "\n")
        file.write(star_loop("particles", (*columns, "rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"), rows) + "\n")


STATUSES = [
    (ALIGN.replace("sim/truth.star", "nowhere.star") + " --output OUT", 2, "nowhere.star: can't be read (No such"),
    (ALIGN.replace("sim/truth.star", "text") + " --output OUT", 2, "text: is not a STAR file: give a list"),
    (ALIGN.replace("sim/map.mrc", "nowhere.mrc") + " --output OUT", 2, "nowhere.mrc: can't be read"),
    (ALIGN.replace("sim/map.mrc", "sim/particles.mrcs") + " --output OUT --volume text", 2, "text: is not an MRC map"),
    (ALIGN + " --output text", 1, "text"),
    (ALIGN + " --output OUT --max-resolution 5", 2, "finer than its voxels of 5 A can show: give at least 10 A"),
    (ALIGN + " --output OUT --max-resolution nan", 2, "Maximum resolution is nan A: it must be at least 0.5"),
    (ALIGN + " --output OUT --symmetry X", 2, "Symmetry 'X' is not known: give C1"),
    (ALIGN + " --output OUT --threads -1", 2, "Threads is -1: it must be at least 0"),
    (ALIGN + " --output OUT --volume-pixel-size 0", 2, "is not a number above 0"),
    (ALIGN + " --output OUT --max-resoluton 8", 2, "did you mean --max-resolution?"),
    ("particles align sim/truth.star --output OUT", 2, "the following arguments are required: --volume"),
    ("particles", 2, "the following arguments are required: COMMAND"),
    ("particles consensus out/particles.star --output OUT", 2, "needs at least two alignments: give two"),
    ("particles consensus out/particles.star text --output OUT", 2, "text: is not a STAR file"),
    (
        "particles consensus sim/truth.star turned.star --output OUT",
        1,
        "0 of 100 particles have alignments that agree.",
    ),
    ("particles consensus out/particles.star sim/truth.star --max-angle 0 --output OUT", 2, "is not between 0.001"),
    (
        "particles consensus sim/truth.star flat.star --output out",
        2,
        "out: holds an alignment, whose particles would be",
    ),
    (ALIGN + " --output movies", 2, "movies: holds results of movies, whose failed.tsv would be replaced"),
    (SIMULATE + " --volume sim/map.mrc --output sim", 2, "sim/map.mrc: would be replaced by the map that is written"),
    (SIMULATE + " --output foreign", 1, "particles.mrcs: is an image that FlexAlign has not written, and is kept"),
    (SIMULATE + " --output text", 1, "text: can't be written because"),
    (SIMULATE + " --output OUT --box 33", 2, "--box 33: give an even number from 16"),
    (SIMULATE + " --output OUT --max-shift 81", 2, "the images are only 160 A wide: give at most half"),
    (SIMULATE + " --output OUT --defocus 9000 8000", 2, "give the smaller value first"),
    (SIMULATE + " --output OUT --snr 0", 2, "is not between 0.0001"),
    (SIMULATE + " --output OUT --volume nowhere.mrc", 2, "nowhere.mrc: can't be read"),
]


@pytest.mark.parametrize("command, status, words", STATUSES)
def test_exit_statuses_and_messages(tmp_path, capsys, command, status, words):
    turned_star("turned.star")
    found, out, err = run(command.replace("OUT", str(tmp_path / "out")), capsys)
    assert found == status and words in out + err
    assert len(err.strip().split("\n")) == 1


def test_help_is_short_and_complete(capsys):
    status, short, _ = run("particles align --help", capsys)
    assert status == 0 and "--max-resolution" in short and "--max-psi" not in short
    status, everything, _ = run("particles align --help-all", capsys)
    assert status == 0 and "--max-psi" in everything and "--coarse-resolution" in everything
    status, out, _ = run("particles --help", capsys)
    assert status == 0 and all(name in out for name in ("align", "consensus", "simulate"))
    assert "None" not in run("particles simulate --help", capsys)[1]


def test_the_same_seed_gives_the_same_particles(tmp_path, capsys):
    for name in ("a", "b"):
        run(f"{SIMULATE} --seed 7 --output {tmp_path}/{name}", capsys)
    for name in ("particles.mrcs", "map.mrc"):
        a, b = ((tmp_path / which / name).read_bytes() for which in ("a", "b"))
        assert a[1024:] == b[1024:]
    a, b = ((tmp_path / which / "truth.star").read_text() for which in ("a", "b"))
    assert a.replace("/a/", "/b/") == b


def test_a_map_of_another_pixel_size_is_simulated(tmp_path, capsys):
    status, out, _ = run(
        f"particles simulate --volume sim/map.mrc --box 40 --pixel-size 4 --particles 3 --output {tmp_path}",
        capsys,
    )
    assert status == 0 and "its voxels of 5 A are rescaled to 4 A" in out
    table, _ = read_star(str(tmp_path / "truth.star"))
    assert table.groups[0].optics.pixel_A == 4 and len(table) == 3
