"""Coupon templates: heads with their count of issued coupons, and versions that never change."""

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import func, insert, select, tuple_
from sqlalchemy.dialects.postgresql import insert as upsert

from services.campaign.domain.coupons import (
    CouponDiscount,
    CouponState,
    Issuable,
    Template,
    TemplateCounts,
)
from services.campaign.tables import coupons, template_versions, templates
from services.runtime.database import Connection, raw
from services.runtime.ids import TemplateId

# in id order, so that two batches over the same templates can't deadlock
_LOCK_TO_ISSUE = """
    WITH heads AS MATERIALIZED (
        SELECT template_id, version, issued
        FROM templates
        WHERE tenant_id = $1::uuid AND template_id = ANY ($2::text[])
        ORDER BY template_id
        FOR NO KEY UPDATE
    )
    SELECT h.template_id, h.version, h.issued, v.valid_from, v.valid_until, v.issue_limit, v.member_limit
    FROM heads AS h
    JOIN template_versions AS v
      ON v.tenant_id = $1::uuid AND v.template_id = h.template_id AND v.version = h.version
"""
_COUNT_ISSUED = """
    UPDATE templates AS t
    SET issued = t.issued + n.issued
    FROM unnest($2::text[], $3::bigint[]) AS n(template_id, issued)
    WHERE t.tenant_id = $1::uuid AND t.template_id = n.template_id
"""
_VERSION = template_versions.c


async def put(connection: Connection, tenant_id: str, template: Template) -> int:
    """Writes the template as its next version and returns that."""
    head = upsert(templates).values(tenant_id=tenant_id, template_id=template.template_id, version=1)
    head = head.on_conflict_do_update(
        index_elements=["tenant_id", "template_id"], set_={"version": templates.c.version + 1}
    )
    version: int = (await connection.execute(head.returning(templates.c.version))).scalar_one()
    await connection.execute(
        insert(template_versions).values(
            tenant_id=tenant_id,
            template_id=template.template_id,
            version=version,
            display_name=template.display_name,
            discount=template.discount.value,
            amount_minor=template.amount_minor,
            percent=template.percent,
            cap_minor=template.cap_minor,
            threshold_minor=template.threshold_minor,
            skus=sorted(template.skus),
            categories=sorted(template.categories),
            valid_from=template.valid_from,
            valid_until=template.valid_until,
            issue_limit=template.issue_limit,
            member_limit=template.member_limit,
            exclusive=template.exclusive,
            returnable=template.returnable,
            funder=template.funder,
            priority=template.priority,
        )
    )
    return version


async def get(connection: Connection, tenant_id: str, template_id: str) -> tuple[Template, int, TemplateCounts] | None:
    """The template as it stands, its version, and its coupons counted."""
    query = (
        select(template_versions, templates.c.issued)
        .join_from(
            templates,
            template_versions,
            (_VERSION.tenant_id == templates.c.tenant_id)
            & (_VERSION.template_id == templates.c.template_id)
            & (_VERSION.version == templates.c.version),
        )
        .where(templates.c.tenant_id == tenant_id, templates.c.template_id == template_id)
    )
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        return None
    by_state = (
        select(coupons.c.state, func.count())
        .where(coupons.c.tenant_id == tenant_id, coupons.c.template_id == template_id)
        .group_by(coupons.c.state)
    )
    counted: dict[str, int] = {row[0]: row[1] for row in await connection.execute(by_state)}
    counts = TemplateCounts(
        issued=row.issued, held=counted.get(CouponState.HELD, 0), used=counted.get(CouponState.USED, 0)
    )
    return _template(row), row.version, counts


async def versions(
    connection: Connection, tenant_id: str, wanted: Collection[tuple[str, int]]
) -> dict[tuple[str, int], Template]:
    """Templates by id and version: what coupons were issued under."""
    query = select(template_versions).where(
        _VERSION.tenant_id == tenant_id, tuple_(_VERSION.template_id, _VERSION.version).in_(list(wanted))
    )
    return {(row.template_id, row.version): _template(row) for row in await connection.execute(query)}


async def lock_to_issue(connection: Connection, tenant_id: str, template_ids: Collection[str]) -> dict[str, Issuable]:
    """The templates that exist, locked: what is issued from them is counted by one transaction at a time."""
    rows = await raw(connection).fetch(_LOCK_TO_ISSUE, tenant_id, sorted(template_ids))
    return {
        row["template_id"]: Issuable(
            version=row["version"],
            valid_from=row["valid_from"],
            valid_until=row["valid_until"],
            issue_limit=row["issue_limit"],
            member_limit=row["member_limit"],
            issued=row["issued"],
        )
        for row in rows
    }


async def count_issued(connection: Connection, tenant_id: str, issued: Mapping[str, int]) -> None:
    """Adds newly issued coupons to their templates, which are locked."""
    await raw(connection).execute(_COUNT_ISSUED, tenant_id, list(issued.keys()), list(issued.values()))


def _template(row: Any) -> Template:
    return Template(
        template_id=TemplateId(row.template_id),
        display_name=row.display_name,
        discount=CouponDiscount(row.discount),
        valid_from=row.valid_from,
        valid_until=row.valid_until,
        amount_minor=row.amount_minor,
        percent=row.percent,
        cap_minor=row.cap_minor,
        threshold_minor=row.threshold_minor,
        skus=frozenset(row.skus),
        categories=frozenset(row.categories),
        issue_limit=row.issue_limit,
        member_limit=row.member_limit,
        exclusive=row.exclusive,
        returnable=row.returnable,
        funder=row.funder,
        priority=row.priority,
    )
