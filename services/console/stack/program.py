"""A process of the stack: how it is started, how one sees that it is ready, how it is asked to stop."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from services.console.stack.refusals import NotSpawned

KEPT_LOGS = 3
TAIL_LINES = 12
TAIL_BYTES = 16_384

Probe = Callable[[], Awaitable[bool]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What the supervisor must know of a process to keep it running."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    log: Path
    is_ready: Probe
    address: str = ""
    ready_within_s: float = 60.0
    # A server that was killed finds its orphans' traces for a moment; until then its start is tried again.
    start_patience_s: float = 0.0
    # Asked in this order, each signal with the seconds it is given; then it is killed.
    stop_by: tuple[tuple[signal.Signals, float], ...] = ((signal.SIGTERM, 20.0),)
    # What the kernel sends it when its supervisor dies.
    orphan_signal: signal.Signals = signal.SIGTERM
    prefix: tuple[str, ...] = field(default=())

    def argv(self) -> tuple[str, ...]:
        """The command as it is executed: within its identity, and bound to the life of its supervisor."""
        bound = ("setpriv", "--pdeathsig", self.orphan_signal.name.removeprefix("SIG"), "--")
        return (*self.prefix, *bound, *self.command)


async def spawn(program: Program) -> asyncio.subprocess.Process:
    """Starts the process in a session of its own, so that Ctrl-C reaches the supervisor alone; it writes to its log.

    Raises NotSpawned."""
    try:
        with program.log.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *program.argv(),
                env=dict(program.environment),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
    # asyncio watches a child with a thread, and a machine without processes has none: a RuntimeError
    except (OSError, RuntimeError) as error:
        raise NotSpawned(f"{program.name} can't be started: {error}") from error


def rotate(log: Path) -> None:
    """Begins a new log and keeps the last few beside it: name.log, name.log.1, …"""
    log.parent.mkdir(parents=True, exist_ok=True)
    for age in range(KEPT_LOGS, 0, -1):
        older = log.with_name(f"{log.name}.{age}")
        newer = log if age == 1 else log.with_name(f"{log.name}.{age - 1}")
        if newer.exists():
            newer.replace(older)


def tail(log: Path) -> str:
    """The last lines of a log, for whoever must read why a process ended; none if it can't be read."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-TAIL_LINES:])


def plain_environment() -> dict[str, str]:
    """An environment for servers that aren't ours: no PG*, no locale, nothing that changes what they do."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": os.environ.get("HOME", "/"),
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
    }
