"""Points accrual and supplier fulfilment may stop or drown: tills go on, and what waited is done afterwards."""

import asyncio
import statistics
import time

import asyncpg
import pytest

from services.console.audit import Auditor
from services.console.stack.local import LocalStack
from siyu.commerce.v1 import order_pb2, order_pb2_grpc
from tests.e2e.shop import FLOWERS, TEA, Shop, eventually, open_shop

SALES = 30
SLOWER_AT_MOST = 5.0
"""The machine has few cores, and those who work off the backlog use them too."""


async def sales(shop: Shop, member_id: str) -> tuple[list[str], float]:
    """Sells in a row; returns the orders and the median time of a sale."""
    orders, took = [], []
    for _ in range(SALES):
        started = time.perf_counter()
        orders.append((await shop.sell(shop.basket((TEA, 1), (FLOWERS, 1), member_id=member_id))).order_id)
        took.append(time.perf_counter() - started)
    return orders, statistics.median(took)


@pytest.mark.timeout(200)
@pytest.mark.parametrize("worker", ["loyalty/worker:accrual", "commerce/worker:fulfilment", "campaign/worker:usage"])
async def test_a_stopped_worker_stops_no_till(breakable: LocalStack, worker: str) -> None:
    shop = await open_shop(breakable)
    member_id = await shop.member()
    await breakable.stop(worker)
    try:
        orders, _ = await sales(shop, member_id)
        if worker == "loyalty/worker:accrual":
            assert (await shop.balance(member_id)).available_points == 0, "nobody posts points while it is stopped"
    finally:
        await breakable.start(worker)
    for order_id in orders:
        await shop.settled(order_id)
    if worker == "loyalty/worker:accrual":
        assert (await shop.balance(member_id)).available_points == SALES * ((4300 + 2300) // 100)
    await shop.wire.close()


@pytest.mark.timeout(200)
async def test_a_flood_of_one_brand_leaves_the_tills_of_another_selling(breakable: LocalStack) -> None:
    """A backlog for accrual and fulfilment: 300 orders are sold while their workers are down, then both start."""
    flooded, calm = await open_shop(breakable), await open_shop(breakable)
    crowd = [await flooded.member() for _ in range(5)]
    member_id = await calm.member()
    _, alone_s = await sales(calm, member_id)
    workers = ("loyalty/worker:accrual", "commerce/worker:fulfilment")
    for worker in workers:
        await breakable.stop(worker)
    backlog: list[str] = []

    async def till(number: int) -> None:
        for _ in range(60):
            goods = ((TEA, 1), (FLOWERS, 1))
            backlog.append((await flooded.sell(flooded.basket(*goods, member_id=crowd[number]))).order_id)

    await asyncio.gather(*(till(number) for number in range(5)))
    for worker in workers:
        await breakable.start(worker)
    orders, median_s = await sales(calm, member_id)
    print(
        f"a sale took {median_s * 1000:.0f} ms while {len(backlog)} orders were worked off, {alone_s * 1000:.0f} alone"
    )
    assert median_s < alone_s * SLOWER_AT_MOST
    await calm.settled(orders[-1])
    await flooded.settled(backlog[-1])

    async def posted() -> bool:
        return (await calm.balance(member_id)).available_points == 2 * SALES * ((4300 + 2300) // 100)

    await eventually(posted)
    await flooded.wire.close()
    await calm.wire.close()


@pytest.mark.timeout(200)
async def test_a_brand_whose_sales_accrual_cannot_post_stops_no_other_brand(breakable: LocalStack) -> None:
    """A bug that one member's orders bring out: they are parked, told by the audit, and drain when it is gone."""
    ill, well = await open_shop(breakable), await open_shop(breakable)
    poison, patient, neighbour = await ill.member(), await ill.member(), await well.member()
    auditor = Auditor(addresses=breakable.addresses, client_secret=breakable.client_secret("service:console"))

    async def red(shop: Shop) -> dict[str, str]:
        found = await auditor.audit(shop.tenant_id, wait_s=5)
        return {each.check: each.detail for each in found if not each.ok}

    connection = await asyncpg.connect(breakable.database_url)
    await connection.execute(
        f"ALTER TABLE loyalty.orders ADD CONSTRAINT a_bug CHECK (member_id IS DISTINCT FROM '{poison}') NOT VALID"
    )
    try:
        bought = [
            (await ill.sell(ill.basket((TEA, 1), member_id=member_id))).order_id
            for member_id in (poison, patient, poison, patient)
        ]
        for _ in range(10):
            order = await well.sell(well.basket((TEA, 1), member_id=neighbour))
        await well.settled(order.order_id)
        told = (await red(ill))["loyalty.no_event_is_parked"]
        assert "CheckViolationError a_bug" in told
        assert await red(well) == {}
        waiting = order_pb2.WaitForOrderRequest(order_id=bought[0])
        reply = await ill.call(order_pb2_grpc.OrderServiceStub, "WaitForOrder", waiting)
        assert list(reply.open) == ["loyalty/accrual"], "what is parked is not in the books"
    finally:
        await connection.execute("ALTER TABLE loyalty.orders DROP CONSTRAINT a_bug")
        await connection.close()
    for order_id in bought:
        await ill.settled(order_id)
    for member_id in (poison, patient):
        assert (await ill.balance(member_id)).available_points == 2 * (4300 // 100)
    assert await red(ill) == {}
    await ill.wire.close()
    await well.wire.close()
