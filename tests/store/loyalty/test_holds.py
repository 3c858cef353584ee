"""Holds over Postgres: one end each, tombstones, and no overdraft."""

import asyncio
from datetime import timedelta

import pytest

from services.loyalty.domain.points import HoldState
from services.loyalty.servicer.points import PointsServicer
from services.runtime.errors import DomainError, Invalid
from services.runtime.ids import new_id
from siyu.loyalty.v1 import points_pb2
from tests.store.loyalty.conftest import CURRENCY, House


async def test_a_hold_is_resolved_once(house: House) -> None:
    """Held points are neither available nor spent; a second resolution is refused by its name."""
    member = new_id()
    await house.grant(member, 100)
    held = await house.hold(member, 60, "h1")
    assert (held.state, held.available_points) == (HoldState.HELD, 40)
    assert await house.balance(member) == (40, 0, 60, 0)
    captured = await house.resolve("h1", points=50)
    assert (captured.state, captured.held_points, captured.captured_points) == (HoldState.CAPTURED, 60, 50)
    assert await house.balance(member) == (50, 0, 0, 0)
    with pytest.raises(DomainError) as refused:
        await house.resolve("h1", is_capture=False)
    assert refused.value.reason == "HOLD_CAPTURED"
    assert await house.audit() == {}


async def test_a_name_that_is_taken_is_told_before_what_is_left(house: House) -> None:
    """Whoever comes second for a hold's name learns that it is taken, one after the other and at once."""
    member = new_id()
    await house.grant(member, 100)
    await house.hold(member, 60, "h1")
    with pytest.raises(DomainError) as refused:
        await house.hold(member, 60, "h1")
    assert refused.value.reason == "HOLD_EXISTS"

    await house.grant(member, 20)
    verdicts = await asyncio.gather(*(house.hold(member, 60, "h2") for _ in range(20)), return_exceptions=True)
    refusals = [verdict.reason for verdict in verdicts if isinstance(verdict, DomainError)]
    assert refusals == ["HOLD_EXISTS"] * 19
    assert await house.balance(member) == (0, 0, 120, 0)
    assert await house.audit() == {}


async def test_a_hold_is_not_issued_in_the_future(house: House) -> None:
    """One from the year 2199 would never be too old, and pass once its void is forgotten."""
    await house.grant(member := new_id(), 100)
    servicer = PointsServicer(desk=house.points, clock=house.clock)

    async def held(ahead: timedelta) -> int:
        request = points_pb2.HoldPointsRequest(
            request_id=new_id(), hold_id=new_id(), member_id=member, point_currency=CURRENCY, points=10
        )
        request.issued_at.FromDatetime(house.clock.now() + ahead)
        return (await servicer.hold_points(request, house.call())).available_points

    assert await held(timedelta(days=1)) == 90
    with pytest.raises(Invalid) as refused:
        await held(timedelta(days=1, seconds=1))
    assert [field for field, _ in refused.value.violations] == ["issued_at"]


async def test_a_refusal_is_told_again(house: House) -> None:
    """A delayed duplicate can't succeed after the caller was told no."""
    member = new_id()
    for _ in range(2):
        with pytest.raises(DomainError) as refused:
            await house.hold(member, 60, "h1", request_id="r1")
        assert (refused.value.reason, refused.value.metadata) == ("INSUFFICIENT_POINTS", {"available_points": "0"})
        await house.grant(member, 100)
    house.clock.advance(timedelta(days=2000))
    await house.sweeper.forget()
    held = await house.hold(member, 60, "h1", request_id="r1")
    assert held.available_points == 140


async def test_a_void_before_its_hold_leaves_a_tombstone(house: House) -> None:
    """The late hold is refused; so is one that was issued before tombstones were dropped."""
    member = new_id()
    await house.grant(member, 100)
    assert (await house.resolve("h1", is_capture=False)).state is HoldState.TOMBSTONE
    with pytest.raises(DomainError) as refused:
        await house.hold(member, 60, "h1")
    assert refused.value.reason == "HOLD_VOIDED"
    with pytest.raises(DomainError) as refused:
        await house.hold(member, 60, "h2", is_too_old=True)
    assert refused.value.reason == "HOLD_TOO_OLD"
    with pytest.raises(DomainError) as refused:
        await house.resolve("h3")
    assert refused.value.reason == "HOLD_NOT_FOUND"


async def test_a_hold_expires_by_itself(house: House) -> None:
    """Swept or not, a hold past its time to live is no more."""
    member = new_id()
    await house.grant(member, 100)
    await house.hold(member, 60, "swept")
    await house.hold(member, 20, "late")
    house.clock.advance(timedelta(hours=1))
    with pytest.raises(DomainError) as refused:
        await house.resolve("late")
    assert refused.value.reason == "HOLD_EXPIRED"
    assert await house.balance(member) == (40, 0, 60, 0)
    assert "loyalty.no_hold_is_overdue" in await house.audit()
    assert await house.sweeper.sweep() == 1
    assert await house.balance(member) == (100, 0, 0, 0)
    assert await house.audit() == {}


async def test_two_lanes_never_overdraw(house: House) -> None:
    """100 parallel holds on points for 10 give exactly 10."""
    member = new_id()
    await house.grant(member, 100)
    results = await asyncio.gather(*(house.hold(member, 10) for _ in range(100)), return_exceptions=True)
    assert sum(not isinstance(result, DomainError) for result in results) == 10
    assert await house.balance(member) == (0, 0, 100, 0)
    assert await house.audit() == {}
