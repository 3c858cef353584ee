"""What a till waits for reads by key, however many coupons a brand has issued, and though nothing was analysed since.

A plan that was made while a table was empty is another matter: it goes with the first analysis of that table.
"""

import asyncio
import re

import pytest
import pytest_asyncio

from services.campaign.store import coupons, holds, members, requests, usage
from services.runtime.database import Connection, raw
from services.runtime.ids import new_id
from siyu.campaign.v1 import coupon_pb2
from tests.store.campaign.conftest import Brand, Campaign, paid, refunded, share

_GROWING = r"\w*(?:coupon|claim|hold|price|usage|request|alias)\w*"
"""Tables that grow with the brand's trade; partitions included."""
WHOLE_TABLE = re.compile(rf"Seq Scan on ({_GROWING})")
# by the tenant alone, through whatever index, is the whole table as well
WHOLE_TENANT = re.compile(
    rf"Scan (?:using \w+ )?on ({_GROWING})[^\n]*\n\s+Index Cond: \(tenant_id = [^\n]*$", re.MULTILINE
)
WATCHED = (coupons, holds, members, requests, usage)
OF_SWEEPERS = {"_DUE_TENANTS", "_FORGET"}
"""These look over every tenant, a bounded number of rows at a time."""
STATEMENTS = [
    pytest.param(statement, id=f"{module.__name__.rpartition('.')[2]}{name.lower()}")
    for module in WATCHED
    for name, statement in vars(module).items()
    if isinstance(statement, str) and re.search(r"\b(FROM|INTO|UPDATE)\b", statement) and name not in OF_SWEEPERS
]


def wholes(plan: str) -> list[str]:
    """The growing tables of which the plan reads all, or all of the tenant's."""
    tenants = [match[1] for match in WHOLE_TENANT.finditer(plan) if " AND " not in match[0]]
    return [*WHOLE_TABLE.findall(plan), *tenants]


async def plan_of(brand: Brand, statement: str) -> str:
    """The plan that serves any values: a kept one."""
    nulls = ", ".join("NULL" for _ in range(max(int(number) for number in re.findall(r"\$(\d+)", statement))))

    async def work(connection: Connection) -> str:
        driver = raw(connection)
        await driver.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        await driver.execute(f"PREPARE watched AS {statement}")
        rows = await driver.fetch(f"EXPLAIN EXECUTE watched({nulls})")
        await driver.execute("DEALLOCATE watched")
        return "\n".join(row[0] for row in rows)

    return await brand.campaign.app.run(brand.tenant_id, work)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def trading(campaign: Campaign) -> Brand:
    """A brand that has issued thousands of coupons and sold some hundred baskets."""
    brand = Brand(campaign=campaign, tenant_id=new_id())
    await brand.template("t")
    coupons_of = [coupon_pb2.IssueCoupon(template_id="t", member_id=new_id()) for _ in range(1000)]
    issued = [each.coupon for _ in range(3) for each in await brand.issue(*coupons_of)]

    async def sell(coupon: coupon_pb2.Coupon) -> None:
        order_id, hold_id = new_id(), new_id()
        await brand.hold(
            hold_id=hold_id, order_id=order_id, member_id=coupon.member_id, coupons=[(coupon.coupon_id, 100)]
        )
        await brand.capture(hold_id)
        given = share("COUPON", "t", 100, coupon_id=coupon.coupon_id)
        await brand.take(paid(order_id, given, member_id=coupon.member_id), refunded(order_id, given, whole=True))

    for start in range(0, 400, 50):
        await asyncio.gather(*(sell(coupon) for coupon in issued[start : start + 50]))
    return brand


@pytest.mark.parametrize("statement", STATEMENTS)
async def test_no_statement_of_a_call_reads_everything(trading: Brand, statement: str) -> None:
    plan = await plan_of(trading, statement)
    assert wholes(plan) == [], plan


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT count(*) FROM coupons WHERE valid_from > $1",
        "SELECT version FROM coupons WHERE tenant_id = $1::uuid AND valid_from > $2",
    ],
)
async def test_one_that_does_would_be_found(trading: Brand, statement: str) -> None:
    plan = await plan_of(trading, statement)
    assert wholes(plan), plan
