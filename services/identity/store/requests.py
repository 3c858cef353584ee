"""Request ids of a whole batch at once; what `runtime.idempotency` does for one call, in two statements for hundreds.

It shares the runtime's table and keys, so that a request answers the same whether it comes alone or in a batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from services.identity.domain.refusals import OwnershipRace
from services.runtime.call import Call
from services.runtime.database import Connection, raw

# LATERAL, so that each id is looked up in its own hash partition only
_FIND = """
    SELECT r.request_id, r.fingerprint, r.reply
    FROM unnest($4::text[]) AS w(request_id)
    CROSS JOIN LATERAL (
        SELECT k.request_id, k.fingerprint, k.reply
        FROM requests AS k
        WHERE k.tenant_id = $1::uuid AND k.client_id = $2 AND k.family = $3 AND k.request_id = w.request_id
    ) AS r
"""
_STORE = """
    INSERT INTO requests (tenant_id, client_id, family, request_id, fingerprint, reply)
    SELECT $1::uuid, $2, $3, a.request_id, a.fingerprint, a.reply
    FROM unnest($4::text[], $5::bytea[], $6::bytea[]) AS a(request_id, fingerprint, reply)
    ORDER BY a.request_id
    ON CONFLICT (tenant_id, client_id, family, request_id) DO NOTHING
    RETURNING request_id
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A request that has its answer: what it asked (fingerprint), and the reply."""

    request_id: str
    fingerprint: bytes
    reply: bytes


async def find(connection: Connection, call: Call, family: str, request_ids: Sequence[str]) -> dict[str, Answered]:
    """The requests that were answered before, by id."""
    rows = await raw(connection).fetch(_FIND, call.tenant_id, call.client_id, family, list(request_ids))
    return {
        row["request_id"]: Answered(
            request_id=row["request_id"], fingerprint=row["fingerprint"], reply=row["reply"] or b""
        )
        for row in rows
    }


async def store(connection: Connection, call: Call, family: str, answers: Sequence[Answered]) -> None:
    """Stores the answers. Raises OwnershipRace if another call answered one of the requests at this moment."""
    if not answers:
        return
    stored = await raw(connection).fetch(
        _STORE,
        call.tenant_id,
        call.client_id,
        family,
        [answer.request_id for answer in answers],
        [answer.fingerprint for answer in answers],
        [answer.reply for answer in answers],
    )
    if len(stored) < len(answers):
        raise OwnershipRace
