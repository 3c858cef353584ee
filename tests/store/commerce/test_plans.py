"""What calls, queues and sweepers wait for reads by key, however much a brand has sold, though nothing was analysed.

A plan is kept until statistics change (`plan_cache_mode`), so the first one has to be right without any.
"""

import re

import pytest

from services.commerce.store import (
    known_sales,
    open_orders,
    order_lists,
    orders,
    refunds,
    settlement,
    statements,
    steps,
    stock,
    suppliers,
    sweeps,
)
from services.runtime.database import EVERY_TENANT, Connection, raw
from tests.store.commerce.conftest import Brand, line, with_supplier
from tests.store.commerce.test_offline import offline, replay

_GROWING = r"\w*(?:order|refund|settlement|stock_|exception|parcel|alias|statement)\w*"
WHOLE_TABLE = re.compile(rf"Seq Scan on ({_GROWING})")
# by the tenant alone, through whatever index, is the whole table as well
WHOLE_TENANT = re.compile(rf"Scan (.*)on ({_GROWING})[^\n]*\n\s+Index Cond: \(tenant_id = [^\n]*$", re.MULTILINE)
# a place in the list, the end of a period or a state that was asked for, looked at row by row: what lies before it, or
# beside it, is read with each page
PLACE_AS_FILTER = re.compile(r"Filter: .*(?:ROW\(|\(\$\d+ IS NULL\) OR|\(\$\d+ = 0\) OR)")
# the index gives the order of the page, whose limit ends the scan
IN_ORDER = "using orders_in_order "
STATEMENTS = {
    f"{module.__name__.rpartition('.')[2]}{name.lower()}": statement
    for module in (
        known_sales,
        open_orders,
        order_lists,
        orders,
        refunds,
        settlement,
        statements,
        steps,
        stock,
        suppliers,
        sweeps,
    )
    for name, statement in vars(module).items()
    if isinstance(statement, str) and re.search(r"^\s*(WITH|SELECT|INSERT|UPDATE|DELETE)\b", statement)
}

OF_SWEEPERS = {
    "sweeps_unanswered",
    "sweeps_presumed",
    "sweeps_unshipped",
    "sweeps_expired",
    "sweeps_close",
    "steps_due",
}
"""These look over every tenant, on the system role."""


def wholes(plan: str) -> list[str]:
    """The growing tables of which the plan reads all, or all of the tenant's."""
    tenants = [
        match[2]
        for match in WHOLE_TENANT.finditer(plan)
        if " AND " not in match[0] and not ("Limit" in plan and IN_ORDER in match[0])
    ]
    return [*WHOLE_TABLE.findall(plan), *tenants]


async def plan_of(connection: Connection, statement: str) -> str:
    """The plan that serves any values: a kept one."""
    numbers = [int(number) for number in re.findall(r"\$(\d+)", statement)]
    arguments = f"({', '.join(['NULL'] * max(numbers))})" if numbers else ""
    driver = raw(connection)
    await driver.execute("SET LOCAL plan_cache_mode = force_generic_plan")
    await driver.execute(f"PREPARE watched AS {statement}")
    rows = await driver.fetch(f"EXPLAIN EXECUTE watched{arguments}")
    await driver.execute("DEALLOCATE watched")
    return "\n".join(row[0] for row in rows)


async def sold(brand: Brand) -> None:
    """Hundreds of sales with a supplier's line and a difference each."""
    await with_supplier(brand)
    for _ in range(8):
        await replay(
            brand,
            *(
                offline(brand, brand.basket(line("1", "TEA", 1, 500), line("2", "ROSE", 1, 500)), [400, 500])
                for _ in range(100)
            ),
        )


async def test_no_statement_reads_everything(brand: Brand) -> None:
    await sold(brand)
    found: dict[str, str] = {}

    async def explain(connection: Connection, names: list[str]) -> None:
        for name in names:
            plan = await plan_of(connection, STATEMENTS[name])
            if wholes(plan) or PLACE_AS_FILTER.search(plan):
                found[name] = plan

    calls = [name for name in STATEMENTS if name not in OF_SWEEPERS]
    await brand.databases.app.run(brand.tenant_id, lambda connection: explain(connection, calls))
    await brand.databases.system.run(EVERY_TENANT, lambda connection: explain(connection, sorted(OF_SWEEPERS)))
    assert not found, "\n\n".join(f"{name}\n{plan}" for name, plan in found.items())


async def test_a_suppliers_open_orders_are_read_without_its_history(brand: Brand) -> None:
    async def work(connection: Connection) -> str:
        return await plan_of(connection, STATEMENTS["suppliers_page_in_state"])

    plan = await brand.databases.app.run(brand.tenant_id, work)
    assert "supplier_orders_in_state" in plan, plan
    assert re.search(r"Index Cond: .*state = ", plan), plan


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT count(*) FROM orders WHERE placed_at > $1",
        "SELECT version FROM orders WHERE tenant_id = $1::uuid AND placed_at > $2",
    ],
)
async def test_one_that_does_would_be_found(brand: Brand, statement: str) -> None:
    async def work(connection: Connection) -> str:
        return await plan_of(connection, statement)

    plan = await brand.databases.app.run(brand.tenant_id, work)
    assert wholes(plan), plan
