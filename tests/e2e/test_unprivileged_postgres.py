"""Postgres under every identity that this machine's user can give it."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from services.console.stack import ports
from services.console.stack.postgres import EmbeddedPostgres
from services.console.stack.supervisor import Supervisor
from services.console.stack.unprivileged import identity_for
from services.console.stack.wheels import postgres_programs


@pytest.fixture
def shared_state() -> Iterator[Path]:
    """A place where another user can go; pytest's own is closed to others."""
    directory = Path(tempfile.mkdtemp(prefix="siyu-shared-"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def no_namespaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that forbids user namespaces, as many containers do."""
    refusing = tmp_path / "bin" / "unshare"
    refusing.parent.mkdir()
    refusing.write_text("#!/bin/sh\necho 'unshare: Operation not permitted' >&2\nexit 1\n")
    refusing.chmod(0o755)
    monkeypatch.setenv("PATH", f"{refusing.parent}:{os.environ['PATH']}")


async def serves_twice(tmp_path: Path, shared_state: Path) -> None:
    """Starts a cluster, kills its server, starts it again."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    (port,) = ports.pick(1)
    for _ in range(2):
        server = EmbeddedPostgres.prepare(
            closed / "postgres",
            port=port,
            password="secret",
            shared_buffers_mb=16,
            log=tmp_path / "postgres.log",
            shared_state=shared_state,
        )
        async with Supervisor() as supervisor:
            await supervisor.start(server.program())
            supervisor.kill("postgres")
            await supervisor.until_ready("postgres")
            connection = await asyncpg.connect(server.url("postgres"))
            assert await connection.fetchval("SELECT current_user") == "postgres"
            await connection.close()


async def test_with_namespaces(tmp_path: Path, shared_state: Path) -> None:
    await serves_twice(tmp_path, shared_state)
    assert os.listdir(shared_state) == []


@pytest.mark.usefixtures("no_namespaces")
async def test_without_namespaces(tmp_path: Path, shared_state: Path) -> None:
    await serves_twice(tmp_path, shared_state)
    # Only root needs another user, who then needs a place of its own.
    assert bool(os.listdir(shared_state)) == (os.geteuid() == 0)


def test_an_identity_once_chosen_is_kept(tmp_path: Path, shared_state: Path) -> None:
    if os.geteuid() != 0:
        assert identity_for(tmp_path, programs=postgres_programs(), shared_state=shared_state).prefix == ()
        return
    os.chown(tmp_path, 65534, 65534)
    identity = identity_for(tmp_path, programs=postgres_programs(), shared_state=shared_state)
    assert identity.prefix[0] == "setpriv"
