"""Holds over Postgres: one end each, tombstones, and no overdraft."""

import asyncio
import random
from dataclasses import replace
from datetime import timedelta

import pytest

from services.loyalty.domain.points import Hold, HoldState
from services.loyalty.domain.requests import HoldAsked
from services.loyalty.servicer.points import PointsServicer
from services.loyalty.store import ledger
from services.runtime.database import Connection, raw
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


@pytest.mark.parametrize("seed", range(8))
async def test_a_batch_decides_as_its_holds_one_by_one(house: House, seed: int) -> None:
    """Several holds an account, several pools, names that are taken, repeats of before and within, and too little."""
    chance = random.Random(seed)
    twins = {new_id(): new_id() for _ in range(12)}
    for number, pair in enumerate(twins.items()):
        for member in pair:
            await _furnish(house, member, number)
    members = list(twins)
    asked = [
        house.hold_asked(
            member,
            chance.randrange(1, 40),
            f"{i}-{member}",
            request_id=f"{i}-{member}",
            is_too_old=chance.random() < 0.05,
        )
        for i, member in enumerate(chance.choices(members, k=40))
    ]
    # half of the batches have none of those that make it begin anew
    if seed % 2:
        for ask in asked[::6]:
            for each in (ask, _for_twin(ask, twins)):
                await asyncio.gather(house.points.hold(house.call(), each), return_exceptions=True)
        for ask in asked[1::9]:
            for name in (ask.hold_id, _for_twin(ask, twins).hold_id):
                await asyncio.gather(house.resolve(name, is_capture=False), return_exceptions=True)
        asked += [ask if i % 2 else replace(ask, fingerprint=b"other") for i, ask in enumerate(asked[::5])]

    lane = await house.database.lane()
    together = await ledger.hold(lane, house.tenant_id, asked)
    singly = [(await ledger.hold(lane, house.tenant_id, [_for_twin(ask, twins)]))[0] for ask in asked]
    await lane.close()

    assert [_told(verdict) for verdict in together] == [_told(verdict) for verdict in singly]
    assert len({reason for reason, *_ in map(_told, together)}) > 1
    for member, twin in twins.items():
        assert await house.balance(member) == await house.balance(twin)
        assert await _pools(house, member) == await _pools(house, twin)
    assert await house.audit() == {}
    house.clock.advance(timedelta(hours=1))
    while await house.sweeper.sweep():
        pass
    for member, twin in twins.items():
        assert await house.balance(member) == await house.balance(twin)
    assert await house.audit() == {}


async def _furnish(house: House, member_id: str, number: int) -> None:
    """Points of every kind that there is: none, in a tail, in two pools, in a pool that is no tail."""
    if number % 4:
        await house.grant(member_id, 10 * number)
    if number % 4 == 2:
        await house.grant(member_id, 15, expiry_class="bonus")
    if number % 4 == 3:
        await house.pay(member_id, 2_000)
        await house.hold(member_id, 5)


def _for_twin(ask: HoldAsked, twins: dict[str, str]) -> HoldAsked:
    twin = twins[ask.member_id]
    return replace(ask, member_id=twin, hold_id=f"twin-{ask.hold_id}", request_id=f"twin-{ask.request_id}")


def _told(verdict: Hold | DomainError) -> tuple[str, int | None]:
    """The reason of a refusal, and what is available."""
    if isinstance(verdict, DomainError):
        available = verdict.metadata.get("available_points")
        return verdict.reason, int(available) if available else None
    return "", verdict.available_points


async def _pools(house: House, member_id: str) -> list[tuple[object, ...]]:
    async def work(connection: Connection) -> list[tuple[object, ...]]:
        rows = await raw(connection).fetch(
            """
            SELECT p.class_no, p.earned_points, p.consumed_points, p.last_expires_at, p.next_expires_at, e.end_points,
                   e.account_version, e.kind, e.points, e.reason, a.account_version AS versions, a.due_at
            FROM entries e
            JOIN whole_pools p USING (tenant_id, member_id, class_no)
            JOIN accounts a ON a.tenant_id = e.tenant_id AND a.member_id = e.member_id
            WHERE e.member_id = $1::uuid
            ORDER BY e.account_version
            """,
            member_id,
        )
        return [tuple(row) for row in rows]

    return await house.database.read(house.tenant_id, work)
