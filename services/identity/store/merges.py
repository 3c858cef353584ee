"""Merges as rows: what was before, why, and the moves that make two members one."""

import json
from datetime import datetime

from services.identity.domain.sealing import seal
from services.runtime.database import Connection, raw
from services.runtime.ids import MemberId

# what both members were, so that an unmerge can give each identifier back; lookups and no values
_SNAPSHOT = """
    SELECT m.member_id::text, m.version, m.signed_up_at, m.sign_up_channel,
           coalesce(
               jsonb_agg(
                   jsonb_build_object('lookup', encode(i.lookup, 'hex'), 'type', i.type, 'issuer', i.issuer,
                                      'owns', i.owns, 'verified', i.verified, 'sealed_for', i.sealed_for,
                                      'sealed', encode(i.sealed, 'hex'), 'linked_at', i.linked_at)
                   ORDER BY i.linked_at, i.lookup
               ) FILTER (WHERE i.lookup IS NOT NULL),
               '[]'
           ) AS identifiers,
           -- aliases that the merge redirects, and an unmerge must give back
           (SELECT coalesce(jsonb_agg(a.member_id ORDER BY a.member_id), '[]')
            FROM members AS a
            WHERE a.tenant_id = m.tenant_id AND a.merged_into = m.member_id) AS aliases
    FROM members AS m
    LEFT JOIN identifiers AS i ON i.tenant_id = m.tenant_id AND i.member_id = m.member_id
    WHERE m.tenant_id = $1::uuid AND m.member_id = ANY($2::uuid[])
    GROUP BY m.tenant_id, m.member_id
"""
# of one number that both have, the stronger standing stays: the owner's, else the survivor's
_DROP_WEAKER = """
    DELETE FROM identifiers AS i
    USING identifiers AS other
    WHERE i.tenant_id = $1::uuid AND other.tenant_id = i.tenant_id AND other.lookup = i.lookup
      AND ((i.member_id = $3::uuid AND other.member_id = $2::uuid AND (other.owns OR NOT i.owns))
           OR (i.member_id = $2::uuid AND other.member_id = $3::uuid AND other.owns))
"""
_MOVE = "UPDATE identifiers SET member_id = $2::uuid WHERE tenant_id = $1::uuid AND member_id = $3::uuid"
# the alias itself, and whoever was an alias of it: all aliases name a live member, so that following takes one step
_ALIAS = """
    UPDATE members
    SET merged_into = $2::uuid
    WHERE tenant_id = $1::uuid AND (member_id = $3::uuid OR merged_into = $3::uuid)
"""
_RECORD = """
    INSERT INTO merges (tenant_id, merge_id, member_id, merged_member_id, evidence, snapshot, merged_by, occurred_at)
    VALUES ($1::uuid, $2::uuid, $3::uuid, $4::uuid, $5, $6::jsonb, $7, $8)
"""


async def record(
    connection: Connection,
    tenant_id: str,
    *,
    merge_id: str,
    survivor: MemberId,
    merged: MemberId,
    evidence: str,
    evidence_key: bytes,
    merged_by: str,
    occurred_at: datetime,
) -> None:
    """Writes the merge with both members as they are at this moment; call it before `unite`, under their locks."""
    rows = await raw(connection).fetch(_SNAPSHOT, tenant_id, [survivor, merged])
    snapshot = {
        row["member_id"]: {
            "version": row["version"],
            "signed_up_at": row["signed_up_at"].isoformat(),
            "sign_up_channel": row["sign_up_channel"],
            "identifiers": row["identifiers"],
            "aliases": row["aliases"],
        }
        for row in rows
    }
    await raw(connection).execute(
        _RECORD,
        tenant_id,
        merge_id,
        survivor,
        merged,
        seal(evidence_key, evidence.encode(), bound_to=f"merge {tenant_id} {merge_id}"),
        json.dumps(snapshot),
        merged_by,
        occurred_at,
    )


async def unite(connection: Connection, tenant_id: str, *, survivor: MemberId, merged: MemberId) -> None:
    """Moves the identifiers to the survivor and makes the other an alias of it; both are locked."""
    for statement in (_DROP_WEAKER, _MOVE, _ALIAS):
        await raw(connection).execute(statement, tenant_id, survivor, merged)
