"""The audit is proven: each fault is planted in the books of a brand that has traded, and the finding that names it
turns red; what is put back turns it green again.

A crude fault breaks the sums of its own service. A careful one leaves every sum of its service whole, as a bug in that
service would, and only what another service knows gives it away.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg
import pytest
import pytest_asyncio

from services.console.audit import Auditor, Finding
from services.console.stack.local import LocalStack
from services.runtime.ids import new_id
from siyu.commerce.v1 import order_pb2, order_pb2_grpc
from siyu.identity.v1 import member_pb2, member_pb2_grpc
from tests.e2e.shop import CUP, FLOWERS, TEA, Shop, open_shop
from tests.e2e.test_sale import refund

WAIT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Traded:
    """A brand after some trade, its auditor, and a way into its database that nothing guards."""

    tenant_id: str
    auditor: Auditor
    connection: "asyncpg.Connection[asyncpg.Record]"
    names: dict[str, str]

    async def red(self) -> dict[str, Finding]:
        """What the audit finds wrong, by check; for consumers by who they are."""
        found = await self.auditor.audit(self.tenant_id, wait_s=WAIT_S)
        return {each.where if each.check == "taken exactly once" else each.check: each for each in found if not each.ok}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def traded(stack: LocalStack) -> AsyncIterator[Traded]:
    shop = await open_shop(stack)
    names = await trade(shop)
    connection = await asyncpg.connect(stack.database_url)
    auditor = Auditor(addresses=stack.addresses, client_secret=stack.client_secret("service:console"))
    yield Traded(tenant_id=shop.tenant_id, auditor=auditor, connection=connection, names=names)
    await connection.close()
    await shop.wire.close()


async def trade(shop: Shop) -> dict[str, str]:
    """Sales with coupon, promotion, points and a supplier, one refunded in part, one waiting, and a merge."""
    buyer, once = await shop.member(points=1_000), await shop.member()
    code = await shop.coupon(buyer)
    goods = ((TEA, 2), (CUP, 3), (FLOWERS, 2))
    full = await shop.sell(shop.basket(*goods, member_id=buyer, coupon_codes=[code], burn_points=333))
    await refund(shop, full.order_id, ("1", 1), ("3", 1))
    plain = await shop.sell(shop.basket((TEA, 1), member_id=once))
    waiting = await shop.call(
        order_pb2_grpc.OrderServiceStub,
        "PlaceOrder",
        order_pb2.PlaceOrderRequest(
            request_id=new_id(), basket=shop.basket((TEA, 1), member_id=buyer, burn_points=100)
        ),
    )
    merged = await shop.call(
        member_pb2_grpc.MemberServiceStub,
        "MergeMembers",
        member_pb2.MergeMembersRequest(
            request_id=new_id(), member_id=buyer, other_member_id=await shop.member(), evidence="same card"
        ),
    )
    for order in (full, plain):
        await shop.settled(order.order_id)
    return {
        "full": full.order_id,
        "plain": plain.order_id,
        "waiting": waiting.order.order_id,
        "buyer": buyer,
        "once": once,
        "merged": merged.merged_member_id,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is changed, in which tables of the tenant, and the checks that must turn red.

    `$1` in a statement is the tenant; `{full}` and its like are ids of the trade. `alone`: nothing else turns red.
    Cursors are nobody's rows, and are put right by `undo`.
    """

    statements: tuple[str, ...]
    tables: tuple[str, ...]
    red: frozenset[str]
    alone: bool
    undo: tuple[str, ...]


def fault(*statements: str, red: str, tables: str = "", undo: tuple[str, ...] = (), alone: bool = False) -> Fault:
    return Fault(
        statements=statements, tables=tuple(tables.split()), red=frozenset(red.split("; ")), undo=undo, alone=alone
    )


LAST_BLOCK = "(SELECT partition, max(seq) FROM commerce.log WHERE tenant_id = $1 GROUP BY partition LIMIT 1)"


def cursor(change: str, *, service: str, queue: str) -> str:
    """Changes a cursor over a partition that the tenant's orders are in."""
    return (
        f"UPDATE {service}.cursors SET {change} WHERE producer = 'commerce' AND queue = '{queue}' "
        "AND partition = (SELECT min(partition) FROM commerce.log WHERE tenant_id = $1)"
    )


