"""The adapter between gRPC and servicers, over a real connection: rules, refusals, deadlines, drain, streams."""

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from services.runtime.auth import LEEWAY_S, TokenVerifier
from services.runtime.call import ActorKind, Call
from services.runtime.channels import Channels
from services.runtime.clock import FixedClock
from services.runtime.errors import DomainError, Exhausted, Invalid, Missing, NotAllowed, Refused, Unauthenticated
from services.runtime.ids import new_id
from services.runtime.server import GrpcServer, Mounted
from services.runtime.settings import Settings
from siyu.commerce.v1 import order_pb2, order_pb2_grpc
from siyu.common.v1 import rule_pb2
from siyu.identity.v1 import client_pb2
from siyu.loyalty.v1 import points_pb2, points_pb2_grpc

TENANT = new_id()
MEMBER = new_id()
TEST_CLOCK_AT = datetime(2017, 3, 6, tzinfo=UTC)
KEY = ec.generate_private_key(ec.SECP256R1())


def _b64(number: int) -> str:
    return base64.urlsafe_b64encode(number.to_bytes(32, "big")).rstrip(b"=").decode()


def jwk(key: ec.EllipticCurvePrivateKey, key_id: str) -> dict[str, str]:
    public = key.public_key().public_numbers()
    return {"kty": "EC", "crv": "P-256", "x": _b64(public.x), "y": _b64(public.y), "kid": key_id, "alg": "ES256"}


def token(key: ec.EllipticCurvePrivateKey = KEY, *, lives_s: float = 600, **claims: object) -> str:
    body: dict[str, object] = {
        "iss": "siyu", "aud": "siyu", "sub": "client", "tid": TENANT, "kind": "backend", "tz": "Asia/Shanghai",
        "scp": "loyalty.points.read loyalty.points.write commerce.pos.sell commerce.orders.read",
        "iat": int(time.time()), "exp": int(time.time() + lives_s),
    }  # fmt: skip
    return jwt.encode(body | claims, key, algorithm="ES256", headers={"kid": "k1"})


