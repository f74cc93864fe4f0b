"""The whole command line on small phantom movies, as a user or a script calls it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from flexalign_plugin import cli
from flexalign_plugin.commands.align import settings_of
from flexalign_plugin.errors import SettingsError
from flexalign_plugin.execution.worker import _child_environment
from flexalign_plugin.motion import MotionModel
from flexalign_plugin.phantoms.movie_writers import write_mrc_movie
from flexalign_plugin.phantoms.phantom import Truth, field_rms_error
from flexalign_plugin.settings import Settings

from .signals import default_signals

PHANTOM = "phantom --size 448 384 --frames 8 --pixel-size 3 --dose 4 --drift 5 --local 2".split()
WRITTEN = ["_aligned_mic.mrc", "_motion.json", "_shifts.star", "_psd.mrc", "_psd.png", "_plot_global.png"]


def run(*words, cwd=None) -> subprocess.CompletedProcess:
    """`flexalign ...` as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "flexalign_plugin", *map(str, words)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=_child_environment(),
        timeout=120,
    )


def parsed(*words) -> Settings:
    return settings_of(cli.build_parser().parse_args(["align", "m.mrc", "--output", "o", *words]))


@pytest.fixture(scope="module")
def movies(tmp_path_factory):
    """A movie of each format from a detector with uneven gain; two MRC movies."""
    folder = tmp_path_factory.mktemp("movies")
    options = {"mrc": "--movies 2", "tiff": "--compression lzw", "eer": "--hardware-frames 3"}
    for name, more in options.items():
        words = [*PHANTOM, "--output", str(folder), "--name", name, "--format", name, "--gain", "auto", *more.split()]
        assert cli.main(words) == 0
    return folder


# ------------------------------------------------------------------------------------------------------- the options


