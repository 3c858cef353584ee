"""A member's history."""

from typing import NamedTuple

from services.loyalty.domain.points import Entry, EntryKind
from services.loyalty.domain.programme import NEVER
from services.runtime.database import Connection, raw


class Place(NamedTuple):
    """Where a page ends: the last entry's version and id."""

    version: int
    entry_id: str


# a merged member's entries stay under its own name and belong to the survivor's history;
# versions of the survivor go on after those of both
_PAGE = """
    SELECT e.entry_id::text, e.kind, e.account_version, e.points, e.source, e.target, c.funder, c.expiry_class,
           e.expires_at, e.occurred_at, e.posted_at, coalesce(e.order_id, '') AS order_id, e.reason
    FROM entries AS e
    JOIN point_classes AS c ON c.tenant_id = e.tenant_id AND c.class_no = e.class_no
    WHERE e.tenant_id = $1::uuid
      AND e.member_id IN (
          SELECT $2::uuid
          UNION ALL SELECT a.alias_id FROM aliases AS a WHERE a.tenant_id = $1::uuid AND a.member_id = $2::uuid
      )
      AND c.point_currency = $3
      AND ($4::bigint IS NULL OR (e.account_version, e.entry_id) < ($4::bigint, $5::uuid))
    ORDER BY e.account_version DESC, e.entry_id DESC
    LIMIT $6
"""


async def page(
    connection: Connection, tenant_id: str, *, member_id: str, point_currency: str, after: Place | None, limit: int
) -> list[Entry]:
    """Up to `limit` entries of a member that is nobody's alias, newest first, after the given place."""
    rows = await raw(connection).fetch(
        _PAGE,
        tenant_id,
        member_id,
        point_currency,
        after.version if after else None,
        after.entry_id if after else None,
        limit,
    )
    return [
        Entry(
            entry_id=row["entry_id"],
            kind=EntryKind(row["kind"]),
            version=row["account_version"],
            points=row["points"] * (_is_posted(row["target"]) - _is_posted(row["source"])),
            pending_points=row["points"] * ((row["target"] == 1) - (row["source"] == 1)),
            funder=row["funder"],
            expiry_class=row["expiry_class"],
            expires_at=None if row["expires_at"] == NEVER else row["expires_at"],
            occurred_at=row["occurred_at"],
            posted_at=row["posted_at"],
            order_id=row["order_id"],
            why=row["reason"],
        )
        for row in rows
    ]


def _is_posted(bucket: int) -> bool:
    return bucket in {2, 3}
