"""Any RPC called by its descriptor with any token, and what came of it; tokens as identity signs them, and others."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import grpc
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf import message_factory
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from services.console.stack.local import ROOT_SECRET, LocalStack
from services.identity.domain.credentials import Keys
from services.identity.domain.sealing import unseal
from services.identity.domain.tokens import Bearer, PublicKey, SigningKey, claims_of, signed
from services.runtime.call import ActorKind
from services.runtime.ids import new_id
from tests.requests import Rpc

TIMEOUT_S = 20.0
STREAM_ATTEMPTS = 20
LATE_WRITE = "Internal error from Core"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A reply, or a refusal with its reason, the fields that it names, and its metadata."""

    code: grpc.StatusCode
    reply: Message | None = None
    reason: str = ""
    text: str = ""
    fields: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Installation:
    """The running services, and the key that they trust."""

    channels: dict[str, grpc.aio.Channel]
    key: SigningKey

    def token(
        self,
        *,
        kind: ActorKind = ActorKind.BACKEND,
        scopes: frozenset[str] = frozenset(),
        tenant_id: str = "",
        store_id: str = "",
        supplier_id: str = "",
        age: timedelta = timedelta(0),
        key: SigningKey | None = None,
    ) -> str:
        """A token as identity would have signed it `age` ago, for a client that nobody made."""
        bearer = Bearer(
            client_id=new_id(),
            kind=kind,
            scopes=tuple(sorted(scopes)),
            tenant_id=tenant_id,
            store_id=store_id,
            supplier_id=supplier_id,
            time_zone="Asia/Shanghai",
            currency_code="CNY",
        )
        return signed(claims_of(bearer, now=datetime.now(UTC) - age, token_id=new_id()), key or self.key)

    async def send(
        self, rpc: Rpc, request: Message, *, token: str = "", timeout_s: float | None = TIMEOUT_S
    ) -> Outcome:
        """Calls the RPC; a stream gets the one request and is read once.

        A stream that is refused at its door may be over before the first write comes, which the client library then
        calls an internal error of its own: whoever wants to know the refusal asks again."""
        for _ in range(STREAM_ATTEMPTS):
            outcome = await self._send(rpc, request, token=token, timeout_s=timeout_s)
            if outcome.code is not grpc.StatusCode.INTERNAL or not outcome.text.startswith(LATE_WRITE):
                break
        return outcome

    async def _send(self, rpc: Rpc, request: Message, *, token: str, timeout_s: float | None) -> Outcome:
        make = self.channels[rpc.service]
        reads = message_factory.GetMessageClass(rpc.method.output_type).FromString
        options: dict[str, Any] = {
            "request_serializer": type(request).SerializeToString,
            "response_deserializer": reads,
        }
        metadata = (("authorization", f"Bearer {token}"),) if token else ()
        try:
            if rpc.is_unary:
                call = make.unary_unary(rpc.path, **options)
                return Outcome(code=grpc.StatusCode.OK, reply=await call(request, timeout=timeout_s, metadata=metadata))
            stream = make.stream_stream(rpc.path, **options)(timeout=timeout_s, metadata=metadata)
            # one that is refused at its door may be over before the first write; reading tells why
            with contextlib.suppress(asyncio.InvalidStateError):
                await stream.write(request)
            reply = await stream.read()
            assert isinstance(reply, Message)
            await stream.done_writing()
            assert await stream.read() is grpc.aio.EOF
            return Outcome(code=grpc.StatusCode.OK, reply=reply)
        except grpc.aio.AioRpcError as error:
            return refused(error)


def refused(error: grpc.aio.AioRpcError) -> Outcome:
    """What the refusal's details say; a refusal without an ErrorInfo of ours has no reason."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details if status is not None else ():
        for kind in (info, bad):
            if detail.Is(kind.DESCRIPTOR):
                detail.Unpack(kind)
    return Outcome(
        code=error.code(),
        reason=info.reason,
        text=error.details() or "",
        fields=tuple(violation.field for violation in bad.field_violations),
        metadata=dict(info.metadata),
    )


@asynccontextmanager
async def installation(stack: LocalStack) -> AsyncIterator[Installation]:
    """The running stack, with its signing key opened as only identity can."""
    channels = {
        service: grpc.aio.insecure_channel(stack.addresses[service])
        for service in ("identity", "loyalty", "campaign", "commerce")
    }
    try:
        yield Installation(channels=channels, key=await _signing_key(stack))
    finally:
        for channel in channels.values():
            await channel.close()


def stranger(known: SigningKey) -> SigningKey:
    """Another key under the id of a known one."""
    return SigningKey(public=known.public, private=ec.generate_private_key(ec.SECP256R1()))


async def _signing_key(stack: LocalStack) -> SigningKey:
    connection = await asyncpg.connect(stack.database_url)
    try:
        row = await connection.fetchrow(
            "SELECT kid::text, public_x, public_y, signs_from, sealed_private FROM identity.signing_keys"
            " WHERE signs_from <= now() ORDER BY signs_from DESC LIMIT 1"
        )
    finally:
        await connection.close()
    opened = unseal(
        Keys.derive(stack.secret(ROOT_SECRET)).signing, row["sealed_private"], bound_to=f"signing key {row['kid']}"
    )
    private = serialization.load_der_private_key(opened, password=None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    public = PublicKey(kid=row["kid"], x=row["public_x"], y=row["public_y"], signs_from=row["signs_from"])
    return SigningKey(public=public, private=private)
