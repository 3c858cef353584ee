"""The one adapter between gRPC and our servicers: `async (request, Call) -> reply`, and nothing of gRPC in them.

A call passes: token, rule, deadline, business time, validation, room, servicer. Every refusal on the way is a
DomainError and leaves as a google.rpc.Status; everything else leaves as INTERNAL with a trace id. A stream's servicer
takes pairs of requests and calls: a stream stays open for longer than its token or a moment lasts.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

import grpc
import protovalidate
import structlog
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.rpc import status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status

from services.runtime import logs, status, telemetry
from services.runtime.auth import Principal, Rule, TokenVerifier, allow, bearer, check_deadline, rule_of
from services.runtime.bounds import out_of_bounds
from services.runtime.call import Actor, ActorKind, Call
from services.runtime.clock import Clock, SystemClock
from services.runtime.deadlines import Deadlines
from services.runtime.errors import DomainError, Invalid, TimedOut
from services.runtime.figures import Count, Duration
from services.runtime.limits import AdaptiveLimit
from services.runtime.violations import told

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
MAX_DEADLINE_S = 600.0
MAX_VIOLATIONS = 20

_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.so_reuseport", 1),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_concurrent_streams", 1024),
    # a new pod gets no traffic from a connection that never ends
    ("grpc.max_connection_age_ms", 300_000),
    ("grpc.max_connection_age_grace_ms", 60_000),
    # or a client that pings each 10 s is sent away with "too many pings"
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
)

_ANONYMOUS = Actor(kind=ActorKind.PARTNER, id="")
_CAMEL = re.compile(r"(?<!^)(?=[A-Z])")
_validator = protovalidate.Validator()
_log = structlog.get_logger(__name__)

Headers = dict[str, Any]
"""A call's metadata: texts, and bytes under names that end in -bin."""


class BusinessTime(Protocol):
    """Where the business time of a tenant with a test clock comes from."""

    async def business_now(self, tenant_id: str) -> datetime:
        """The tenant's business time in UTC."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Mounted:
    """A contract's service and the object whose snake_case methods serve it."""

    descriptor: ServiceDescriptor
    servicer: object


@dataclass(frozen=True, slots=True)
class _Rpc:
    name: str
    rule: Rule
    serve: Callable[..., Any]
    seconds: Duration
    answered: Count


