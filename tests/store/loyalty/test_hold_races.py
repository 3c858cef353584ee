"""A hold that is made while its own resolution is on its way, or the reverse: who comes second finds the first."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import cast

import pytest

from services.loyalty.domain.points import Hold, HoldState, RequestIdReused
from services.loyalty.domain.requests import ResolveAsked
from services.loyalty.store import ledger
from services.runtime.database import Connection, Lane, raw
from services.runtime.errors import Conflict, DomainError, Missing, Refused
from services.runtime.ids import new_id
from tests.store.loyalty.conftest import House


class _Undone(Exception):
    """Nothing of the transaction stays."""


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


async def resolved_in(house: House, connection: Connection, asked: ResolveAsked) -> Hold | DomainError:
    """The verdict of one that commits with the connection's transaction."""
    lane = cast("Lane", raw(connection))
    (verdict,) = await ledger.resolve(lane, house.tenant_id, [asked], machine_now=house.clock.now())
    return verdict


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
        await house.somebody_waits()
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
        await house.somebody_waits()
        return voided

    voided = await house.database.run(house.tenant_id, held)
    assert (await voided).state is HoldState.VOIDED
    assert await house.balance(member) == (100, 0, 0, 0)
    assert await house.audit() == {}


async def test_a_hold_that_waits_for_its_own_void_is_told_that_it_is_voided(house: House) -> None:
    member = new_id()
    await house.grant(member, 100)

    async def voided(connection: Connection) -> asyncio.Task[Hold]:
        verdict = await resolved_in(house, connection, house.resolve_asked("late", is_capture=False))
        assert isinstance(verdict, Hold)
        held = asyncio.create_task(house.hold(member, 60, "late"))
        await house.somebody_waits()
        return held

    held = await house.database.run(house.tenant_id, voided)
    with pytest.raises(Refused) as refused:
        await held
    assert refused.value.reason == "HOLD_VOIDED"
    assert await house.balance(member) == (100, 0, 0, 0)
    assert await house.audit() == {}


async def test_the_same_capture_of_an_unknown_hold_is_refused_alike_on_two_connections(house: House) -> None:
    request_id = new_id()

    async def refused_first(connection: Connection) -> asyncio.Task[Hold]:
        verdict = await resolved_in(house, connection, house.resolve_asked("none", request_id=request_id))
        assert isinstance(verdict, Missing)
        second = asyncio.create_task(house.resolve("none", request_id=request_id))
        await house.somebody_waits()
        return second

    second = await house.database.run(house.tenant_id, refused_first)
    with pytest.raises(Missing) as refused:
        await second
    assert refused.value.reason == "HOLD_NOT_FOUND"


async def test_a_request_id_holds_one_members_points_only(house: House) -> None:
    members, request_id = [new_id(), new_id()], new_id()
    for member in members:
        await house.grant(member, 100)

    async def held_first(connection: Connection) -> asyncio.Task[Hold]:
        asked = house.hold_asked(members[0], 60, request_id=request_id)
        (hold,) = await ledger.hold(cast("Lane", raw(connection)), house.tenant_id, [asked])
        assert isinstance(hold, Hold)
        second = asyncio.create_task(house.hold(members[1], 60, request_id=request_id, fingerprint=b"another"))
        await house.somebody_waits()
        return second

    second = await house.database.run(house.tenant_id, held_first)
    with pytest.raises(RequestIdReused):
        await second
    assert [await house.balance(member) for member in members] == [(40, 0, 60, 0), (100, 0, 0, 0)]
    assert await house.audit() == {}


async def test_a_refusal_that_is_swept_while_its_request_is_repeated_is_a_lost_race(house: House) -> None:
    members = [new_id() for _ in range(3)]
    for member in members:
        await house.grant(member, 100)
    refused, waits, follows = (house.hold_asked(member, 60, name) for member, name in zip(members, "abc", strict=True))
    lane = await house.database.lane()
    held: asyncio.Task[list[Hold | DomainError]] | None = None

    async def work(connection: Connection) -> None:
        nonlocal held
        # the batch has looked up what was answered, and waits for the name that another is taking
        await resolved_in(house, connection, house.resolve_asked("b", is_capture=False))
        held = asyncio.create_task(ledger.hold(lane, house.tenant_id, [refused, waits, follows]))
        await house.somebody_waits()
        house.clock.advance(timedelta(days=2000))
        await house.sweeper.forget()
        raise _Undone

    await house.hold(members[0], 60, "a")
    with pytest.raises(DomainError):
        await house.points.hold(house.call(), refused)
    with pytest.raises(_Undone):
        await house.database.run(house.tenant_id, work)
    assert held is not None
    with pytest.raises(Conflict):
        await held
    # its day is over, so that it is a new one by now
    again = await ledger.hold(lane, house.tenant_id, [refused, waits, follows])
    await lane.close()
    assert [verdict.reason if isinstance(verdict, DomainError) else "" for verdict in again] == ["HOLD_EXISTS", "", ""]
    assert [await house.balance(member) for member in members] == [(40, 0, 60, 0)] * 3
