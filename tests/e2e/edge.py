"""An edge of its own for tests: real Envoy, the real application, and services that only echo.

The services are real servers (services.runtime.server), so that tokens, scopes, validation and refusals are real too;
what they answer is an empty reply, or what the test says.
"""

import asyncio
import os
import re
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from gateway import contracts
from gateway.docs.sample import sample
from gateway.main import Serving, start
from gateway.openapi.document import document
from services.console.stack import ports
from services.console.stack.envoy import Envoy
from services.console.stack.supervisor import Supervisor
from services.runtime import process
from services.runtime.auth import TokenVerifier
from services.runtime.call import Call
from services.runtime.errors import Refused, Unauthenticated, Unavailable
from services.runtime.ids import new_id
from services.runtime.log import EVENTS_TRUNCATED
from services.runtime.server import GrpcServer, Mounted
from services.runtime.settings import SERVICES, Settings
from siyu.commerce.v1 import events_pb2 as commerce_events
from siyu.common.v1 import event_pb2, feed_pb2
from siyu.identity.v1 import client_pb2

TENANT = "0199a3c4-7d1e-7000-8000-00000000000a"
OTHER_TENANT = "0199a3c4-7d1e-7000-8000-00000000000b"
CLIENT = "0199a3c4-7d1e-7000-8000-0000000000c1"
BUSY_CLIENT = "0199a3c4-7d1e-7000-8000-0000000000c2"
SECRET = "the-secret.with-a-dot"
PARTITIONS = 2

Answer = Callable[[Message, Call], Awaitable[Message]]


@dataclass(slots=True)
class Signer:
    """Identity's key: signs tokens, and shows its public half."""

    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def token(
        self, scopes: str = "", *, client: str = CLIENT, tenant: str = TENANT, life_s: int = 600, **claims: object
    ) -> str:
        now = int(time.time())
        said = {
            "iss": "siyu", "aud": "siyu", "sub": client, "kind": "backend", "scp": scopes, "tid": tenant,
            "iat": now - 1, "exp": now + life_s, "jti": new_id(), **claims,
        }  # fmt: skip
        return jwt.encode(said, self.key, algorithm="ES256", headers={"kid": "test"})

    def public(self) -> client_pb2.JsonWebKey:
        shown = jwt.algorithms.ECAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
        return client_pb2.JsonWebKey(
            kty="EC", crv="P-256", x=shown["x"], y=shown["y"], kid="test", use="sig", alg="ES256"
        )


@dataclass(slots=True)
class Echo:
    """Every RPC of one gRPC service: answers what the test set for it, else an empty reply, and keeps what came."""

    service: Any
    answers: dict[str, Answer]
    seen: list[tuple[str, Message, Call]]

    def __getattr__(self, name: str) -> Any:
        method = next(
            each for each in self.service.methods if re.sub(r"(?<!^)(?=[A-Z])", "_", each.name).lower() == name
        )
        reply = GetMessageClass(method.output_type)

        async def unary(request: Message, call: Call) -> Message:
            self.seen.append((method.full_name, request, call))
            answer = self.answers.get(method.full_name)
            return await answer(request, call) if answer else reply()

        async def stream(calls: AsyncIterator[tuple[Message, Call]]) -> AsyncIterator[Message]:
            async for request, call in calls:
                self.seen.append((method.full_name, request, call))
                yield reply()

        return stream if method.client_streaming else unary