# every column of an earning's entry but its place in the pool and its name, which are the next free ones
_ENTRY_AGAIN = """
    INSERT INTO loyalty.entries (tenant_id, member_id, class_no, end_points, account_version, owner_id, entry_id, kind,
                                 source, target, points, expires_at, occurred_at, order_id, reason)
    SELECT e.tenant_id, e.member_id, e.class_no, p.earned_points + e.points, a.account_version + 1, e.owner_id,
           gen_random_uuid(), e.kind, e.source, e.target, e.points, e.expires_at, e.occurred_at, e.order_id, e.reason
    FROM loyalty.entries AS e
    JOIN loyalty.pools AS p ON p.tenant_id = e.tenant_id AND p.member_id = e.member_id AND p.class_no = e.class_no
    JOIN loyalty.accounts AS a ON a.tenant_id = e.tenant_id AND a.member_id = e.owner_id
    WHERE e.tenant_id = $1 AND e.owner_id = '{once}' AND e.kind = 1 AND e.order_id = '{plain}'
"""
_EARNING_AGAIN = """
    INSERT INTO loyalty.earnings
    SELECT g.tenant_id, e.entry_id, g.member_id, g.class_no, g.owner_id, g.point_currency, g.order_id, g.points, 0, 0,
           g.matures_at, g.expires_at, e.account_version, e.end_points
    FROM loyalty.earnings AS g
    JOIN loyalty.entries AS e ON e.tenant_id = g.tenant_id AND e.order_id = g.order_id AND e.entry_id <> g.earning_id
    WHERE g.tenant_id = $1 AND g.order_id = '{plain}'
"""

