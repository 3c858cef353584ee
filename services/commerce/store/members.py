"""Merges: which member ids lead to which survivor. Aliases always name a live member, in one step."""

from services.runtime.database import Connection, raw

_ALIAS = """
    INSERT INTO member_aliases (tenant_id, member_id, survivor_id)
    VALUES ($1::uuid, $2::uuid, $3::uuid)
    ON CONFLICT (tenant_id, member_id) DO UPDATE SET survivor_id = excluded.survivor_id
"""
_FOLLOW = """
    UPDATE member_aliases
    SET survivor_id = $3::uuid
    WHERE tenant_id = $1::uuid AND survivor_id = $2::uuid AND member_id <> $3::uuid
"""


async def alias(connection: Connection, tenant_id: str, *, merged_id: str, survivor_id: str) -> None:
    """From now on the merged member's orders are listed with the survivor's."""
    await raw(connection).execute(_ALIAS, tenant_id, merged_id, survivor_id)
    await raw(connection).execute(_FOLLOW, tenant_id, merged_id, survivor_id)
