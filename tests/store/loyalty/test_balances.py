"""Balances of many members in one call: what is due is settled first, and whoever is not due is only read."""

import asyncio

from services.loyalty.domain.points import Balance
from services.loyalty.domain.requests import BalanceAsked
from services.loyalty.store import ledger
from services.runtime.database import Connection, raw
from services.runtime.ids import new_id
from tests.store.loyalty.conftest import CURRENCY, House

LOCK = "SELECT FROM accounts WHERE tenant_id = $1::uuid AND member_id = $2::uuid FOR UPDATE"
ACCOUNTS = "SELECT count(*) FROM accounts WHERE tenant_id = $1::uuid"


async def balances(house: House, *members: str) -> list[Balance]:
    """What one batch tells."""
    lane = await house.database.lane()
    try:
        asked = [BalanceAsked(member_id=member, point_currency=CURRENCY, now=house.now) for member in members]
        return await ledger.balances(lane, house.tenant_id, asked)
    finally:
        await lane.close()


async def accounts(house: House) -> int:
    """How many the tenant has."""

    async def work(connection: Connection) -> int:
        count: int = await raw(connection).fetchval(ACCOUNTS, house.tenant_id)
        return count

    return await house.system.read(house.tenant_id, work)


async def test_nobody_is_locked_or_made_beside_one_whose_points_expire(house: House) -> None:
    expiring, busy, unknown = sorted(new_id() for _ in range(3))
    await house.grant(expiring, 30, expiry_class="bonus")
    await house.grant(busy, 20)
    await house.advance(days=9)

    async def with_another_locked(connection: Connection) -> list[Balance]:
        await raw(connection).execute(LOCK, house.tenant_id, busy)
        async with asyncio.timeout(5):
            return await balances(house, unknown, busy, expiring)

    told = await house.database.run(house.tenant_id, with_another_locked)
    assert [each.available_points for each in told] == [0, 20, 0]
    assert await accounts(house) == 2
    assert await house.audit() == {}


async def test_a_merged_member_has_what_is_left_of_its_survivors_points(house: House) -> None:
    """Be the account its own, or none: such a member gets none either."""
    survivor, alias, stranger, heir = (new_id() for _ in range(4))
    await house.grant(survivor, 10)
    await house.grant(alias, 30, expiry_class="bonus")
    await house.merge(survivor, alias)
    await house.merge(survivor, stranger)
    await house.merge(heir, new_id())
    made = await accounts(house)
    await house.advance(days=9)
    told = await balances(house, alias, stranger, heir, survivor)
    assert [each.available_points for each in told] == [10, 10, 0, 10]
    assert await accounts(house) == made
    assert await house.audit() == {}
