"""The points ledger against the empty RPC and against pgbench. Every accrual is durable and has everything on:
authentication, validation, tenant, idempotency, event; the relay's work belongs to the measured time.

All are called by grpc.aio, as a backend in Python calls; but against pgbench, whose clients cost next to nothing, by
`wire`. Servers have as many processes on both sides, over which the connections are spread."""

import itertools
import random
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import grpc
from google.protobuf.message import Message

from services.runtime.ids import new_id
from siyu.loyalty.v1 import points_pb2
from tests.bench.clients import Connect, by_grpc
from tests.bench.installation import CURRENCY, Installation
from tests.bench.rounds import Result, compare, rate, watched
from tests.bench.wire import Send, connected

LOYALTY = "/siyu.loyalty.v1.PointsService/"

CALLERS = 256
# as tills have: the kernel spreads them over the processes of the api
CONNECTIONS = 16
BATCH_CALLERS = 16
BATCH_ITEMS = 200
DURATION_S = 8.0
# requests made before a round begins: pgbench's cost nothing either. What a round needs beyond them is made as it goes
READY_CALLS = 80_000
READY_BATCHES = 2_400
TIMEOUT_S = 30
DUPLICATE_SHARE = 0.2
REDEEM_SHARE = 0.6

Bench = Callable[[Installation], Awaitable[Result]]


def _accrual(member_id: str, points: int = 10) -> points_pb2.AccrueRequest:
    return points_pb2.AccrueRequest(
        request_id=new_id(), member_id=member_id, point_currency=CURRENCY, points=points, reason="bench"
    )


def _accruals(members: list[str]) -> Callable[[int], bytes]:
    """Makes the accrual of a number: what a member gets comes after all others have got theirs."""
    return lambda number: _accrual(members[number * 7919 % len(members)]).SerializeToString()


def _batches(members: list[str], *, amounts: int) -> Callable[[int], bytes]:
    """Makes the batch of a number, whose grants are of so many different amounts of points."""

    def batch(number: int) -> bytes:
        places = range(number * BATCH_ITEMS, (number + 1) * BATCH_ITEMS)
        items = [_accrual(members[place * 7919 % len(members)], 10 + place % amounts) for place in places]
        return points_pb2.BatchAccrueRequest(items=items).SerializeToString()

    return batch


def _ready(make: Callable[[int], bytes], count: int) -> Callable[[], bytes]:
    """Gives one request after the other, of which the first `count` are made now."""
    ready = [make(number) for number in range(count)]
    ready.reverse()
    later = itertools.count(count)
    return lambda: ready.pop() if ready else make(next(later))


def _sends(
    here: Installation, path: str, *, at: str = "", connect: Connect = connected, connections: int = CONNECTIONS
) -> AbstractAsyncContextManager[Send]:
    """What sends to a method of the server at an address, loyalty's if none is given."""
    return connect(
        at or here.stack.addresses["loyalty"],
        path,
        metadata=here.authorization,
        timeout_s=TIMEOUT_S,
        connections=connections,
    )


async def _unary_rate(here: Installation, members: list[str], *, connect: Connect = connected) -> float:
    """Plain accruals a second."""
    request = _ready(_accruals(members), READY_CALLS)
    async with _sends(here, LOYALTY + "Accrue", connect=connect) as send:

        async def call(_number: int) -> object:
            return points_pb2.AccrueResponse.FromString(await send(request()))

        return await rate(call, callers=CALLERS, duration_s=DURATION_S, drained=here.drained)


async def _batch_rate(here: Installation, members: list[str], *, amounts: int = 1) -> float:
    """Accruals a second by batches."""
    request = _ready(_batches(members, amounts=amounts), READY_BATCHES)
    async with _sends(here, LOYALTY + "BatchAccrue", connections=BATCH_CALLERS) as send:

        async def call(_number: int) -> object:
            reply = points_pb2.BatchAccrueResponse.FromString(await send(request()))
            refused = [verdict for verdict in reply.verdicts if verdict.refusal_reason]
            assert not refused, refused[0]
            return reply

        return await rate(
            call, callers=BATCH_CALLERS, duration_s=DURATION_S, per_call=BATCH_ITEMS, drained=here.drained
        )


async def _echo_rate(here: Installation, method: str, request: Message, reply: type[Message]) -> float:
    """Empty RPCs a second, with the messages of the other side."""
    sent = request.SerializeToString()
    async with _sends(here, f"/siyu.bench.Echo/{method}", at=here.echo, connect=by_grpc) as send:

        async def call(_number: int) -> object:
            return reply.FromString(await send(sent))

        return await rate(call, callers=CALLERS, duration_s=DURATION_S)


async def accrual_unary_vs_echo(here: Installation) -> Result:
    """A unary durable accrual against the empty RPC, 256 callers."""
    request = _accrual(here.members[0])
    result = await compare(
        "accrual_unary_vs_echo",
        target=0.55,
        ours=lambda: _unary_rate(here, here.members, connect=by_grpc),
        peer=lambda: _echo_rate(here, "Accrue", request, points_pb2.AccrueResponse),
    )
    with watched(here.processes()) as spent:
        calls = DURATION_S * await _unary_rate(here, here.members, connect=by_grpc)
    result.notes.append(spent.per(calls))
    return result


