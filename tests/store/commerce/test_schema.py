"""The migrated schema: what tables/ says, who may do what; and an audit that each shifted cent turns red."""

import importlib
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection as SyncConnection
from sqlalchemy.exc import ProgrammingError

from services.commerce.consumer import MembersHandler
from services.commerce.store.audit import books, orders, settlement, statements, stock, suppliers
from services.commerce.tables import whole
from services.runtime.audit import AuditDesk
from services.runtime.database import EVERY_TENANT, Connection, raw
from services.runtime.events import Event
from services.runtime.ids import MemberId, new_id
from services.runtime.settings import Settings
from siyu.commerce.v1 import order_pb2, statement_pb2, supplier_pb2
from siyu.identity.v1 import events_pb2 as identity_pb2
from tests.store.commerce.conftest import CARD, NOON, Brand, Databases, line, with_supplier
from tests.store.commerce.test_offline import replay
from tests.store.commerce.test_suppliers import accept, deliver, ship

RUNTIME_TABLES = {
    "alembic_version",
    "cursors",
    "leases",
    "log",
    "log_heads",
    "log_readers",
    "outbox",
    "parked_events",
    "relay_horizon",
    "requests",
    "tenants",
}


@pytest.mark.filterwarnings("ignore:Did not recognize type 'xid8'")
async def test_tables_are_what_the_migrations_made(databases: Databases) -> None:
    async def differences(connection: Connection) -> list[object]:
        def compare(sync: SyncConnection) -> list[object]:
            ours = set(whole.SCHEMA.tables)
            context = MigrationContext.configure(
                sync,
                opts={
                    "compare_type": True,
                    "include_name": lambda name, kind, _parents: kind != "table" or name in ours,
                },
            )
            return list(compare_metadata(context, whole.SCHEMA))

        return await connection.run_sync(compare)

    assert await databases.system.read(EVERY_TENANT, differences) == []


async def test_no_table_of_ours_is_left_out(databases: Databases) -> None:
    """What the migrations made beside the runtime's own tables is in a room, and every room is in the whole."""

    async def made(connection: Connection) -> set[str]:
        rows = await raw(connection).fetch("""
            SELECT c.relname FROM pg_class c
            WHERE c.relnamespace = 'commerce'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
        """)
        return {row["relname"] for row in rows}

    assert await databases.system.read(EVERY_TENANT, made) - set(whole.SCHEMA.tables) == RUNTIME_TABLES
    rooms = {each.stem for each in Path(whole.__file__).parent.glob("*.py")} - {"__init__", "columns", "whole"}
    assert {room.__name__.rpartition(".")[2] for room in whole.ROOMS} == rooms


async def test_every_table_of_a_tenant_is_guarded(databases: Databases) -> None:
    async def unguarded(connection: Connection) -> set[str]:
        rows = await raw(connection).fetch("""
            SELECT c.relname FROM pg_class c
            WHERE c.relnamespace = 'commerce'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
              AND NOT (c.relrowsecurity AND c.relforcerowsecurity)
        """)
        return {row["relname"] for row in rows}

    assert await databases.system.read(EVERY_TENANT, unguarded) == {
        "alembic_version",
        "cursors",
        "leases",
        "log_heads",
        "log_readers",
        "relay_horizon",
    }


@pytest.mark.parametrize("table", whole.LEDGERS)
@pytest.mark.parametrize("statement", ["DELETE FROM {}", "UPDATE {} SET tenant_id = tenant_id"])
async def test_a_ledger_is_only_added_to(brand: Brand, table: str, statement: str) -> None:
    async def work(connection: Connection) -> None:
        await raw(connection).execute(statement.format(table))

    for database in (brand.databases.app, brand.databases.system):
        with pytest.raises((asyncpg.InsufficientPrivilegeError, ProgrammingError)):
            await database.run(brand.tenant_id, work)


