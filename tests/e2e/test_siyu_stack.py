"""`siyu stack` as a person uses it: up, looked at, interrupted, up again."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from services.console.stack.local import LocalStack, running_stack
from services.console.stack.probes import http_answers
from services.console.stack.roles import ROLES
from services.console.stack.settings import REPOSITORY, StackSettings

UP = "Siyu is up."
UP_WITHIN_S = 120
# Postgres alone may take 60 s before it is asked less kindly
DOWN_WITHIN_S = 150

# a run in the background of a shell ignores SIGINT, and so would all that it starts
_AS_IN_A_TERMINAL = (
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); "
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)


async def siyu(*words: str, environment: dict[str, str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _AS_IN_A_TERMINAL, "-P", "-m", "services.console", *words),
        env={**os.environ, **environment},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=REPOSITORY,
    )


@asynccontextmanager
async def up(environment: dict[str, str]) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """A `siyu stack` that says it is up, and what it had printed by then. Ended at the latest with the block."""
    process = await siyu("stack", environment=environment)
    assert process.stdout is not None
    printed = ""
    try:
        async with asyncio.timeout(UP_WITHIN_S):
            while UP not in printed:
                line = await process.stdout.readline()
                assert line, f"it ended instead of coming up:\n{printed}"
                printed += line.decode()
        yield process, printed
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def processes_over(directory: Path) -> list[str]:
    """The command lines that name the directory, or have it in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                told = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            except OSError:
                continue
            if str(directory).encode() in told:
                found.append(told.split(b"\0")[0].decode())
    return found


async def test_it_survives_its_supervisor_refuses_a_second_and_stops_in_order(tmp_path: Path) -> None:
    settings = StackSettings.for_tests(tmp_path)
    environment = {"SIYU_STATE_DIR": str(tmp_path), **{name: str(port) for name, port in settings.ports().items()}}
    async with up(environment) as (killed, _printed):
        killed.kill()
        await killed.wait()

    async with up(environment) as (process, printed):
        assert f"taking over the lock of process {killed.pid}" in printed
        for name in (*ROLES, "postgres", "valkey", "envoy"):
            assert f" {name} " in printed
        assert await http_answers(f"127.0.0.1:{settings.edge_port}", "/healthz")()

        second = await siyu("stack", environment=environment)
        told, _ = await second.communicate()
        assert second.returncode == 1
        assert f"already running as process {process.pid}" in told.decode()

        process.send_signal(signal.SIGINT)
        told, _ = await asyncio.wait_for(process.communicate(), DOWN_WITHIN_S)
        assert process.returncode == 0, told.decode()
    assert processes_over(tmp_path) == []
    assert running_stack(tmp_path) is None


@pytest.mark.parametrize("name", [*ROLES, "valkey", "envoy", "postgres"])
async def test_whatever_is_killed_comes_back(stack: LocalStack, name: str) -> None:
    before = stack.kill(name)
    await stack.until_ready(name)
    assert stack.pids[stack.process_of(name)] != before
    await stack.until_all_ready()
