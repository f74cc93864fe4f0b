"""Search of FFT sizes with invented times, and its file with many writers, damage and foreign content."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import stat

import pytest

from flexalign_plugin.band import fft_size_below, is_fft_friendly
from flexalign_plugin.kernels import tuning
from flexalign_plugin.kernels.device import DeviceOutOfMemory


class FakeDevice:
    """As much of a device as tuning needs."""

    def __init__(self, name="NVIDIA Test (cuda:0)", total=20 << 30):
        self.name, self.total_bytes = name, total

    def release_unused(self):
        pass


class Times:
    """Seconds of a transform: proportional to its pixels, but for the sizes that are said to be fast."""

    def __init__(self, **fast):
        self.fast, self.calls = {tuple(int(n) for n in k[1:].split("_")): v for k, v in fast.items()}, []

    def __call__(self, device, ny, nx):
        self.calls.append((ny, nx))
        return ny * nx * 1e-9 * self.fast.get((ny, nx), 1.0)


@pytest.mark.parametrize("n", [3710, 4092, 4096, 5760, 11520, 7676, 401])
def test_candidates_are_friendly_and_near(n):
    sizes = tuning.candidates(n)
    assert sizes[0] == fft_size_below(n)
    assert len(sizes) == len(set(sizes)) > 1
    assert all(is_fft_friendly(s) and s % 2 == 0 and 0.9 * n <= s <= n for s in sizes)


def test_the_fastest_size_wins_only_if_it_is_worth_it(tmp_path):
    # Time in proportion to the pixels, or 2 % less, is no gain; a size that is 40 % faster is.
    flat = tuning.Tuner(FakeDevice(), tmp_path / "a.json", measure=Times(_4032_5760=0.98))
    assert flat.frame_size(4092, 5760, 40) == (fft_size_below(4092), 5760)
    times = Times(_4050_5760=0.9, _4050_5600=0.6, _4032_5600=0.55)
    found = tuning.Tuner(FakeDevice(), tmp_path / "b.json", measure=times)
    # Rows' length first: at 4050 rows (the default), 5600 is fastest; then 4032 rows.
    assert tuning.candidates(4092)[0] == 4050
    assert found.frame_size(4092, 5760, 40) == (4032, 5600)


def test_a_size_is_measured_once(tmp_path):
    path, times = tmp_path / "sizes.json", Times(_4032_5600=0.5)
    first = tuning.Tuner(FakeDevice(), path, measure=times)
    size = first.frame_size(4092, 5760, 40)
    count = len(times.calls)
    assert len(set(times.calls)) == count  # no size twice
    assert first.frame_size(4092, 5760, 40) == size
    # Another process, and the machine's other GPU of this kind.
    assert tuning.Tuner(FakeDevice("NVIDIA Test (cuda:1)"), path, measure=times).frame_size(4092, 5760, 40) == size
    assert len(times.calls) == count
    tuning.Tuner(FakeDevice(), path, measure=times).frame_size(4092, 5760, 30)  # of movies with other frame numbers too
    assert len(times.calls) == count
    for device in (FakeDevice("Other"), FakeDevice(total=3 << 30)):
        tuning.Tuner(device, path, measure=times).frame_size(4092, 5760, 40)
        assert len(times.calls) > count
        count = len(times.calls)
    assert len(tuning.read_file(path)) == 3
    assert stat.S_ISREG(os.stat(path).st_mode) and not list(tmp_path.glob(".*"))


def test_what_does_not_fit_is_not_chosen_and_not_stored(tmp_path):
    def measure(device, ny, nx):
        if ny * nx > most:
            raise DeviceOutOfMemory(1, 0)
        return 1.0

    path, most = tmp_path / "s.json", 0
    assert tuning.Tuner(FakeDevice(), path, measure=measure).frame_size(4092, 5760, 2) == (fft_size_below(4092), 5760)
    assert not tuning.read_file(path)


def test_number_of_movies_that_pay_back_is_described(tmp_path):
    tuned = tuning.Tuned((4032, 5600), (4050, 5760), 1e-3, 1.5e-3, 3.0)
    assert tuned.movies_to_pay_back(40) == 150
    assert "3.0 s, which 150 movies pay back" in tuning.describe("key", tuned, 40)
    nothing = tuning.Tuned((4050, 5760), (4050, 5760), 1e-3, 1e-3, 3.0)
    assert nothing.movies_to_pay_back(40) is None
    assert "is the fastest size" in tuning.describe("key", nothing, 40)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\x00\xff\x93NUMPY",
        b"[1, 2]",
        b'{"my": "own notes"}',
        json.dumps({"format": tuning.FORMAT, "version": 99, "sizes": {}}).encode(),
    ],
)
def test_a_damaged_or_foreign_file_is_put_aside(tmp_path, content):
    path = tmp_path / "sizes.json"
    path.write_bytes(content)
    tuning.Tuner(FakeDevice(), path, measure=Times()).frame_size(512, 512, 4)
    assert len(tuning.read_file(path)) == 1
    assert (tmp_path / "sizes.json.old").read_bytes() == content


def test_impossible_entries_are_searched_again(tmp_path):
    path = tmp_path / "sizes.json"
    tuning.Tuner(FakeDevice(), path, measure=Times()).frame_size(512, 512, 4)
    good = json.loads(path.read_text())
    (key,) = good["sizes"]
    for size in ([512], [100, 512], [511, 512], "512", None):
        good["sizes"][key]["size"] = size
        path.write_text(json.dumps(good))
        times = Times()
        assert tuning.Tuner(FakeDevice(), path, measure=times).frame_size(512, 512, 4) == (512, 512)
        assert times.calls
    assert not (tmp_path / "sizes.json.old").exists()


def test_a_folder_that_can_not_be_written_is_no_error(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    times = Times()
    tuner = tuning.Tuner(FakeDevice(), blocked / "sizes.json", measure=times)
    assert tuner.frame_size(512, 512, 4) == tuner.frame_size(512, 512, 4) == (512, 512)
    assert len(set(times.calls)) == len(times.calls)


def _tune_many(path, worker, log):
    def measure(device, ny, nx):
        with open(log, "a") as file:
            file.write(f"{ny} {nx} {frame}\n")
        return ny * nx * 1e-9

    tuner = tuning.Tuner(FakeDevice(), path, measure=measure)
    for k in range(6):
        for frame in (512 + 128 * k, 2048 + 512 * worker + 64 * k):  # the same for all, and this process's own
            tuner.frame_size(frame, frame, 10)


def test_many_processes_lose_nothing_and_measure_nothing_twice(tmp_path):
    path, log = tmp_path / "sub" / "sizes.json", tmp_path / "log"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_tune_many, args=(path, w, log)) for w in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 8
    found = tuning.read_file(path)
    assert len(found) == 6 + 8 * 6
    assert all(math.isfinite(t.seconds) for t in found.values())
    measured = log.read_text().splitlines()
    assert len(measured) == len(set(measured))
    assert sorted(p.name for p in path.parent.iterdir()) == ["sizes.json", "sizes.json.lock"]


def test_the_command_describes_the_result(tmp_path, monkeypatch):
    monkeypatch.setenv("FLEXALIGN_TUNING_FILE", str(tmp_path / "mine.json"))
    assert tuning.default_file() == tmp_path / "mine.json"
    monkeypatch.setattr(tuning.Tuner.__init__, "__defaults__", (None, Times(_4032_5600=0.5)))
    said = tuning.tune(FakeDevice(), (40, 4092, 5760))
    assert said.startswith("NVIDIA Test | 4092 x 5760 | 16 GiB: ")
    assert (tmp_path / "mine.json").exists()