async def test_what_was_sold_before_an_upgrade_goes_on(brand: Brand, commerce_settings: Settings) -> None:
    """Orders that older code left half shipped and half refunded: the migrations' own statements put them right."""
    await with_supplier(brand)
    order = (await brand.sell(brand.sale(brand.basket(line("1", "ROSE", 3, 1000), line("2", "TULIP", 2, 501))))).order
    await brand.fulfil()
    (theirs,) = await brand.supplier_orders()
    await accept(brand, theirs, {})
    await ship(brand, theirs, {"1": 2})
    # one rose is not shipped and refunded, another comes back
    await brand.refund(order.order_id, {"1": 2})
    admin = await asyncpg.connect(commerce_settings.admin_dsn())
    mine = f"WHERE tenant_id = '{brand.tenant_id}'"
    async with admin.transaction():
        await admin.execute("SET search_path = commerce")
        await admin.execute(f"UPDATE settlement_entries SET tenders_minor = NULL {mine}")
        await admin.execute(f"UPDATE supplier_order_lines SET returned_quantity = 0 {mine}")
        await admin.execute(f"UPDATE supplier_orders SET deliver_by = NULL {mine}")
        for name in ("2026_11_22_deliveries", "2026_11_22_sources"):
            migration = importlib.import_module(f"services.commerce.migrations.versions.{name}")
            (backfill,) = [each for each in migration.STATEMENTS if each.lstrip().startswith("UPDATE")]
            await admin.execute(backfill)
    await admin.close()
    await brand.audited()
    shipped = await ship(brand, theirs, {})
    for parcel in shipped.parcels:
        await deliver(brand, theirs, parcel.parcel_no)
    await brand.refund(order.order_id, {"1": 1, "2": 2})
    found = await brand.order(order.order_id)
    assert (found.refunded_minor, found.state) == (1501, order_pb2.ORDER_STATE_FULFILLED)
    statement = supplier_pb2.GetStatementRequest(party_kind=1, party_id="florist")
    assert (await brand.settlement.get_statement(statement, brand.office())).sum_minor == 0
    await brand.audited()


async def test_stock_cannot_be_oversold_past_the_code(brand: Brand) -> None:
    async def work(connection: Connection) -> None:
        await raw(connection).execute(
            "UPDATE stock SET reserved = on_hand + 1 WHERE tenant_id = $1::uuid AND sku = 'TEA'", brand.tenant_id
        )

    with pytest.raises(asyncpg.CheckViolationError, match="stock_not_oversold"):
        await brand.databases.app.run(brand.tenant_id, work)


async def test_hot_statements_use_their_indexes_though_nothing_was_analysed(brand: Brand) -> None:
    for _ in range(6):
        await brand.sell(brand.sale(brand.basket(line("1", "TEA", 1, 100), line("2", "RICE", 1, 100))))

    async def scans(connection: Connection) -> dict[str, int]:
        await raw(connection).execute("SELECT pg_stat_force_next_flush()")
        rows = await raw(connection).fetch(
            "SELECT relname, seq_scan FROM pg_stat_user_tables WHERE relname = ANY($1::text[])",
            ["stock", "orders", "order_lines", "products", "stock_holds"],
        )
        return {row["relname"]: row["seq_scan"] for row in rows}

    before = await brand.databases.app.run(brand.tenant_id, scans)
    order = (await brand.sell(brand.sale(brand.basket(line("1", "RICE", 40, 100))))).order
    for _ in range(20):
        await brand.sell(brand.sale(brand.basket(line("1", "RICE", 4, 100))))
        await brand.refund(order.order_id, {"1": 1})
    assert await brand.databases.app.run(brand.tenant_id, scans) == before


# --- following identity ---


async def follow(brand: Brand, type_: str, payload: bytes) -> None:
    event = Event(
        id=new_id(),
        type=type_,
        tenant_id=brand.tenant_id,
        aggregate_type="member",
        aggregate_id=new_id(),
        version=1,
        occurred_at=NOON,
        posted_at=NOON,
        payload=payload,
        trace="",
    )

    async def handle(connection: Connection) -> None:
        await MembersHandler().handle(connection, [event], brand.office())

    await brand.databases.app.run(brand.tenant_id, handle)


async def merge(brand: Brand, merged: str, survivor: str) -> None:
    message = identity_pb2.MemberMerged(merge_id=new_id(), member_id=survivor, merged_member_id=merged)
    await follow(brand, "identity.MemberMerged", message.SerializeToString())


@pytest.mark.parametrize("links", [pytest.param((1, 0), id="in order"), pytest.param((0, 1), id="the last one first")])
async def test_a_merged_members_orders_are_listed_with_the_survivors(brand: Brand, links: tuple[int, int]) -> None:
    ids = []
    members = [MemberId(new_id()) for _ in range(3)]
    for member_id in members:
        brand.peers.members.cards[CARD] = member_id
        ids.append((await brand.sell(brand.sale(brand.basket(line("1", "TEA", 1, 100))))).order.order_id)

    async def listed(member_id: str) -> list[str]:
        request = order_pb2.ListOrdersRequest(member_id=member_id)
        return [order.order_id for order in (await brand.orders.list_orders(request, brand.office())).orders]

    for link in links:
        await merge(brand, members[link + 1], members[link])
    assert sorted(await listed(members[0])) == sorted(ids)
    # the events keep the member they came with
    order = (await brand.order(ids[2])).member_id
    assert order == members[2]


