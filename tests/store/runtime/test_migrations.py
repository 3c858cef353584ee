"""Migrations: safe to run twice and side by side; a role does not start on a schema that lags behind."""

import asyncio

import asyncpg
import pytest

from services.runtime.database import Database
from services.runtime.errors import Unavailable
from services.runtime.migrations import (
    NotMigratedError,
    PartitionsChangedError,
    check_migrated,
    migrate,
    newest_revision,
)
from services.runtime.settings import Settings
from tests.conftest import ROLE_PASSWORD

SERVICE = "identity"


@pytest.fixture
def empty(empty_database_url: str) -> Settings:
    return Settings(database_url=empty_database_url, role_password=ROLE_PASSWORD)


async def test_an_empty_database_is_refused_with_what_to_run(empty: Settings) -> None:
    database = Database.open(empty, service=SERVICE)
    with pytest.raises(NotMigratedError, match="run `siyu migrate"):
        await check_migrated(database)
    await database.close()


async def test_runs_side_by_side_wait_for_each_other(empty: Settings) -> None:
    await asyncio.gather(*(migrate(empty, SERVICE) for _ in range(3)), migrate(empty, "commerce"))
    await migrate(empty, SERVICE)
    for service in (SERVICE, "commerce"):
        database = Database.open(empty, service=service)
        await check_migrated(database)
        await database.close()
    admin = await asyncpg.connect(empty.admin_dsn())
    versions = await admin.fetch(
        "SELECT schemaname::text FROM pg_tables WHERE tablename = 'alembic_version' ORDER BY 1"
    )
    owners = await admin.fetch("SELECT DISTINCT tableowner::text FROM pg_tables WHERE schemaname = $1", SERVICE)
    await admin.close()
    assert [row[0] for row in versions] == ["commerce", SERVICE]
    assert [row[0] for row in owners] == [f"siyu_{SERVICE}_owner"]


async def test_a_schema_that_lags_is_refused_and_one_that_is_ahead_is_not(empty: Settings) -> None:
    await migrate(empty, SERVICE)
    admin = await asyncpg.connect(empty.admin_dsn())
    database = Database.open(empty, service=SERVICE)
    await admin.execute(f"UPDATE {SERVICE}.alembic_version SET version_num = 'of_a_later_build'")
    await check_migrated(database)
    await admin.execute(f"DELETE FROM {SERVICE}.alembic_version")
    with pytest.raises(NotMigratedError, match=newest_revision(SERVICE)):
        await check_migrated(database)
    await database.close()
    await admin.close()


async def test_the_number_of_log_partitions_is_fixed_by_the_first_migration(empty: Settings) -> None:
    await migrate(empty.model_copy(update={"log_partitions": 3}), SERVICE)
    await migrate(empty.model_copy(update={"log_partitions": 3}), SERVICE)
    with pytest.raises(PartitionsChangedError, match=r"has 3 partitions .* set it to 3"):
        await migrate(empty.model_copy(update={"log_partitions": 8}), SERVICE)


async def test_a_changed_password_is_told_as_such_and_set_by_the_next_migration(empty: Settings) -> None:
    await migrate(empty, SERVICE)
    changed = empty.model_copy(update={"role_password": "it's another"})
    database = Database.open(changed, service=SERVICE)
    with pytest.raises(NotMigratedError, match=r"another password .* SIYU_ROLE_PASSWORD: run `siyu migrate identity`"):
        await check_migrated(database)
    await database.close()
    try:
        await migrate(changed, SERVICE)
        for role in ("app", "system"):
            await (await asyncpg.connect(changed.role_dsn(SERVICE, role))).close()
        await migrate(changed.model_copy(update={"role_password": ""}), SERVICE)
        await (await asyncpg.connect(changed.role_dsn(SERVICE, "app"))).close()
    finally:
        # all tests share the server's roles
        await migrate(empty, SERVICE)
    await (await asyncpg.connect(empty.role_dsn(SERVICE, "app"))).close()


async def test_every_table_with_a_tenant_is_guarded_in_every_service(settings: Settings) -> None:
    admin = await asyncpg.connect(settings.admin_dsn())
    unguarded = await admin.fetch(
        """
        SELECT n.nspname || '.' || c.relname
        FROM pg_class c
        JOIN pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped
        WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
          AND n.nspname IN ('identity', 'loyalty', 'campaign', 'commerce')
          AND NOT (c.relrowsecurity AND c.relforcerowsecurity)
        ORDER BY 1
        """
    )
    await admin.close()
    assert [row[0] for row in unguarded] == []


async def test_no_role_of_a_service_can_step_around_row_security(settings: Settings) -> None:
    admin = await asyncpg.connect(settings.admin_dsn())
    roles = await admin.fetch("SELECT rolname FROM pg_roles WHERE rolname LIKE 'siyu%' AND (rolbypassrls OR rolsuper)")
    await admin.close()
    assert roles == []


async def test_an_absent_server_is_unavailable(empty: Settings) -> None:
    nowhere = empty.model_copy(update={"database_url": "postgresql://localhost:1/siyu"})
    with pytest.raises(Unavailable):
        await migrate(nowhere, SERVICE)
