"""benchmarks/gpu.py from end to end at a tiny size: what it prints is checked, not how fast anything is."""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from ..emulation import cuda_backend, emulated_backend

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def gpu(monkeypatch):
    """The command as a module; skipped where the tests were installed without it."""
    if not (BENCHMARKS / "gpu.py").is_file():
        pytest.skip("the benchmarks are not here")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    command = importlib.import_module("gpu")
    monkeypatch.setattr(command, "COPIED_BYTES", 1 << 22)
    yield command
    for name in ("gpu", "gpu_checks", "gpu_stages", "benchmark_movies"):
        sys.modules.pop(name, None)


def test_figures_of_a_small_movie(gpu, capsys, tmp_path):
    words = ["--sizes", "400x330x6", "--repeats", "1", "--no-files", "--json", str(tmp_path / "figures.json")]
    assert gpu.main(words, select=lambda *arguments, **options: cuda_backend()) == 0
    (figures,) = json.loads((tmp_path / "figures.json").read_text())["sizes"].values()
    assert figures["error_px"] < 1 and 0 < figures["peak_device_gb"] < 0.1
    stages = figures["stages"]
    pixels = 400 * 330
    of_sum = stages["sum of raw frames"]["demand"]
    assert (of_sum["memory"], of_sum["up"], of_sum["operations"]) == (6 * pixels + 4 * pixels, 6 * pixels, 0)
    assert of_sum["down"] >= 4 * pixels
    assert stages["filter and whitening"]["demand"]["down"] == 4 * pixels
    assert stages["warp and sum"]["demand"]["operations"] == 6 * pixels * 164
    assert stages["correlation"]["demand"]["operations"] > 1e6
    assert {"spectra of frames", "correlation", "peaks", "warp and sum"} <= set(stages)
    assert all(stage["seconds"] > 0 and stage["demand"]["memory"] > 0 for stage in stages.values())
    printed = capsys.readouterr().out
    assert "| warp and sum | 1 |" in printed and "work on the host" in printed


def test_what_limits_a_stage_is_named(gpu):
    """A second of each would be 10 GB in memory, 1 GB from and 2 GB to the host, and 100 GFLOP."""
    speeds = gpu.Demand(1e10, 1e9, 2e9, 1e11)
    for demand, seconds, name in (
        (gpu.Demand(1e10, 5e8, 0, 0), 1.0, "memory"),
        (gpu.Demand(1e9, 5e8, 5e8, 0), 0.5, "copies from the host"),
        (gpu.Demand(1e9, 0, 5e8, 0), 0.25, "copies to the host"),
        (gpu.Demand(1e9, 0, 0, 2e11), 2.0, "arithmetic"),
    ):
        assert demand.limit(speeds) == (seconds, name)


def test_operations_of_a_correlation(gpu):
    """Of two rows and three columns to 5 x 5 values, counted one by one: -2 .. 2 steps are 3 offsets."""
    stages = importlib.import_module("gpu_stages")
    product = 2 * 3 * 6  # four multiplications and two additions
    along_y = 2 * 3 * 3 * 8  # four multiplications with additions: real and imaginary part by cosine and sine
    along_x = 5 * 3 * 3 * 4
    assert stages.pair_operations(2, 3, 5) == product + along_y + along_x


def test_everything_for_a_new_gpu_in_one_command(gpu, monkeypatch, capsys, tmp_path):
    """In the order of docs/gpu.md. The tests that it starts are replaced by one that passes, and one that fails."""
    if "FLEXALIGN_TEST_DEVICE" in os.environ and "FLEXALIGN_TEST_DRIVER" not in os.environ:
        pytest.skip("that is what runs now")
    checks = importlib.import_module("gpu_checks")
    monkeypatch.setattr(checks, "TRANSFORMS", ((2, 24, 20),))
    monkeypatch.setattr(checks, "shutil", SimpleNamespace(which=lambda name: None))
    monkeypatch.setenv("FLEXALIGN_TUNING_FILE", str(tmp_path / "sizes.json"))
    for name, passes in (("good", True), ("bad", False)):
        (tmp_path / f"test_{name}.py").write_text(f"def test_it():\n    assert {passes}\n")
        monkeypatch.setattr(checks, "CHECKS", (str(tmp_path / f"test_{name}.py"),))
        words = ["--sizes", "260x200x4", "--repeats", "1", "--no-files", "--all", str(tmp_path / name)]
        assert gpu.main(words, select=lambda *arguments, **options: cuda_backend()) == (0 if passes else 1)
        report = (tmp_path / name / "report.md").read_text()
        assert report in capsys.readouterr().out
        parts = ["What is installed", "Transforms against NumPy", "test_it" if not passes else "1 passed", "FFT sizes"]
        parts += ["work area of", "| warp and sum | 1 |", "All checks passed;" if passes else "A CHECK FAILED;"]
        places = [report.find(part) for part in parts]
        assert -1 not in places and places == sorted(places), parts
        figures = json.loads((tmp_path / name / "figures.json").read_text())
        assert figures["checks_passed"] == passes and "error_px" in figures["sizes"]["260x200x4"]


def test_a_size_that_does_not_fit_is_reported_and_the_others_are_measured(gpu, capsys):
    words = ["--sizes", "4000x3000x2,260x200x4", "--repeats", "1", "--no-files"]
    assert gpu.main(words, select=lambda *arguments, **options: emulated_backend(total_bytes=24 << 20)) == 0
    printed = capsys.readouterr().out
    assert "NOT MEASURED: emulated: not enough memory" in printed and "| warp and sum | 1 |" in printed


def test_files_are_read_by_a_command_of_its_own(gpu, capsys, tmp_path):
    words = ["--device", "cpu", "--sizes", "160x128x4", "--repeats", "1", "--workdir", str(tmp_path)]
    assert gpu.main(words) == 0
    assert "| LZW TIFF | " in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_where_there_is_no_gpu_one_sentence_says_so(gpu, capsys):
    assert gpu.main(["--device", "cuda:77"]) == 1
    printed = capsys.readouterr()
    assert not printed.out and "cuda:77" in printed.err


def test_sizes_are_columns_rows_frames(gpu, capsys):
    assert gpu.shapes("5760x4092x30,8x6x2") == [(30, 4092, 5760), (2, 6, 8)]
    with pytest.raises(SystemExit) as end:
        gpu.parse(["--sizes", "5760"])
    assert end.value.code == 2 and "'5760' is not a size" in capsys.readouterr().err
