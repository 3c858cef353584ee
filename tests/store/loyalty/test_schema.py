"""The migrated schema: what tables.py says, who may do what, and an audit that each fault turns red."""

import asyncio

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection as SyncConnection
from sqlalchemy.exc import ProgrammingError

from services.loyalty import tables
from services.loyalty.domain.points import EntryKind, Hold, HoldState
from services.loyalty.store import audit, ledger
from services.runtime.database import EVERY_TENANT, Connection, raw
from services.runtime.ids import new_id
from siyu.common.v1 import hold_pb2
from siyu.loyalty.v1 import points_pb2
from tests.store.loyalty.conftest import House, grant


async def test_tables_are_what_the_migrations_made(house: House) -> None:
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

    assert await house.system.read(EVERY_TENANT, differences) == []


async def test_every_table_of_a_tenant_is_guarded(house: House) -> None:
    async def unguarded(connection: Connection) -> set[str]:
        rows = await raw(connection).fetch("""
            SELECT c.relname FROM pg_class c
            JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id'
            WHERE c.relnamespace = 'loyalty'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
              AND NOT (c.relrowsecurity AND c.relforcerowsecurity)
        """)
        return {row["relname"] for row in rows}

    assert await house.system.read(EVERY_TENANT, unguarded) == set()


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM entries",
        "UPDATE entries SET points = 1",
        "DELETE FROM expiries",
        "DELETE FROM programmes",
        "DELETE FROM tier_changes",
    ],
)
async def test_a_ledger_is_append_only(house: House, statement: str) -> None:
    async def work(connection: Connection) -> None:
        await raw(connection).execute(statement)

    for database in (house.database, house.system):
        with pytest.raises((asyncpg.InsufficientPrivilegeError, ProgrammingError)):
            await database.run(house.tenant_id, work)


@pytest.mark.parametrize(
    ("statement", "check"),
    [
        pytest.param(
            "UPDATE accounts SET available_points = available_points + 1",
            "loyalty.entries_sum_to_balances",
            id="a point",
        ),
        pytest.param(
            "UPDATE pools SET consumed_points = consumed_points + 1", "loyalty.pools_sum_to_available", id="a pool"
        ),
        pytest.param("UPDATE holds SET state = 1", "loyalty.open_holds_sum_to_held", id="a hold left open"),
        pytest.param(
            "UPDATE orders SET refunded_base_minor = refunded_base_minor + 1",
            "loyalty.tier_days_sum_to_orders",
            id="a cent",
        ),
        pytest.param(
            """
            INSERT INTO entries (tenant_id, member_id, class_no, end_points, account_version, owner_id, entry_id, kind,
                                 source, target, points, occurred_at, order_id, reason)
            SELECT tenant_id, member_id, class_no, end_points, account_version + 9, owner_id, entry_id, kind,
                   source, target, points, occurred_at, order_id, reason
            FROM entries WHERE kind = 1 AND order_id IS NOT NULL LIMIT 1
            """,
            "loyalty.earnings_are_booked_once",
            id="a double accrual",
        ),
        pytest.param(
            "DELETE FROM earnings WHERE earning_id = (SELECT earning_id FROM earnings LIMIT 1)",
            "loyalty.orders_sum_to_earnings",
            id="an earning",
        ),
        pytest.param("DELETE FROM holes", "loyalty.holes_sum_to_pools", id="a hole"),
        pytest.param(
            "INSERT INTO expiries SELECT tenant_id, member_id, class_no, end_points, 1 FROM entries LIMIT 1",
            "loyalty.expiries_are_booked",
            id="an expiry",
        ),
        pytest.param(
            """
            INSERT INTO entries (tenant_id, member_id, class_no, end_points, account_version, owner_id, entry_id, kind,
                                 source, target, points, occurred_at, order_id, reason)
            SELECT tenant_id, member_id, class_no, end_points, account_version + 9, owner_id, entry_id, 6, 13, 11, 1,
                   occurred_at, order_id, reason
            FROM entries WHERE kind = 1 AND order_id IS NOT NULL LIMIT 1
            """,
            "loyalty.expired_points_are_taken_back_once",
            id="taken of what never expired",
        ),
    ],
)
async def test_the_audit_turns_red(house: House, statement: str, check: str) -> None:
    member = new_id()
    await house.grant(member, 100)
    order = await house.pay(member, 1_000, 2_000)
    await house.refund(order, ("0", 1, 0))
    await house.hold(member, 60, "h1")
    await house.resolve("h1")
    assert await house.audit() == {}

    async def work(connection: Connection) -> None:
        await raw(connection).execute(statement)

    await house.system.run(house.tenant_id, work)
    assert check in await house.audit()


