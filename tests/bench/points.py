"""The points ledger against the empty RPC and against pgbench. Every accrual is durable and has everything on:
authentication, validation, tenant, idempotency, event; the relay's work belongs to the measured time."""

import itertools
import random
from collections.abc import Awaitable, Callable
from typing import Any

from services.runtime.ids import new_id
from siyu.loyalty.v1 import points_pb2, points_pb2_grpc
from tests.bench.installation import CURRENCY, Installation
from tests.bench.rounds import Result, compare, rate, watched

CALLERS = 256
BATCH_CALLERS = 16
BATCH_ITEMS = 200
DURATION_S = 5.0
# requests made before a round begins: pgbench's cost nothing either. What a round needs beyond them is made as it goes
READY_CALLS = 30_000
READY_BATCHES = 1_500
TIMEOUT_S = 30
DUPLICATE_SHARE = 0.2
REDEEM_SHARE = 0.6

Bench = Callable[[Installation], Awaitable[Result]]
Call = Callable[[int], Awaitable[object]]


def _accrual(member_id: str, request_id: str = "") -> points_pb2.AccrueRequest:
    return points_pb2.AccrueRequest(
        request_id=request_id or new_id(), member_id=member_id, point_currency=CURRENCY, points=10, reason="bench"
    )


def _unary(here: Installation, members: list[str]) -> Call:
    accrue = _sender(here, "Accrue", points_pb2.AccrueResponse)
    return _ready(
        lambda number: _accrual(members[number * 7919 % len(members)]).SerializeToString(), accrue, READY_CALLS
    )


def _batch(here: Installation, members: list[str]) -> Call:
    accrue = _sender(here, "BatchAccrue", points_pb2.BatchAccrueResponse)

    def batch(number: int) -> bytes:
        places = range(number * BATCH_ITEMS, (number + 1) * BATCH_ITEMS)
        items = [_accrual(members[place * 7919 % len(members)]) for place in places]
        return points_pb2.BatchAccrueRequest(items=items).SerializeToString()

    async def send(request: bytes) -> object:
        reply = await accrue(request)
        refused = [verdict for verdict in reply.verdicts if verdict.refusal_reason]
        assert not refused, refused[0]
        return reply

    return _ready(batch, send, READY_BATCHES)


def _sender(here: Installation, method: str, reply: type[Any]) -> Callable[[bytes], Awaitable[Any]]:
    """Sends a request as it stands on the wire."""
    call = here.loyalty.unary_unary(f"/siyu.loyalty.v1.PointsService/{method}", response_deserializer=reply.FromString)
    return lambda request: call(request, timeout=TIMEOUT_S, metadata=here.authorization)


def _ready(make: Callable[[int], bytes], send: Callable[[bytes], Awaitable[object]], count: int) -> Call:
    """Calls of which the first `count` are made now."""
    ready = [make(number) for number in range(count)]
    ready.reverse()
    return lambda number: send(ready.pop() if ready else make(count + number))


def _echo(here: Installation, method: str, request: object) -> Call:
    call = here.echo.unary_unary(
        f"/siyu.bench.Echo/{method}",
        request_serializer=lambda it: it.SerializeToString(),
        response_deserializer=points_pb2.AccrueResponse.FromString,
    )
    return lambda _number: call(request, timeout=TIMEOUT_S, metadata=here.authorization)


async def _unary_rate(here: Installation, call: Call) -> float:
    return await rate(call, callers=CALLERS, duration_s=DURATION_S, drained=here.drained)


async def _batch_rate(here: Installation, call: Call) -> float:
    return await rate(
        call,
        callers=BATCH_CALLERS,
        duration_s=DURATION_S,
        per_call=BATCH_ITEMS,
        drained=here.drained,
    )


async def accrual_unary_vs_echo(here: Installation) -> Result:
    """A unary durable accrual against the empty RPC, 256 callers."""
    echo = _echo(here, "Accrue", _accrual(here.members[0]))
    result = await compare(
        "accrual_unary_vs_echo",
        target=0.55,
        ours=lambda: _unary_rate(here, _unary(here, here.members)),
        peer=lambda: rate(echo, callers=CALLERS, duration_s=DURATION_S),
    )
    calls_ready = _unary(here, here.members)
    with watched(here.processes()) as spent:
        calls = DURATION_S * await _unary_rate(here, calls_ready)
    result.notes.append(spent.per(calls))
    return result


