"""A programme whose first version is to come: nothing is earned by it until then, and then what was before is."""

from dataclasses import replace
from datetime import timedelta

import pytest

from services.loyalty.domain.points import ProgrammeNotFound
from services.runtime.database import Connection, raw
from services.runtime.ids import new_id
from tests.store.loyalty.conftest import PROGRAMME, House, grant

STARS = "stars"


async def paid(house: House, member: str, *, burnt: int = 0) -> None:
    """An order of 20.00 at the current moment."""
    order = await house.pay(new_id(), 2_000, offline_burnt_points=burnt)
    await house.post(replace(order, order_id=new_id(), member_id=member, point_currency=STARS))


async def stars(house: House, member: str) -> tuple[int, int]:
    """(available, debt)."""
    found = await house.points.balance(house.call(), member_id=member, point_currency=STARS)
    return found.available_points, found.debt_points


async def test_orders_and_grants_follow_one_rule(house: House) -> None:
    member = new_id()
    began = house.now + timedelta(days=5)
    await house.publish(replace(PROGRAMME, point_currency=STARS), effective_at=began)
    await paid(house, member)
    with pytest.raises(ProgrammeNotFound):
        await house.points.accrue(house.call(), grant(member, 10, point_currency=STARS))
    assert await stars(house, member) == (0, 0)
    early = house.now
    await house.advance(days=6)
    await house.points.accrue(house.call(), grant(member, 10, point_currency=STARS, occurred_at=early))
    order = await house.pay(new_id(), 2_000)
    await house.post(replace(order, order_id=new_id(), member_id=member, point_currency=STARS, occurred_at=early))
    assert await stars(house, member) == (30, 0)
    assert await house.audit() == {}


async def test_what_a_till_burnt_before_is_booked(house: House) -> None:
    """A fact is never refused: an error would park all that follows of the brand."""
    member = new_id()
    await house.publish(replace(PROGRAMME, point_currency=STARS), effective_at=house.now + timedelta(days=5))
    await paid(house, member, burnt=30)
    assert await stars(house, member) == (0, 30)
    assert await house.audit() == {}


async def test_a_clock_that_is_behind_takes_nothing_from_an_order(house: House) -> None:
    """A test clock is told to the workers by an event, which may come after a sale's."""
    member = new_id()
    began = house.now + timedelta(days=5)
    await house.publish(replace(PROGRAMME, point_currency=STARS), effective_at=began)
    order = await house.pay(new_id(), 2_000)
    await house.post(replace(order, order_id=new_id(), member_id=member, point_currency=STARS, occurred_at=began))
    assert (await stars(house, member))[0] == 20
    assert await house.audit() == {}


async def test_the_grace_of_what_came_back_before_is_the_first_versions(house: House) -> None:
    await house.publish(replace(PROGRAMME, point_currency=STARS, grace_days=7), effective_at=house.now)

    async def rule(connection: Connection) -> str:
        found: str = await raw(connection).fetchval(
            "SELECT rule FROM grace($1::uuid, $2, $3)", house.tenant_id, STARS, house.now - timedelta(days=1)
        )
        return found

    assert await house.system.read(house.tenant_id, rule) == "days:7"