async def accrual_batch_vs_pgbench(here: Installation) -> Result:
    """BatchAccrue of 200 items against pgbench's one-accrual transactions, in items."""
    result = await compare(
        "accrual_batch_vs_pgbench",
        target=3.0,
        ours=lambda: _batch_rate(here, here.members),
        peer=lambda: here.pgbench.best(duration_s=DURATION_S),
    )
    with watched(here.processes()) as spent:
        items = DURATION_S * await _batch_rate(here, here.members)
    result.notes.append(spent.per(items))
    different = await _batch_rate(here, here.members, amounts=BATCH_ITEMS)
    result.notes.append(f"{different:,.0f}/s if no two grants of a batch are of as many points")
    return result


async def hot_member_unary_vs_pgbench(here: Installation) -> Result:
    """One hot member by unary calls against pgbench's hot row."""
    result = await compare(
        "hot_member_unary_vs_pgbench",
        target=3.0,
        ours=lambda: _unary_rate(here, here.members[:1]),
        peer=lambda: here.pgbench.hot(duration_s=DURATION_S),
    )
    with watched(here.processes()) as spent:
        calls = DURATION_S * await _unary_rate(here, here.members[:1])
    result.notes.append(spent.per(calls))
    return result


async def hot_member_batch_vs_pgbench(here: Installation) -> Result:
    """One hot member by batches against pgbench's hot row."""
    return await compare(
        "hot_member_batch_vs_pgbench",
        target=15.0,
        ours=lambda: _batch_rate(here, here.members[:1]),
        peer=lambda: here.pgbench.hot(duration_s=DURATION_S),
    )


async def accrual_duplicates(here: Installation) -> Result:
    """Unary accruals of which a fifth repeat a request against plain ones."""
    chance = random.Random("duplicates")
    sent: list[bytes] = []

    async def ours() -> float:
        fresh = _ready(_accruals(here.members), READY_CALLS)
        async with _sends(here, LOYALTY + "Accrue", connect=by_grpc) as send:

            async def call(_number: int) -> object:
                repeats = sent and chance.random() < DUPLICATE_SHARE
                request = sent[chance.randrange(len(sent))] if repeats else fresh()
                reply = points_pb2.AccrueResponse.FromString(await send(request))
                sent.append(request)
                return reply

            return await rate(call, callers=CALLERS, duration_s=DURATION_S, drained=here.drained)

    return await compare(
        "accrual_duplicates", target=0.75, ours=ours, peer=lambda: _unary_rate(here, here.members, connect=by_grpc)
    )


async def accrual_redeems(here: Installation) -> Result:
    """60% holds on low balances among accruals against plain accruals; a refusal is an answer as well."""
    chance = random.Random("redeems")
    few = here.members[-2_000:]
    numbers = itertools.count()

    def hold(_number: int) -> bytes:
        return points_pb2.HoldPointsRequest(
            request_id=new_id(),
            hold_id=f"bench-{next(numbers)}",
            member_id=few[chance.randrange(len(few))],
            point_currency=CURRENCY,
            points=8,
        ).SerializeToString()

    async def ours() -> float:
        accrual, held = _ready(_accruals(few), READY_CALLS), _ready(hold, READY_CALLS)
        async with (
            _sends(here, LOYALTY + "Accrue", connect=by_grpc) as accrue,
            _sends(here, LOYALTY + "HoldPoints", connect=by_grpc) as redeem,
        ):

            async def call(_number: int) -> object:
                if chance.random() >= REDEEM_SHARE:
                    return points_pb2.AccrueResponse.FromString(await accrue(accrual()))
                try:
                    return points_pb2.HoldPointsResponse.FromString(await redeem(held()))
                except grpc.aio.AioRpcError as error:
                    if "INSUFFICIENT_POINTS" not in str(error.trailing_metadata()):
                        raise
                    return None

            return await rate(call, callers=CALLERS, duration_s=DURATION_S, drained=here.drained)

    return await compare(
        "accrual_redeems", target=0.75, ours=ours, peer=lambda: _unary_rate(here, few, connect=by_grpc)
    )


async def balance_vs_echo(here: Installation) -> Result:
    """A balance read, from the books, against the empty RPC."""
    requests = [
        points_pb2.GetBalanceRequest(member_id=member_id, point_currency=CURRENCY)
        for member_id in here.members[:10_000]
    ]
    sent = [request.SerializeToString() for request in requests]

    async def ours() -> float:
        async with _sends(here, LOYALTY + "GetBalance", connect=by_grpc) as send:

            async def call(number: int) -> object:
                return points_pb2.GetBalanceResponse.FromString(await send(sent[number * 7919 % len(sent)]))

            return await rate(call, callers=CALLERS, duration_s=DURATION_S)

    return await compare(
        "balance_vs_echo",
        target=0.6,
        ours=ours,
        peer=lambda: _echo_rate(here, "GetBalance", requests[0], points_pb2.GetBalanceResponse),
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