async def test_a_tenants_clock_is_followed(brand: Brand) -> None:
    message = identity_pb2.TenantChanged(
        tenant_id=brand.tenant_id, time_zone="Asia/Tokyo", currency_code="JPY", version=2**40
    )
    await follow(brand, "identity.TenantChanged", message.SerializeToString())
    brand.shop.tenants.forget(brand.tenant_id)
    tenant = await brand.shop.tenants.get(brand.tenant_id)
    assert (tenant.time_zone, tenant.currency_code, tenant.test_clock_at) == ("Asia/Tokyo", "JPY", None)


# --- the audit ---


async def with_a_statement(brand: Brand) -> None:
    """A second order that is delivered, closed and on a statement; the first stays as it is."""
    basket = brand.basket(line("1", "ROSE", 1, 1000))
    sale = brand.sale(basket, at=NOON - timedelta(days=9))
    (verdict,) = await replay(brand, order_pb2.OfflineSale(request_id=new_id(), sale=sale, charged_minor=[1000]))
    order = verdict.order
    await brand.fulfil()
    (theirs,) = [each for each in await brand.supplier_orders() if each.order_id == order.order_id]
    await accept(brand, theirs, {})
    (parcel,) = (await ship(brand, theirs, {})).parcels
    await deliver(brand, theirs, parcel.parcel_no)
    await brand.sweep()
    request = statement_pb2.CloseStatementRequest(
        request_id=new_id(), party_kind=1, party_id="florist", to_day=(NOON - timedelta(days=1)).date().isoformat()
    )
    reply = await brand.statements.close_statement(request, brand.office())
    assert reply.statement.line_count == 1


