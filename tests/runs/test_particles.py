"""Runs of particles from files: results, checkpoints, failures."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time

import mrcfile
import numpy as np
import pytest

from flexalign_plugin.errors import NoParticleError, ParticleError, ResultError, SettingsError
from flexalign_plugin.output.failures import read_failures
from flexalign_plugin.particles import noise, poses, results
from flexalign_plugin.particles.ctf import Optics
from flexalign_plugin.particles.io_star import read_star
from flexalign_plugin.particles.settings import ParticleSettings
from flexalign_plugin.particles.simulate import chains
from flexalign_plugin.particles.volumes import Volume, read_volume
from flexalign_plugin.runs import particle_memory
from flexalign_plugin.runs import particles as runs
from flexalign_plugin.runs.particle_simulation import MAP, STACK, STAR, Simulation, write_simulation

N, BOX, PIXEL_A, DIAMETER_A = 150, 32, 5.0, 100.0
SETTINGS = ParticleSettings(max_resolution=15.0, mask_diameter=DIAMETER_A, max_shift=15.0, threads=1)


def simulation(n, seed, snr=0.4):
    return Simulation(n, Optics(PIXEL_A, 300.0, 2.7, 0.1), snr, 1.2, 2.5, (5000.0, 20000.0), seed)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Simulated particles, and the result of a run that nothing has disturbed."""
    folder = tmp_path_factory.mktemp("particles")
    volume = chains(BOX, PIXEL_A, DIAMETER_A, 1500, seed=3)
    write_simulation(str(folder), [volume], simulation(N, 1))
    runs.align_star(str(folder / STAR), [read_volume(str(folder / MAP))], SETTINGS, str(folder / "whole"))
    return folder


def volumes(data):
    return [read_volume(str(data / MAP))]


def text(path):
    return open(path, encoding="utf-8").read()


def edited(data, tmp_path, change):
    """A STAR file with `change` made to the list of its lines of particles."""
    lines = text(data / STAR).split("\n")
    first = next(i for i, line in enumerate(lines) if "@" in line)
    particles = [line for line in lines[first:] if "@" in line]
    path = str(tmp_path / "edited.star")
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join([*lines[:first], *change(particles), ""]))
    return path


def errors_deg(star, truth, group=None):
    a, b = read_star(str(star))[0], read_star(str(truth))[0]
    return poses.distances(poses.matrices(*a.known.angles.T), poses.matrices(*b.known.angles.T), group)


def test_poses_and_shifts_are_those_of_the_truth(data):
    found, _ = read_star(str(data / "whole" / "particles.star"))
    truth, _ = read_star(str(data / STAR))
    errors = errors_deg(data / "whole" / "particles.star", data / STAR)
    assert (errors < 13.4).mean() > 0.95 and np.median(errors) < 3
    good = errors < 13.4
    assert np.abs(found.known.shifts_A - truth.known.shifts_A)[good].mean() < 0.3 * PIXEL_A
    assert not os.path.exists(str(data / "whole" / "failed.tsv"))


