"""identity's checks over its own rows; on the system role, one tenant at a time, in one snapshot."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from services.runtime.audit import Finding
from services.runtime.database import Connection, raw

# each answers how many rows it looked at, how many break the rule, and the first of those
CHECKS: Final[dict[str, str]] = {
    "identity.identifiers_belong_to_live_members": """
        SELECT count(*) AS examined, count(*) FILTER (WHERE m.merged_into IS NOT NULL) AS broken,
               (array_agg(i.member_id::text) FILTER (WHERE m.merged_into IS NOT NULL))[1:5] AS first
        FROM identifiers AS i
        LEFT JOIN members AS m ON m.tenant_id = i.tenant_id AND m.member_id = i.member_id
        WHERE i.tenant_id = $1::uuid
    """,
    "identity.aliases_lead_to_live_members": """
        SELECT count(*) AS examined,
               count(*) FILTER (WHERE s.member_id IS NULL OR s.merged_into IS NOT NULL) AS broken,
               (array_agg(a.member_id::text)
                   FILTER (WHERE s.member_id IS NULL OR s.merged_into IS NOT NULL))[1:5] AS first
        FROM members AS a
        LEFT JOIN members AS s ON s.tenant_id = a.tenant_id AND s.member_id = a.merged_into
        WHERE a.tenant_id = $1::uuid AND a.merged_into IS NOT NULL
    """,
    "identity.members_own_an_identifier": """
        SELECT count(*) AS examined, count(*) FILTER (WHERE NOT o.owning) AS broken,
               (array_agg(m.member_id::text) FILTER (WHERE NOT o.owning))[1:5] AS first
        FROM members AS m
        CROSS JOIN LATERAL (
            SELECT EXISTS (
                SELECT FROM identifiers AS i
                WHERE i.tenant_id = m.tenant_id AND i.member_id = m.member_id AND i.owns
            ) AS owning
        ) AS o
        WHERE m.tenant_id = $1::uuid AND m.merged_into IS NULL
    """,
    # every alias has its merge on record, and every merge made an alias: nobody disappears unexplained
    "identity.merges_are_recorded": """
        SELECT count(*) AS examined, count(*) FILTER (WHERE a.member_id IS NULL OR r.member_id IS NULL) AS broken,
               (array_agg(coalesce(a.member_id, r.member_id)::text)
                   FILTER (WHERE a.member_id IS NULL OR r.member_id IS NULL))[1:5] AS first
        FROM (SELECT m.member_id FROM members AS m WHERE m.tenant_id = $1::uuid AND m.merged_into IS NOT NULL) AS a
        FULL JOIN (SELECT DISTINCT g.merged_member_id AS member_id FROM merges AS g WHERE g.tenant_id = $1::uuid) AS r
            ON r.member_id = a.member_id
    """,
    # a value is sealed for the member that it was linked to, which is its owner or an alias of its owner
    "identity.values_are_sealed_for_their_member": """
        SELECT count(*) AS examined,
               count(*) FILTER (WHERE i.member_id <> coalesce(k.merged_into, k.member_id)) AS broken,
               (array_agg(i.member_id::text)
                   FILTER (WHERE i.member_id <> coalesce(k.merged_into, k.member_id)))[1:5] AS first
        FROM identifiers AS i
        JOIN members AS k ON k.tenant_id = i.tenant_id AND k.member_id = i.sealed_for
        WHERE i.tenant_id = $1::uuid
    """,
    "identity.bound_clients_have_their_store": """
        SELECT count(*) AS examined, count(*) FILTER (WHERE s.store_id IS NULL) AS broken,
               (array_agg(c.client_id::text) FILTER (WHERE s.store_id IS NULL))[1:5] AS first
        FROM clients AS c
        LEFT JOIN stores AS s ON s.tenant_id = c.tenant_id AND s.store_id = c.store_id
        WHERE c.tenant_id = $1::uuid AND c.store_id IS NOT NULL
    """,
}

_FIGURES = """
    SELECT
        (SELECT count(*) FROM members AS m WHERE m.tenant_id = $1::uuid) AS identity_members_registered,
        (SELECT count(*) FROM members AS m
         WHERE m.tenant_id = $1::uuid AND m.merged_into IS NOT NULL) AS identity_members_merged,
        (SELECT count(*) FROM identifiers AS i WHERE i.tenant_id = $1::uuid) AS identity_identifiers,
        (SELECT count(*) FROM stores AS s WHERE s.tenant_id = $1::uuid) AS identity_stores,
        (SELECT count(*) FROM clients AS c WHERE c.tenant_id = $1::uuid) AS identity_clients
"""


async def run(
    connection: Connection, tenant_id: str, names: Sequence[str], *, now: datetime, machine_now: datetime
) -> list[Finding]:
    """What the checks find. They look at no clock of ours: the database's own is machine time."""
    return [await _check(connection, tenant_id, name) for name in names]


async def _check(connection: Connection, tenant_id: str, name: str) -> Finding:
    row = await raw(connection).fetchrow(CHECKS[name], tenant_id)
    detail = f"{row['broken']} rows, first {', '.join(row['first'])}" if row["broken"] else ""
    return Finding(check=name, ok=row["broken"] == 0, examined=row["examined"], detail=detail)


async def figures(connection: Connection, tenant_id: str) -> dict[str, int]:
    """Named totals; the prefix says that they are identity's own count."""
    return dict(await raw(connection).fetchrow(_FIGURES, tenant_id))
