"""The migrated schema: what tables.py says, who may do what, and what audits find."""

from datetime import timedelta

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection as SyncConnection
from sqlalchemy.exc import ProgrammingError

from services.campaign import tables
from services.campaign.store import audit
from services.runtime.database import EVERY_TENANT, Connection, raw
from services.runtime.ids import new_id
from tests.store.campaign.conftest import Brand, Campaign, paid, refunded, share


@pytest.mark.filterwarnings("ignore:Did not recognize type 'xid8'")  # the runtime's outbox has one
async def test_tables_are_what_the_migrations_made(campaign: Campaign) -> None:
    async def differences(connection: Connection) -> list[object]:
        def compare(sync: SyncConnection) -> list[object]:
            ours = set(tables.metadata.tables)
            context = MigrationContext.configure(
                sync,
                opts={
                    "compare_type": True,
                    "include_object": lambda thing, name, kind, _reflected, _other: kind != "table" or name in ours,
                },
            )
            return list(compare_metadata(context, tables.metadata))

        return await connection.run_sync(compare)

    assert await campaign.system.read(EVERY_TENANT, differences) == []


async def test_every_table_of_a_tenant_is_guarded(campaign: Campaign) -> None:
    async def guarded(connection: Connection) -> set[str]:
        rows = await raw(connection).fetch("""
            SELECT c.relname FROM pg_class c
            WHERE c.relnamespace = 'campaign'::regnamespace AND c.relkind IN ('r', 'p')
              AND c.relrowsecurity AND c.relforcerowsecurity
        """)
        return {row["relname"] for row in rows}

    assert set(tables.metadata.tables) <= await campaign.system.read(EVERY_TENANT, guarded)


@pytest.mark.parametrize(
    "statement",
    ["DELETE FROM promotion_versions", "UPDATE template_versions SET version = 9", "DELETE FROM refund_usages"],
)
async def test_the_app_role_cannot(brand: Brand, statement: str) -> None:
    async def work(connection: Connection) -> None:
        await raw(connection).execute(statement)

    with pytest.raises((asyncpg.InsufficientPrivilegeError, ProgrammingError)):
        await brand.campaign.app.run(brand.tenant_id, work)


async def _a_busy_day(brand: Brand) -> tuple[str, str]:
    """A held, a captured, a used and a refunded coupon; the ids of the held and of the captured one."""
    await brand.promotion("p", "ORDER_AMOUNT", amount_minor=10, budget_minor=1000)
    await brand.template("t", returnable=True)
    held, captured, offline, back = [(await brand.coupon("t")).coupon_id for _ in range(4)]
    await brand.hold(coupons=[(held, 100)], budgets=[("p", 10)], order_id=new_id())
    order_id = new_id()
    hold = await brand.hold(coupons=[(captured, 100)], budgets=[("p", 10)], order_id=order_id)
    await brand.capture(hold.hold_id)
    await brand.take(
        paid(order_id, share("COUPON", "t", 100, coupon_id=captured), share("ORDER_PROMOTION", "p", 10)),
        paid("offline", share("COUPON", "t", 100, coupon_id=offline), share("ORDER_PROMOTION", "p", 10)),
        paid("back", share("COUPON", "t", 100, coupon_id=back)),
        refunded("back", share("COUPON", "t", 100, coupon_id=back), whole=True),
    )
    return held, captured


async def test_the_audit_is_green_and_tells_its_figures(brand: Brand) -> None:
    await _a_busy_day(brand)
    reply = await brand.audited()
    assert [finding.check for finding in reply.findings] == [*audit.CHECKS, "campaign.log_runs_on"]
    assert [finding for finding in reply.findings if not finding.ok] == []
    assert dict(reply.figures) == {
        "campaign.orders_seen": 3,
        "campaign.refunds_seen": 1,
        "campaign.orders_wholly_refunded": 1,
        "campaign.discount_given_minor": 320,
        "campaign.discount_refunded_minor": 100,
        "campaign.coupons_used": 3,
        "campaign.coupons_used_in_excess": 0,
        "campaign.coupons_issued": 4,
        "identity_members_merged": 0,
    }


@pytest.mark.parametrize(
    ("statement", "check"),
    [
        pytest.param(
            "UPDATE benefit_holds SET expires_at = now() - interval '2 min' WHERE state = 'held'",
            "campaign.holds_none_overdue",
            id="a hold left open",
        ),
        pytest.param(
            "UPDATE coupons SET state = 'issued', holder_client = NULL, holder_hold = NULL, held_until = NULL"
            " WHERE state = 'held'",
            "campaign.held_coupons_have_their_hold",
            id="a coupon slipped out of its hold",
        ),
        pytest.param(
            "UPDATE coupons SET order_id = 'another' WHERE state = 'used'",
            "campaign.used_coupons_have_their_order",
            id="a coupon used by nobody",
        ),
        pytest.param(
            "UPDATE promotions SET held_minor = held_minor + 1",
            "campaign.claims_sum_to_budgets",
            id="one cent more held than claimed",
        ),
        pytest.param(
            "UPDATE promotions SET given_minor = given_minor + 1",
            "campaign.usages_sum_to_promotions",
            id="one cent more given than used",
        ),
        pytest.param(
            "UPDATE discount_usages SET refunded_minor = given_minor + 1",
            "campaign.refunds_within_given",
            id="more refunded than given",
        ),
        pytest.param(
            "UPDATE discount_usages SET refunded_minor = refunded_minor - 1 WHERE refunded_minor > 0",
            "campaign.refunds_sum_to_usages",
            id="a refund lost",
        ),
        pytest.param(
            "UPDATE templates SET issued = issued + 1", "campaign.issued_coupons_are_counted", id="a coupon lost"
        ),
        pytest.param(
            "UPDATE promotions SET captured_minor = budget_minor + 1",
            "campaign.budgets_not_oversold",
            id="a budget oversold",
        ),
        pytest.param(
            "UPDATE discount_usages SET source_id = (SELECT min(source_id) FROM discount_usages"
            " WHERE source = 'coupon' AND tenant_id = current_setting('siyu.tenant')::uuid)"
            " WHERE source = 'coupon'",
            "campaign.coupons_used_once",
            id="a coupon used twice",
        ),
    ],
)
async def test_the_audit_turns_red(brand: Brand, statement: str, check: str) -> None:
    await _a_busy_day(brand)
    where = " AND " if " WHERE " in statement.rpartition(")")[2] or statement.count("WHERE") == 1 else " WHERE "
    await brand.execute(f"{statement}{where}tenant_id = $1::uuid", brand.tenant_id)
    assert check in await brand.red()


async def test_an_audit_looks_at_one_tenant(brand: Brand, campaign: Campaign) -> None:
    await _a_busy_day(brand)
    other = Brand(campaign=campaign, tenant_id=new_id())
    reply = await other.audited()
    assert {finding.examined for finding in reply.findings} == {0}
    assert set(reply.figures.values()) == {0}


async def test_tombstones_are_forgotten_after_a_week(brand: Brand) -> None:
    await brand.void("never-came")
    await brand.sweep(after=timedelta(days=6))

    async def left(connection: Connection) -> int:
        return await raw(connection).fetchval(
            "SELECT count(*) FROM benefit_holds WHERE tenant_id = $1::uuid", brand.tenant_id
        )

    assert await brand.campaign.system.read(brand.tenant_id, left) == 1
    await brand.sweep(after=timedelta(days=1))
    assert await brand.campaign.system.read(brand.tenant_id, left) == 0