@dataclass(slots=True)
class Log:
    """A service's log: blocks by partition, as (tenant, events)."""

    blocks: dict[int, list[tuple[str, list[event_pb2.EventEnvelope]]]] = field(
        default_factory=lambda: {partition: [] for partition in range(PARTITIONS)}
    )
    floor: dict[int, int] = field(default_factory=lambda: dict.fromkeys(range(PARTITIONS), 1))

    is_away: bool = False

    def append(self, partition: int, tenant: str, *events: event_pb2.EventEnvelope) -> None:
        self.blocks[partition].append((tenant, list(events)))

    async def get_heads(self, _request: feed_pb2.GetHeadsRequest, _call: Call) -> feed_pb2.GetHeadsResponse:
        if self.is_away:
            raise Unavailable("restarting")
        heads = [
            feed_pb2.LogHead(partition=partition, seq=len(blocks), floor_seq=self.floor[partition])
            for partition, blocks in self.blocks.items()
        ]
        return feed_pb2.GetHeadsResponse(heads=heads)

    async def get_positions(self, _request: Message, _call: Call) -> Message:
        return feed_pb2.GetPositionsResponse()

    async def read_log(self, request: feed_pb2.ReadLogRequest, call: Call) -> feed_pb2.ReadLogResponse:
        assert request.only_tenant_id == call.tenant_id
        if request.after_seq + 1 < self.floor[request.partition]:
            raise Refused("gone", reason=EVENTS_TRUNCATED)
        reply = feed_pb2.ReadLogResponse(next_seq=len(self.blocks[request.partition]))
        for seq, (tenant, events) in enumerate(self.blocks[request.partition], start=1):
            if seq > request.after_seq and tenant == request.only_tenant_id:
                if len(reply.blocks) == request.max_blocks:
                    reply.next_seq = reply.blocks[-1].seq
                    break
                payload = zlib.compress(event_pb2.EventBlock(events=events).SerializeToString())
                reply.blocks.add(seq=seq, tenant_id=tenant, payload=payload, events=len(events))
        return reply


@dataclass(slots=True)
class TestEdge:
    """What a test works with."""

    __test__ = False

    url: str
    admin: str
    http: httpx.AsyncClient
    signer: Signer
    answers: dict[str, Answer]
    seen: list[tuple[str, Message, Call]]
    logs: dict[str, Log]
    supervisor: Supervisor
    log: Path
    services: dict[str, GrpcServer]
    application: Serving

    @property
    def target(self) -> str:
        return self.url.removeprefix("http://")

    def bearer(self, scopes: str = "", **claims: Any) -> dict[str, str]:
        return {"authorization": f"Bearer {self.signer.token(scopes, **claims)}"}


class _MachineTime:
    async def business_now(self, _tenant_id: str) -> datetime:
        return datetime.now(UTC)


@asynccontextmanager
async def running_edge(
    directory: Path, redis_url: str, *, tells_keys: bool = True, **environment: str
) -> AsyncIterator[TestEdge]:
    """Starts four echoing services, the application, and Envoy; stops them in reverse.

    With `tells_keys` false, identity does not answer what keys verify tokens."""
    signer, answers, seen = Signer(), {}, []
    logs = {service: Log() for service in SERVICES}
    answers |= _identity(signer)
    if not tells_keys:
        answers["siyu.identity.v1.TokenService.GetJwks"] = _away
    async with AsyncExitStack() as closing:
        services, addresses = {}, {}
        for service in SERVICES:
            server = await _service(service, signer, answers, seen, logs[service])
            services[service] = server
            closing.push_async_callback(server.drain, drain_s=0, grace_s=0)
            addresses[service] = f"127.0.0.1:{await server.start()}"
            await server.ready()
        gateway_port, edge_port, admin_port = ports.pick(3)
        settings = Settings(
            redis_url=redis_url,
            listen=f"127.0.0.1:{gateway_port}",
            gateway_address=f"127.0.0.1:{gateway_port}",
            service_secret="gateway-secret",
            drain_s=0,
            **{f"{service}_address": address for service, address in addresses.items()},
        )
        names = {f"SIYU_{service.upper()}_ADDRESS": address for service, address in addresses.items()}
        names |= {"SIYU_GATEWAY_ADDRESS": settings.gateway_address, **environment}
        with _environment(environment):
            context = await process._context("gateway", settings, asyncio.Event(), closing)
            application = await start(context)
        closing.push_async_callback(application.stop)
        supervisor = await closing.enter_async_context(Supervisor(say=print))
        envoy = Envoy(
            configuration=directory / "envoy.json",
            edge_port=edge_port,
            admin_port=admin_port,
            log=directory / "envoy.log",
        )
        await envoy.render({**os.environ, **names})
        program = envoy.program()
        # the access log is written at once, so that a test can read it
        await supervisor.start(replace(program, command=(*program.command, "--file-flush-interval-msec", "100")))
        url = f"http://127.0.0.1:{edge_port}"
        http = await closing.enter_async_context(httpx.AsyncClient(base_url=url, timeout=10))
        admin = f"http://127.0.0.1:{admin_port}"
        yield TestEdge(
            url=url, admin=admin, http=http, signer=signer, answers=answers, seen=seen, logs=logs,
            supervisor=supervisor, log=envoy.log, services=services, application=application,
        )  # fmt: skip