async def test_an_audit_looks_at_one_tenant(house: House) -> None:
    await house.grant(new_id(), 100)
    audited = await house.audit_desk.audit(house.call(), prefix="loyalty.entries")
    assert [(finding.check, finding.examined) for finding in audited.findings] == [
        ("loyalty.entries_sum_to_balances", 1)
    ]
    assert len(audit.CHECKS) > 10
    house.tenant_id = new_id()
    audited = await house.audit_desk.audit(house.call(), prefix="")
    assert {finding.examined for finding in audited.findings} == {0}


async def _reads(house: House) -> tuple[int, int]:
    """Sequential scans, and rows fetched by index, of the ledger's tables so far."""

    async def read(connection: Connection) -> tuple[int, int]:
        await raw(connection).execute("SELECT pg_stat_force_next_flush()")
        row = await raw(connection).fetchrow(
            "SELECT sum(seq_scan), sum(idx_tup_fetch) FROM pg_stat_user_tables"
            " WHERE relname IN ('accounts', 'pools', 'entries', 'point_requests', 'holds')"
        )
        return row[0], row[1]

    return await house.system.run(house.tenant_id, read)


async def test_grants_use_the_key_though_tenants_look_small(house: House, database_url: str) -> None:
    """Statistics that give each tenant one account must not make a batch read all of a tenant's for each item."""
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(
            "INSERT INTO loyalty.accounts (tenant_id, member_id, point_currency)"
            " SELECT gen_random_uuid(), gen_random_uuid(), 'points' FROM generate_series(1, 20000)"
        )
        await connection.execute("ANALYZE loyalty.accounts")
    finally:
        await connection.close()
    members = [new_id() for _ in range(500)]
    await house.grant_all([grant(member, 10) for member in members])
    scans_before, rows_before = await _reads(house)
    for _ in range(3):
        await house.grant_all([grant(member, 10) for member in members])
    await asyncio.sleep(1.1)
    await house.grant_all([grant(members[0], 10)])
    scans, rows = await _reads(house)
    assert scans == scans_before
    assert rows - rows_before < 5_000


async def test_probes_use_the_keys_though_nothing_was_analysed(house: House) -> None:
    """A plan made on empty tables must not read a tenant's rows for every item, nor for every batch."""
    # the lanes plan while there is next to nothing
    first = new_id()
    await house.grant(first, 10)
    await house.hold(first, 5)
    members = [new_id() for _ in range(500)]
    await house.grant_all([grant(member, 10) for member in members])

    scans_before, rows_before = await _reads(house)
    for member in members[:100]:
        await house.grant(member, 10)
        await house.hold(member, 5)
    # what a lane has read is told by its first statement after a second
    await asyncio.sleep(1.1)
    await house.grant(members[0], 10)
    await house.hold(members[0], 5)
    scans, rows = await _reads(house)
    assert scans == scans_before
    assert rows - rows_before < 5_000


async def test_a_batch_of_holds_probes_by_keys_and_writes_a_pool_once(house: House) -> None:
    """Of plans made on empty tables, where members come twice as well; the tail is folded by the hold's own write."""
    members = [new_id() for _ in range(500)]
    await house.grant(members[0], 10)
    lane = await house.database.lane()
    asked = [house.hold_asked(members[0], 1), house.hold_asked(members[0], 2)]
    await ledger.hold(lane, house.tenant_id, asked)
    for _ in range(2):
        await house.grant_all([grant(member, 10) for member in members])

    await asyncio.sleep(1.1)
    await ledger.hold(lane, house.tenant_id, asked)
    scans_before, rows_before = await _reads(house)
    written_before = await _written(house, "pools")
    for i in range(0, 500, 20):
        batch = [house.hold_asked(member, 5) for member in (*members[i : i + 20], members[i])]
        verdicts = await ledger.hold(lane, house.tenant_id, batch)
        assert all(isinstance(verdict, Hold) for verdict in verdicts)
    await asyncio.sleep(1.1)
    await ledger.hold(lane, house.tenant_id, asked)
    await lane.close()
    scans, rows = await _reads(house)
    assert scans == scans_before
    assert rows - rows_before < 1_500
    assert await _written(house, "pools") - written_before == 500


async def _written(house: House, table: str) -> int:
    """Rows of the table that were updated so far."""

    async def read(connection: Connection) -> int:
        updated: int = await raw(connection).fetchval(
            "SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = $1", table
        )
        return updated

    return await house.system.run(house.tenant_id, read)


def test_numbers_are_the_contracts() -> None:
    told = {v.name.removeprefix("ENTRY_KIND_"): v.number for v in points_pb2.EntryKind.DESCRIPTOR.values if v.number}
    assert told == {kind.name: kind.value for kind in EntryKind}
    states = {v.name.removeprefix("HOLD_STATE_"): v.number for v in hold_pb2.HoldState.DESCRIPTOR.values if v.number}
    assert states == {state.name: state.value for state in HoldState if state is not HoldState.TOMBSTONE}
