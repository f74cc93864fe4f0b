"""benchmarks/gpu.py from end to end at a tiny size: what it prints is checked, not how fast anything is."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

from ..emulation import cuda_backend

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
    for name in ("gpu", "gpu_stages", "benchmark_movies"):
        sys.modules.pop(name, None)


def test_figures_of_a_small_movie(gpu, capsys, tmp_path):
    words = ["--sizes", "400x330x6", "--repeats", "1", "--no-files", "--json", str(tmp_path / "figures.json")]
    assert gpu.main(words, select=lambda *arguments, **options: cuda_backend()) == 0
    (figures,) = json.loads((tmp_path / "figures.json").read_text())["sizes"].values()
    assert figures["error_px"] < 1 and 0 < figures["peak_device_gb"] < 0.1
    stages = figures["stages"]
    pixels = 400 * 330
    assert stages["sum of raw frames"]["bytes"] == {
        "memory": 6 * pixels + 4 * pixels,
        "up": 6 * pixels,
        "down": stages["sum of raw frames"]["bytes"]["down"],
    }
    assert stages["sum of raw frames"]["bytes"]["down"] >= 4 * pixels
    assert stages["filter and whitening"]["bytes"]["down"] == 4 * pixels
    assert {"spectra of frames", "correlation", "peaks", "warp and sum"} <= set(stages)
    assert all(stage["seconds"] > 0 and stage["bytes"]["memory"] > 0 for stage in stages.values())
    printed = capsys.readouterr().out
    assert "| warp and sum | 1 |" in printed and "work on the host" in printed


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
