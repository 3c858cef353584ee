"""One embedded Postgres and Valkey per run, and a fresh migrated database for every test that asks for one."""

import itertools
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
import pytest_asyncio

from services.console.stack import ports
from services.console.stack.postgres import SHARED_BUFFERS_MB_TO_TEST, EmbeddedPostgres, drop_database, ensure_database
from services.console.stack.supervisor import Supervisor
from services.console.stack.valkey import EmbeddedValkey
from services.runtime.migrations import migrate
from services.runtime.settings import SERVICES, Settings

ROLE_PASSWORD = "roles-of-a-test-run"
TEMPLATE = f"siyu_template_{os.getpid()}"

_numbers = itertools.count(1)


def _with_database(url: str, database: str) -> str:
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
        yield _with_database(given, "postgres")
        return
    (port,) = ports.pick(1)
    server = EmbeddedPostgres.prepare(
        run_directory / "postgres",
        port=port,
        password=ROLE_PASSWORD,
        shared_buffers_mb=SHARED_BUFFERS_MB_TO_TEST,
        log=run_directory / "postgres.log",
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
async def template_database(postgres: str) -> AsyncIterator[str]:
    """The name of a database with all four schemas, to be cloned and never used itself."""
    await ensure_database(postgres, database=TEMPLATE)
    settings = Settings(database_url=_with_database(postgres, TEMPLATE), role_password=ROLE_PASSWORD)
    for service in SERVICES:
        await migrate(settings, service)
    yield TEMPLATE
    await drop_database(postgres, database=TEMPLATE)


@pytest_asyncio.fixture(loop_scope="session")
async def database_url(postgres: str, template_database: str) -> AsyncIterator[str]:
    """The admin URL of a migrated database that is this test's own."""
    async for url in _own_database(postgres, template=template_database):
        yield url


@pytest_asyncio.fixture(loop_scope="session")
async def empty_database_url(postgres: str) -> AsyncIterator[str]:
    """The admin URL of a database of this test's own with nothing in it."""
    async for url in _own_database(postgres, template=None):
        yield url


async def _own_database(postgres: str, *, template: str | None) -> AsyncIterator[str]:
    database = f"siyu_{os.getpid()}_{next(_numbers)}"
    await ensure_database(postgres, database=database, template=template)
    try:
        yield _with_database(postgres, database)
    finally:
        await drop_database(postgres, database=database)


@pytest.fixture
def settings(database_url: str, valkey_url: str) -> Settings:
    """The settings of a role over this test's database and the run's Valkey."""
    return Settings(database_url=database_url, redis_url=valkey_url, role_password=ROLE_PASSWORD)
