"""A hold that is made while its own resolution is on its way: the resolution finds it, and its account in order."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import cast

from services.loyalty.domain.points import Hold, HoldState
from services.loyalty.store import ledger
from services.runtime.database import EVERY_TENANT, Connection, Lane, raw
from services.runtime.ids import new_id
from tests.store.loyalty.conftest import House


@asynccontextmanager
async def locked(house: House, member_id: str) -> AsyncIterator[None]:
    """The member's account is locked by somebody else until the block ends."""
    has_it, ended = asyncio.Event(), asyncio.Event()

    async def work(connection: Connection) -> None:
        await raw(connection).execute(
            "SELECT FROM accounts WHERE tenant_id = $1::uuid AND member_id = $2::uuid FOR UPDATE",
            house.tenant_id,
            member_id,
        )
        has_it.set()
        await ended.wait()

    holding = asyncio.create_task(house.database.run(house.tenant_id, work))
    await has_it.wait()
    try:
        yield
    finally:
        ended.set()
        await holding


async def somebody_waits(house: House) -> None:
    """Returns when a connection of this database waits for a row."""

    async def waits(connection: Connection) -> bool:
        found: bool = await raw(connection).fetchval(
            "SELECT EXISTS (SELECT FROM pg_locks JOIN pg_stat_activity USING (pid)"
            " WHERE NOT granted AND datname = current_database())"
        )
        return found

    async with asyncio.timeout(5):
        while not await house.system.read(EVERY_TENANT, waits):
            await asyncio.sleep(0.01)


async def test_what_is_due_is_posted_before_a_hold_that_was_made_meanwhile_ends(house: House) -> None:
    early, late = new_id(), new_id()
    await house.grant(early, 10)
    await house.hold(early, 10, "early")
    await house.grant(late, 100)
    async with locked(house, early):
        # a year and more later: what is left of the other's points has expired, and is not given back to
        after = house.now + timedelta(days=400)
        resolved = asyncio.gather(house.resolve("early", now=after), house.resolve("late", is_capture=False, now=after))
        # it has looked which holds there are, and waits for the first one's account
        await somebody_waits(house)
        await house.hold(late, 60, "late")
    assert [hold.state for hold in await resolved] == [HoldState.CAPTURED, HoldState.VOIDED]
    house.now = after
    assert await house.balance(late) == (60, 0, 0, 0)
    assert await house.audit() == {}


async def test_a_void_that_waits_for_its_own_hold_voids_it(house: House) -> None:
    member = new_id()
    await house.grant(member, 100)

    async def held(connection: Connection) -> asyncio.Task[Hold]:
        driver = cast("Lane", raw(connection))
        (hold,) = await ledger.hold(driver, house.tenant_id, [house.hold_asked(member, 60, "late")])
        assert isinstance(hold, Hold)
        voided = asyncio.create_task(house.resolve("late", is_capture=False))
        await somebody_waits(house)
        return voided

    voided = await house.database.run(house.tenant_id, held)
    assert (await voided).state is HoldState.VOIDED
    assert await house.balance(member) == (100, 0, 0, 0)
    assert await house.audit() == {}