class Points:
    """Answers by what the member's request asks to see."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    async def get_balance(self, request: points_pb2.GetBalanceRequest, call: Call) -> points_pb2.GetBalanceResponse:
        self.calls.append(call)
        match request.point_currency:
            case "missing":
                raise Missing(kind="programme", name="missing")
            case "refused":
                raise Refused("have 3, need 5", reason="INSUFFICIENT_POINTS", metadata={"available_points": "3"})
            case "bug":
                raise ZeroDivisionError("secret detail")
            case "slow":
                await asyncio.sleep(30)
        return points_pb2.GetBalanceResponse(available_points=7)

    async def stream_accrue(
        self, requests: AsyncIterator[tuple[points_pb2.StreamAccrueRequest, Call]]
    ) -> AsyncIterator[points_pb2.StreamAccrueResponse]:
        async for request, call in requests:
            self.calls.append(call)
            yield points_pb2.StreamAccrueResponse(verdicts=[points_pb2.AccrueVerdict() for _ in request.items])

    def __getattr__(self, name: str) -> object:
        async def not_used(request: object, call: Call) -> object:
            raise AssertionError(name)

        return not_used


class Time:
    async def business_now(self, tenant_id: str) -> datetime:
        assert tenant_id == TENANT
        return TEST_CLOCK_AT


@pytest.fixture
async def served() -> AsyncIterator[SimpleNamespace]:
    async def keys() -> list[dict[str, str]]:
        return [jwk(KEY, "k1")]

    points = Points()
    server = GrpcServer("127.0.0.1:0", TokenVerifier(keys), Time())
    descriptors = points_pb2.DESCRIPTOR.services_by_name
    server.mount(
        [
            Mounted(descriptor=descriptors["PointsService"], servicer=points),
            Mounted(descriptor=client_pb2.DESCRIPTOR.services_by_name["TokenService"], servicer=Points()),
            Mounted(descriptor=order_pb2.DESCRIPTOR.services_by_name["PosService"], servicer=Points()),
        ]
    )
    port = await server.start()
    await server.ready()
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
    yield SimpleNamespace(server=server, points=points, channel=channel, port=port)
    await channel.close()
    await server.drain(drain_s=0, grace_s=0.1)


async def balance(
    served: SimpleNamespace, currency: str = "points", *, bearer: str | None = None, timeout: float = 5
) -> points_pb2.GetBalanceResponse:
    stub = points_pb2_grpc.PointsServiceStub(served.channel)
    metadata = (("authorization", f"Bearer {token() if bearer is None else bearer}"),)
    request = points_pb2.GetBalanceRequest(member_id=MEMBER, point_currency=currency)
    return await stub.GetBalance(request, timeout=timeout, metadata=metadata)


async def refusal(awaitable: object) -> tuple[grpc.StatusCode, str, error_details_pb2.ErrorInfo]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await awaitable  # type: ignore[misc]
    status = rpc_status.from_call(caught.value)
    info = error_details_pb2.ErrorInfo()
    assert status is not None
    status.details[0].Unpack(info)
    return caught.value.code(), caught.value.details(), info


async def test_a_call_reaches_its_servicer_with_tenant_actor_and_time(served: SimpleNamespace) -> None:
    reply = await balance(served)
    assert reply.available_points == 7
    call = served.points.calls[-1]
    assert (call.tenant_id, call.actor.kind, call.time_zone) == (TENANT, ActorKind.BACKEND, "Asia/Shanghai")
    assert 0 < call.remaining_s() <= 5
    assert len(call.trace_id) == 32


async def test_a_tenant_with_a_test_clock_runs_on_it(served: SimpleNamespace) -> None:
    await balance(served, bearer=token(tc=True))
    assert served.points.calls[-1].now == TEST_CLOCK_AT


@pytest.mark.parametrize(
    ("bearer", "code", "reason"),
    [
        pytest.param("", grpc.StatusCode.UNAUTHENTICATED, "TOKEN_MISSING", id="no token"),
        pytest.param("nonsense", grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INVALID", id="not a token"),
        pytest.param(token(lives_s=-60), grpc.StatusCode.UNAUTHENTICATED, "TOKEN_EXPIRED", id="expired"),
        pytest.param(
            token(ec.generate_private_key(ec.SECP256R1())),
            grpc.StatusCode.UNAUTHENTICATED,
            "TOKEN_INVALID",
            id="forged",
        ),
        pytest.param(token(aud="other"), grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INVALID", id="another audience"),
        pytest.param(token(kind="king"), grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INVALID", id="unknown kind"),
        pytest.param(token(scp="identity.read"), grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING", id="wrong scope"),
        pytest.param(token(tid=""), grpc.StatusCode.PERMISSION_DENIED, "TENANT_MISSING", id="no tenant"),
    ],
)
async def test_a_credential_that_does_not_do_is_refused(
    served: SimpleNamespace, bearer: str, code: grpc.StatusCode, reason: str
) -> None:
    got, _, info = await refusal(balance(served, bearer=bearer))
    assert (got, info.reason) == (code, reason)
    assert served.points.calls == []


async def test_bad_input_names_the_field_and_not_the_value(served: SimpleNamespace) -> None:
    stub = points_pb2_grpc.PointsServiceStub(served.channel)
    request = points_pb2.GetBalanceRequest(member_id="13800138000", point_currency="points")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.GetBalance(request, timeout=5, metadata=(("authorization", f"Bearer {token()}"),))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    bad = error_details_pb2.BadRequest()
    rpc_status.from_call(caught.value).details[1].Unpack(bad)
    assert [violation.field for violation in bad.field_violations] == ["member_id"]
    assert "13800138000" not in str(caught.value)


@pytest.mark.parametrize(
    "sent",
    [pytest.param(b"\xff\xff\xff", id="no message"), pytest.param(b"\x0a\x02\xc3\x28", id="a text that is not UTF-8")],
)
async def test_bytes_that_are_no_request_are_the_callers_fault(served: SimpleNamespace, sent: bytes) -> None:
    bearer = (("authorization", f"Bearer {token()}"),)
    unary = served.channel.unary_unary("/siyu.loyalty.v1.PointsService/GetBalance")
    code, _, info = await refusal(unary(sent, timeout=5, metadata=bearer))
    assert (code, info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST")
    stream = served.channel.stream_stream("/siyu.loyalty.v1.PointsService/StreamAccrue")(timeout=5, metadata=bearer)
    await stream.write(sent)
    code, _, info = await refusal(stream.read())
    assert (code, info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST")


async def test_refusals_keep_reason_and_metadata(served: SimpleNamespace) -> None:
    code, text, info = await refusal(balance(served, "refused"))
    assert (code, info.reason, info.metadata["available_points"]) == (
        grpc.StatusCode.FAILED_PRECONDITION, "INSUFFICIENT_POINTS", "3",
    )  # fmt: skip
    assert text == "have 3, need 5"
    code, _, info = await refusal(balance(served, "missing"))
    assert (code, info.reason) == (grpc.StatusCode.NOT_FOUND, "PROGRAMME_NOT_FOUND")


async def test_a_bug_tells_nothing_but_its_trace(served: SimpleNamespace) -> None:
    code, text, info = await refusal(balance(served, "bug"))
    assert code is grpc.StatusCode.INTERNAL
    assert "secret" not in text
    assert len(info.metadata["trace_id"]) == 32


async def test_the_deadline_ends_a_call(served: SimpleNamespace) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await balance(served, "slow", timeout=0.2)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_till_reaches_its_own_store_only(served: SimpleNamespace) -> None:
    stub = order_pb2_grpc.PosServiceStub(served.channel)
    request = order_pb2.ListExceptionsRequest(store_id="s2")
    metadata = (("authorization", f"Bearer {token(kind='pos', sto='s1')}"),)
    code, _, info = await refusal(stub.ListExceptions(request, timeout=5, metadata=metadata))
    assert (code, info.reason) == (grpc.StatusCode.PERMISSION_DENIED, "OUT_OF_SCOPE")
    assert info.metadata["field"] == "store_id"


async def test_a_service_that_changes_something_needs_a_deadline(served: SimpleNamespace) -> None:
    stub = points_pb2_grpc.PointsServiceStub(served.channel)
    request = points_pb2.VoidHoldRequest(request_id="r", hold_id="h")
    metadata = (("authorization", f"Bearer {token(kind='service')}"),)
    code, _, info = await refusal(stub.VoidHold(request, metadata=metadata))
    assert (code, info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "DEADLINE_REQUIRED")


async def test_a_stream_answers_each_request_and_refuses_a_bad_one(served: SimpleNamespace) -> None:
    stub = points_pb2_grpc.PointsServiceStub(served.channel)
    item = points_pb2.AccrueRequest(request_id="r", member_id=MEMBER, point_currency="points", points=1, reason="x")
    stream = stub.StreamAccrue(timeout=5, metadata=(("authorization", f"Bearer {token()}"),))
    await stream.write(points_pb2.StreamAccrueRequest(items=[item, item]))
    assert len((await stream.read()).verdicts) == 2
    await stream.write(points_pb2.StreamAccrueRequest(items=[points_pb2.AccrueRequest()]))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stream.read()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_each_request_of_a_stream_is_a_call_of_its_own_moment(served: SimpleNamespace) -> None:
    """What happens while a stream is open has happened when it is told; and a token that ran out tells no more."""
    served.server.clock = clock = FixedClock(datetime(2026, 1, 1, tzinfo=UTC))
    stub = points_pb2_grpc.PointsServiceStub(served.channel)
    item = points_pb2.AccrueRequest(request_id="r", member_id=MEMBER, point_currency="points", points=1, reason="x")
    request = points_pb2.StreamAccrueRequest(items=[item])
    short = token(lives_s=3 - LEEWAY_S)
    stream = stub.StreamAccrue(timeout=9, metadata=(("authorization", f"Bearer {short}"),))
    for _ in range(2):
        await stream.write(request)
        await stream.read()
        clock.advance(timedelta(minutes=5))
    first, second = (call.now for call in served.points.calls)
    assert second - first == timedelta(minutes=5)
    await asyncio.sleep(3.1)
    await stream.write(request)
    code, _, info = await refusal(stream.read())
    assert (code, info.reason) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_EXPIRED")


async def test_overload_sheds_reads_before_captures(served: SimpleNamespace) -> None:
    served.server.limit.limit = 64
    for _ in range(60):
        served.server.limit.enter(rule_pb2.SHEDDING_NEVER, TENANT)
    code, _, info = await refusal(balance(served))
    assert (code, info.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
    stub = points_pb2_grpc.PointsServiceStub(served.channel)
    request = points_pb2.VoidHoldRequest(request_id="r", hold_id="h")
    code, _, info = await refusal(stub.VoidHold(request, timeout=5, metadata=(("authorization", f"Bearer {token()}"),)))
    assert info.reason == "INTERNAL", "it reached its servicer, which is not there"


async def test_a_draining_server_says_so_and_finishes(served: SimpleNamespace) -> None:
    health = health_pb2_grpc.HealthStub(served.channel)
    assert (await health.Check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING
    draining = asyncio.create_task(served.server.drain(drain_s=0.3, grace_s=1))
    await asyncio.sleep(0.05)
    assert (await health.Check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert (await balance(served)).available_points == 7
    await draining


async def test_a_peers_refusal_is_raised_as_it_was(served: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(SIYU_LOYALTY_ADDRESS=f"127.0.0.1:{served.port}")
    channels = Channels(settings, "commerce")

    async def own(_tenant_id: str) -> str:
        return token(kind="service")

    monkeypatch.setattr(Channels, "token", lambda self, tenant_id: own(tenant_id))
    stub = channels.stub("loyalty", points_pb2_grpc.PointsServiceStub)
    await balance(served)
    call = served.points.calls[-1]
    for currency, kind, reason in (
        ("refused", Refused, "INSUFFICIENT_POINTS"),
        ("missing", Missing, "PROGRAMME_NOT_FOUND"),
        ("not valid", Invalid, "INVALID_FIELD"),
    ):
        request = points_pb2.GetBalanceRequest(member_id=MEMBER, point_currency=currency)
        with pytest.raises(DomainError) as caught:
            await channels.invoke(stub.GetBalance, request, call)
        assert (type(caught.value), caught.value.reason) == (kind, reason)
    assert served.points.calls[-1].remaining_s() < call.remaining_s(), "the deadline was passed on less a margin"
    await channels.close()


def test_the_tree_and_the_wire_agree() -> None:
    from services.runtime.status import code_of

    for error in (Exhausted("x"), NotAllowed("x"), Unauthenticated("x")):
        assert code_of(error) > 0
