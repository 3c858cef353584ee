"""A merge that commits while points of the merged member are on their way strands none of them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

from services.loyalty.usecases.members import MergedMembers
from services.runtime.database import Connection
from services.runtime.ids import new_id
from tests.store.loyalty.conftest import PROGRAMME, House


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


async def test_merges_that_were_known_and_chains_of_them_in_one_batch(house: House) -> None:
    """The alias's points are where the last survivor's are, told twice or through another that is merged as well."""
    last, middle, first = members = [new_id() for _ in range(3)]
    for member in members:
        await house.grant(member, 10)
    call = house.call(client_id="loyalty.members")
    merges = [
        MergedMembers(merge_id=new_id(), member_id=survivor, alias_id=alias)
        for survivor, alias in ((last, middle), (middle, first), (last, middle))
    ]
    for _ in range(2):
        await house.database.run(house.tenant_id, lambda connection: house.following.follow(connection, call, merges))
    assert [await house.balance(member) for member in members] == [(30, 0, 0, 0)] * 3
    assert await house.audit() == {}


async def test_merges_that_come_in_the_other_order_leave_the_tier_with_the_last_survivor(house: House) -> None:
    """Each merge is told in its survivor's partition, so that a chain of them may arrive from its end."""
    last, middle, first = [new_id() for _ in range(3)]
    await house.pay(first, 60_000)
    await house.pay(middle, 1_000)
    await house.merge(last, middle)
    await house.merge(middle, first)
    assert [await house.tier(member) for member in (last, middle, first)] == ["silver"] * 3
    seen = await house.tiers.get(house.call(), member_id=last, point_currency="points")
    assert (seen.counters.amount_minor, seen.counters.orders) == (61_000, 2)
    assert await house.audit() == {}


async def test_orders_of_a_member_who_is_being_merged_leave_the_merged_account_alone(house: House) -> None:
    """Once the survivor's account is locked: who waits for the one must not have the other."""
    survivor, alias = new_id(), new_id()
    await house.grant(survivor, 1)
    refunded = await house.pay(alias, 3_500)
    paid = replace(refunded, order_id=new_id())

    async def work(connection: Connection) -> None:
        await house.posting.post(connection, house.call(), [paid, house.refund_of(refunded, ("0", 1, 0))])
        other = await house.database.lane()
        async with other.transaction(house.tenant_id) as driver:
            await driver.execute(
                "SELECT FROM accounts WHERE tenant_id = $1::uuid AND member_id = $2::uuid FOR UPDATE NOWAIT",
                house.tenant_id,
                alias,
            )
        await other.close()

    async with merging(house, survivor, alias):
        await house.database.run(house.tenant_id, work)
    assert await house.balance(survivor) == (36, 0, 0, 0)
    assert await house.audit() == {}


async def test_a_merged_member_has_the_survivors_points_in_a_younger_currency_as_well(house: House) -> None:
    survivor, alias = new_id(), new_id()
    await house.merge(survivor, alias)
    await house.publish(replace(PROGRAMME, point_currency="stars"))
    for member in (survivor, alias):
        await house.grant(member, 10, point_currency="stars")
        balance = await house.points.balance(house.call(), member_id=alias, point_currency="stars")
        assert balance.available_points == (10 if member == survivor else 20)
    assert await house.audit() == {}
