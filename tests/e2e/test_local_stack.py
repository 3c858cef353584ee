"""The servers of the local stack, as `make run` starts them: data that stay, locks, accidents."""

import asyncio
import json
import os
import sys
from pathlib import Path

import asyncpg
import pytest
from redis.asyncio import Redis

from services.console.stack.local import LocalStack, running_stack
from services.console.stack.postgres import EmbeddedPostgres
from services.console.stack.probes import grpc_serves
from services.console.stack.refusals import AlreadyRunning, DidNotStart, NotInstalled
from services.console.stack.settings import REPOSITORY, StackSettings
from tests.conftest import ROLE_PASSWORD


async def execute(stack: LocalStack, statement: str) -> object:
    connection = await asyncpg.connect(stack.database_url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


def listeners(port: int) -> int:
    """How many sockets listen at a port."""
    tables = [Path("/proc/net", family).read_text() for family in ("tcp", "tcp6")]
    lines = [line.split() for table in tables for line in table.splitlines()[1:]]
    return sum(line[1].endswith(f":{port:04X}") and line[3] == "0A" for line in lines)


def shown_to_everybody(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


async def test_a_second_start_comes_back_with_the_data(tmp_path: Path) -> None:
    settings = StackSettings.for_tests(tmp_path)
    async with LocalStack(settings, services=()) as stack:
        await execute(stack, "CREATE TABLE kept AS SELECT 42 AS answer")
        redis = Redis.from_url(stack.redis_url)
        await redis.set("kept", "42")
        await redis.aclose()
        assert running_stack(tmp_path) is not None
        assert set(stack.pids) == {"postgres", "valkey"}
    assert running_stack(tmp_path) is None
    async with LocalStack(settings, services=()) as stack:
        assert await execute(stack, "SELECT answer FROM kept") == 42
        redis = Redis.from_url(stack.redis_url)
        assert await redis.get("kept") == b"42"
        await redis.aclose()


async def test_a_killed_server_is_restarted_with_what_was_acknowledged(tmp_path: Path) -> None:
    said: list[str] = []
    async with LocalStack(StackSettings.for_tests(tmp_path), services=(), say=said.append) as stack:
        await execute(stack, "CREATE TABLE kept AS SELECT 42 AS answer")
        for _ in range(3):
            pid = stack.kill("postgres")
            await stack.until_ready("postgres")
            assert stack.pids["postgres"] != pid
        assert await execute(stack, "SELECT answer FROM kept") == 42
        stack.kill("valkey")
        await stack.until_all_ready()
    assert said.count("postgres was killed by SIGKILL; restarting") == 3


async def test_a_second_stack_over_the_same_directory_is_refused(tmp_path: Path) -> None:
    async with LocalStack(StackSettings.for_tests(tmp_path), services=()) as first:
        with pytest.raises(AlreadyRunning, match=f"process {os.getpid()}"):
            async with LocalStack(StackSettings.for_tests(tmp_path), services=()):
                pass
        assert await execute(first, "SELECT 1") == 1
        assert running_stack(tmp_path) == first.environment


async def test_after_a_killed_supervisor_the_next_start_takes_over(tmp_path: Path) -> None:
    settings = StackSettings.for_tests(tmp_path)
    ports = {name: str(port) for name, port in settings.ports().items()}
    code = (
        "import asyncio\n"
        "from services.console.stack.local import LocalStack\n"
        "from services.console.stack.settings import StackSettings\n"
        "async def main():\n"
        "    async with LocalStack(StackSettings(), services=()) as stack:\n"
        "        print('up', flush=True)\n"
        "        await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code),
        env={**os.environ, **ports, "SIYU_STATE_DIR": str(tmp_path)},
        stdout=asyncio.subprocess.PIPE,
        cwd=REPOSITORY,
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"up\n"
    process.kill()
    await process.wait()
    said: list[str] = []
    async with LocalStack(settings, services=(), say=said.append) as stack:
        assert await execute(stack, "SELECT 1") == 1
    assert said[0].startswith(f"taking over the lock of process {process.pid}")


async def test_the_roles_know_no_admin_of_the_database(tmp_path: Path) -> None:
    async with LocalStack(StackSettings.for_tests(tmp_path), services=("identity",)) as stack:
        told = Path(f"/proc/{stack.pids['identity']}/environ").read_text()
        assert stack.secret("postgres_password") not in told
        assert stack.secret("postgres_password") not in (tmp_path / "stack.json").read_text()
        assert stack.secret("role_password") in told
        assert await execute(stack, "SELECT count(*) FROM pg_stat_activity WHERE usename LIKE 'siyu_identity%'")


async def test_given_servers_are_used_and_none_is_started(
    tmp_path: Path, empty_database_url: str, valkey_url: str
) -> None:
    # the run's own password: another would shut every later test out, since roles belong to the whole server
    given = {"database_url": empty_database_url, "redis_url": valkey_url, "role_password": ROLE_PASSWORD}
    settings = StackSettings.for_tests(tmp_path).model_copy(update=given)
    async with LocalStack(settings, services=("identity",)) as stack:
        assert set(stack.pids) == {"identity"}
        assert (stack.database_url, stack.redis_url) == (empty_database_url, valkey_url)
        assert await execute(stack, "SELECT count(*) FROM identity.alembic_version") == 1


async def test_processes_of_one_api_share_its_port(tmp_path: Path, empty_database_url: str, valkey_url: str) -> None:
    given = {"database_url": empty_database_url, "redis_url": valkey_url, "role_password": ROLE_PASSWORD}
    settings = StackSettings.for_tests(tmp_path, api_processes=2).model_copy(update=given)
    async with LocalStack(settings, services=("identity",)) as stack:
        assert set(stack.pids) == {"identity", "identity/api-2"}
        serves = grpc_serves(stack.addresses["identity"])
        assert listeners(settings.identity_port) == 2, "neither is taken for ready since the other is"
        # what serves on alone, answers; and the other comes back
        await stack.stop("identity")
        assert all([await serves() for _ in range(8)])
        await stack.start("identity")
        assert listeners(settings.identity_port) == 2


async def test_a_given_server_that_is_not_there_is_told(tmp_path: Path) -> None:
    settings = StackSettings.for_tests(tmp_path).model_copy(update={"database_url": "postgresql://127.0.0.1:1/siyu"})
    with pytest.raises(DidNotStart, match=r"^nothing answers at DATABASE_URL \(127.0.0.1:1\)"):
        async with LocalStack(settings, services=()):
            pass


async def test_data_of_another_major_version_are_left_alone(tmp_path: Path) -> None:
    data = tmp_path / "postgres"
    data.mkdir()
    (data / "PG_VERSION").write_text("15\n")
    with pytest.raises(NotInstalled, match="was written by Postgres 15"):
        EmbeddedPostgres.prepare(data, port=1, password="none", shared_buffers_mb=16, log=tmp_path / "log")
    assert [path.name for path in data.iterdir()] == ["PG_VERSION"]


async def test_secrets_and_data_are_closed_to_other_users(tmp_path: Path) -> None:
    async with LocalStack(StackSettings.for_tests(tmp_path), services=()) as stack:
        for secret in ("", "secrets.json", "stack.json", "valkey/valkey.conf"):
            assert os.stat(tmp_path / secret).st_mode & 0o077 == 0, secret
        assert stack.secret("valkey_password") not in shown_to_everybody(stack.pids["valkey"])
        assert json.loads((tmp_path / "stack.json").read_text())["pids"] == stack.pids


async def test_postgres_asks_for_a_password_and_listens_on_the_loopback_only(tmp_path: Path) -> None:
    async with LocalStack(StackSettings.for_tests(tmp_path), services=()) as stack:
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(stack.database_url.replace(stack.secret("postgres_password"), "guess"))
        assert await execute(stack, "SHOW listen_addresses") == "127.0.0.1"
        assert await execute(stack, "SHOW fsync") == "on"
        assert await execute(stack, "SHOW synchronous_commit") == "on"


async def test_stopping_ends_every_process(tmp_path: Path) -> None:
    async with LocalStack(StackSettings.for_tests(tmp_path), services=()) as stack:
        pids = list(stack.pids.values())
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
