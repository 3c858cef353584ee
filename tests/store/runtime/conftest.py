"""A database with the runtime's own tables in two schemas, without any service's."""

import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import asyncpg
import pytest
import pytest_asyncio

from services.console.stack.postgres import drop_database, ensure_database
from services.runtime import schema
from services.runtime.call import Actor, ActorKind, Call, deadline_in
from services.runtime.database import Database
from services.runtime.ids import new_id
from services.runtime.settings import Settings, role_name
from tests.conftest import ROLE_PASSWORD, empty, with_database

PRODUCER = "commerce"
CONSUMER = "loyalty"
PARTITIONS = 2
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)

# what a service would have: something to count effects in, under row-level security
_EFFECTS = """
    CREATE TABLE {service}.effects (
        tenant_id uuid NOT NULL,
        name text NOT NULL,
        times integer NOT NULL DEFAULT 1,
        CONSTRAINT effects_key PRIMARY KEY (tenant_id, name),
        CONSTRAINT effects_bounded CHECK (times < 1000)
    )
"""


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def runtime_database(postgres: str) -> AsyncIterator[str]:
    """The admin URL of a database with the runtime's tables for a producer and a consumer."""
    name = f"siyu_runtime_{os.getpid()}"
    await ensure_database(postgres, database=name)
    url = with_database(postgres, name)
    connection = await asyncpg.connect(url)
    try:
        for service in (PRODUCER, CONSUMER):
            for statement in schema.roles(service, password=ROLE_PASSWORD):
                await connection.execute(statement)
            await connection.execute(f"SET ROLE {role_name(service, 'owner')}")
            for statement in (
                *schema.version_1(service),
                *schema.version_2(service),
                *schema.version_3(service),
                _EFFECTS.format(service=service),
                *schema.rls(service, "effects"),
            ):
                await connection.execute(statement)
            await connection.execute("RESET ROLE")
    finally:
        await connection.close()
    yield url
    await drop_database(postgres, database=name)


@pytest_asyncio.fixture(loop_scope="session")
async def runtime_settings(runtime_database: str, valkey_url: str) -> Settings:
    """Settings over an empty database with the runtime's tables."""
    await empty(runtime_database, (PRODUCER, CONSUMER))
    return Settings(
        database_url=runtime_database,
        redis_url=valkey_url,
        role_password=ROLE_PASSWORD,
        log_partitions=PARTITIONS,
    )


@pytest_asyncio.fixture
async def app(runtime_settings: Settings) -> AsyncIterator[Database]:
    """The producer's application role."""
    database = Database.open(runtime_settings, service=PRODUCER, pool_size=6)
    yield database
    await database.close()


@pytest_asyncio.fixture
async def system(runtime_settings: Settings) -> AsyncIterator[Database]:
    """The producer's system role."""
    database = Database.open(runtime_settings, service=PRODUCER, role="system", pool_size=3)
    yield database
    await database.close()


@pytest_asyncio.fixture
async def consumer_app(runtime_settings: Settings) -> AsyncIterator[Database]:
    """The consumer's application role; `system_of` finds its system role."""
    database = Database.open(runtime_settings, service=CONSUMER, pool_size=6)
    _systems[database] = Database.open(runtime_settings, service=CONSUMER, role="system", pool_size=3)
    yield database
    await _systems.pop(database).close()
    await database.close()


@pytest.fixture
def tenant_id() -> str:
    """A tenant of this test."""
    return new_id()


_systems: dict[Database, Database] = {}


def system_of(app: Database) -> Database:
    """The system role of the service that `consumer_app` is the application role of."""
    return _systems[app]


def call_of(tenant_id: str, *, timeout_s: float = 30.0, client_id: str = "till-1") -> Call:
    """A call of a till at noon."""
    return Call(
        tenant_id=tenant_id,
        client_id=client_id,
        actor=Actor(kind=ActorKind.POS, id=client_id, store_id="S1"),
        now=NOON,
        time_zone="Asia/Shanghai",
        deadline_at=deadline_in(timeout_s),
    )
