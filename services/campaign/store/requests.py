"""Request ids of a whole batch at once: what `runtime.idempotency` does for one call, on the same table."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from services.runtime.database import Connection, raw
from services.runtime.errors import Conflict, DomainError
from services.runtime.idempotency import REFUSALS_KEPT_H, refusal_from_json, refusal_to_json

# LATERAL, so that each id is looked up in its own hash partition only
_FIND = """
    SELECT w.client_id, w.request_id, r.fingerprint, r.reply, r.refusal
    FROM unnest($3::text[], $4::text[]) AS w(client_id, request_id)
    CROSS JOIN LATERAL (
        SELECT k.fingerprint, k.reply, k.refusal
        FROM requests AS k
        WHERE k.tenant_id = $1::uuid AND k.client_id = w.client_id AND k.family = $2 AND k.request_id = w.request_id
          AND (k.expires_at IS NULL OR k.expires_at > clock_timestamp())
    ) AS r
"""
# an expired refusal gives way; anything else that is there was first
_STORE = """
    INSERT INTO requests (tenant_id, client_id, family, request_id, fingerprint, reply, refusal, expires_at)
    SELECT $1::uuid, a.client_id, $2, a.request_id, a.fingerprint, a.reply, a.refusal::jsonb,
           CASE WHEN a.refusal IS NOT NULL THEN clock_timestamp() + make_interval(hours => $8) END
    FROM unnest($3::text[], $4::text[], $5::bytea[], $6::bytea[], $7::text[])
         AS a(client_id, request_id, fingerprint, reply, refusal)
    ORDER BY a.client_id, a.request_id
    ON CONFLICT (tenant_id, client_id, family, request_id) DO UPDATE
    SET fingerprint = excluded.fingerprint, reply = excluded.reply, refusal = excluded.refusal,
        expires_at = excluded.expires_at, created_at = excluded.created_at
    WHERE requests.expires_at <= clock_timestamp()
    RETURNING true
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A request with its answer, which is the reply or the refusal."""

    client_id: str
    request_id: str
    fingerprint: bytes
    answer: bytes | DomainError


async def find(
    connection: Connection, tenant_id: str, family: str, asked: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], Answered]:
    """Those of the (client, request id) that were answered before."""
    rows = await raw(connection).fetch(
        _FIND, tenant_id, family, [client for client, _ in asked], [request for _, request in asked]
    )
    return {
        (row["client_id"], row["request_id"]): Answered(
            client_id=row["client_id"],
            request_id=row["request_id"],
            fingerprint=row["fingerprint"],
            answer=row["reply"] if row["refusal"] is None else refusal_from_json(row["refusal"]),
        )
        for row in rows
    }


async def store(connection: Connection, tenant_id: str, family: str, answers: Sequence[Answered]) -> None:
    """Stores the answers; refusals for 24 hours. Raises Conflict if another lane answers one of them at this moment."""
    if not answers:
        return
    said = [each.answer for each in answers]
    stored = await raw(connection).fetch(
        _STORE,
        tenant_id,
        family,
        [each.client_id for each in answers],
        [each.request_id for each in answers],
        [each.fingerprint for each in answers],
        [answer if isinstance(answer, bytes) else None for answer in said],
        [json.dumps(refusal_to_json(answer)) if isinstance(answer, DomainError) else None for answer in said],
        REFUSALS_KEPT_H,
    )
    if len(stored) < len(answers):
        raise Conflict("another call uses this request id at this moment; try again")
