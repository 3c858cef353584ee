"""Promotions: heads with their budgets' counters, versions that never change, and member prices."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, insert, select
from sqlalchemy.dialects.postgresql import insert as upsert

from services.campaign.domain.promotions import MemberPrice, Promotion, PromotionKind, PromotionUse
from services.campaign.tables import catalogues, member_prices, promotion_versions, promotions
from services.runtime.database import Connection, raw
from services.runtime.ids import PromotionId

MAX_PROMOTIONS = 20_000
"""More than a brand has within reach of a sale; beyond it, those that ended first are left out."""

# one multi-row upsert; SKUs are unique within a request
_PUT_PRICES = """
    INSERT INTO member_prices (tenant_id, sku, promotion_id, amount_off_minor)
    SELECT $1::uuid, p.sku, $2, p.off
    FROM unnest($3::text[], $4::bigint[]) AS p(sku, off)
    ORDER BY p.sku
    ON CONFLICT (tenant_id, sku, promotion_id) DO UPDATE SET amount_off_minor = excluded.amount_off_minor
"""
_VERSION = promotion_versions.c


async def put(connection: Connection, tenant_id: str, promotion: Promotion) -> int:
    """Writes the promotion as its next version and returns that."""
    head = upsert(promotions).values(
        tenant_id=tenant_id, promotion_id=promotion.promotion_id, version=1, budget_minor=promotion.budget_minor
    )
    head = head.on_conflict_do_update(
        index_elements=["tenant_id", "promotion_id"],
        set_={"version": promotions.c.version + 1, "budget_minor": head.excluded.budget_minor},
    )
    version: int = (await connection.execute(head.returning(promotions.c.version))).scalar_one()
    await connection.execute(
        insert(promotion_versions).values(
            tenant_id=tenant_id,
            promotion_id=promotion.promotion_id,
            version=version,
            display_name=promotion.display_name,
            kind=promotion.kind.value,
            valid_from=promotion.valid_from,
            valid_until=promotion.valid_until,
            priority=promotion.priority,
            exclusivity_group=promotion.exclusivity_group,
            percent=promotion.percent,
            amount_minor=promotion.amount_minor,
            threshold_minor=promotion.threshold_minor,
            skus=sorted(promotion.skus),
            categories=sorted(promotion.categories),
            store_ids=sorted(promotion.store_ids),
            members_only=promotion.members_only,
            funder=promotion.funder,
            budget_minor=promotion.budget_minor,
        )
    )
    # last, since this row is shared by every change of the tenant
    raised = upsert(catalogues).values(tenant_id=tenant_id, version=1)
    await connection.execute(
        raised.on_conflict_do_update(index_elements=["tenant_id"], set_={"version": catalogues.c.version + 1})
    )
    return version


async def kind_of(connection: Connection, tenant_id: str, promotion_id: str) -> PromotionKind | None:
    """The kind of the promotion as it stands, locked against change; None if there is no such promotion."""
    head = select(promotions.c.version).where(
        promotions.c.tenant_id == tenant_id, promotions.c.promotion_id == promotion_id
    )
    version = (await connection.execute(head.with_for_update(key_share=True))).scalar_one_or_none()
    if version is None:
        return None
    kind = select(_VERSION.kind).where(
        _VERSION.tenant_id == tenant_id, _VERSION.promotion_id == promotion_id, _VERSION.version == version
    )
    return PromotionKind((await connection.execute(kind)).scalar_one())


async def put_member_prices(
    connection: Connection, tenant_id: str, promotion_id: str, prices: Sequence[MemberPrice]
) -> int:
    """Makes or replaces the prices; returns how many stand in the promotion now."""
    await raw(connection).execute(
        _PUT_PRICES,
        tenant_id,
        promotion_id,
        [price.sku for price in prices],
        [price.amount_off_minor for price in prices],
    )
    count = (
        select(func.count())
        .select_from(member_prices)
        .where(member_prices.c.tenant_id == tenant_id, member_prices.c.promotion_id == promotion_id)
    )
    return int((await connection.execute(count)).scalar_one())


async def get(connection: Connection, tenant_id: str, promotion_id: str) -> tuple[Promotion, int, PromotionUse] | None:
    """The promotion as it stands, its version, and what it gave."""
    query = (
        select(promotion_versions, promotions.c.given_minor, promotions.c.refunded_minor, promotions.c.held_minor)
        .join_from(promotions, promotion_versions, _is_current())
        .where(promotions.c.tenant_id == tenant_id, promotions.c.promotion_id == promotion_id)
    )
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        return None
    use = PromotionUse(given_minor=row.given_minor - row.refunded_minor, held_minor=row.held_minor)
    return _promotion(row), row.version, use


async def current(connection: Connection, tenant_id: str) -> tuple[int, tuple[Promotion, ...]]:
    """The catalogue's version (0 for none), and all promotions, at least as new as that version."""
    # the version first: what is read after it may be newer and is then read again, never older and kept
    version = await connection.execute(select(catalogues.c.version).where(catalogues.c.tenant_id == tenant_id))
    known = version.scalar_one_or_none() or 0
    query = (
        select(promotion_versions)
        .join_from(promotions, promotion_versions, _is_current())
        .where(promotions.c.tenant_id == tenant_id)
        .order_by(_VERSION.valid_until.desc().nulls_first(), promotions.c.promotion_id)
        .limit(MAX_PROMOTIONS)
    )
    return known, tuple(_promotion(row) for row in await connection.execute(query))


def _is_current() -> Any:
    return (
        (promotion_versions.c.tenant_id == promotions.c.tenant_id)
        & (promotion_versions.c.promotion_id == promotions.c.promotion_id)
        & (promotion_versions.c.version == promotions.c.version)
    )


def _promotion(row: Any) -> Promotion:
    return Promotion(
        promotion_id=PromotionId(row.promotion_id),
        display_name=row.display_name,
        kind=PromotionKind(row.kind),
        valid_from=row.valid_from,
        valid_until=row.valid_until,
        priority=row.priority,
        exclusivity_group=row.exclusivity_group,
        percent=row.percent,
        amount_minor=row.amount_minor,
        threshold_minor=row.threshold_minor,
        skus=frozenset(row.skus),
        categories=frozenset(row.categories),
        store_ids=frozenset(row.store_ids),
        members_only=row.members_only,
        funder=row.funder,
        budget_minor=row.budget_minor,
    )