async def accrual_batch_vs_pgbench(here: Installation) -> Result:
    """BatchAccrue of 200 items against pgbench's one-accrual transactions, in items."""
    result = await compare(
        "accrual_batch_vs_pgbench",
        target=3.0,
        ours=lambda: _batch_rate(here, _batch(here, here.members)),
        peer=lambda: here.pgbench.best(duration_s=DURATION_S),
    )
    batches_ready = _batch(here, here.members)
    with watched(here.processes()) as spent:
        items = DURATION_S * await _batch_rate(here, batches_ready)
    result.notes.append(spent.per(items))
    return result


async def hot_member_unary_vs_pgbench(here: Installation) -> Result:
    """One hot member by unary calls against pgbench's hot row."""
    return await compare(
        "hot_member_unary_vs_pgbench",
        target=3.0,
        ours=lambda: _unary_rate(here, _unary(here, here.members[:1])),
        peer=lambda: here.pgbench.hot(duration_s=DURATION_S),
    )


async def hot_member_batch_vs_pgbench(here: Installation) -> Result:
    """One hot member by batches against pgbench's hot row."""
    return await compare(
        "hot_member_batch_vs_pgbench",
        target=15.0,
        ours=lambda: _batch_rate(here, _batch(here, here.members[:1])),
        peer=lambda: here.pgbench.hot(duration_s=DURATION_S),
    )


async def accrual_duplicates(here: Installation) -> Result:
    """Unary accruals of which a fifth repeat a request against plain ones."""
    accrue = points_pb2_grpc.PointsServiceStub(here.loyalty).Accrue
    chance = random.Random("duplicates")
    sent: list[points_pb2.AccrueRequest] = []

    async def call(number: int) -> object:
        if sent and chance.random() < DUPLICATE_SHARE:
            request = sent[chance.randrange(len(sent))]
        else:
            request = _accrual(here.members[number * 7919 % len(here.members)])
        reply = await accrue(request, timeout=TIMEOUT_S, metadata=here.authorization)
        sent.append(request)
        return reply

    return await compare(
        "accrual_duplicates",
        target=0.75,
        ours=lambda: rate(call, callers=CALLERS, duration_s=DURATION_S, drained=here.drained),
        peer=lambda: _unary_rate(here, _unary(here, here.members)),
    )


async def accrual_redeems(here: Installation) -> Result:
    """60% holds on low balances among accruals against plain accruals; a refusal is an answer as well."""
    stub = points_pb2_grpc.PointsServiceStub(here.loyalty)
    chance = random.Random("redeems")
    few = here.members[-2_000:]
    numbers = itertools.count()

    async def call(_number: int) -> object:
        member_id = few[chance.randrange(len(few))]
        if chance.random() >= REDEEM_SHARE:
            return await stub.Accrue(_accrual(member_id), timeout=TIMEOUT_S, metadata=here.authorization)
        hold = points_pb2.HoldPointsRequest(
            request_id=new_id(),
            hold_id=f"bench-{next(numbers)}",
            member_id=member_id,
            point_currency=CURRENCY,
            points=8,
        )
        try:
            return await stub.HoldPoints(hold, timeout=TIMEOUT_S, metadata=here.authorization)
        except Exception as error:
            if "INSUFFICIENT_POINTS" not in str(error.trailing_metadata()):  # type: ignore[attr-defined]
                raise
            return None

    return await compare(
        "accrual_redeems",
        target=0.75,
        ours=lambda: rate(call, callers=CALLERS, duration_s=DURATION_S, drained=here.drained),
        peer=lambda: _unary_rate(here, _unary(here, few)),
    )


async def balance_vs_echo(here: Installation) -> Result:
    """A balance read, from the books, against the empty RPC."""
    read = points_pb2_grpc.PointsServiceStub(here.loyalty).GetBalance
    requests = [
        points_pb2.GetBalanceRequest(member_id=member_id, point_currency=CURRENCY)
        for member_id in here.members[:10_000]
    ]
    echo = _echo(here, "GetBalance", requests[0])
    return await compare(
        "balance_vs_echo",
        target=0.6,
        ours=lambda: rate(
            lambda number: read(
                requests[number * 7919 % len(requests)], timeout=TIMEOUT_S, metadata=here.authorization
            ),
            callers=CALLERS,
            duration_s=DURATION_S,
        ),
        peer=lambda: rate(echo, callers=CALLERS, duration_s=DURATION_S),
    )


BENCHES: tuple[Bench, ...] = (
    accrual_unary_vs_echo,
    accrual_batch_vs_pgbench,
    hot_member_unary_vs_pgbench,
    hot_member_batch_vs_pgbench,
    accrual_duplicates,
    accrual_redeems,
    balance_vs_echo,
)
