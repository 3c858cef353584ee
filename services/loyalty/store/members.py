"""What a merge of members does to the ledger."""

from datetime import datetime

from services.runtime.database import Connection, raw

_MERGE = "SELECT merge_members($1::uuid, $2, $3::uuid, $4::uuid, $5::uuid)"


async def merge(
    connection: Connection, tenant_id: str, now: datetime, *, merge_id: str, member_id: str, alias_id: str
) -> None:
    """Moves all points of the alias to the survivor, by ledger transfer; known merges change nothing."""
    await raw(connection).fetchval(_MERGE, tenant_id, now, merge_id, member_id, alias_id)
