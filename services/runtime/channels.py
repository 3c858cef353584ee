"""Calls to the other services: round robin, keepalive, deadline and trace passed on, refusals raised as they were.

Every RPC of ours that changes something carries a request id, so a call that never reached its peer may be repeated;
streams may not.
"""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc

from services.runtime import status, telemetry
from services.runtime.auth import JsonWebKeys
from services.runtime.call import Call
from services.runtime.errors import TimedOut
from services.runtime.server import MAX_MESSAGE_BYTES
from services.runtime.settings import Settings
from siyu.identity.v1 import client_pb2, client_pb2_grpc

# what is left to us after the peer's answer must reach our own caller
MARGIN_S = 0.02
MIN_TIMEOUT_S = 0.005
RENEW_BEFORE_S = 60.0
TOKEN_TIMEOUT_S = 3.0
MAX_TENANTS = 10_000

Stub = TypeVar("Stub")
Reply = TypeVar("Reply")

_SERVICE_CONFIG = json.dumps(
    {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.05s",
                    "maxBackoff": "0.5s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            },
            {"name": [{"service": "siyu.loyalty.v1.PointsService", "method": "StreamAccrue"}]},
        ],
        "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1},
    }
)
OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.service_config", _SERVICE_CONFIG),
    ("grpc.enable_retries", 1),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # a peer that restarts is found again in a second and not in two minutes
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)


@dataclass(frozen=True, slots=True)
class _Token:
    value: str
    renew_at: float


@dataclass(slots=True)
class Channels:
    """The channels of one process, opened when first used. `service` is who calls; its secret gets its tokens."""

    settings: Settings
    service: str
    _open: dict[str, grpc.aio.Channel] = field(default_factory=dict)
    _tokens: dict[str, _Token] = field(default_factory=dict)
    _asking: dict[str, asyncio.Task[_Token]] = field(default_factory=dict)

    def channel(self, service: str) -> grpc.aio.Channel:
        """The channel to a service by name."""
        if service not in self._open:
            self._open[service] = grpc.aio.insecure_channel(self.settings.address_of(service), options=OPTIONS)
        return self._open[service]

    def stub(self, service: str, make: Callable[[grpc.aio.Channel], Stub]) -> Stub:
        """A stub of one of the service's contracts, e.g. `stub("loyalty", points_pb2_grpc.PointsServiceStub)`."""
        return make(self.channel(service))

    async def invoke(
        self,
        method: Callable[..., Any],
        request: Any,
        call: Call,
        *,
        timeout_s: float | None = None,
    ) -> Any:
        """Calls a peer in the call's tenant, by the call's deadline less a margin, or sooner by `timeout_s`.

        Raises what the peer raised; TimedOut if nothing is left of the deadline."""
        until = call.deadline_at - MARGIN_S
        if timeout_s is not None:
            until = min(until, time.monotonic() + timeout_s)
        token = await self.token(call.tenant_id)
        # a token that had to be asked for took its part
        left_s = until - time.monotonic()
        if left_s < MIN_TIMEOUT_S:
            raise TimedOut("no time is left for a call to another service; repeat with the same request id")
        with telemetry.calling(getattr(method, "_method", b"").decode() or "call") as traceparent:
            metadata = (("authorization", f"Bearer {token}"), ("traceparent", traceparent or call.trace))
            try:
                return await method(request, timeout=left_s, metadata=metadata)
            except grpc.aio.AioRpcError as error:
                raise status.from_rpc(error) from None

    async def token(self, tenant_id: str) -> str:
        """This service's token in a tenant ('' for none), renewed a minute before it expires."""
        known = self._tokens.get(tenant_id)
        if known is not None and known.renew_at > time.monotonic():
            return known.value
        asking = self._asking.get(tenant_id)
        if asking is None:
            asking = asyncio.create_task(self._ask(tenant_id))
            self._asking[tenant_id] = asking
            asking.add_done_callback(lambda done: self._asked(tenant_id, done))
        return (await asyncio.shield(asking)).value

    async def keys(self) -> JsonWebKeys:
        """Identity's public keys."""
        stub = self.stub("identity", client_pb2_grpc.TokenServiceStub)
        try:
            reply = await stub.GetJwks(client_pb2.GetJwksRequest(), timeout=TOKEN_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise status.from_rpc(error) from None
        return [{descriptor.name: value for descriptor, value in key.ListFields()} for key in reply.keys]

    async def close(self) -> None:
        """Closes every channel."""
        await asyncio.gather(*(channel.close() for channel in self._open.values()))
        self._open.clear()

    def _asked(self, tenant_id: str, done: asyncio.Task[_Token]) -> None:
        self._asking.pop(tenant_id, None)
        if not done.cancelled():
            done.exception()  # told to those who wait; nobody may be left to wait

    async def _ask(self, tenant_id: str) -> _Token:
        stub = self.stub("identity", client_pb2_grpc.TokenServiceStub)
        request = client_pb2.IssueTokenRequest(
            client_id=f"service:{self.service}", client_secret=self.settings.service_secret, tenant_id=tenant_id
        )
        try:
            reply = await stub.IssueToken(request, timeout=TOKEN_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise status.from_rpc(error) from None
        token = _Token(reply.access_token, time.monotonic() + max(1.0, reply.expires_in_s - RENEW_BEFORE_S))
        if len(self._tokens) >= MAX_TENANTS:
            self._tokens.clear()
        self._tokens[tenant_id] = token
        return token
