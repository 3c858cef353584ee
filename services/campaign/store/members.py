"""Merged members: their coupons move to the survivor, and they keep coming under their old ids."""

from collections.abc import Sequence

from services.runtime.database import Connection, raw

# a coupon issued to the merged member while the merge commits would be nobody's: the two wait for each other
_ALONE = "SELECT pg_advisory_xact_lock(hashtextextended('campaign members ' || $1, 0))"
_TOGETHER = "SELECT pg_advisory_xact_lock_shared(hashtextextended('campaign members ' || $1, 0))"
# A merge is an event of its survivor, and members' events come in an order of their own each: the survivor may be known
# as merged already.
_SURVIVOR = """
    SELECT coalesce(
        (SELECT a.member_id FROM member_aliases AS a WHERE a.tenant_id = $1::uuid AND a.alias_id = $2::uuid), $2::uuid
    )::text
"""
_ALIAS = """
    INSERT INTO member_aliases (tenant_id, alias_id, member_id)
    VALUES ($1::uuid, $2::uuid, $3::uuid)
    ON CONFLICT (tenant_id, alias_id) DO UPDATE SET member_id = excluded.member_id
"""
# aliases of the one that is now an alias itself
_SHORTEN = "UPDATE member_aliases SET member_id = $3::uuid WHERE tenant_id = $1::uuid AND member_id = $2::uuid"
# a hold locks coupons in id order, so this does too
_MOVE = """
    UPDATE coupons AS c
    SET member_id = $3::uuid
    FROM (
        SELECT coupon_id
        FROM coupons
        WHERE tenant_id = $1::uuid AND member_id = $2::uuid
        ORDER BY coupon_id
        FOR NO KEY UPDATE
    ) AS l
    WHERE c.tenant_id = $1::uuid AND c.coupon_id = l.coupon_id
"""


async def hold_still(connection: Connection, tenant_id: str) -> None:
    """Lets no member of the tenant be merged until the transaction ends; what is read from now on stays so."""
    await raw(connection).execute(_TOGETHER, tenant_id)


async def merge(connection: Connection, tenant_id: str, merges: Sequence[tuple[str, str]]) -> None:
    """Applies merges (merged member, survivor), of a chain in any order; what a limit counted stays counted."""
    driver = raw(connection)
    await driver.execute(_ALONE, tenant_id)
    for merged_id, into_id in merges:
        member_id = await driver.fetchval(_SURVIVOR, tenant_id, into_id)
        await driver.execute(_ALIAS, tenant_id, merged_id, member_id)
        await driver.execute(_SHORTEN, tenant_id, merged_id, member_id)
        await driver.execute(_MOVE, tenant_id, merged_id, member_id)