@dataclass(slots=True)
class GrpcServer:
    """A gRPC server with health, reflection and drain. Mount services first, then start."""

    listen: str
    verifier: TokenVerifier
    time: BusinessTime
    clock: Clock = field(default_factory=SystemClock)
    limit: AdaptiveLimit = field(default_factory=AdaptiveLimit)
    deadlines: Deadlines = field(default_factory=Deadlines)
    process: str = ""
    _mounted: list[Mounted] = field(default_factory=list)
    _health: HealthServicer = field(default_factory=HealthServicer)
    _server: grpc.aio.Server | None = None
    _followers: list[asyncio.Task[None]] = field(default_factory=list)

    def mount(self, services: Sequence[Mounted]) -> None:
        """Adds services; each RPC must have a rule and a method."""
        assert self._server is None, "mount before start"
        self._mounted.extend(services)

    async def start(self) -> int:
        """Opens the port and returns it; health stays NOT_SERVING until `ready`."""
        server = grpc.aio.server(options=_OPTIONS)
        server.add_generic_rpc_handlers((_Handlers(_behaviours(self)),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = [service.descriptor.full_name for service in self._mounted]
        reflection.enable_server_reflection((*names, "grpc.health.v1.Health", reflection.SERVICE_NAME), server)
        port = server.add_insecure_port(self.listen)
        await self._say(health_pb2.HealthCheckResponse.NOT_SERVING)
        await server.start()
        self._server = server
        self._followers = [asyncio.create_task(each.follow()) for each in (self.limit, self.deadlines)]
        return port

    async def ready(self) -> None:
        """Tells health checks that calls are welcome."""
        await self._say(health_pb2.HealthCheckResponse.SERVING)

    async def drain(self, *, drain_s: float, grace_s: float = 5.0) -> None:
        """Says NOT_SERVING, serves on for `drain_s` while callers turn away, then ends with grace."""
        if self._server is None:
            return
        server, self._server = self._server, None
        await self._say(health_pb2.HealthCheckResponse.NOT_SERVING)
        await asyncio.sleep(drain_s)
        await server.stop(grace_s)
        for follower in self._followers:
            follower.cancel()
        await asyncio.gather(*self._followers, return_exceptions=True)

    async def admit(
        self, rule: Rule, request: Message | None, context: Any, headers: Headers, started: telemetry.Trace
    ) -> Call:
        """Checks deadline, token and rule, and says on whose behalf and at which time the call runs."""
        remaining_s = context.time_remaining()
        if remaining_s is not None and remaining_s > MAX_DEADLINE_S * 100:
            remaining_s = None  # no deadline looks like a huge one (grpc#26236)
        principal: Principal | None = None
        if not rule.public:
            principal = await self.verifier.verify(bearer(headers.get("authorization")))
            allow(rule, principal, request)
        check_deadline(rule, principal, remaining_s)
        deadline_s = (
            min(remaining_s, max(MAX_DEADLINE_S, rule.deadline_s)) if remaining_s is not None else rule.deadline_s
        )
        now = self.clock.now()
        if principal is not None and principal.has_test_clock:
            now = await self.time.business_now(principal.tenant_id)
        return Call(
            tenant_id=principal.tenant_id if principal else "",
            client_id=principal.client_id if principal else "",
            actor=principal.actor if principal else _ANONYMOUS,
            now=now,
            time_zone=principal.time_zone if principal else "UTC",
            deadline_at=time.monotonic() + deadline_s,
            trace_id=started.trace_id,
            trace=started.traceparent,
            peer=_address(headers.get("x-forwarded-for"), context.peer()) if rule.public else "",
        )

    async def _say(self, serving: Any) -> None:
        # by its own name too: a neighbour at the same port does not answer for it
        for name in ("", self.process, *(service.descriptor.full_name for service in self._mounted)):
            await self._health.set(name, serving)


def _address(forwarded: str | bytes | None, peer: str) -> str:
    """The caller's address: the last one that the edge wrote down, else the connection's without its port."""
    if isinstance(forwarded, str) and forwarded:
        return forwarded.rpartition(",")[2].strip()
    return peer.rpartition(":")[0]


def check_valid(request: Message, *, may_hold_nul: bool = True) -> None:
    """Raises Invalid with every violation of the contract's rules, by field path; never with the value."""
    found = _validator.collect_violations(request)
    beyond = out_of_bounds(request, may_hold_nul=may_hold_nul)
    if found or beyond:
        violations = told(found[:MAX_VIOLATIONS], request) + beyond
        raise Invalid(violations=violations[:MAX_VIOLATIONS])


class _Handlers(grpc.GenericRpcHandler):
    def __init__(self, by_method: dict[str, grpc.RpcMethodHandler[Any, Any]]) -> None:
        self._by_method = by_method

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        return self._by_method.get(handler_call_details.method)


def _behaviours(server: GrpcServer) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
    found: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
    for mounted in server._mounted:  # noqa: SLF001 - same module
        for method in mounted.descriptor.methods:
            found[f"/{mounted.descriptor.full_name}/{method.name}"] = _handler(server, method, mounted.servicer)
    return found


def _handler(server: GrpcServer, method: MethodDescriptor, servicer: object) -> grpc.RpcMethodHandler[Any, Any]:
    serve = getattr(servicer, _CAMEL.sub("_", method.name).lower(), None)
    assert serve is not None, f"{type(servicer).__name__} does not serve {method.full_name}"
    short = f"{method.containing_service.name}/{method.name}"
    rpc = _Rpc(short, rule_of(method), serve, telemetry.SECONDS.labels(short), telemetry.CALLS.labels(short, "OK"))
    request = message_factory.GetMessageClass(method.input_type)
    reply = message_factory.GetMessageClass(method.output_type)
    assert method.client_streaming == method.server_streaming, "unary or bidirectional"
    make = grpc.stream_stream_rpc_method_handler if method.client_streaming else grpc.unary_unary_rpc_method_handler
    behaviour = _streaming(server, rpc) if method.client_streaming else _unary(server, rpc)
    return make(behaviour, request_deserializer=_reader(request), response_serializer=reply.SerializeToString)


_Sent = tuple[Message | None, bool]
"""A request, None if its bytes are not its message (what a deserializer raises leaves as INTERNAL), and whether a text
of it may hold a NUL: looking at its bytes at once is far cheaper than looking at each of its texts."""


def _reader(request: type[Message]) -> Callable[[bytes], _Sent]:
    def read(data: bytes) -> _Sent:
        try:
            return request.FromString(data), 0 in data
        except DecodeError:
            return None, False

    return read


def _read(sent: _Sent) -> tuple[Message, bool]:
    request, may_hold_nul = sent
    if request is None:
        raise Invalid(
            "the bytes are not the message of this call, or a text in it is not UTF-8", reason="MALFORMED_REQUEST"
        )
    return request, may_hold_nul


def _unary(server: GrpcServer, rpc: _Rpc) -> Callable[[_Sent, Any], Awaitable[Message]]:
    async def behaviour(sent: _Sent, context: Any) -> Message:
        before = time.perf_counter()
        # once: each look decodes all of them
        headers: Headers = dict(context.invocation_metadata())
        with telemetry.entered(rpc.name, headers.get("traceparent", "")) as started:
            logs.trace_id.set(started.trace_id)
            try:
                request, may_hold_nul = _read(sent)
                call = await server.admit(rpc.rule, request, context, headers, started)
                check_valid(request, may_hold_nul=may_hold_nul)
                reply = await _served(server, rpc, request, call)
            except Exception as error:  # noqa: BLE001 - the boundary: nothing but our own words may leave
                refused = _refusal(rpc, error, started.trace_id)
            else:
                rpc.answered.inc()
                rpc.seconds.observe(time.perf_counter() - before)
                return reply
        await context.abort_with_status(rpc_status.to_status(refused))
        raise AssertionError("abort returned")

    return behaviour


async def _served(server: GrpcServer, rpc: _Rpc, request: Message, call: Call) -> Message:
    """The servicer's reply, if there is room for the call, by its deadline."""
    task = asyncio.current_task()
    assert task is not None, "a call is served by a task"
    server.limit.enter(rpc.rule.shedding, call.tenant_id)
    server.deadlines.enter(task, call.deadline_at)
    try:
        reply: Message = await rpc.serve(request, call)
    except asyncio.CancelledError:
        if server.deadlines.leave(task):
            raise TimeoutError from None
        raise
    else:
        return reply
    finally:
        server.deadlines.leave(task)
        server.limit.leave(call.tenant_id)


def _streaming(server: GrpcServer, rpc: _Rpc) -> Callable[[AsyncIterator[_Sent], Any], AsyncIterator[Message]]:
    async def behaviour(requests: AsyncIterator[_Sent], context: Any) -> AsyncIterator[Message]:
        headers: Headers = dict(context.invocation_metadata())
        # no span stays open over a yield: another task may run the rest of the generator
        with telemetry.entered(rpc.name, headers.get("traceparent", "")) as entered:
            started = entered
        refused: status_pb2.Status | None = None

        async def calls() -> AsyncIterator[tuple[Message, Call]]:
            async for sent in requests:
                request, may_hold_nul = _read(sent)
                call = await server.admit(rpc.rule, request, context, headers, started)
                check_valid(request, may_hold_nul=may_hold_nul)
                yield request, call

        try:
            # before its first request, and though it may never send one
            opened = await server.admit(rpc.rule, None, context, headers, started)
            server.limit.enter(rpc.rule.shedding, opened.tenant_id)
            try:
                async for reply in rpc.serve(calls()):
                    yield reply
            finally:
                server.limit.leave(opened.tenant_id)
            rpc.answered.inc()
        except Exception as error:  # noqa: BLE001 - the boundary, inside the iteration
            refused = _refusal(rpc, error, started.trace_id)
        if refused is not None:
            await context.abort_with_status(rpc_status.to_status(refused))

    return behaviour


def _refusal(rpc: _Rpc, error: Exception, trace_id: str) -> status_pb2.Status:
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if isinstance(error, TimeoutError):
        error = TimedOut("the deadline passed; ask for the outcome, or repeat with the same request id")
    if isinstance(error, DomainError):
        telemetry.CALLS.labels(rpc.name, error.reason).inc()
        return status.to_status(error, trace_id)
    telemetry.CALLS.labels(rpc.name, "INTERNAL").inc()
    _log.error("a call failed", rpc=rpc.name, exc_info=error)
    return status.internal_status(trace_id)
