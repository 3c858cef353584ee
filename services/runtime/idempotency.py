"""A request id answers the same for ever: the reply is stored in the transaction that makes the effect.

Same id and same body: the first reply, whatever happened since. Same id, another body: REQUEST_ID_REUSED. A duplicate
that arrives meanwhile waits for the first. Business refusals of money and points calls are kept for 24 hours, so that
a delayed duplicate can't succeed after the caller was told no; what is malformed or unlucky stores nothing.
"""

import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

from services.runtime.call import Call
from services.runtime.database import Connection, Database, raw
from services.runtime.errors import (
    AlreadyExists,
    Conflict,
    DomainError,
    Missing,
    Refused,
)
from services.runtime.ids import stable_hash

R = TypeVar("R")
T = TypeVar("T")

REFUSALS_KEPT_H = 24
FORGET_BATCH = 1000
REQUEST_ID_REUSED = "REQUEST_ID_REUSED"
_FINGERPRINT_BYTES = 16

_FIND = """
    SELECT fingerprint, reply, refusal
    FROM requests
    WHERE tenant_id = $1::uuid AND client_id = $2 AND family = $3 AND request_id = $4
      AND (expires_at IS NULL OR expires_at > clock_timestamp())
"""
# an expired refusal gives way; anything else that is there was first
_STORE = """
    INSERT INTO requests (tenant_id, client_id, family, request_id, fingerprint, reply, refusal, expires_at)
    VALUES ($1::uuid, $2, $3, $4, $5, $6, $7::jsonb, clock_timestamp() + make_interval(hours => $8))
    ON CONFLICT (tenant_id, client_id, family, request_id) DO UPDATE
    SET fingerprint = excluded.fingerprint, reply = excluded.reply, refusal = excluded.refusal,
        expires_at = excluded.expires_at, created_at = excluded.created_at
    WHERE requests.expires_at <= clock_timestamp()
    RETURNING true
"""
_FORGET = """
    DELETE FROM requests
    WHERE (tenant_id, client_id, family, request_id) IN (
        SELECT tenant_id, client_id, family, request_id
        FROM requests
        WHERE expires_at <= clock_timestamp()
        LIMIT $1
    )
"""


# no slots: `Once[T](…)` would fail on a slotted generic
@dataclass(frozen=True, kw_only=True)
class Once(Generic[R]):
    """One mutating call under its request id. `family` is the method family, such as "loyalty.points.hold"."""

    call: Call
    family: str
    request_id: str
    fingerprint: bytes
    encode: Callable[[R], bytes]
    keep_refusals: bool = False

    async def run(self, database: Database, work: Callable[[Connection], Awaitable[R]]) -> bytes:
        """The encoded result of `work`, which runs at most once with effect for this request id.

        Raises AlreadyExists (REQUEST_ID_REUSED) when the id came with another body, and again whatever refusal the
        first call was told, if that is kept.
        """

        async def claimed(connection: Connection) -> bytes:
            found = await self._find(connection)
            if found is not None:
                return found
            reply = self.encode(await work(connection))
            await self._store(connection, reply=reply, refusal=None)
            return reply

        try:
            return await self._alone(database, claimed)
        except DomainError as refusal:
            if not (self.keep_refusals and refusal.storable) or refusal.reason == REQUEST_ID_REUSED:
                raise
            reply = await self._keep(database, refusal)
            if reply is None:
                raise
            return reply

    async def _keep(self, database: Database, refusal: DomainError) -> bytes | None:
        """Stores the refusal after its work was rolled back; or the reply of a duplicate that has gone first since."""

        async def keep(connection: Connection) -> bytes | None:
            found = await self._find(connection)
            if found is None:
                await self._store(connection, reply=None, refusal=refusal)
            return found

        return await self._alone(database, keep)

    async def _alone(self, database: Database, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Runs `work` while no other call of this request id does: a duplicate waits for the first."""
        return await database.run(
            self.call.tenant_id,
            work,
            timeout_s=self.call.remaining_s(),
            lock_key=stable_hash("\x1f".join(self._key())),
        )

    async def _find(self, connection: Connection) -> bytes | None:
        row = await raw(connection).fetchrow(_FIND, *self._key())
        if row is None:
            return None
        if row["fingerprint"] != self.fingerprint:
            raise AlreadyExists(
                "this request id was used with another body; a new request needs a new id",
                reason=REQUEST_ID_REUSED,
                metadata={"request_id": self.request_id},
            )
        if row["refusal"] is not None:
            raise refusal_from_json(row["refusal"])
        reply: bytes = row["reply"]
        return reply

    async def _store(self, connection: Connection, *, reply: bytes | None, refusal: DomainError | None) -> None:
        stored = await raw(connection).fetchval(
            _STORE,
            *self._key(),
            self.fingerprint,
            reply,
            None if refusal is None else json.dumps(refusal_to_json(refusal)),
            None if refusal is None else REFUSALS_KEPT_H,
        )
        if stored is None:
            # written past our lock, by a batch function: go round again and answer what is there
            raise Conflict("another call used this request id at this moment; try again")

    def _key(self) -> tuple[str, str, str, str]:
        return self.call.tenant_id, self.call.client_id, self.family, self.request_id


def once(
    call: Call, *, family: str, request: Message, encode: Callable[[R], bytes], keep_refusals: bool = False
) -> Once[R]:
    """The claim of a request that has a `request_id` field; its other fields are the body."""
    request_id: str = getattr(request, "request_id")  # noqa: B009 - every mutating request message has the field
    return Once(
        call=call,
        family=family,
        request_id=request_id,
        fingerprint=fingerprint_of(request),
        encode=encode,
        keep_refusals=keep_refusals,
    )


def fingerprint(body: bytes) -> bytes:
    """16 bytes that two bodies share only if they are equal."""
    return hashlib.blake2b(body, digest_size=_FINGERPRINT_BYTES).digest()


def fingerprint_of(request: Message) -> bytes:
    """The fingerprint of a request without its request id."""
    body = type(request)()
    body.CopyFrom(request)
    body.ClearField("request_id")
    return fingerprint(body.SerializeToString(deterministic=True))


def refusal_to_json(refusal: DomainError) -> dict[str, Any]:
    """A storable refusal as JSON; its named subclass is kept by its reason."""
    stored: dict[str, Any] = {"message": refusal.message, "reason": refusal.reason, "metadata": refusal.metadata}
    match refusal:
        case Missing():
            return stored | {"error": "Missing", "kind": refusal.kind, "name": refusal.name}
        case AlreadyExists():
            return stored | {"error": "AlreadyExists"}
        case Refused():
            return stored | {"error": "Refused", "subject": refusal.subject}
        case _:
            raise AssertionError(f"{type(refusal).__name__} is not a refusal to store")


def refusal_from_json(stored: dict[str, Any]) -> DomainError:
    """The refusal that was stored, equal in everything a caller sees."""
    message, reason, metadata = stored["message"], stored["reason"], stored["metadata"]
    match stored["error"]:
        case "Missing":
            return Missing(message, kind=stored["kind"], name=stored["name"], reason=reason, metadata=metadata)
        case "AlreadyExists":
            return AlreadyExists(message, reason=reason, metadata=metadata)
        case "Refused":
            return Refused(message, subject=stored["subject"], reason=reason, metadata=metadata)
        case other:
            raise AssertionError(f"a stored refusal of kind {other!r}")


async def forget_expired(connection: Connection) -> int:
    """Deletes a bounded number of refusals older than their 24 hours, on the system role; how many there were."""
    status = await raw(connection).execute(_FORGET, FORGET_BATCH)
    return int(status.rpartition(" ")[2])
