"""What each process of the stack has computed so far, from /proc; nothing where there is none."""

import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

PROC = Path("/proc")
OURSELVES = "tills and suppliers"
# places in /proc/<pid>/stat behind the name
_PARENT, _USER, _SYSTEM, _CHILDREN_USER, _CHILDREN_SYSTEM = 1, 11, 12, 13, 14


def cpu_seconds(pids: Mapping[str, int]) -> dict[str, float]:
    """CPU seconds by name of the process, with all that descend from it (Postgres works in its children), and our own.

    A difference of two readings is a cost; a process that was restarted between them counts from its start.
    """
    ticks = os.sysconf("SC_CLK_TCK")
    own: dict[int, tuple[int, float]] = {}
    for folder in PROC.glob("[0-9]*") if PROC.exists() else ():
        try:
            text = (folder / "stat").read_text()
        except OSError:
            continue  # it ended meanwhile
        # the name stands in brackets and may hold anything
        figures = text.rpartition(")")[2].split()
        used = sum(int(figures[at]) for at in (_USER, _SYSTEM, _CHILDREN_USER, _CHILDREN_SYSTEM))
        own[int(folder.name)] = (int(figures[_PARENT]), used / ticks)
    if not own:
        return {}
    names = {pid: name for name, pid in pids.items()}
    spent: dict[str, float] = defaultdict(float)
    for pid, (_, seconds) in own.items():
        above = _first_named(pid, own, names)
        if above is not None:
            spent[names[above]] += seconds
    times = os.times()
    spent[OURSELVES] = times.user + times.system
    return dict(spent)


def _first_named(pid: int, own: Mapping[int, tuple[int, float]], names: Mapping[int, str]) -> int | None:
    """The process itself, or the nearest above it that has a name."""
    while pid in own:
        if pid in names:
            return pid
        pid = own[pid][0]
    return None
