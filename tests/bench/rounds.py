"""How a ratio is measured: both sides interleaved in one run, several rounds, median and range, with the load."""

import asyncio
import json
import os
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROUNDS = 5
# a peer that is this much slower than its own best had a bad plan or a bad neighbour: the ratio would flatter us
PEER_SPREAD = 2.5

Measure = Callable[[], Awaitable[float]]


@dataclass(slots=True, kw_only=True)
class Result:
    """One entry of build/bench.json, and what is printed beside it."""

    name: str
    target: float | None
    ratios: list[float]
    ours: list[float]
    peers: list[float]
    load: float
    notes: list[str] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """The median over the rounds."""
        return statistics.median(self.ratios)

    @property
    def peer_is_sound(self) -> bool:
        """Whether the peer ran evenly enough to be compared with."""
        return not self.peers or max(self.peers) <= PEER_SPREAD * min(self.peers)

    @property
    def holds(self) -> bool:
        """Whether the target is met against a sound peer."""
        return self.peer_is_sound and (self.target is None or self.ratio >= self.target)

    def entry(self) -> dict[str, Any]:
        """The entry as it is written."""
        return {
            "name": self.name,
            "ratio": round(self.ratio, 3),
            "target": self.target,
            "holds": self.holds,
            "rounds": len(self.ratios),
            "spread": [round(min(self.ratios), 3), round(max(self.ratios), 3)],
            "load": round(self.load, 2),
        }


async def compare(name: str, *, target: float | None, ours: Measure, peer: Measure, rounds: int = ROUNDS) -> Result:
    """Measures both rates in turn, `rounds` times, after one round that warms up and does not count."""
    await peer()
    await ours()
    mine: list[float] = []
    theirs: list[float] = []
    for number in range(rounds):
        # who goes first alternates: what drifts in a run must not favour one side
        first, second = (peer, ours) if number % 2 == 0 else (ours, peer)
        measured = {first: await first(), second: await second()}
        if not measured[peer]:
            raise RuntimeError(f"{name}: the peer did nothing in a whole round: this machine is too busy to measure on")
        theirs.append(measured[peer])
        mine.append(measured[ours])
    return Result(
        name=name,
        target=target,
        ratios=[own / other for own, other in zip(mine, theirs, strict=True)],
        ours=mine,
        peers=theirs,
        load=os.getloadavg()[0],
        notes=[f"{statistics.median(mine):,.0f}/s against {statistics.median(theirs):,.0f}/s"],
    )


async def rate(
    call: Callable[[int], Awaitable[object]],
    *,
    callers: int,
    duration_s: float,
    per_call: int = 1,
    drained: Callable[[], Awaitable[object]] | None = None,
) -> float:
    """Items a second by so many callers; the time until everything behind the calls is drained counts as well."""
    done = 0
    started = time.perf_counter()
    until = started + duration_s

    async def caller(number: int) -> None:
        nonlocal done
        count = 0
        while time.perf_counter() < until:
            await call(number + callers * count)
            count += 1
        done += count

    await asyncio.gather(*(caller(number) for number in range(callers)))
    if drained is not None:
        await drained()
    return done * per_call / (time.perf_counter() - started)


@dataclass(slots=True)
class Spent:
    """CPU seconds by name, since `watched` began."""

    seconds: dict[str, float] = field(default_factory=dict)

    def per(self, calls: float) -> str:
        """µs a call, by name."""
        parts = (f"{name} {1e6 * seconds / max(calls, 1):.0f}" for name, seconds in self.seconds.items())
        return "CPU µs a call: " + ", ".join(parts)


@contextmanager
def watched(processes: dict[str, Callable[[], list[int]]]) -> Iterator[Spent]:
    """Measures the CPU time of named sets of processes."""
    spent = Spent()
    before = {name: cpu_s(pids()) for name, pids in processes.items()}
    yield spent
    for name, pids in processes.items():
        spent.seconds[name] = cpu_s(pids()) - before[name]


def cpu_s(pids: list[int]) -> float:
    """User and system seconds of processes; one that is gone counts as nothing."""
    ticks = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        # with what its ended children used: a Postgres backend that closes must not vanish
        ticks += sum(int(fields[index]) for index in (11, 12, 13, 14))
    return ticks / os.sysconf("SC_CLK_TCK")


def family(root: int) -> list[int]:
    """A process and all its descendants."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        children.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting.extend(children.get(pid, []))
    return found


def write(results: list[Result], path: Path) -> None:
    """Writes build/bench.json; entries of an earlier run that were not measured now stay."""
    known: dict[str, dict[str, Any]] = {}
    if path.exists():
        known = {entry["name"]: entry for entry in json.loads(path.read_text())}
    known.update({result.name: result.entry() for result in results})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(list(known.values()), indent=2) + "\n")
