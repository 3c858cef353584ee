"""Points accrual and supplier fulfilment may stop or drown: tills go on, and what waited is done afterwards."""

import asyncio
import statistics
import time

import pytest

from services.console.stack.local import LocalStack
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
