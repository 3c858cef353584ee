"""Coupons: issued in bulk, listed by member."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.campaign.domain.coupons import Coupon, CouponState
from services.runtime.database import Connection, raw
from services.runtime.ids import CouponId, MemberId, TemplateId

# the pairs of a batch are few and the index leads by template: one probe a pair
_OWNED = """
    SELECT w.template_id, w.member_id::text, (
        SELECT count(*)
        FROM coupons AS c
        WHERE c.tenant_id = $1::uuid AND c.template_id = w.template_id AND c.member_id = w.member_id
    ) AS owned
    FROM unnest($2::text[], $3::uuid[]) AS w(template_id, member_id)
"""
# A statement keeps its first plan until statistics change, and before they do the planner takes a tenant's coupons for
# a few and reads them all. A LATERAL with LIMIT is a probe of its index whatever the planner thinks.
_TAKEN = """
    SELECT c.code_lookup
    FROM unnest($2::bytea[]) AS w(code_lookup)
    CROSS JOIN LATERAL (
        SELECT code_lookup FROM coupons WHERE tenant_id = $1::uuid AND code_lookup = w.code_lookup LIMIT 1
    ) AS c
"""
# a code that another batch took at this moment is left out and told as taken
_ISSUE = """
    INSERT INTO coupons (tenant_id, coupon_id, template_id, template_version, member_id, code_lookup, code_end,
                         valid_from, valid_until, issued_at)
    SELECT $1::uuid, n.coupon_id, n.template_id, n.template_version, n.member_id, n.code_lookup, n.code_end,
           n.valid_from, n.valid_until, $2
    FROM unnest($3::uuid[], $4::text[], $5::bigint[], $6::uuid[], $7::bytea[], $8::text[], $9::timestamptz[],
                $10::timestamptz[])
         AS n(coupon_id, template_id, template_version, member_id, code_lookup, code_end, valid_from, valid_until)
    ON CONFLICT (tenant_id, code_lookup) DO NOTHING
    RETURNING coupon_id::text
"""
_COLUMNS = """
    c.coupon_id::text, c.template_id, c.template_version, c.member_id::text, c.state, c.valid_from, c.valid_until,
    c.held_until, c.code_end
"""
# Page by page along the index; an alias lists the survivor's coupons. The member comes materialized: an expression that
# might leak what row-level security hides, as coalesce might for all that Postgres knows, is no condition of an index.
_OF_MEMBER = f"""
    WITH owner AS MATERIALIZED (
        SELECT coalesce(
            (SELECT a.member_id FROM member_aliases AS a WHERE a.tenant_id = $1::uuid AND a.alias_id = $2::uuid),
            $2::uuid) AS member_id
    )
    SELECT l.*
    FROM owner AS o
    CROSS JOIN LATERAL (
        SELECT {_COLUMNS}
        FROM coupons AS c
        WHERE c.tenant_id = $1::uuid AND c.member_id = o.member_id
          AND ($3::timestamptz IS NULL OR (c.valid_until, c.coupon_id) > ($3::timestamptz, $4::uuid))
          AND (NOT $5 OR ((c.state = 'issued' OR (c.state = 'held' AND c.held_until <= $7))
                          AND c.valid_from <= $6 AND c.valid_until > $6))
        ORDER BY c.valid_until, c.coupon_id
        LIMIT $8
    ) AS l
"""
_SURVIVORS = """
    SELECT alias_id::text, member_id::text
    FROM member_aliases
    WHERE tenant_id = $1::uuid AND alias_id = ANY ($2::uuid[])
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCoupon:
    """A row to insert. `code_end` is None for a code that we made."""

    coupon: Coupon
    code_lookup: bytes
    code_end: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedCoupon:
    """A coupon as it is listed; `code_end` is None where the code can be told again."""

    coupon: Coupon
    code_end: str | None


async def owned(
    connection: Connection, tenant_id: str, pairs: Collection[tuple[str, str]]
) -> dict[tuple[str, str], int]:
    """How many coupons each (template, member) has, whatever became of them."""
    if not pairs:
        return {}
    rows = await raw(connection).fetch(
        _OWNED, tenant_id, [template for template, _ in pairs], [member for _, member in pairs]
    )
    return {(row["template_id"], row["member_id"]): row["owned"] for row in rows}


async def taken(connection: Connection, tenant_id: str, lookups: Sequence[bytes]) -> frozenset[bytes]:
    """Those of the hashed codes that exist already."""
    if not lookups:
        return frozenset()
    return frozenset(row[0] for row in await raw(connection).fetch(_TAKEN, tenant_id, lookups))


async def survivors(connection: Connection, tenant_id: str, member_ids: Collection[str]) -> dict[str, str]:
    """Of these members, the merged ones and into whom."""
    if not member_ids:
        return {}
    rows = await raw(connection).fetch(_SURVIVORS, tenant_id, list(member_ids))
    return {row["alias_id"]: row["member_id"] for row in rows}


async def issue(
    connection: Connection, tenant_id: str, new: Sequence[NewCoupon], *, issued_at: datetime
) -> frozenset[str]:
    """Inserts the coupons and returns the ids of those whose code was free."""
    if not new:
        return frozenset()
    rows = await raw(connection).fetch(
        _ISSUE,
        tenant_id,
        issued_at,
        [each.coupon.coupon_id for each in new],
        [each.coupon.template_id for each in new],
        [each.coupon.template_version for each in new],
        [each.coupon.member_id for each in new],
        [each.code_lookup for each in new],
        [each.code_end for each in new],
        [each.coupon.valid_from for each in new],
        [each.coupon.valid_until for each in new],
    )
    return frozenset(row[0] for row in rows)


async def of_member(
    connection: Connection,
    tenant_id: str,
    member_id: str,
    *,
    after: tuple[datetime, str] | None,
    usable_at: datetime | None,
    machine_now: datetime,
    limit: int,
) -> list[ListedCoupon]:
    """A member's coupons by expiry, from after a place in that order; only those usable at a time if one is given."""
    at, coupon_id = after if after is not None else (None, None)
    rows = await raw(connection).fetch(
        _OF_MEMBER, tenant_id, member_id, at, coupon_id, usable_at is not None, usable_at, machine_now, limit
    )
    return [ListedCoupon(coupon=coupon_of(row), code_end=row["code_end"]) for row in rows]


def coupon_of(row: Any) -> Coupon:
    """The coupon in a row that has its columns."""
    member_id = row["member_id"]
    return Coupon(
        coupon_id=CouponId(row["coupon_id"]),
        template_id=TemplateId(row["template_id"]),
        template_version=row["template_version"],
        member_id=None if member_id is None else MemberId(member_id),
        state=CouponState(row["state"]),
        valid_from=row["valid_from"],
        valid_until=row["valid_until"],
        held_until=row["held_until"],
    )
