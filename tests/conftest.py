"""One embedded Postgres and Valkey per run, and an empty migrated database for every test that asks for one."""

import itertools
import os
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import hypothesis
import pytest
import pytest_asyncio
import structlog

from services.console.stack import ports
from services.console.stack.postgres import SHARED_BUFFERS_MB_TO_TEST, EmbeddedPostgres, drop_database, ensure_database
from services.console.stack.supervisor import Supervisor
from services.console.stack.valkey import EmbeddedValkey
from services.runtime.migrations import migrate
from services.runtime.settings import SERVICES, Settings

ROLE_PASSWORD = "roles-of-a-test-run"
DATABASE = f"siyu_{os.getpid()}"
_EMPTY = """
    DO $$
    DECLARE
        t regclass;
        is_filled boolean;
        filled text;
    BEGIN
        FOR t IN SELECT c.oid::regclass FROM pg_class AS c
                 WHERE c.relnamespace::regnamespace::text = '{service}'
                   AND c.relkind = 'r' AND c.relname <> 'alembic_version'
        LOOP
            EXECUTE format('SELECT EXISTS (SELECT FROM %s)', t) INTO is_filled;
            IF is_filled THEN
                filled := concat_ws(', ', filled, t::text);
            END IF;
        END LOOP;
        IF filled IS NOT NULL THEN
            EXECUTE 'TRUNCATE ' || filled || ' RESTART IDENTITY CASCADE';
        END IF;
        -- another log, too: what streams still hold of an earlier test's must be a stranger's
        INSERT INTO {service}.relay_horizon (horizon) VALUES ('0');
    END $$
"""

# rich's tracebacks, with every local, took a test that fails on purpose nine seconds
structlog.configure(
    processors=[
        structlog.processors.add_log_level,
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
    ]
)

# how long an example takes, and its making, is the machine's affair: it may be busy with something else
hypothesis.settings.register_profile("siyu", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("siyu")

_numbers = itertools.count(1)


async def empty(url: str, services: Sequence[str]) -> None:
    """Makes the services' schemas as they were right after their migrations."""
    connection = await asyncpg.connect(url)
    try:
        for service in services:
            await connection.execute(_EMPTY.format(service=service))
    finally:
        await connection.close()


def with_database(url: str, database: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{database}"))


@pytest.fixture(scope="session")
def run_directory() -> Iterator[Path]:
    """A folder for the servers of this run, removed with them."""
    with tempfile.TemporaryDirectory(prefix="siyu-test-") as directory:
        yield Path(directory)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def postgres(run_directory: Path) -> AsyncIterator[str]:
    """The admin URL of a Postgres server: `DATABASE_URL` where it is set, else one that lives as long as the run."""
    if given := os.environ.get("DATABASE_URL"):
        yield with_database(given, "postgres")
        return
    (port,) = ports.pick(1)
    server = EmbeddedPostgres.prepare(
        run_directory / "postgres",
        port=port,
        password=ROLE_PASSWORD,
        shared_buffers_mb=SHARED_BUFFERS_MB_TO_TEST,
        log=run_directory / "postgres.log",
        # what a crash may lose is tested on stacks of its own
        is_disposable=True,
    )
    async with Supervisor() as supervisor:
        await supervisor.start(server.program())
        yield server.url("postgres")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def valkey_url(run_directory: Path) -> AsyncIterator[str]:
    """The URL of a Valkey server: `REDIS_URL` where it is set, else one that lives as long as the run."""
    if given := os.environ.get("REDIS_URL"):
        yield given
        return
    (port,) = ports.pick(1)
    server = EmbeddedValkey.prepare(
        run_directory / "valkey", port=port, password=ROLE_PASSWORD, log=run_directory / "valkey.log"
    )
    async with Supervisor() as supervisor:
        await supervisor.start(server.program())
        yield server.url()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def migrated_database(postgres: str) -> AsyncIterator[str]:
    """The admin URL of a database with all four schemas; `database_url` hands it out empty."""
    await ensure_database(postgres, database=DATABASE)
    url = with_database(postgres, DATABASE)
    for service in SERVICES:
        await migrate(Settings(database_url=url, role_password=ROLE_PASSWORD), service)
    yield url
    await drop_database(postgres, database=DATABASE)


@pytest_asyncio.fixture(loop_scope="session")
async def database_url(migrated_database: str) -> str:
    """The admin URL of a migrated database without a row: as good as one of this test's own, and 20 times faster."""
    await empty(migrated_database, SERVICES)
    return migrated_database


@pytest_asyncio.fixture(loop_scope="session")
async def empty_database_url(postgres: str) -> AsyncIterator[str]:
    """The admin URL of a database of this test's own with nothing in it."""
    database = f"{DATABASE}_{next(_numbers)}"
    await ensure_database(postgres, database=database)
    try:
        yield with_database(postgres, database)
    finally:
        await drop_database(postgres, database=database)


@pytest.fixture
def settings(database_url: str, valkey_url: str) -> Settings:
    """The settings of a role over this test's database and the run's Valkey."""
    return Settings(database_url=database_url, redis_url=valkey_url, role_password=ROLE_PASSWORD)
