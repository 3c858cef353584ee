"""Accounts are locked by member, survivors in the place of those merged into them: no two callers deadlock."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from services.loyalty.domain.grants import GrantsAsked
from services.loyalty.store import ledger
from services.loyalty.store.grants import GrantLedger
from services.loyalty.usecases.members import MergedMembers
from services.runtime.database import Connection, Lane, raw
from services.runtime.ids import new_id
from tests.store.loyalty.conftest import CURRENCY, House, grant

LOCK = "SELECT FROM accounts WHERE tenant_id = $1::uuid AND member_id = $2::uuid FOR UPDATE"
LOCK_ORDER = "SELECT FROM orders WHERE tenant_id = $1::uuid AND order_id = $2::uuid FOR UPDATE NOWAIT"
# or wait for who has it or makes it
MAKE = """
    INSERT INTO accounts AS a (tenant_id, member_id, point_currency) VALUES ($1::uuid, $2::uuid, $3)
    ON CONFLICT (tenant_id, member_id, point_currency) DO UPDATE SET account_version = a.account_version
"""


async def whoever_waits_for_the_first_has_no_other(
    house: House, members: Sequence[str], posting: Callable[[Lane], Awaitable[Any]]
) -> None:
    """Asserts that none of the others is locked or being made while the first of the members is waited for."""
    lane = await house.database.lane()

    async def work(connection: Connection) -> asyncio.Future[Any]:
        await raw(connection).execute(LOCK, house.tenant_id, members[0])
        posted = asyncio.ensure_future(posting(lane))
        await house.somebody_waits()
        await raw(connection).execute("SET LOCAL lock_timeout = '100ms'")
        for member in members[1:]:
            try:
                await raw(connection).execute(MAKE, house.tenant_id, member, CURRENCY)
            except asyncpg.LockNotAvailableError:
                pytest.fail("another account is locked while the first is waited for")
        return posted

    await (await house.database.run(house.tenant_id, work))
    await lane.close()


async def _accrue(house: House, lane: Lane, asked: Sequence[GrantsAsked]) -> None:
    await GrantLedger(1).post(lane, house.tenant_id, [await house.ready(asked)])


async def _grant_one_each(house: House, lane: Lane, members: Sequence[str]) -> None:
    await _accrue(house, lane, [grant(member, 10) for member in members])


async def _grant_two_each(house: House, lane: Lane, members: Sequence[str]) -> None:
    await _accrue(house, lane, [grant(member, 5) for member in members for _ in range(2)])


async def _hold(house: House, lane: Lane, members: Sequence[str]) -> None:
    await ledger.hold(lane, house.tenant_id, [house.hold_asked(member, 10) for member in members])


@pytest.mark.parametrize(
    ("posting", "points"),
    [
        pytest.param(_grant_one_each, 20, id="grants at once"),
        pytest.param(_grant_two_each, 20, id="grants after a look"),
        pytest.param(_hold, -20, id="holds"),
    ],
)
async def test_a_survivor_is_locked_in_its_own_place(
    house: House, posting: Callable[[House, Lane, Sequence[str]], Awaitable[None]], points: int
) -> None:
    survivor, middle, alias = sorted(new_id() for _ in range(3))
    for member in (survivor, middle, alias):
        await house.grant(member, 100)
    await house.merge(survivor, alias)
    await whoever_waits_for_the_first_has_no_other(
        house, (survivor, middle), lambda lane: posting(house, lane, (middle, alias))
    )
    left = [(await house.balance(member))[0] for member in (survivor, middle)]
    assert left == [200 + points // 2, 100 + points // 2]
    assert await house.audit() == {}


async def test_an_account_is_made_in_its_own_place(house: House) -> None:
    """Who makes the second of two accounts waits for the first one's lock before."""
    members = sorted([new_id(), new_id()])
    await house.grant(members[0], 1)
    await whoever_waits_for_the_first_has_no_other(
        house,
        members,
        lambda lane: lane.execute(
            "SELECT set_config('siyu.tenant', $1, true), open_accounts($1::uuid, $2::uuid[], $3)",
            house.tenant_id,
            members,
            [CURRENCY] * 2,
        ),
    )


async def test_merges_of_one_batch_lock_in_one_order(house: House) -> None:
    members = sorted(new_id() for _ in range(4))
    for member in members:
        await house.grant(member, 10)
    call = house.call(client_id="loyalty.members")
    merges = [
        MergedMembers(merge_id=new_id(), member_id=survivor, alias_id=alias)
        for survivor, alias in (members[2:], members[:2])
    ]

    async def follow(_lane: Lane) -> None:
        await house.database.run(house.tenant_id, lambda connection: house.following.follow(connection, call, merges))

    await whoever_waits_for_the_first_has_no_other(house, members, follow)
    assert [await house.balance(member) for member in members] == [(20, 0, 0, 0)] * 4
    assert await house.audit() == {}


async def test_a_merge_makes_no_account_before_it_has_the_survivors(house: House) -> None:
    survivor, alias = sorted([new_id(), new_id()])
    await house.grant(survivor, 10)
    await whoever_waits_for_the_first_has_no_other(house, (survivor, alias), lambda _lane: house.merge(survivor, alias))
    await house.grant(alias, 5)
    assert await house.balance(survivor) == await house.balance(alias) == (15, 0, 0, 0)
    assert await house.audit() == {}


async def test_the_sweeper_ends_holds_in_one_order(house: House) -> None:
    """Whichever of them ran out first."""
    members = sorted([new_id(), new_id()])
    for member, minutes in zip(members, (10, 5), strict=True):
        await house.grant(member, 100)
        await house.hold(member, 60, expires_at=house.clock.now() + timedelta(minutes=minutes))
    house.clock.advance(timedelta(minutes=15))
    await whoever_waits_for_the_first_has_no_other(house, members, lambda _lane: house.sweeper.sweep())
    assert [await house.balance(member) for member in members] == [(100, 0, 0, 0)] * 2
    assert await house.audit() == {}


async def test_an_order_is_locked_behind_its_account(house: House) -> None:
    """A batch that has the account comes to the order later: a refund that had the order first would deadlock it."""
    member = new_id()
    order = await house.pay(member, 10_000)

    async def work(connection: Connection) -> asyncio.Future[Any]:
        await raw(connection).execute(LOCK, house.tenant_id, member)
        refunded = asyncio.ensure_future(house.refund(order, ("0", 1, 0)))
        await house.somebody_waits()
        try:
            await raw(connection).execute(LOCK_ORDER, house.tenant_id, order.order_id)
        except asyncpg.LockNotAvailableError:
            pytest.fail("the order is locked while its account is waited for")
        return refunded

    await (await house.database.run(house.tenant_id, work))
    assert await house.balance(member) == (0, 0, 0, 0)
    assert await house.audit() == {}
