"""The CPU time of a process and its descendants, read from /proc. It needs Linux."""

import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def cpu_seconds(roots: Mapping[str, int]) -> dict[str, float]:
    """The CPU seconds of each root's process tree so far, with those of children that have ended. A tree excludes the
    trees of the other roots below it.
    """
    parents, ticks = _processes()
    children = defaultdict(list)
    for pid, parent in parents.items():
        children[parent].append(pid)
    others = set(roots.values())

    def total(pid: int) -> int:
        return ticks.get(pid, 0) + sum(total(child) for child in children[pid] if child not in others)

    return {name: total(pid) / _TICKS_PER_SECOND for name, pid in roots.items()}


def _processes() -> tuple[dict[int, int], dict[int, int]]:
    """The parent of each process, and its clock ticks in user and system mode, with those of children it waited for."""
    parents, ticks = {}, {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # The process has just ended.
            continue
        parents[int(folder.name)] = int(fields[1])
        ticks[int(folder.name)] = sum(map(int, fields[11:15]))
    return parents, ticks
