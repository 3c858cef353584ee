"""A request id answers the same for ever."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import text

from services.runtime.call import Call
from services.runtime.database import EVERY_TENANT, Connection, Database, raw
from services.runtime.errors import AlreadyExists, DomainError, Invalid, Missing, Refused, Unavailable
from services.runtime.idempotency import Once, fingerprint, forget_expired
from services.runtime.ids import new_id
from tests.store.runtime.conftest import call_of

Work = Callable[[Connection], Awaitable[str]]


class InsufficientPoints(Refused):
    """A named refusal, as a service has them."""

    reason = "INSUFFICIENT_POINTS"


def once(call: Call, request_id: str = "r-1", *, body: bytes = b"100 points", keep_refusals: bool = True) -> Once[str]:
    return Once(
        call=call,
        family="points.hold",
        request_id=request_id,
        fingerprint=fingerprint(body),
        encode=str.encode,
        keep_refusals=keep_refusals,
    )


def counting(
    reply: str = "done", *, refusal: DomainError | None = None, pause_s: float = 0.0
) -> tuple[Work, list[str]]:
    """Work with an effect, and the list of its runs."""
    runs: list[str] = []

    async def work(connection: Connection) -> str:
        runs.append(reply)
        await connection.execute(
            text(
                "INSERT INTO effects (tenant_id, name) VALUES (current_setting('siyu.tenant')::uuid, 'e')"
                " ON CONFLICT ON CONSTRAINT effects_key DO UPDATE SET times = effects.times + 1"
            )
        )
        await asyncio.sleep(pause_s)
        if refusal is not None:
            raise refusal
        return reply

    return work, runs


async def effects(database: Database, tenant_id: str) -> int:
    async def count(connection: Connection) -> int:
        total = (await connection.execute(text("SELECT sum(times) FROM effects"))).scalar_one_or_none()
        return total or 0

    return await database.read(tenant_id, count)


async def test_the_same_body_gets_the_first_reply(app: Database, tenant_id: str) -> None:
    call = call_of(tenant_id)
    first, _ = counting("first")
    second, second_runs = counting("second")
    assert await once(call).run(app, first) == b"first"
    assert await once(call).run(app, second) == b"first"
    assert second_runs == []
    assert await effects(app, tenant_id) == 1


async def test_another_body_is_refused(app: Database, tenant_id: str) -> None:
    call = call_of(tenant_id)
    work, runs = counting()
    await once(call).run(app, work)
    with pytest.raises(AlreadyExists) as refused:
        await once(call, body=b"200 points").run(app, work)
    assert refused.value.reason == "REQUEST_ID_REUSED"
    assert len(runs) == 1
    assert await once(call).run(app, work) == b"done"


@pytest.mark.parametrize("other", ["tenant", "client", "family"])
async def test_an_id_is_the_tenants_the_clients_and_the_familys(app: Database, tenant_id: str, other: str) -> None:
    work, runs = counting()
    await once(call_of(tenant_id)).run(app, work)
    call = call_of(new_id() if other == "tenant" else tenant_id, client_id="till-2" if other == "client" else "till-1")
    family = "points.capture" if other == "family" else "points.hold"
    again = Once[str](call=call, family=family, request_id="r-1", fingerprint=b"another", encode=str.encode)
    assert await again.run(app, work) == b"done"
    assert len(runs) == 2


async def test_of_concurrent_duplicates_one_works_and_all_get_its_reply(app: Database, tenant_id: str) -> None:
    call = call_of(tenant_id)
    works = [counting(f"reply {number}", pause_s=0.05) for number in range(5)]
    replies = await asyncio.gather(*(once(call).run(app, work) for work, _ in works))
    assert len(set(replies)) == 1
    assert sum(len(runs) for _, runs in works) == 1
    assert await effects(app, tenant_id) == 1


async def test_a_business_refusal_is_kept_and_leaves_no_effect(app: Database, tenant_id: str) -> None:
    call = call_of(tenant_id)
    refusing, _ = counting(
        refusal=InsufficientPoints("12 points are missing", subject="member/1", metadata={"missing_points": "12"})
    )
    with pytest.raises(InsufficientPoints):
        await once(call).run(app, refusing)
    assert await effects(app, tenant_id) == 0
    now_it_would_work, runs = counting()
    with pytest.raises(Refused) as again:
        await once(call).run(app, now_it_would_work)
    assert runs == []
    assert (again.value.reason, again.value.message, again.value.subject, again.value.metadata) == (
        "INSUFFICIENT_POINTS",
        "12 points are missing",
        "member/1",
        {"missing_points": "12"},
    )
    assert await once(call, "r-2").run(app, now_it_would_work) == b"done"


async def test_a_missing_thing_is_kept_with_its_name(app: Database, tenant_id: str) -> None:
    call = call_of(tenant_id)
    work, _ = counting(refusal=Missing(kind="order line", name="o-7"))
    for _attempt in range(2):
        with pytest.raises(Missing) as refused:
            await once(call).run(app, work)
        assert (refused.value.kind, refused.value.name) == ("order line", "o-7")
        assert refused.value.reason == "ORDER_LINE_NOT_FOUND"


async def test_a_kept_refusal_is_forgotten_after_24_hours(app: Database, system: Database, tenant_id: str) -> None:
    call = call_of(tenant_id)
    refusing, _ = counting(refusal=InsufficientPoints("no"))
    for request_id in ("r-1", "r-2"):
        with pytest.raises(InsufficientPoints):
            await once(call, request_id).run(app, refusing)
    work, _ = counting()
    await once(call, "r-3").run(app, work)

    async def a_day_later(connection: Connection) -> None:
        await raw(connection).execute("UPDATE requests SET expires_at = expires_at - interval '24 hours'")

    await system.run(EVERY_TENANT, a_day_later)
    assert await once(call, "r-1").run(app, work) == b"done"
    # r-2 goes; r-1 was taken over by a reply and r-3 always was one
    assert await system.run(EVERY_TENANT, forget_expired) == 1
    assert await once(call, "r-1").run(app, work) == b"done"
    assert await effects(app, tenant_id) == 2


@pytest.mark.parametrize(
    ("refusal", "keep_refusals"),
    [
        pytest.param(Invalid("not a number", field="points"), True, id="malformed"),
        pytest.param(Unavailable("the database is away"), True, id="unlucky"),
        pytest.param(InsufficientPoints("no"), False, id="a family that keeps none"),
    ],
)
async def test_what_is_not_kept_can_be_tried_again(
    app: Database, tenant_id: str, refusal: DomainError, keep_refusals: bool
) -> None:
    call = call_of(tenant_id)
    refusing, _ = counting(refusal=refusal)
    with pytest.raises(type(refusal)):
        await once(call, keep_refusals=keep_refusals).run(app, refusing)
    work, _ = counting()
    assert await once(call, keep_refusals=keep_refusals).run(app, work) == b"done"
    assert await effects(app, tenant_id) == 1


async def test_a_bug_stores_nothing(app: Database, tenant_id: str) -> None:
    async def bug(_connection: Connection) -> str:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        await once(call_of(tenant_id)).run(app, bug)
    work, _ = counting()
    assert await once(call_of(tenant_id)).run(app, work) == b"done"


async def test_a_duplicate_that_overtakes_a_refusal_decides_for_both(app: Database, tenant_id: str) -> None:
    call = call_of(tenant_id)
    refusing, _ = counting(refusal=InsufficientPoints("no"), pause_s=0.05)
    accepting, _ = counting("yes")
    first = asyncio.create_task(once(call).run(app, refusing))
    await asyncio.sleep(0.02)
    outcomes = await asyncio.gather(first, once(call).run(app, accepting), return_exceptions=True)
    # whichever was stored first, both callers were told the same
    assert outcomes == [b"yes", b"yes"] or all(isinstance(outcome, Refused) for outcome in outcomes)
