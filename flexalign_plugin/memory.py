"""The memory that this process and its children may still use."""

from __future__ import annotations

import os
from typing import Dict, Iterator, List, Optional, Tuple

PROC, CGROUPS = "/proc", "/sys/fs/cgroup"
UNLIMITED = 1 << 60  # version 1 of control groups states a limit of about 2**63 if there is none


def available_bytes() -> Optional[int]:
    """Free memory of the machine, or less if a job of a queue or a container is limited to less; None if unknown.

    Pages of files count as free, because the system gives them up when memory is needed.
    """
    amounts = list(_left_in_groups())
    with_name = _table(f"{PROC}/meminfo")
    if "MemAvailable:" in with_name:
        amounts.append(with_name["MemAvailable:"] * 1024)
    return max(min(amounts), 0) if amounts else None


def _left_in_groups() -> Iterator[int]:
    """What each control group of this process, and each group above it, has left."""
    for version, folder in _groups():
        names = ("memory.max", "memory.current", "inactive_file")
        if version == 1:
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        limit, used = (_number(os.path.join(folder, name)) for name in names[:2])
        if limit is not None and used is not None and limit < UNLIMITED:
            yield limit - used + _table(os.path.join(folder, "memory.stat")).get(names[2], 0)


def _groups() -> List[Tuple[int, str]]:
    """(version, folder) of the groups that may limit the memory, from the process's own to the root."""
    found = []
    for line in _lines(f"{PROC}/self/cgroup"):
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if number == "0":
            version, root = 2, CGROUPS
        elif "memory" in controllers.split(","):
            version, root = 1, os.path.join(CGROUPS, "memory")
        else:
            continue
        group = group.strip().strip("/")
        # A container may see its own group as the root, under whichever name the host has given it.
        while True:
            found.append((version, os.path.join(root, group) if group else root))
            if not group:
                break
            group = os.path.dirname(group)
    return found


def _table(path: str) -> Dict[str, int]:
    """Lines of a name and a number, perhaps with a unit."""
    words = (line.split() for line in _lines(path))
    return {each[0]: int(each[1]) for each in words if len(each) > 1 and each[1].isdigit()}


def _number(path: str) -> Optional[int]:
    lines = _lines(path)
    return int(lines[0]) if lines and lines[0].strip().isdigit() else None


def _lines(path: str) -> List[str]:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read().splitlines()
    except OSError:  # another system, or a container that hides it
        return []
