"""Whether a request was answered, for those who book before they answer it. `runtime.idempotency` writes the rows."""

from services.runtime.database import Connection, raw

_IS_ANSWERED = """
    SELECT true
    FROM requests
    WHERE tenant_id = $1::uuid AND client_id = $2 AND family = $3 AND request_id = $4
      AND (expires_at IS NULL OR expires_at > clock_timestamp())
"""


async def is_answered(connection: Connection, tenant_id: str, *, client_id: str, family: str, request_id: str) -> bool:
    """Whether the request id has an answer, be it a reply or a kept refusal, to this body or to another."""
    found = await raw(connection).fetchval(_IS_ANSWERED, tenant_id, client_id, family, request_id)
    return found is not None
