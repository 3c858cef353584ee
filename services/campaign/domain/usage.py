"""What paid and refunded orders used, as commerce tells it: facts, never refused."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from services.campaign.domain.coupons import CouponState


class UsageSource(StrEnum):
    """What gave a discount."""

    PROMOTION = "promotion"
    COUPON = "coupon"


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What one promotion or coupon gave to an order, or a refund brought back of it, in minor units."""

    source: UsageSource
    source_id: str
    template_id: str
    amount_minor: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PaidOrder:
    """A paid order with what each promotion and coupon gave to it; at most one entry for each."""

    order_id: str
    member_id: str
    store_id: str
    offline: bool
    occurred_at: datetime
    given: tuple[Given, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refund:
    """A refund with what it brings back to each promotion and coupon."""

    refund_id: str
    order_id: str
    whole_order: bool
    occurred_at: datetime
    given_back: tuple[Given, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class UsedCoupon:
    """A coupon that paid orders name, as it stands. `order_id` is the order that used it or whose hold holds it."""

    coupon_id: str
    template_id: str
    state: CouponState
    order_id: str
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CouponFact:
    """One order's use of one coupon. `excess`: another order has it, or nobody knows it. `version` 0: not known."""

    order: PaidOrder
    given: Given
    excess: bool
    version: int


def summed(parts: Iterable[Given]) -> tuple[Given, ...]:
    """The parts with one entry a source, in the order of first appearance; parts of nothing are left out."""
    sums: dict[tuple[UsageSource, str], Given] = {}
    for part in parts:
        if part.amount_minor:
            key = part.source, part.source_id
            known = sums.get(key)
            sums[key] = part if known is None else replace(known, amount_minor=known.amount_minor + part.amount_minor)
    return tuple(sums.values())


def settle_coupons(
    orders: Sequence[PaidOrder], coupons: Mapping[str, UsedCoupon]
) -> tuple[tuple[CouponFact, ...], dict[str, UsedCoupon]]:
    """The orders' uses in the order in which they were paid, and the coupons as they stand after them.

    A free coupon is used by the first order that names it. One that the order's own hold holds stays held: its capture
    is on the way. Whatever else an order names is an excess use.
    """
    after = dict(coupons)
    facts: list[CouponFact] = []
    for order in orders:
        for given in order.given:
            if given.source is not UsageSource.COUPON:
                continue
            coupon = after.get(given.source_id)
            if coupon is None:
                facts.append(CouponFact(order=order, given=given, excess=True, version=0))
                continue
            is_free = coupon.state is CouponState.ISSUED
            excess = not is_free and coupon.order_id != order.order_id
            version = coupon.version + 1
            facts.append(CouponFact(order=order, given=given, excess=excess, version=version))
            after[given.source_id] = (
                replace(coupon, state=CouponState.USED, order_id=order.order_id, version=version)
                if is_free
                else replace(coupon, version=version)
            )
    return tuple(facts), after
