"""A request id that grants to different members in two transactions at once: the first to commit has it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any, cast

import pytest

from services.loyalty.domain.grants import GrantsAsked
from services.loyalty.domain.points import Accrued, RequestIdReused
from services.loyalty.store.grants import GrantLedger, refuse
from services.runtime.database import Connection, Lane, raw
from services.runtime.errors import Conflict, DomainError
from services.runtime.ids import new_id
from tests.store.loyalty.conftest import NOON, House, grant

Verdicts = Sequence[Accrued | DomainError]


async def post(house: House, lane: Lane, asked: Sequence[GrantsAsked]) -> Verdicts:
    """The grants' verdicts, in one statement of the lane."""
    (granted,) = await GrantLedger(1).post(lane, house.tenant_id, [await house.ready(asked)])
    return granted.verdicts()


async def after(house: House, first: GrantsAsked, posting: Callable[[], Awaitable[Any]]) -> asyncio.Future[Any]:
    """Who posts while the first is posted and not committed, and has waited for it when this returns."""

    async def work(connection: Connection) -> asyncio.Future[Any]:
        (verdict,) = await post(house, cast("Lane", raw(connection)), [first])
        assert isinstance(verdict, Accrued)
        waiting = asyncio.ensure_future(posting())
        await house.somebody_waits()
        return waiting

    return await house.database.run(house.tenant_id, work)


@pytest.mark.parametrize(
    "told",
    [
        pytest.param({}, id="looked up after it was written"),
        pytest.param(
            {"expiry_class": "bonus", "occurred_at": NOON - timedelta(days=30)},
            id="looked up before it is written, as it has expired already",
        ),
    ],
)
async def test_a_request_id_grants_to_one_member_only(house: House, told: dict[str, Any]) -> None:
    first, second, request_id = new_id(), new_id(), new_id()
    another = grant(second, 5, request_id=request_id, fingerprint=b"another", **told)
    waiting = await after(
        house, grant(first, 10, request_id=request_id), lambda: house.points.accrue(house.call(), another)
    )
    with pytest.raises(RequestIdReused):
        await waiting
    assert await house.balance(first) == (10, 0, 0, 0)
    assert await house.balance(second) == (0, 0, 0, 0)
    assert await house.audit() == {}


async def test_a_batch_that_looked_too_early_is_told_to_run_again(house: House) -> None:
    """Not halved, as if one of its grants were wrong."""
    first, second, request_id = new_id(), new_id(), new_id()
    lane = await house.database.lane()
    # two of a member are looked up before they are written
    batch = [grant(second, 5, request_id=request_id, fingerprint=b"another"), grant(second, 7)]
    waiting = await after(house, grant(first, 10, request_id=request_id), lambda: post(house, lane, batch))
    with pytest.raises(Conflict):
        await waiting
    reused, accrued = await post(house, lane, batch)
    await lane.close()
    assert isinstance(reused, RequestIdReused)
    assert isinstance(accrued, Accrued)
    assert await house.balance(second) == (7, 0, 0, 0)
    assert await house.audit() == {}


class _Undone(Exception):
    """Nothing of the transaction stays."""


async def test_a_refusal_that_is_swept_while_its_request_is_repeated_is_a_lost_race(house: House) -> None:
    first, second, third = new_id(), new_id(), new_id()
    swept, waits, follows = (grant(member, points) for member, points in ((first, 1), (second, 5), (third, 7)))
    waiting: asyncio.Future[Any] | None = None
    lane = await house.database.lane()

    async def work(connection: Connection) -> None:
        nonlocal waiting
        # the batch has looked up what was answered, and waits to write a request that another is writing
        await post(house, cast("Lane", raw(connection)), [grant(new_id(), 1, request_id=waits.request_ids[0])])
        waiting = asyncio.ensure_future(post(house, lane, [swept, waits, follows]))
        await house.somebody_waits()
        house.clock.advance(timedelta(days=2000))
        await house.sweeper.forget()
        raise _Undone

    async def refused(connection: Connection) -> None:
        await refuse(connection, house.tenant_id, "till-1", swept, ["EXPIRY_CLASS_NOT_FOUND"])

    await house.database.run(house.tenant_id, refused)
    with pytest.raises(_Undone):
        await house.database.run(house.tenant_id, work)
    assert waiting is not None
    with pytest.raises(Conflict):
        await waiting
    # its day is over, so that it is a new one by now
    verdicts = await post(house, lane, [swept, waits, follows])
    await lane.close()
    assert [verdict.available_points for verdict in verdicts if isinstance(verdict, Accrued)] == [1, 5, 7]
    assert await house.audit() == {}
