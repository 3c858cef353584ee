"""Runs a service's alembic migrations, and refuses to start a role on a schema that lags behind its code.

A service's `migrations/env.py` is:

    from services.runtime.migrations import run_in_env

    run_in_env("loyalty")

and its revisions live in `migrations/versions`.
"""

import hashlib
from importlib.resources import files
from pathlib import Path

import structlog
from alembic import command, context
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection as SyncConnection
from sqlalchemy import pool, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from services.runtime import schema
from services.runtime.database import EVERY_TENANT, Connection, Database, refusal_of, sqlstate_of
from services.runtime.settings import Settings, role_name

LOCK_TIMEOUT_S = 5
WAIT_FOR_OTHER_RUN_S = 300
# any number, as long as it is always this one
_LOCK = int.from_bytes(hashlib.sha256(b"siyu.migrations").digest()[:8], "big", signed=True)
_VERSION_TABLE = "alembic_version"
# no such table, schema, right, role or database: all of them are there after a migration
_NOT_THERE = frozenset({"42P01", "3F000", "42501", "28000", "3D000"})
# so Postgres calls both another password and, where it asks for one, an absent role
_NO_LOG_IN = "28P01"

_log = structlog.get_logger(__name__)


class NotMigratedError(Exception):
    """The schema is older than the code, or its roles have another password; the message says what to run."""


class PartitionsChangedError(Exception):
    """The log was made with another number of partitions; the message says what to set."""


async def migrate(settings: Settings, service: str) -> None:
    """Brings the service's schema to its newest revision; several runs at once wait for each other.

    Creates the roles and the schema where they are absent, and sets the roles' password. Nothing to do is fine. Raises
    Unavailable when the database does not answer, PartitionsChangedError, and whatever a migration raises.
    """
    engine = create_async_engine(
        settings.admin_dsn().replace("postgresql://", "postgresql+asyncpg://", 1), poolclass=pool.NullPool
    )
    try:
        await _migrate(engine, settings, service)
    except Exception as error:
        refusal = refusal_of(error)
        if refusal is None or refusal is error:
            raise
        raise refusal from error
    finally:
        await engine.dispose()


async def _migrate(engine: AsyncEngine, settings: Settings, service: str) -> None:
    async with engine.connect() as guard, guard.begin():
        # Held for the whole run by a connection that does nothing else: it goes when this process goes. One lock for
        # all services: they share the cluster's roles, and alembic's context is one per process.
        await guard.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        await guard.execute(text(f"SET LOCAL statement_timeout = '{WAIT_FOR_OTHER_RUN_S}s'"))
        await guard.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        async with engine.connect() as connection:
            await _make_roles(connection, settings, service)
            await connection.run_sync(_upgrade, service)
            await connection.commit()
            await _fix_partitions(connection, service, settings.log_partitions)
            await connection.commit()


async def _make_roles(connection: AsyncConnection, settings: Settings, service: str) -> None:
    for statement in schema.roles(service, password=settings.role_password):
        await connection.exec_driver_sql(statement)
    await connection.commit()


async def _fix_partitions(connection: AsyncConnection, service: str, partitions: int) -> None:
    found = await connection.execute(
        text(f"UPDATE {service}.relay_horizon SET partitions = coalesce(partitions, :partitions) RETURNING partitions"),
        {"partitions": partitions},
    )
    fixed = found.scalar_one()
    if fixed != partitions:
        raise PartitionsChangedError(
            f"the log of {service} has {fixed} partitions for as long as it lives, and SIYU_LOG_PARTITIONS says "
            f"{partitions}: set it to {fixed}"
        )


def _upgrade(connection: SyncConnection, service: str) -> None:
    config = _config(service)
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def run_in_env(service: str) -> None:
    """What a service's env.py does: runs the revisions as the schema's owner, each in its own transaction."""
    connection: SyncConnection = context.config.attributes["connection"]
    # first of all, so that a migration behind a long transaction gives up instead of blocking every caller
    connection.exec_driver_sql(f"SET lock_timeout = '{LOCK_TIMEOUT_S}s'")
    connection.exec_driver_sql(f"SET ROLE {role_name(service, 'owner')}")
    connection.exec_driver_sql(f"SET search_path = {service}")
    connection.commit()
    context.configure(
        connection=connection,
        version_table=_VERSION_TABLE,
        version_table_schema=service,
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


async def check_migrated(database: Database) -> None:
    """Raises NotMigratedError if the schema lags behind this build, and Unavailable if the database does not answer.

    A schema that is ahead is fine: an upgrade migrates before it rolls, and old pods restart meanwhile.
    """
    service = database.service
    head = newest_revision(service)

    async def current(connection: Connection) -> str | None:
        found = await connection.execute(text(f"SELECT version_num FROM {service}.{_VERSION_TABLE}"))
        return found.scalar_one_or_none()

    try:
        found = await database.read(EVERY_TENANT, current)
    except Exception as error:
        if sqlstate_of(error) in _NOT_THERE:
            raise NotMigratedError(_advice(service, "absent", head)) from error
        if sqlstate_of(error) == _NO_LOG_IN:
            raise NotMigratedError(
                f"the database has no role {role_name(service, database.role)!r}, or another password for it than this "
                f"SIYU_ROLE_PASSWORD: run `siyu migrate {service}` with this one first"
            ) from error
        raise
    if found is None:
        raise NotMigratedError(_advice(service, "empty", head))
    if found != head and _is_known(service, found):
        raise NotMigratedError(_advice(service, f"at {found}", head))
    if found != head:
        _log.info("the schema is newer than this build", service=service, schema=found, build=head)


def newest_revision(service: str) -> str:
    """The revision that this build's code expects."""
    head = ScriptDirectory.from_config(_config(service)).get_current_head()
    assert head is not None, f"{service} has no migration"
    return head


def _is_known(service: str, revision: str) -> bool:
    try:
        return ScriptDirectory.from_config(_config(service)).get_revision(revision) is not None
    except CommandError:
        return False


def _advice(service: str, state: str, head: str) -> str:
    return f"the schema {service!r} is {state} and this build needs {head}: run `siyu migrate {service}` first"


def _config(service: str) -> Config:
    folder = Path(str(files(f"services.{service}"))) / "migrations"
    config = Config()
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
