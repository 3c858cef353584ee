"""Point currencies: a name that no programme has is told as such, and not as no points."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from services.loyalty.domain.points import ProgrammeNotFound
from services.runtime.ids import new_id
from tests.store.loyalty.conftest import PROGRAMME, House

STARS = "stars"


def balance(house: House) -> Awaitable[Any]:
    """Of a member who never had any."""
    return house.points.balance(house.call(), member_id=new_id(), point_currency=STARS)


def history(house: House) -> Awaitable[Any]:
    """Of such a member."""
    return house.points.entries(house.call(), member_id=new_id(), point_currency=STARS, size=10, after=None)


def hold(house: House) -> Awaitable[Any]:
    """Of such a member's points."""
    return house.points.hold(house.call(), house.hold_asked(new_id(), 5, point_currency=STARS))


@pytest.mark.parametrize("ask", [balance, history, hold])
async def test_a_currency_that_no_programme_has_is_refused(
    house: House, ask: Callable[[House], Awaitable[Any]]
) -> None:
    """Until one has it, be it one that is still to come into force."""
    with pytest.raises(ProgrammeNotFound):
        await ask(house)
    assert await house.audit() == {}


async def test_a_programme_that_is_to_come_has_its_currency_already(house: House) -> None:
    """Its members have nothing yet."""
    await house.publish(replace(PROGRAMME, point_currency=STARS), effective_at=house.now + timedelta(days=5))
    assert (await balance(house)).available_points == 0
    assert await history(house) == ([], None)
