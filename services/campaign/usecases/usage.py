"""Recording what paid and refunded orders used: a block of events at a time, in one transaction with the cursor."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from services.campaign.domain.events import CouponUsed, Event
from services.campaign.domain.usage import (
    CouponFact,
    Given,
    PaidOrder,
    Refund,
    UsageSource,
    UsedCoupon,
    settle_coupons,
)
from services.campaign.store import usage
from services.campaign.store.usage import PromotionCount
from services.campaign.usecases.holds import HoldBook, returned_event
from services.runtime.call import Call
from services.runtime.database import Connection
from services.runtime.ids import CouponId, TemplateId, is_id
from services.runtime.outbox import MAX_EVENTS, Outbox

Uncovered = tuple[str, Given, int]
"""What a promotion gave to an order, and how much of it no hold had claimed, in minor units."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRecorder:
    """Records facts. The transaction is the consumer's: it moves the cursor in it."""

    outbox: Outbox[Event]
    book: HoldBook

    async def record(
        self, connection: Connection, call: Call, *, orders: Sequence[PaidOrder], refunds: Sequence[Refund]
    ) -> None:
        """Records the orders, then the refunds: within a block a refund never comes before its order."""
        events: list[Event] = []
        if orders:
            events += await self._record_orders(connection, call, orders)
        if refunds:
            events += await self._record_refunds(connection, call, refunds)
        for first in range(0, len(events), MAX_EVENTS):
            await self.outbox.append(connection, call, *events[first : first + MAX_EVENTS])

    async def _record_orders(self, connection: Connection, call: Call, orders: Sequence[PaidOrder]) -> list[Event]:
        tenant_id = call.tenant_id
        new = await usage.record_orders(connection, tenant_id, orders)
        fresh = [order for order in orders if order.order_id in new]
        discounted = [order for order in fresh if order.given]
        if not discounted:
            return []
        claimed = await usage.claimed(connection, tenant_id, {order.order_id for order in discounted})
        promotions = _uncovered(discounted, claimed)
        facts, coupons = await self._settle_coupons(connection, call, discounted)
        await usage.record_discounts(connection, tenant_id, promotions, facts)
        if promotions:
            await usage.count(connection, tenant_id, _given_counts(promotions))
        return [_used_event(fact, coupons[fact.given.source_id]) for fact in facts if fact.version]

    async def _settle_coupons(
        self, connection: Connection, call: Call, orders: Sequence[PaidOrder]
    ) -> tuple[Sequence[CouponFact], dict[str, UsedCoupon]]:
        tenant_id = call.tenant_id
        named = {given.source_id for order in orders for given in order.given if given.source is UsageSource.COUPON}
        if not named:
            return (), {}
        # a till may have told anything while it was off-line
        ids = [name for name in named if is_id(name)]
        # A coupon under an overdue hold is free, swept or not: else its use would be an excess, and the sweeper would
        # give it back to be used again. After the orders are written: one that is paid keeps what it held.
        await self.book.give_back_due(connection, call, coupon_ids=ids)
        known = await usage.lock_coupons(connection, tenant_id, ids)
        facts, after = settle_coupons(orders, known)
        if after:
            await usage.settle_coupons(connection, tenant_id, after.values())
        return facts, after

    async def _record_refunds(self, connection: Connection, call: Call, refunds: Sequence[Refund]) -> list[Event]:
        tenant_id = call.tenant_id
        new = await usage.record_refunds(connection, tenant_id, refunds)
        fresh = [refund for refund in refunds if refund.refund_id in new]
        amounts: dict[tuple[str, UsageSource, str, str], int] = defaultdict(int)
        by_promotion: dict[str, int] = defaultdict(int)
        for refund in fresh:
            for given in refund.given_back:
                amounts[refund.order_id, given.source, given.source_id, given.template_id] += given.amount_minor
                if given.source is UsageSource.PROMOTION:
                    by_promotion[given.source_id] += given.amount_minor
        if amounts:
            await usage.give_back(connection, tenant_id, amounts)
        if by_promotion:
            counts = {name: PromotionCount(refunded_minor=amount) for name, amount in by_promotion.items()}
            await usage.count(connection, tenant_id, counts)
        whole = {refund.order_id: refund.occurred_at for refund in fresh if refund.whole_order}
        return await self._return(connection, tenant_id, whole) if whole else []

    async def _return(self, connection: Connection, tenant_id: str, whole: Mapping[str, datetime]) -> list[Event]:
        await usage.mark_whole(connection, tenant_id, whole)
        returned = await usage.return_coupons(connection, tenant_id, whole)
        return [returned_event(coupon) for coupon in returned]


def _uncovered(orders: Sequence[PaidOrder], claimed: Mapping[tuple[str, str], int]) -> list[Uncovered]:
    return [
        (order.order_id, given, max(0, given.amount_minor - claimed.get((order.order_id, given.source_id), 0)))
        for order in orders
        for given in order.given
        if given.source is UsageSource.PROMOTION
    ]


def _given_counts(promotions: Sequence[Uncovered]) -> dict[str, PromotionCount]:
    given_minor: dict[str, int] = defaultdict(int)
    uncovered_minor: dict[str, int] = defaultdict(int)
    for _, given, uncovered in promotions:
        given_minor[given.source_id] += given.amount_minor
        uncovered_minor[given.source_id] += uncovered
    return {
        name: PromotionCount(given_minor=amount, uncovered_minor=uncovered_minor[name])
        for name, amount in given_minor.items()
    }


def _used_event(fact: CouponFact, coupon: UsedCoupon) -> CouponUsed:
    return CouponUsed(
        coupon_id=CouponId(coupon.coupon_id),
        template_id=TemplateId(coupon.template_id),
        member_id=fact.order.member_id,
        order_id=fact.order.order_id,
        amount_minor=fact.given.amount_minor,
        occurred_at=fact.order.occurred_at,
        version=fact.version,
    )
