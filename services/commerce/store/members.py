"""Merges: which member ids lead to which survivor. Aliases always name a live member, in one step."""

from services.runtime.database import Connection, raw

# two links of a chain that are told at once would not see each other
_ALONE = "SELECT pg_advisory_xact_lock(hashtextextended('commerce members ' || $1, 0))"
# A merge is an event of its survivor, and members' events come in an order of their own each: the survivor may be known
# as merged already.
_ALIAS = """
    INSERT INTO member_aliases (tenant_id, member_id, survivor_id)
    VALUES (
        $1::uuid, $2::uuid,
        coalesce(
            (SELECT a.survivor_id FROM member_aliases AS a WHERE a.tenant_id = $1::uuid AND a.member_id = $3::uuid),
            $3::uuid
        )
    )
    ON CONFLICT (tenant_id, member_id) DO UPDATE SET survivor_id = excluded.survivor_id
    RETURNING survivor_id::text
"""
_FOLLOW = """
    UPDATE member_aliases
    SET survivor_id = $3::uuid
    WHERE tenant_id = $1::uuid AND survivor_id = $2::uuid AND member_id <> $3::uuid
"""


async def alias(connection: Connection, tenant_id: str, *, merged_id: str, survivor_id: str) -> None:
    """From now on the merged member's orders are listed with the survivor's; merges of a chain come in any order."""
    driver = raw(connection)
    await driver.execute(_ALONE, tenant_id)
    live_id = await driver.fetchval(_ALIAS, tenant_id, merged_id, survivor_id)
    await driver.execute(_FOLLOW, tenant_id, merged_id, live_id)
