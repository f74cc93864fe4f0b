"""The free memory is that of the machine, or what the limits of a job or container leave."""

from __future__ import annotations

from pathlib import Path

import pytest

from flexalign_plugin import memory

GB = 1 << 30


@pytest.fixture
def system(tmp_path, monkeypatch):
    """Makes the files in which Linux states memory and limits."""
    monkeypatch.setattr(memory, "PROC", str(tmp_path / "proc"))
    monkeypatch.setattr(memory, "CGROUPS", str(tmp_path / "cgroup"))

    def make(files: dict) -> None:
        for name, text in files.items():
            path = Path(tmp_path, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")

    make({"proc/meminfo": f"MemTotal: {64 << 20} kB\nMemFree: {1 << 20} kB\nMemAvailable: {40 << 20} kB\nHugePages: 0"})
    return make


def test_memory_of_the_machine(system):
    assert memory.available_bytes() == 40 * GB


def test_limit_of_a_job_counts_without_pages_of_files(system):
    """Version 2: the limit is set on the job, not on the step in which the process runs."""
    system(
        {
            "proc/self/cgroup": "0::/slurm/job_7/step_0",
            "cgroup/slurm/job_7/step_0/memory.max": "max",
            "cgroup/slurm/job_7/step_0/memory.current": 2 * GB,
            "cgroup/slurm/job_7/memory.max": 16 * GB,
            "cgroup/slurm/job_7/memory.current": 10 * GB,
            "cgroup/slurm/job_7/memory.stat": f"anon {4 * GB}\ninactive_file {6 * GB}",
        }
    )
    assert memory.available_bytes() == 12 * GB


def test_limit_of_a_container_that_sees_its_group_as_the_root(system):
    """Version 1: the group's name is the host's, and its files are in the root."""
    system(
        {
            "proc/self/cgroup": "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc",
            "cgroup/memory/memory.limit_in_bytes": 8 * GB,
            "cgroup/memory/memory.usage_in_bytes": 3 * GB,
            "cgroup/memory/memory.stat": f"inactive_file 5\ntotal_inactive_file {GB}",
        }
    )
    assert memory.available_bytes() == 6 * GB


def test_no_limit_in_version_1_is_a_huge_number(system):
    system(
        {
            "proc/self/cgroup": "4:memory:/",
            "cgroup/memory/memory.limit_in_bytes": 9223372036854771712,
            "cgroup/memory/memory.usage_in_bytes": 3 * GB,
        }
    )
    assert memory.available_bytes() == 40 * GB


def test_a_group_over_its_limit_has_nothing_left(system):
    system({"proc/self/cgroup": "0::/", "cgroup/memory.max": 2 * GB, "cgroup/memory.current": 3 * GB})
    assert memory.available_bytes() == 0


def test_unknown_where_the_system_does_not_tell(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "PROC", str(tmp_path))
    assert memory.available_bytes() is None