FAULTS = {
    # --- drop one event ---
    "an event that a consumer passed over": fault(
        cursor("events_total = events_total - 1", service="loyalty", queue="accrual"),
        undo=(cursor("events_total = events_total + 1", service="loyalty", queue="accrual"),),
        red="commerce → loyalty/accrual",
        alone=True,
    ),
    "an event instead of another": fault(
        cursor("checksum_total = checksum_total - 1", service="campaign", queue="usage"),
        undo=(cursor("checksum_total = checksum_total + 1", service="campaign", queue="usage"),),
        red="commerce → campaign/usage",
        alone=True,
    ),
    "an event twice": fault(
        cursor("events_total = events_total + 1", service="commerce", queue="fulfilment"),
        undo=(cursor("events_total = events_total - 1", service="commerce", queue="fulfilment"),),
        red="commerce → commerce/fulfilment",
        alone=True,
    ),
    "a block that is not in the log": fault(
        f"DELETE FROM commerce.log WHERE (partition, seq) = {LAST_BLOCK}",
        tables="commerce.log",
        red="commerce.log_runs_on",
        alone=True,
    ),
    "an order that earned nothing, with every sum whole": fault(
        *(
            f"DELETE FROM loyalty.{table} WHERE tenant_id = $1 AND {column} = '{{once}}'"
            for table, column in (
                ("orders", "member_id"),
                ("earnings", "owner_id"),
                ("entries", "owner_id"),
                ("pools", "owner_id"),
                ("accounts", "member_id"),
                ("tier_days", "member_id"),
            )
        ),
        tables="loyalty.orders loyalty.earnings loyalty.entries loyalty.pools loyalty.accounts loyalty.tier_days",
        red="loyalty.orders_accrued; loyalty.base_minor",
        alone=True,
    ),
    "an order that campaign never saw": fault(
        "DELETE FROM campaign.order_usages WHERE tenant_id = $1 AND order_id = '{plain}'",
        tables="campaign.order_usages",
        red="campaign.orders_seen",
        alone=True,
    ),
    "a merge that a service never followed": fault(
        "DELETE FROM commerce.member_aliases WHERE tenant_id = $1 AND member_id = '{merged}'",
        tables="commerce.member_aliases",
        red="identity_members_merged",
        alone=True,
    ),
    # --- double one accrual ---
    "an entry twice": fault(
        _ENTRY_AGAIN,
        tables="loyalty.entries",
        red="loyalty.entries_sum_to_balances; loyalty.earnings_are_booked_once",
    ),
    "an accrual twice, with every sum whole": fault(
        _ENTRY_AGAIN,
        _EARNING_AGAIN,
        "UPDATE loyalty.pools SET earned_points = earned_points * 2 WHERE tenant_id = $1 AND owner_id = '{once}'",
        "UPDATE loyalty.accounts SET available_points = available_points * 2, account_version = account_version + 1 "
        "WHERE tenant_id = $1 AND member_id = '{once}'",
        tables="loyalty.entries loyalty.earnings loyalty.pools loyalty.accounts",
        red="loyalty.orders_sum_to_earnings",
        alone=True,
    ),
    # --- shift one cent ---
    "a cent off a line": fault(
        "UPDATE commerce.order_lines SET net_minor = net_minor - 1 "
        "WHERE tenant_id = $1 AND order_id = '{full}' AND line_no = 0",
        tables="commerce.order_lines",
        red="commerce.lines_sum_to_orders; commerce.shares_sum_to_lines; loyalty.base_minor",
    ),
    "a cent off an order, with every sum whole": fault(
        "UPDATE commerce.orders SET net_minor = net_minor - 1, shelf_minor = shelf_minor - 1 "
        "WHERE tenant_id = $1 AND order_id = '{plain}'",
        "UPDATE commerce.order_lines SET net_minor = net_minor - 1, shelf_minor = shelf_minor - 1, "
        "tenders_minor = ARRAY[tenders_minor[1] - 1] WHERE tenant_id = $1 AND order_id = '{plain}'",
        "UPDATE commerce.order_payments SET amount_minor = amount_minor - 1 "
        "WHERE tenant_id = $1 AND order_id = '{plain}'",
        tables="commerce.orders commerce.order_lines commerce.order_payments",
        red="loyalty.base_minor",
        alone=True,
    ),
    "a cent more to a tender": fault(
        "UPDATE commerce.order_payments SET amount_minor = amount_minor + 1 "
        "WHERE tenant_id = $1 AND order_id = '{full}' AND payment_no = 0",
        tables="commerce.order_payments",
        red="commerce.payments_sum_to_orders; commerce.tenders_sum_to_payments",
    ),
    "a cent of a refund": fault(
        "UPDATE commerce.refunds SET amount_minor = amount_minor - 1 WHERE tenant_id = $1 AND order_id = '{full}'",
        tables="commerce.refunds",
        red="commerce.refunds_sum_to_tenders",
        alone=True,
    ),
    "a cent that nobody settled": fault(
        "UPDATE commerce.settlement_entries SET amount_minor = amount_minor + 1 "
        "WHERE tenant_id = $1 AND order_id = '{full}' AND refund_no = 0 AND party_kind = 1",
        tables="commerce.settlement_entries",
        red="commerce.settlement_sums_to_zero; commerce.settlement_follows_its_rule; "
        "commerce.settlement_is_divided_over_payments",
        alone=True,
    ),
    "a cent from the brand to the supplier, with every sum whole": fault(
        "UPDATE commerce.settlement_entries"
        " SET amount_minor = amount_minor + CASE party_kind WHEN 1 THEN 1 ELSE -1 END,"
        " tenders_minor[1] = tenders_minor[1] + CASE party_kind WHEN 1 THEN 1 ELSE -1 END"
        " WHERE tenant_id = $1 AND order_id = '{full}' AND refund_no = 0 AND party_kind IN (1, 2)",
        tables="commerce.settlement_entries",
        red="commerce.settlement_follows_its_rule",
        alone=True,
    ),
    "a cent of one payment in another": fault(
        "UPDATE commerce.settlement_entries"
        " SET tenders_minor[1] = tenders_minor[1] + 1, tenders_minor[2] = tenders_minor[2] - 1"
        " WHERE tenant_id = $1 AND order_id = '{full}' AND refund_no = 0 AND party_kind = 1",
        tables="commerce.settlement_entries",
        red="commerce.settlement_is_divided_over_payments",
        alone=True,
    ),
    "a cent of a discount, with every sum whole": fault(
        "UPDATE campaign.discount_usages SET given_minor = given_minor + 1 "
        "WHERE tenant_id = $1 AND order_id = '{full}' AND source = 'promotion'",
        "UPDATE campaign.promotions SET given_minor = given_minor + 1 WHERE tenant_id = $1 AND promotion_id = 'cups'",
        tables="campaign.discount_usages campaign.promotions",
        red="campaign.discount_given_minor",
        alone=True,
    ),
    "a point that nobody earned": fault(
        "UPDATE loyalty.accounts SET available_points = available_points + 1 "
        "WHERE tenant_id = $1 AND member_id = '{buyer}'",
        tables="loyalty.accounts",
        red="loyalty.entries_sum_to_balances; loyalty.pools_sum_to_available; loyalty.both_sides_are_zero",
        alone=True,
    ),
    "a cup that came from nowhere": fault(
        "UPDATE commerce.stock SET on_hand = on_hand + 1 WHERE tenant_id = $1 AND store_id = 's1' AND sku = 'cup'",
        tables="commerce.stock",
        red="commerce.stock_lines_sum_to_stock",
        alone=True,
    ),
    # --- leave one hold open ---
    "a points hold left open": fault(
        "UPDATE loyalty.holds SET state = 1, captured_points = 0, resolved_at = NULL,"
        " expires_at = now() + interval '1 h' WHERE tenant_id = $1 AND order_id = '{full}'",
        tables="loyalty.holds",
        red="loyalty.open_holds_sum_to_held",
        alone=True,
    ),
    "a coupon's hold left open": fault(
        "UPDATE campaign.benefit_holds SET state = 'held', resolved_at = NULL, expires_at = now() + interval '1 h' "
        "WHERE tenant_id = $1 AND order_id = '{full}'",
        tables="campaign.benefit_holds",
        red="campaign.held_coupons_have_their_hold",
    ),
    "a reservation left open": fault(
        "UPDATE commerce.stock_holds SET state = 'held', resolved_at = NULL, expires_at = now() + interval '1 h' "
        "WHERE tenant_id = $1 AND order_id = '{full}'",
        tables="commerce.stock_holds",
        red="commerce.reservations_sum_to_reserved; commerce.reservations_follow_orders",
        alone=True,
    ),
    "a reservation of a waiting order given away": fault(
        "UPDATE commerce.stock_holds SET state = 'voided', resolved_at = now() "
        "WHERE tenant_id = $1 AND order_id = '{waiting}'",
        tables="commerce.stock_holds",
        red="commerce.reservations_sum_to_reserved; commerce.reservations_follow_orders",
        alone=True,
    ),
}


