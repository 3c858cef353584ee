"""A merge that commits while points of the merged member are on their way strands none of them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from services.loyalty.usecases.members import MergedMembers
from services.runtime.database import Connection
from services.runtime.ids import new_id
from tests.store.loyalty.conftest import House


@asynccontextmanager
async def merging(house: House, survivor: str, alias: str) -> AsyncIterator[None]:
    """A merge that is made while the block begins, and commits when it has run for a moment."""
    made, going_on = asyncio.Event(), asyncio.Event()
    call = house.call(client_id="loyalty.members")
    merge = MergedMembers(merge_id=new_id(), member_id=survivor, alias_id=alias)

    async def work(connection: Connection) -> None:
        await house.following.follow(connection, call, [merge])
        made.set()
        await going_on.wait()
        # as long as the others need to run into its locks
        await asyncio.sleep(0.3)

    merged = asyncio.create_task(house.database.run(house.tenant_id, work))
    await made.wait()
    going_on.set()
    yield
    await merged


async def test_an_order_that_waits_for_a_merge_earns_for_the_survivor(house: House) -> None:
    survivor, alias = new_id(), new_id()
    await house.grant(survivor, 1)
    await house.grant(alias, 2)
    async with merging(house, survivor, alias):
        order = await house.pay(alias, 60_000)
    assert await house.balance(survivor) == (603, 0, 0, 0)
    assert await house.tier(survivor) == "silver"
    async with merging(house, survivor, new_id()):
        await house.refund(order, ("0", 1, 0))
    assert await house.balance(survivor) == (3, 0, 0, 0)
    assert await house.audit() == {}


async def test_a_refund_that_waits_for_a_merge_lowers_the_survivors_day(house: House) -> None:
    survivor, alias = new_id(), new_id()
    await house.grant(survivor, 1)
    order = await house.pay(alias, 60_000)
    async with merging(house, survivor, alias):
        await house.refund(order, ("0", 1, 0))
    assert await house.balance(survivor) == (1, 0, 0, 0)
    seen = await house.tiers.get(house.call(), member_id=survivor, point_currency="points")
    assert (seen.counters.amount_minor, seen.counters.orders) == (0, 0)
    assert await house.audit() == {}


async def test_the_first_points_of_a_member_who_is_being_merged_are_the_survivors(house: House) -> None:
    survivor, alias = new_id(), new_id()
    await house.grant(survivor, 1)
    async with merging(house, survivor, alias):
        await house.grant(alias, 10)
    assert await house.balance(survivor) == await house.balance(alias) == (11, 0, 0, 0)
    house.now += timedelta(seconds=1)
    another = new_id()
    async with merging(house, survivor, another):
        await house.pay(another, 1_000)
    assert await house.balance(survivor) == (21, 0, 0, 0)
    assert await house.audit() == {}
