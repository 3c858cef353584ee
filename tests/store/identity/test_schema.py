"""The migrated schema: what tables.py says, who may do what, and plans that stay."""

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection as SyncConnection
from sqlalchemy.exc import ProgrammingError

from services.identity import tables
from services.identity.domain.identifiers import IdentifierType
from services.identity.store import audit
from services.runtime.database import EVERY_TENANT, Connection, raw
from siyu.common.v1 import audit_pb2
from siyu.identity.v1 import member_pb2
from tests.store.identity.conftest import Brand, Identity, card, sign_up


async def test_tables_are_what_the_migrations_made(identity: Identity) -> None:
    async def differences(connection: Connection) -> list[object]:
        def compare(sync: SyncConnection) -> list[object]:
            ours = set(tables.metadata.tables)
            context = MigrationContext.configure(
                sync,
                opts={
                    "compare_type": True,
                    "include_name": lambda name, kind, _parents: kind != "table" or name in ours,
                },
            )
            return list(compare_metadata(context, tables.metadata))

        return await connection.run_sync(compare)

    assert await identity.system.read(EVERY_TENANT, differences) == []


async def test_every_table_of_a_tenant_is_guarded(identity: Identity) -> None:
    async def unguarded(connection: Connection) -> set[str]:
        rows = await raw(connection).fetch("""
            SELECT c.relname FROM pg_class c
            WHERE c.relnamespace = 'identity'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
              AND NOT (c.relrowsecurity AND c.relforcerowsecurity)
        """)
        return {row["relname"] for row in rows}

    # none of these has a tenant in it
    assert await identity.system.read(EVERY_TENANT, unguarded) == {
        "alembic_version",
        "cursors",
        "leases",
        "log_heads",
        "log_readers",
        "relay_horizon",
        "signing_keys",
    }


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM merges",
        "UPDATE merges SET merged_by = 'me'",
        "DELETE FROM members",
        "UPDATE signing_keys SET signs_from = now()",
        "DELETE FROM signing_keys",
    ],
)
async def test_the_app_role_cannot(identity: Identity, brand: Brand, statement: str) -> None:
    async def work(connection: Connection) -> None:
        await raw(connection).execute(statement)

    with pytest.raises((asyncpg.InsufficientPrivilegeError, ProgrammingError)):
        await identity.app.run(brand.tenant_id, work)


async def test_resolving_uses_the_index_though_nothing_was_analysed(identity: Identity, brand: Brand) -> None:
    await brand.register_many([sign_up(card(f"c{number}")) for number in range(300)])
    owner = await brand.resolve(card("c7"))
    assert owner

    async def scans(connection: Connection) -> int:
        await raw(connection).execute("SELECT pg_stat_force_next_flush()")
        return await raw(connection).fetchval("SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'identifiers'")

    before = await identity.app.run(brand.tenant_id, scans)
    for number in range(50):
        await brand.resolve(card(f"c{number}"))
    # each would be one; another connection may tell late what it did before
    assert await identity.app.run(brand.tenant_id, scans) < before + 25


async def test_the_audit_is_green_and_each_check_turns_red(identity: Identity, brand: Brand) -> None:
    results = await brand.register_many([sign_up(card(f"c{number}")) for number in range(5)])
    ids = [result.member.member_id for result in results]
    await brand.merge(ids[0], ids[1])
    await brand.add_stores("S1")

    async def audited() -> audit_pb2.AuditResponse:
        return await identity.audit.audit(audit_pb2.AuditRequest(), brand.call())

    reply = await audited()
    assert [finding.check for finding in reply.findings] == [*audit.CHECKS, "identity.log_runs_on"]
    assert all(finding.ok for finding in reply.findings), reply.findings
    assert dict(reply.figures) == {
        "identity_members_registered": 5,
        "identity_members_merged": 1,
        "identity_identifiers": 5,
        "identity_stores": 1,
        "identity_clients": 1,
    }
    await identity.events()
    assert sum(head.events_total for head in (await audited()).log) == 8

    async def red(statement: str, *args: object) -> set[str]:
        async def work(connection: Connection) -> None:
            await raw(connection).execute(statement, *args)

        await identity.system.run(EVERY_TENANT, work)
        return {finding.check for finding in (await audited()).findings if not finding.ok}

    assert await red("DELETE FROM identifiers WHERE member_id = $1::uuid", ids[2]) == {
        "identity.members_own_an_identifier"
    }
    assert "identity.identifiers_belong_to_live_members" in await red(
        "UPDATE members SET merged_into = $2::uuid WHERE member_id = $1::uuid", ids[3], ids[4]
    )
    broken = await red("UPDATE members SET merged_into = $2::uuid WHERE member_id = $1::uuid", ids[4], ids[3])
    assert {"identity.aliases_lead_to_live_members", "identity.merges_are_recorded"} <= broken


async def test_an_audit_looks_at_one_tenant(identity: Identity, brand: Brand) -> None:
    other = await identity.brand()
    await other.register(card("c1"))
    reply = await identity.audit.audit(audit_pb2.AuditRequest(check_prefix="identity.mem"), brand.call())
    assert [(finding.check, finding.examined) for finding in reply.findings] == [
        ("identity.members_own_an_identifier", 0)
    ]
    assert reply.figures["identity_members_registered"] == 0


def test_identifier_types_are_the_contracts() -> None:
    told = {
        value.name.removeprefix("IDENTIFIER_TYPE_"): value.number
        for value in member_pb2.IdentifierType.DESCRIPTOR.values
        if value.number
    }
    assert told == {kind.name: kind.value for kind in IdentifierType}