@asynccontextmanager
async def planted(traded: Traded, fault: Fault) -> AsyncIterator[None]:
    """The fault, while the block runs; then the tenant's rows are as they were. Triggers look away."""
    async with unguarded(traded) as connection:
        for table in fault.tables:
            await connection.execute(
                f"CREATE TEMP TABLE {kept(table)} AS SELECT * FROM {table} WHERE tenant_id = '{traded.tenant_id}'"
            )
        for statement in fault.statements:
            await hit(connection, traded, statement)
    try:
        yield
    finally:
        async with unguarded(traded) as connection:
            for table in fault.tables:
                await connection.execute(f"DELETE FROM {table} WHERE tenant_id = '{traded.tenant_id}'")
                await connection.execute(f"INSERT INTO {table} TABLE {kept(table)}")
                await connection.execute(f"DROP TABLE {kept(table)}")
            for statement in fault.undo:
                await hit(connection, traded, statement)


@asynccontextmanager
async def unguarded(traded: Traded) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """One transaction in which no trigger and no foreign key speaks."""
    async with traded.connection.transaction():
        await traded.connection.execute("SET LOCAL session_replication_role = replica")
        yield traded.connection


def kept(table: str) -> str:
    """The name of the copy."""
    return f"kept_{table.replace('.', '_')}"


async def hit(connection: "asyncpg.Connection[asyncpg.Record]", traded: Traded, statement: str) -> None:
    """Runs a statement of a fault, which must change something."""
    done = await connection.execute(statement.format(**traded.names).replace("$1", f"'{traded.tenant_id}'"))
    assert not done.endswith(" 0"), f"the fault hit nothing: {statement}"


async def test_the_books_agree_before(traded: Traded) -> None:
    assert await traded.red() == {}


@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_turns_the_audit_red(traded: Traded, name: str) -> None:
    fault = FAULTS[name]
    async with planted(traded, fault):
        red = await traded.red()
    assert set(red) >= fault.red, red
    if fault.alone:
        assert set(red) == fault.red, red
    for check in fault.red:
        assert red[check].detail, "a red finding says what is wrong"
    assert await traded.red() == {}, "what was put back is green again"