def test_help_and_parser_load_nothing_heavy():
    code = (
        "import sys; from flexalign_plugin.cli import build_parser; build_parser();"
        "heavy = {'numpy', 'scipy', 'numba', 'matplotlib', 'tifffile', 'tqdm', 'pwem', 'pyworkflow'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=_child_environment())
    assert done.stdout == "[]\n", done.stderr
    assert run("--help").returncode == 0
    assert run("align", "--help").returncode == 0


def test_every_setting_is_an_option_and_keeps_its_default():
    assert parsed("--pixel-size", "1") == Settings()
    for name, field in Settings.__dataclass_fields__.items():
        flag = "--" + name.replace("_", "-")
        if isinstance(field.default, bool):
            words, value = [flag, "no" if field.default else "yes"], not field.default
        elif field.metadata["choices"]:
            value = field.metadata["choices"][-1]
            words = [flag, str(value)]
        elif name == "frame_doses":
            words, value = [flag, "0.5 10 1.2 30"], "0.5 10 1.2 30"
        elif "Optional[str]" in field.type:
            value = os.path.abspath("x")
            words = [flag, "x"]
        else:
            other = {"pixel_size": 1.5, "align_frame0": 2, "sum_frame0": 2, "fcrop_factor": 0.5, "voltage": 200}
            value = {**other, "min_local_res": 90}.get(name, 9)
            words = [flag, str(value)]
        args = cli.build_parser().parse_args(["align", "m.mrc", "--output", "o", "--pixel-size", "1", *words])
        given = {name: getattr(args, name)} if "Optional[str]" not in field.type else {}
        assert not given or given[name] == value
        needed = ["--dose-per-frame", "1"] if name == "do_save_ps" else []
        assert getattr(parsed("--pixel-size", "1", *needed, *words), name) == value


def test_a_range_to_sum_is_used_when_it_is_given():
    assert not parsed("--pixel-size", "1", "--sum-frame0", "5").use_align_to_sum
    assert parsed("--pixel-size", "1").use_align_to_sum


@pytest.mark.parametrize("command", ["align", "tilt-series"])
def test_the_short_help_has_common_settings_and_the_full_help_has_all(command, capsys):
    helps = {}
    for flag in ("--help", "--help-all"):
        with pytest.raises(SystemExit) as end:
            cli.main([command, flag])
        assert end.value.code == 0
        helps[flag] = capsys.readouterr().out
    options = {flag: set(re.findall(r"^ +(--[a-z0-9-]+)", text, re.MULTILINE)) for flag, text in helps.items()}
    every = {"--" + name.replace("_", "-") for name in Settings.__dataclass_fields__}
    assert every | {"--output", "--device", "--timeout", "--help-all"} <= options["--help-all"]
    assert {"--pixel-size", "--gain", "--dose-per-frame", "--output", "--help-all"} <= options["--help"]
    assert options["--help"] < options["--help-all"]
    assert helps["--help"].count("\n") < 90 < helps["--help-all"].count("\n")
    assert "local alignment:" in helps["--help"] and "default: 300)" in helps["--help"]


@pytest.mark.parametrize(
    "words, value",
    [
        (["--do-save-movie"], True),
        (["--do-save-movie", "yes"], True),
        (["--do-save-movie", "NO"], False),
        (["--no-do-save-movie"], False),
        (["--do-save-movie", "--no-do-save-movie"], False),
    ],
)
def test_yes_and_no(words, value):
    assert parsed("--pixel-size", "1", *words).do_save_movie is value


@pytest.mark.parametrize(
    "words, sentence",
    [
        ([], "pixel size is missing"),
        (["--pixel-size", "-1"], "at least 0.01"),
        (["--pixel-size", "1", "--do-plots", "maybe"], "neither yes nor no"),
        (["--pixel-size", "1", "--max-res-for-correlation", "1"], "use a larger number"),
        (["--pixel-size", "1", "--device", "abacus"], "abacus"),
        (["--pixel-size", "1", "--threads", "0"], "not above 0"),
        (["--pixel-size", "1", "--threads", "two"], "not a whole number"),
        (["--pixel-size", "1", "--timeout", "0"], "not a number above 0"),
        (["--pixel", "1"], "unrecognized arguments"),
        (["--do-save-movi", "yes"], "(did you mean --do-save-movie?). See flexalign align --help."),
        (["--settings", "nowhere.json"], "nowhere.json: can't be read"),
    ],
)
def test_options_that_are_invalid_end_with_status_2(words, sentence, tmp_path):
    done = run("align", "m.mrc", "--output", "o", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert sentence in done.stderr and "Traceback" not in done.stderr
    assert os.listdir(tmp_path) == []


def test_settings_come_from_a_file_and_the_command_line_wins(tmp_path):
    path = tmp_path / "a_motion.json"
    path.write_text(json.dumps({"settings": Settings(pixel_size=0.8, max_shift=70, do_plots=False).to_dict()}))
    settings = parsed("--settings", str(path), "--max-shift", "20", "--do-plots")
    assert (settings.pixel_size, settings.max_shift, settings.do_plots) == (0.8, 20.0, True)
    # A result of an earlier version is repeated as it was; a file of single settings leaves the default.
    path.write_text('{"settings": {"pixel_size": 0.8}}')
    assert parsed("--settings", str(path)).reference_frame == "middle-most"
    path.write_text('{"pixel_size": 0.8}')
    assert parsed("--settings", str(path)).reference_frame == "first"
    for text, sentence in (
        ('{"pixelSize": 1}', "pixelSize"),
        ("[1]", "no settings"),
        ("{", "not a JSON"),
        ('{"pixel_size": "wide"}', "a_motion.json"),
    ):
        path.write_text(text)
        with pytest.raises(SettingsError, match=sentence):
            parsed("--settings", str(path))


def test_a_closed_pipe_ends_the_command_quietly():
    command = f"{sys.executable} -m flexalign_plugin info | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=_child_environment(), timeout=60)
    assert (done.stdout, done.stderr) == ("1\n", "")


# -------------------------------------------------------------------------------------------------------- the movies


@pytest.mark.parametrize("root, ending", [("mrc_0001", ".mrc"), ("tiff", ".tif"), ("eer", ".eer")])
def test_one_movie_of_each_format_is_aligned_well(movies, tmp_path, root, ending):
    movie = movies / (root + ending)
    gain = next(movies.glob(f"{root}_gain.*"))
    out = tmp_path / "made" / "for it"
    words = ["align", movie, "--output", out, "--pixel-size", 3, "--gain", gain, "--n-frames", 8, "--voltage", 200]
    done = run(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"[1/1] {movie}" in done.stdout
    assert {root + ending for ending in WRITTEN} <= set(os.listdir(out))
    assert [f for f in os.listdir(out) if not f.startswith(root)] == ["corrected_micrographs.star"]
    truth = Truth.load(movies / f"{root}_truth.json")
    error = field_rms_error(MotionModel.load(out / f"{root}_motion.json"), truth)
    assert error.rms_px < 0.5 < 1.5 < error.uncorrected_px
    saved = json.loads((out / f"{root}_motion.json").read_text())
    assert saved["settings"]["voltage"] == 200 and saved["settings"]["gain"] == str(gain)


def test_several_movies_machine_readable_with_names_kept_apart(movies, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "mrc_0001.mrc").symlink_to(movies / "mrc_0002.mrc")
    (tmp_path / "list.txt").write_text(f"{movies / 'mrc_0002.mrc'}\n{other / 'mrc_0001.mrc'}\n")
    out = tmp_path / "out"
    first = movies / "mrc_0001.mrc"
    words = ["align", first, first, "@list.txt", "--output", out, "--pixel-size", 3, "--no-do-plots", "--json"]
    done = run(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [r["movie"] for r in results] == [str(first), str(movies / "mrc_0002.mrc"), str(other / "mrc_0001.mrc")]
    written = [r["files"]["micrograph"] for r in results]
    assert len(set(written)) == 3 and all(os.path.exists(path) for path in written)
    assert not list(out.glob("*.png.part")) and not (out / "failed.tsv").exists()
    # The same movie under another name gives the same bytes, except for the name.
    assert len(results[0]["shifts_px"]) == 8 and results[1]["shifts_px"] == results[2]["shifts_px"]


def test_a_failed_movie_is_listed_and_the_list_goes_when_it_succeeds(movies, tmp_path):
    late = tmp_path / "late.mrc"
    words = ["align", late, movies / "mrc_0001.mrc", "--output", "out", "--pixel-size", 3, "--no-do-plots"]
    done = run(*words, cwd=tmp_path)
    assert done.returncode == 1
    assert "1 of 2 movies failed" in done.stderr
    lines = (tmp_path / "out" / "failed.tsv").read_text().splitlines()
    assert lines[0].split("\t") == ["id", "movie", "reason"]
    assert lines[1].split("\t")[:2] == ["1", str(late)] and "no such file" in lines[1]
    assert (tmp_path / "out" / "mrc_0001_motion.json").exists()
    # Another run into the same folder, as with queue jobs, keeps the line.
    assert run("align", movies / "mrc_0002.mrc", *words[3:], cwd=tmp_path).returncode == 0
    assert (tmp_path / "out" / "failed.tsv").read_text().splitlines() == lines
    late.symlink_to(movies / "mrc_0002.mrc")
    assert run(*words, "--quiet", cwd=tmp_path).stdout == ""
    assert not (tmp_path / "out" / "failed.tsv").exists()


def test_a_movie_that_exceeds_the_time_limit_fails(movies, tmp_path):
    done = run("align", movies / "mrc_0001.mrc", "--output", "o", "--pixel-size", 3, "--timeout", 0.01, cwd=tmp_path)
    assert done.returncode == 1
    assert "mrc_0001.mrc: gave no result within 0.01 s" in done.stderr


def wait_until(condition, seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return bool(condition())


def children_of(pid: int) -> list:
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(entry.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(entry.parent.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


@pytest.mark.parametrize("n_movies, number", [(1, signal.SIGTERM), (2, signal.SIGINT)])
def test_interrupting_leaves_nothing_behind(tmp_path, n_movies, number):
    """Ctrl-C, or the signal by which a queue ends a job, while movies are aligned."""
    big, other = tmp_path / "big.mrc", tmp_path / "other.mrc"  # a small one would be done before
    rng = np.random.default_rng(1)
    write_mrc_movie(str(big), (rng.integers(0, 3, (2048, 2048), np.uint8) for _ in range(24)))
    os.link(big, other)
    names = [str(big), str(other)][:n_movies]
    process = subprocess.Popen(
        [sys.executable, "-m", "flexalign_plugin", "align", *names, "--output", "out", "--pixel-size", "1"],
        cwd=tmp_path,
        env=_child_environment(),
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=default_signals,
    )
    assert wait_until(lambda: (tmp_path / "out").exists())
    time.sleep(1.0)
    children = children_of(process.pid)
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130, errors
    assert "interrupted" in errors and "Traceback" not in errors
    assert os.listdir(tmp_path / "out") == []
    assert not [pid for pid in children if os.path.exists(f"/proc/{pid}")]


def test_no_scipion_is_loaded(movies, tmp_path):
    code = (
        "import sys; from flexalign_plugin.cli import main; from flexalign_plugin.execution import worker, "
        f"worker_process;status = main(['align', {str(movies / 'mrc_0001.mrc')!r}, '--output', 'out', '--pixel-size', "
        "'3']);print(status, [name for name in sys.modules if name.split('.')[0] in ('pwem', 'pyworkflow', "
        "'tkinter')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=_child_environment(), cwd=tmp_path
    )
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr


# -------------------------------------------------------------------------------------------------- phantom and info


def test_phantom_command_writes_the_files_that_it_prints(tmp_path, capsys):
    words = "phantom --kind grid --doming 0.5 --size 128 96 --frames 4 --format tiff --gain mrc --seed 3".split()
    assert cli.main([*words, "--output", str(tmp_path), "--name", "g"]) == 0
    printed = dict(line.split(": ") for line in capsys.readouterr().out.splitlines())
    assert sorted(map(os.path.basename, printed.values())) == ["g.tif", "g_gain.mrc", "g_truth.json"]
    assert sorted(os.listdir(tmp_path)) == ["g.tif", "g_gain.mrc", "g_truth.json"]
    truth = Truth.load(printed["truth"])
    assert (truth.kind, truth.frame_shape, truth.n_frames) == ("grid", (96, 128), 4)
    assert truth.parameters["doming"] == 0.5


@pytest.mark.parametrize("existing", ["p_0001.mrc", "p_0002.mrc", "p_0002_truth.json", "p_0001_gain.mrc"])
def test_phantoms_replace_no_file_unless_told_to(tmp_path, existing, capsys):
    """Nothing is written, also if only the last of several names is taken."""
    (tmp_path / existing).write_bytes(b"a raw movie")
    words = "phantom --size 64 64 --frames 2 --local 0 --drift 2 --movies 2 --gain auto --name p --output".split()
    assert cli.main([*words, str(tmp_path)]) == 2
    assert f"{tmp_path / existing}: exists and is kept" in capsys.readouterr().err
    assert os.listdir(tmp_path) == [existing] and (tmp_path / existing).read_bytes() == b"a raw movie"
    assert cli.main([*words, str(tmp_path), "--overwrite"]) == 0
    assert len(os.listdir(tmp_path)) == 6 and (tmp_path / existing).stat().st_size > 20


@pytest.mark.parametrize(
    "words, status, sentence",
    [
        ("--band-limit 1", 2, "change band limit"),
        ("--compression lzw", 2, "for TIFF only"),
        ("--size 32 32 --local 20", 2, "folds"),
        ("--dose 0", 2, "not a number above 0"),
    ],
)
def test_phantoms_that_are_invalid(words, status, sentence, tmp_path):
    done = run("phantom", "--size", 64, 64, "--frames", 2, "--output", tmp_path, *words.split())
    assert done.returncode == status
    assert sentence in done.stderr and "Traceback" not in done.stderr
    assert os.listdir(tmp_path) == []


def test_info_prints_which_device_will_be_used():
    done = run("info")
    assert done.returncode == 0, done.stderr
    assert np.__version__ in done.stdout and "will be used  cpu" in done.stdout


def test_outputs_for_microscopists(tmp_path):
    """Dose weighting, even and odd frames, 16-bit floats, F-crop and spectra; denoiser pairs of the first movie."""
    import mrcfile

    for name in "ab":
        frames = np.random.default_rng(0).poisson(3.0, (6, 128, 160)).astype(np.uint8)
        write_mrc_movie(str(tmp_path / f"{name}.mrc"), frames, 1.0)
    words = [str(tmp_path / "a.mrc"), str(tmp_path / "b.mrc"), "--output", str(tmp_path / "out"), "--pixel-size", "1.5"]
    words += [
        "--dose-per-frame",
        "2",
        "--denoiser-pairs",
        "1",
        "--save-float16",
        "--fcrop-factor",
        "0.5",
        "--do-save-ps",
    ]
    done = run("align", *words, "--no-do-local-alignment", "--no-do-plots")
    assert done.returncode == 0, done.stderr
    found = {p.name for p in (tmp_path / "out").iterdir() if p.suffix == ".mrc"}
    every = {"aligned_mic", "aligned_mic_DW", "PS", "psd"}
    assert found == {f"{m}_{k}.mrc" for m in "ab" for k in every} | {"a_aligned_mic_EVN.mrc", "a_aligned_mic_ODD.mrc"}
    for kind in ("", "_DW", "_EVN", "_ODD"):
        with mrcfile.open(tmp_path / "out" / f"a_aligned_mic{kind}.mrc") as mrc:
            assert mrc.data.dtype == np.float16 and mrc.data.shape == (64, 80)
            assert mrc.voxel_size.x == pytest.approx(3.0)
            assert mrc.data.astype(float).mean() == pytest.approx(3.0, rel=0.02)
    quality = json.loads((tmp_path / "out" / "a_motion.json").read_text())["quality"]
    assert len(quality["frc"]) == 64
    done = run("align", *words[:2], "--output", str(tmp_path / "out2"), "--pixel-size", "1", "--only-process", "1")
    assert done.returncode == 0
    assert {p.name[:2] for p in (tmp_path / "out2").iterdir()} == {"a_", "co"}
    assert "b_aligned" not in (tmp_path / "out2" / "corrected_micrographs.star").read_text()


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["--do-apply-dose-filter"], "Dose weighting needs the dose: give it with --dose-per-frame or --total-dose"),
        (["--dose-per-frame", "-1"], "Dose per frame is -1"),
        (["--fcrop-factor", "1.5"], "F-crop factor is 1.5"),
        (["--fcrop-factor", "0"], "F-crop factor is 0"),
        (["--fcrop-factor", "0.1", "--bin-factor", "2"], "together bin by 20"),
        (["--do-save-ps"], "the dose per frame is not known"),
    ],
)
def test_output_options_that_are_invalid(words, sentence, tmp_path):
    done = run("align", "m.mrc", "--output", str(tmp_path), "--pixel-size", "1", *words)
    assert done.returncode == 2 and sentence in done.stderr


def test_several_movies_make_a_report(movies, tmp_path):
    out = tmp_path / "out"
    movie = next(m for m in sorted(movies.glob("mrc*.mrc")) if "gain" not in m.name)
    (tmp_path / "broken.tif").write_bytes(b"II*")
    words = ["align", movie, tmp_path / "broken.tif", "--output", out, "--pixel-size", "3", "--no-do-local-alignment"]
    assert run(*words, "--no-report").returncode == 1
    assert not (out / "report.html").exists()
    assert run(*words).returncode == 1
    text = (out / "report.html").read_text(encoding="utf-8")
    assert "broken.tif" in text and '"details":{' in text and f'"root":"{movie.stem}"' in text


@pytest.mark.parametrize(
    "options, words",
    [
        ("--pixel-size 2 --dose-per-frame 0.5", ""),
        ("--pixel-size 2 --dose-per-frame 2", "a dose per frame of 0.5 (was the total dose typed?)"),
        ("--pixel-size 4 --dose-per-frame 0.5", "a pixel size of 2 A (super-resolution or 8K?)"),
        ("--pixel-size 200 --dose-per-frame 0.5", "2 A would make sense, if it was typed in pm"),
        ("--pixel-size 2e-10", "2 A would make sense, if it was typed in metres"),
        ("--pixel-size 0.02", "too little to compare them"),
    ],
)
def test_mistakes_are_named_in_the_first_movie(tmp_path, capsys, options, words):
    """Four frames of 2 electrons in each pixel of 2 A: 0.5 e/A^2."""
    frames = np.random.default_rng(0).poisson(2.0, (4, 128, 160)).astype(np.uint8)
    write_mrc_movie(str(tmp_path / "m.mrc"), frames)
    command = ["align", str(tmp_path / "m.mrc"), "--output", str(tmp_path / "out"), *options.split(), "--threads", "1"]
    status = cli.main([*command, "--no-do-local-alignment", "--no-do-plots", "--no-do-compute-psd"])
    said = "".join(capsys.readouterr())
    if not words:
        line = "input: 2 A/px, field 0.032 x 0.026 um, 4 frames x 0.5 = 2 e/A^2; counted in the movie: 2\n"
        assert line in said and "would make sense" not in said
    else:
        assert words in said and "Traceback" not in said
    assert status == (2 if "e-10" in options else 1 if "0.02" in options else 0)