async def _service(
    service: str, signer: Signer, answers: dict[str, Answer], seen: list[tuple[str, Message, Call]], log: Log
) -> GrpcServer:
    async def keys() -> list[dict[str, str]]:
        return [{name.name: value for name, value in signer.public().ListFields()}]

    server = GrpcServer("127.0.0.1:0", TokenVerifier(keys), _MachineTime())
    of_service = [each for each in contracts.open_services() if each.full_name.startswith(f"siyu.{service}.")]
    mounted = [Mounted(descriptor=each, servicer=Echo(each, answers, seen)) for each in of_service]
    mounted.append(Mounted(descriptor=feed_pb2.DESCRIPTOR.services_by_name["FeedService"], servicer=log))
    server.mount(mounted)
    return server


async def _away(_request: Message, _call: Call) -> Message:
    raise Unavailable("restarting")


def _identity(signer: Signer) -> dict[str, Answer]:
    async def issue_token(request: Any, _call: Call) -> Message:
        if request.client_id.startswith("service:"):
            token = signer.token("events.read", client=request.client_id, tenant=request.tenant_id, kind="service")
        elif request.client_secret == SECRET:
            token = signer.token("loyalty.points.read events.read", client=request.client_id, tenant=TENANT)
        else:
            raise Unauthenticated("the credentials are not right", reason="BAD_CREDENTIALS")
        return client_pb2.IssueTokenResponse(access_token=token, expires_in_s=600)

    async def get_jwks(_request: Any, _call: Call) -> Message:
        return client_pb2.GetJwksResponse(keys=[signer.public()])

    return {
        "siyu.identity.v1.TokenService.IssueToken": issue_token,
        "siyu.identity.v1.TokenService.GetJwks": get_jwks,
    }


def paid(order: int, *, tenant: str = TENANT) -> event_pb2.EventEnvelope:
    """An event as it stands in a log."""
    envelope = event_pb2.EventEnvelope(
        event_id=new_id(), tenant_id=tenant, type="commerce.OrderPaid", aggregate_type="order",
        aggregate_id=f"order-{order}", aggregate_version=3,
        payload=commerce_events.OrderPaid(order_id=f"order-{order}", net_minor=1250).SerializeToString(),
    )  # fmt: skip
    envelope.occurred_at.FromDatetime(datetime(2026, 1, 31, tzinfo=UTC))
    envelope.posted_at.FromDatetime(datetime(2026, 1, 31, 0, 0, 1, tzinfo=UTC))
    return envelope


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A call as the API page shows it."""

    verb: str
    url: str
    body: Any
    operation: dict[str, Any]


def examples() -> Iterator[Example]:
    """One call of each operation of the OpenAPI document that is an RPC, made from its schema."""
    told = document()
    components = told["components"]["schemas"]
    for path, item in told["paths"].items():
        for verb, operation in item.items():
            if "x-siyu-grpc" in operation:
                url = path
                for each in operation["parameters"]:
                    if each["in"] == "path":
                        value = sample(each["schema"], components, name=each["name"].rpartition(".")[2])
                        url = url.replace("{" + each["name"] + "}", str(value))
                content = operation.get("requestBody", {}).get("content", {})
                body = sample(content["application/json"]["schema"], components) if content else None
                yield Example(verb=verb, url=url, body=body, operation=operation)


@contextmanager
def _environment(names: dict[str, str]) -> Iterator[None]:
    """Sets variables for the time of a block."""
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