@pytest.mark.parametrize(
    ("statement", "checks"),
    [
        pytest.param(
            "UPDATE stock SET on_hand = on_hand + 1 WHERE tenant_id = $1::uuid AND sku = 'TEA'",
            ["commerce.stock_lines_sum_to_stock"],
            id="a unit too many",
        ),
        pytest.param(
            "UPDATE stock SET reserved = reserved + 1 WHERE tenant_id = $1::uuid AND sku = 'TEA'",
            ["commerce.reservations_sum_to_reserved"],
            id="a unit that nobody reserved",
        ),
        pytest.param(
            "UPDATE order_lines SET net_minor = net_minor - 1 WHERE tenant_id = $1::uuid AND line_no = 0",
            ["commerce.lines_sum_to_orders", "commerce.settlement_is_what_was_paid", "commerce.shares_sum_to_lines"],
            id="a cent off a line",
        ),
        pytest.param(
            "UPDATE order_payments SET amount_minor = amount_minor + 1 WHERE tenant_id = $1::uuid",
            ["commerce.payments_sum_to_orders", "commerce.tenders_sum_to_payments"],
            id="a cent in the till",
        ),
        pytest.param(
            "UPDATE order_lines SET tenders_minor = ARRAY[tenders_minor[1] + 1, tenders_minor[2] - 1]"
            " WHERE tenant_id = $1::uuid AND line_no = 0",
            ["commerce.settlement_is_divided_over_payments", "commerce.tenders_sum_to_payments"],
            id="a cent of one payment in another",
        ),
        pytest.param(
            "UPDATE order_lines SET refunded_quantity = 1 WHERE tenant_id = $1::uuid AND line_no = 2",
            ["commerce.refunds_sum_to_lines"],
            id="a unit that was never refunded",
        ),
        pytest.param(
            "UPDATE order_steps SET state = 3, due_at = now() - interval '1 hour' WHERE tenant_id = $1::uuid",
            ["commerce.sagas_are_resolved"],
            id="a hold left open",
        ),
        pytest.param(
            "UPDATE stock_holds SET state = 'voided' WHERE tenant_id = $1::uuid",
            ["commerce.reservations_follow_orders"],
            id="a reservation that went back though it was sold",
        ),
        pytest.param(
            "UPDATE supplier_orders SET state = 6 WHERE tenant_id = $1::uuid",
            ["commerce.unshipped_units_are_refunded"],
            id="a supplier timed out and nobody was refunded",
        ),
        pytest.param(
            "UPDATE supplier_orders SET accept_by = accept_by - interval '9 days' WHERE tenant_id = $1::uuid",
            ["commerce.no_supplier_order_is_overdue"],
            id="a supplier that nobody timed out",
        ),
        pytest.param(
            "UPDATE supplier_orders SET state = 3, ship_by = requested_at - interval '9 days'"
            " WHERE tenant_id = $1::uuid",
            ["commerce.unshipped_orders_are_told"],
            id="a supplier that did not ship, and nobody was told",
        ),
        pytest.param(
            "UPDATE supplier_orders SET state = 3, ship_by = requested_at, late_told = true WHERE tenant_id = $1::uuid",
            ["commerce.unshipped_orders_are_told"],
            id="told, and no exception to see",
        ),
        pytest.param(
            "UPDATE supplier_order_lines SET rerouted_quantity = 1 WHERE tenant_id = $1::uuid AND shipped_quantity = 0",
            ["commerce.rerouted_units_are_asked_for", "commerce.supplier_lines_are_asked_for"],
            id="a unit that was handed to nobody",
        ),
        pytest.param(
            "UPDATE supplier_order_lines SET refunded_quantity = quantity"
            " WHERE tenant_id = $1::uuid AND shipped_quantity = 0",
            ["commerce.suppliers_are_paid_for_their_units", "commerce.rerouted_units_are_asked_for"],
            id="a supplier that is paid for nothing",
        ),
        pytest.param(
            "UPDATE settlement_accounts SET carried_minor = carried_minor - 1 WHERE tenant_id = $1::uuid",
            ["commerce.statements_carry_on"],
            id="a cent of debt that nobody owes",
        ),
        pytest.param(
            "UPDATE orders SET closes_at = closes_at + interval '9 days' WHERE tenant_id = $1::uuid AND state = 5",
            ["commerce.statements_wait_for_the_window"],
            id="a share that was paid before the window was over",
        ),
        pytest.param(
            "INSERT INTO statement_lines SELECT e.tenant_id, e.order_id, e.refund_no, e.line_no, e.entry_no,"
            " s.statement_id, true FROM settlement_entries AS e CROSS JOIN statements AS s"
            " WHERE e.tenant_id = $1::uuid AND s.tenant_id = $1::uuid AND e.party_kind = 0",
            ["commerce.statements_sum_to_their_lines", "commerce.statements_wait_for_the_window"],
            id="somebody else's entry on a statement",
        ),
        pytest.param(
            "INSERT INTO payouts SELECT tenant_id, statement_id, 1, 4, 'R-1', 'erp', now() FROM statements"
            " WHERE tenant_id = $1::uuid",
            ["commerce.payouts_take_turns"],
            id="a return of what was never paid",
        ),
        pytest.param(
            "UPDATE supplier_orders SET state = 8 WHERE tenant_id = $1::uuid",
            ["commerce.deliveries_follow_parcels", "commerce.orders_follow_their_suppliers"],
            id="a delivery of nothing",
        ),
        pytest.param(
            "DELETE FROM supplier_order_lines WHERE tenant_id = $1::uuid",
            ["commerce.supplier_lines_are_asked_for"],
            id="a supplier that nobody asked",
        ),
    ],
)
async def test_the_audit_turns_red(brand: Brand, statement: str, checks: Sequence[str]) -> None:
    await with_supplier(brand)
    brand.peers.points.balances[brand.member_id] = 100
    basket = brand.basket(line("1", "ROSE", 2, 1000), line("2", "TEA", 2, 500), line("3", "CUP", 2, 300), burn=100)
    order = (await brand.sell(brand.sale(basket))).order
    await brand.fulfil()
    await brand.refund(order.order_id, {"2": 1})
    await with_a_statement(brand)
    await brand.audited()

    async def tamper(connection: Connection) -> None:
        await raw(connection).execute(statement, brand.tenant_id)

    await brand.databases.app.run(brand.tenant_id, tamper)
    red = {finding.check for finding in (await brand.audit()).findings if not finding.ok}
    assert red >= set(checks)


async def test_a_prefix_that_names_nothing_is_cheap(brand: Brand) -> None:
    audited = await AuditDesk(books=books, database=brand.databases.system).audit(brand.office(), prefix="-")
    assert (audited.findings, audited.figures) == ((), {})
    assert all(name.startswith("commerce.") for name in books.CHECKS)


def test_every_check_of_every_room_is_made() -> None:
    rooms = (orders, settlement, statements, stock, suppliers)
    assert {each.stem for each in Path(books.__file__).parent.glob("*.py")} - {"__init__", "books", "figures"} == {
        room.__name__.rpartition(".")[2] for room in rooms
    }
    assert sum(len(room.CHECKS) for room in rooms) == len(books.CHECKS)