@pytest.mark.parametrize("threads, chunks", [(2, 32), (3, 1)])
def test_results_do_not_depend_on_threads_or_batches(data, tmp_path, monkeypatch, threads, chunks):
    monkeypatch.setattr(runs, "CHUNKS", chunks)
    settings = ParticleSettings.from_dict({**SETTINGS.to_dict(), "threads": threads})
    told = []
    runs.align_star(str(data / STAR), volumes(data), settings, str(tmp_path), lambda *done: told.append(done))
    assert text(tmp_path / "particles.star") == text(data / "whole" / "particles.star")
    assert told[0] == (0, N) and told[-1] == (N, N) and len(told) == 1 + -(-N // (32 * chunks))


def test_a_killed_run_goes_on_where_it_was(data, tmp_path):
    out = tmp_path / "out"
    program = (
        "import sys, flexalign_plugin.runs.particles as runs; runs.CHUNKS = 1\n"
        "from flexalign_plugin.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, "particles", "align", str(data / STAR), "--volume", str(data / MAP)]
    command += ["--output", str(out), "--max-resolution", "15", "--mask-diameter", "100", "--max-shift", "15"]
    command += ["--threads", "1", "--no-report"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    parts = out / "parts"
    while process.poll() is None and not (parts.is_dir() and len(list(parts.glob("part_*"))) >= 2):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = {path.name: path.stat().st_mtime_ns for path in parts.glob("part_*")}
    assert 2 <= len(before) < -(-N // 32) and not (out / "particles.star").exists()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    assert f"{32 * len(before)} of {N} particles were done before." in done.stdout
    assert text(out / "particles.star") == text(data / "whole" / "particles.star")
    assert {name: (parts / name).stat().st_mtime_ns for name in before} == before
    assert not list(parts.glob(".*"))


def test_a_run_of_something_else_is_not_continued(data, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(str(data / "whole"), str(out))
    other = ParticleSettings.from_dict({**SETTINGS.to_dict(), "max_shift": 10.0})
    with pytest.raises(SettingsError, match=r"holds a run with another max shift \(15.0, not 10.0\): choose another"):
        runs.align_star(str(data / STAR), volumes(data), other, str(out))
    changed = [Volume("a", 2 * volume.values, volume.pixel_A) for volume in volumes(data)]
    with pytest.raises(SettingsError, match="holds a run with other volumes"):
        runs.align_star(str(data / STAR), changed, SETTINGS, str(out))
    star = edited(data, tmp_path, lambda lines: lines[1:])
    with pytest.raises(SettingsError, match="holds a run with other particles"):
        runs.align_star(star, volumes(data), SETTINGS, str(out))
    # Threads and memory do not matter.
    more = ParticleSettings.from_dict({**SETTINGS.to_dict(), "threads": 2, "memory": 50.0})
    runs.align_star(str(data / STAR), volumes(data), more, str(out))


@pytest.mark.parametrize("name, content", [("run.json", b"{"), ("run.json", b"{}"), ("part_000001.npy", b"\x93NUMPY")])
def test_a_damaged_checkpoint_is_named(data, tmp_path, name, content):
    out = tmp_path / "out"
    shutil.copytree(str(data / "whole"), str(out))
    (out / "parts" / name).write_bytes(content)
    with pytest.raises(ResultError, match=f"{name}: can't be read .*remove"):
        runs.align_star(str(data / STAR), volumes(data), SETTINGS, str(out))


def test_a_lost_part_is_made_again(data, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(str(data / "whole"), str(out))
    os.remove(str(out / "parts" / "part_000001.npy"))
    runs.align_star(str(data / STAR), volumes(data), SETTINGS, str(out))
    assert text(out / "particles.star") == text(data / "whole" / "particles.star")


def test_bad_particles_fail_alone_with_their_reason(data, tmp_path):
    stack = str(tmp_path / "bad.mrcs")
    with mrcfile.open(str(data / STACK)) as file:
        images = file.data[:4].copy()
    images[1] = 0
    images[2, 5, 5] = np.nan
    with mrcfile.new(stack) as file:
        file.set_data(images)
        file.set_image_stack()

    def change(lines):
        def image(i, name):
            return " ".join([name, *lines[i].split()[1:]])

        lines[3], lines[4], lines[5] = image(3, f"2@{stack}"), image(4, f"3@{stack}"), image(5, f"9@{stack}")
        lines[6], lines[7] = image(6, f"1@{tmp_path}/nowhere.mrcs"), image(7, "x@" + stack)
        words = lines[8].split()
        words[3] = "nan"
        lines[8] = " ".join(words)
        lines[9] = lines[9].replace(".mrc 1 ", ".mrc 5 ").replace(".mrc            1 ", ".mrc 5 ")
        lines[9] = " ".join([*lines[9].split()[:2], "5", *lines[9].split()[3:]])
        return lines

    star = edited(data, tmp_path, change)
    out = str(tmp_path / "out")
    _, result = runs.align_star(star, volumes(data), SETTINGS, out)
    failures = read_failures(result.failures_path)
    assert [int(row) for row, _, _ in failures] == [4, 5, 6, 7, 8, 9, 10]
    reasons = [reason for _, _, reason in failures]
    expected = [
        "is empty",
        "not numbers",
        f"image 9 is not in {stack}",
        "nowhere.mrcs: can't be read",
        "not a number and",
    ]
    expected += ["its defocus or phase shift is not a number", "its optics group is not in the table"]
    for reason, words in zip(reasons, expected):
        assert words in reason
    assert failures[0][1] == f"000002@{stack}" and dict(result.failures)[6] == reasons[2]
    table, _ = read_star(os.path.join(out, "particles.star"))
    assert len(table) == N - 7
    assert result.found["aligned"].sum() == N - 7 and not result.found["aligned"][3:10].any()
    # The others are what they would have been, but for the noise, which is measured on fewer particles.
    whole, _ = read_star(str(data / "whole" / "particles.star"))
    kept = np.delete(np.arange(N), np.arange(3, 10))
    a, b = (poses.matrices(*angles.T) for angles in (table.known.angles, whole.known.angles[kept]))
    assert np.median(poses.distances(a, b)) < 0.5
    # Started again, the failures are tried again.
    _, again = runs.align_star(star, volumes(data), SETTINGS, out)
    assert dict(again.failures) == dict(result.failures)
    np.testing.assert_array_equal(again.found, result.found)


def test_if_nothing_can_be_aligned_the_first_reason_is_said(data, tmp_path):
    star = edited(data, tmp_path, lambda lines: [line.replace(STACK, "nowhere.mrcs") for line in lines])
    with pytest.raises(
        NoParticleError, match=rf"{star}: none of its {N} particles can be aligned; the first: 000001@.*"
    ):
        runs.align_star(star, volumes(data), SETTINGS, str(tmp_path / "out"))
    assert len(read_failures(str(tmp_path / "out" / "failed.tsv"))) == N
    assert not (tmp_path / "out" / "particles.star").exists()


def test_a_table_that_grows_is_aligned_as_it_comes(data, tmp_path):
    """As streaming does; what is there is not aligned again, also after a restart."""
    table, _ = read_star(str(data / STAR))
    aligner = runs.ParticleAligner(volumes(data), SETTINGS, str(tmp_path))
    first = aligner.align(table[np.arange(96)])
    told = []
    second = aligner.align(table, lambda *done: told.append(done))
    assert told == [(96, N), (N, N)]
    np.testing.assert_array_equal(second.found[:96], first.found)
    whole = results.matrices_of(second.found)
    truth = poses.matrices(*table.known.angles.T)
    assert (poses.distances(whole, truth) < 13.4).mean() > 0.95
    restarted = runs.ParticleAligner(volumes(data), SETTINGS, str(tmp_path)).align(table)
    np.testing.assert_array_equal(restarted.found, second.found)
    with pytest.raises(SettingsError, match="other particles"):
        aligner.align(table[np.arange(50)])


def test_optics_groups_of_other_pixel_sizes_have_their_own_gallery(data, tmp_path):
    """The same particles, half of them in larger images of finer pixels; and the map of yet another pixel size."""
    fine = tmp_path / "fine"
    fine_A, n = 4.0, 60
    write_simulation(
        str(fine),
        [chains(44, fine_A, DIAMETER_A, 1500, seed=3)],
        Simulation(n, Optics(fine_A, 300.0, 2.7, 0.1), 0.3, 1.5, 3, (5000.0, 20000.0), 9),
    )
    lines = text(data / STAR).split("\n")
    place = next(i for i, line in enumerate(lines) if "simulated" in line)
    lines.insert(place + 1, f"2 fine 300 2.7 0.1 {fine_A} 44 2")
    more = [line for line in text(fine / STAR).split("\n") if "@" in line]
    more = [" ".join([*line.split()[:2], "2", *line.split()[3:]]) for line in more]
    last = max(i for i, line in enumerate(lines) if "@" in line)
    star = str(tmp_path / "two.star")
    with open(star, "w") as file:
        file.write("\n".join([*lines[: last + 1], *more, ""]))
    said = []
    _, result = runs.align_star(
        star, volumes(fine), SETTINGS, str(tmp_path / "out"), say=lambda kind, text: said.append((kind, text))
    )
    assert len(result.scales) == 2 and np.unique(result.pixel_A).tolist() == [4.0, 5.0]
    assert any(kind == "note" and "its voxels of 4 A are rescaled to 5 A" in text for kind, text in said)
    errors = errors_deg(tmp_path / "out" / "particles.star", star)
    assert (errors[:N] < 13.4).mean() > 0.95 and (errors[N:] < 13.4).mean() > 0.95


def test_inverted_contrast_is_said_and_taken_into_account(data, tmp_path):
    said = []
    inverted = [Volume("inverted.mrc", -3 * volume.values, volume.pixel_A) for volume in volumes(data)]
    _, result = runs.align_star(
        str(data / STAR), inverted, SETTINGS, str(tmp_path), say=lambda kind, text: said.append((kind, text))
    )
    assert list(result.scales.values())[0] == pytest.approx(-1 / 3, rel=0.2)
    assert [kind for kind, text in said if "contrast of its images is inverted" in text] == ["warning"]
    assert (errors_deg(tmp_path / "particles.star", data / STAR) < 13.4).mean() > 0.95


def test_local_only_improves_the_poses_that_are_there(data, tmp_path):
    """Started 6 degrees and 5 A beside the truth, particles come back; far away they can't."""
    rng = np.random.default_rng(5)
    truth, _ = read_star(str(data / STAR))
    start = poses.matrices(*truth.known.angles.T)
    turns = rng.normal(size=(N, 3))
    turns *= np.radians(6) / np.linalg.norm(turns, axis=1, keepdims=True)
    turns[-10:] *= 15  # 90 degrees
    angles = np.stack(poses.euler_angles(poses.turned(start, turns)), axis=1)

    def change(lines):
        for i, line in enumerate(lines):
            words = line.split()
            words[6:9] = [f"{value:.6f}" for value in angles[i]]
            words[9] = f"{float(words[9]) + 5:.6f}"
            lines[i] = " ".join(words)
        return lines

    star = edited(data, tmp_path, change)
    settings = ParticleSettings.from_dict({**SETTINGS.to_dict(), "local_only": True})
    _, result = runs.align_star(star, volumes(data), settings, str(tmp_path / "out"))
    errors = errors_deg(tmp_path / "out" / "particles.star", data / STAR)
    assert np.median(errors[:-10]) < 3 and (errors[:-10] < 10).mean() > 0.9
    assert np.median(errors[-10:]) > 30
    assert (result.found["posterior"] == 1).all()


def test_local_only_needs_orientations(data, tmp_path):
    settings = ParticleSettings.from_dict({**SETTINGS.to_dict(), "local_only": True})
    star = str(tmp_path / "none.star")
    with open(star, "w") as file:
        file.write(text(data / STAR).replace("_rlnAngleRot", "_rlnNoAngle"))
    with pytest.raises(SettingsError, match="its particles have no orientations"):
        runs.align_star(star, volumes(data), settings, str(tmp_path / "out"))


def test_the_in_plane_angle_can_be_limited(data, tmp_path):
    settings = ParticleSettings.from_dict({**SETTINGS.to_dict(), "max_psi": 60.0})
    runs.align_star(str(data / STAR), volumes(data), settings, str(tmp_path))
    psi = read_star(str(tmp_path / "particles.star"))[0].known.angles[:, 2]
    truth = read_star(str(data / STAR))[0].known.angles[:, 2]
    # The local search takes particles that are not in the range towards it or beyond it.
    assert 0.3 < (np.abs(truth) < 60 + 16).mean() < 0.55 < 0.7 < (np.abs(psi) < 60 + 16).mean()
    errors = errors_deg(tmp_path / "particles.star", data / STAR)
    assert (errors[np.abs(truth) < 55] < 13.4).mean() > 0.95


@pytest.mark.parametrize(
    "changed, sentence",
    [
        (dict(max_resolution=9.0), "finer than its voxels of 5 A can show: give at least 10 A"),
        (dict(max_shift=81.0), "the maximum shift is 81 A, but from the centre of the images to their edge it is 80 A"),
        (dict(mask_diameter=170.0), "the mask diameter is 170 A, but the images are 160 A wide"),
        (dict(memory=0.01), "of memory, more than 0.0 GB: give a coarser"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_the_start(data, tmp_path, changed, sentence):
    settings = ParticleSettings.from_dict({**SETTINGS.to_dict(), **changed})
    with pytest.raises(SettingsError) as caught:
        runs.align_star(str(data / STAR), volumes(data), settings, str(tmp_path))
    assert sentence in str(caught.value) and str(caught.value).endswith(".")
    assert not (tmp_path / "particles.star").exists()


def test_a_particle_that_fills_its_image_is_refused(data, tmp_path, monkeypatch):
    monkeypatch.setattr(noise, "LEAST_SHARE", 0.3)
    settings = ParticleSettings.from_dict({**SETTINGS.to_dict(), "mask_diameter": 150.0})
    with pytest.raises(
        SettingsError, match="with a diameter of 150 A there are too few pixels around the particle in a"
    ):
        runs.align_star(str(data / STAR), volumes(data), settings, str(tmp_path))


def test_the_input_is_never_replaced(data, tmp_path):
    shutil.copy(str(data / STAR), str(tmp_path / "particles.star"))
    before = text(tmp_path / "particles.star")
    with pytest.raises(SettingsError, match="would be replaced by the result"):
        runs.align_star(str(tmp_path / "particles.star"), volumes(data), SETTINGS, str(tmp_path))
    assert text(tmp_path / "particles.star") == before


def test_an_empty_table_is_refused(data, tmp_path):
    table, _ = read_star(str(data / STAR))
    with pytest.raises(ParticleError, match="holds no particles"):
        runs.ParticleAligner(volumes(data), SETTINGS, str(tmp_path)).align(table[np.arange(0)])


def test_few_particles_are_warned_of(data, tmp_path):
    said = []
    star = edited(data, tmp_path, lambda lines: lines[:12])
    runs.align_star(star, volumes(data), SETTINGS, str(tmp_path / "out"), say=lambda *words: said.append(words))
    assert [kind for kind, text in said if "has only 12 particles" in text] == ["warning"]


def test_less_memory_means_fewer_threads():
    few = ParticleSettings(max_resolution=8.0, mask_diameter=150.0, max_shift=60.0, memory=3.0)
    much = ParticleSettings(max_resolution=8.0, mask_diameter=150.0, max_shift=60.0, memory=500.0)
    threads = particle_memory.threads_that_fit(few, 256, 1.0, 1, 1, 64)
    assert 1 <= threads < 64 == particle_memory.threads_that_fit(much, 256, 1.0, 1, 1, 64)


@pytest.fixture(scope="module")
def few(data):
    """Some of the particles, and what is found for them."""
    table, _ = read_star(str(data / STAR))
    table = table[np.arange(64)]
    return table, runs.ParticleAligner(volumes(data), SETTINGS, str(data / "few")).align(table).found


@pytest.mark.parametrize(
    "changed",
    [
        dict(max_resolution=20.0),
        dict(mask_diameter=125.0),
        dict(max_shift=5.0),
        dict(symmetry="C2"),
        dict(max_psi=45.0),
        dict(coarse_resolution=30.0),
        dict(local_only=True),
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_every_setting_changes_the_result(data, few, tmp_path, changed):
    table, before = few
    settings = ParticleSettings.from_dict({**SETTINGS.to_dict(), **changed})
    found = runs.ParticleAligner(volumes(data), settings, str(tmp_path)).align(table).found
    changes_deg = poses.distances(results.matrices_of(found), results.matrices_of(before))
    assert changes_deg.max() > 0.05  # two runs with the same settings are equal to the last digit


def test_memory_does_not_limit_what_is_found(data, tmp_path):
    """Neither of the two settings without effect on the result."""
    settings = ParticleSettings.from_dict({**SETTINGS.to_dict(), "memory": 2.0, "threads": 3})
    found = runs.ParticleAligner(volumes(data), settings, str(tmp_path)).align(read_star(str(data / STAR))[0]).found
    whole, _ = read_star(str(data / "whole" / "particles.star"))
    np.testing.assert_allclose(results.angles_of(found), whole.known.angles, atol=6e-7)
