"""What orders used: shares summed, coupons settled in the order of payment."""

from datetime import UTC, datetime

import pytest

from services.campaign.domain.coupons import CouponState
from services.campaign.domain.usage import Given, PaidOrder, UsageSource, UsedCoupon, settle_coupons, summed

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def coupon_share(coupon_id: str, amount_minor: int = 10) -> Given:
    return Given(source=UsageSource.COUPON, source_id=coupon_id, template_id="t", amount_minor=amount_minor)


def order(order_id: str, *given: Given) -> PaidOrder:
    return PaidOrder(order_id=order_id, member_id="", store_id="S1", offline=False, occurred_at=NOON, given=given)


def known(state: CouponState, order_id: str = "", version: int = 1) -> UsedCoupon:
    return UsedCoupon(coupon_id="c", template_id="t", state=state, order_id=order_id, version=version)


def test_shares_are_summed_by_what_gave_them() -> None:
    promotion = Given(source=UsageSource.PROMOTION, source_id="c", template_id="", amount_minor=5)
    nothing = coupon_share("d", 0)
    parts = summed([coupon_share("c", 1), promotion, coupon_share("c", 2), nothing])
    assert [(part.source, part.source_id, part.amount_minor) for part in parts] == [
        (UsageSource.COUPON, "c", 3),
        (UsageSource.PROMOTION, "c", 5),
    ]


@pytest.mark.parametrize(
    ("coupon", "orders", "excess", "after"),
    [
        pytest.param(known(CouponState.ISSUED), ["a"], [False], known(CouponState.USED, "a", 2), id="free"),
        pytest.param(
            known(CouponState.ISSUED), ["a", "b"], [False, True], known(CouponState.USED, "a", 3), id="used twice"
        ),
        pytest.param(
            known(CouponState.HELD, "a"), ["a"], [False], known(CouponState.HELD, "a", 2), id="held by the order"
        ),
        pytest.param(
            known(CouponState.HELD, "b"), ["a"], [True], known(CouponState.HELD, "b", 2), id="held by another"
        ),
        pytest.param(
            known(CouponState.USED, "a"), ["a"], [False], known(CouponState.USED, "a", 2), id="captured before"
        ),
        pytest.param(
            known(CouponState.USED, "b"), ["a"], [True], known(CouponState.USED, "b", 2), id="used by another"
        ),
    ],
)
def test_a_coupon_after_its_orders(
    coupon: UsedCoupon, orders: list[str], excess: list[bool], after: UsedCoupon
) -> None:
    facts, coupons = settle_coupons([order(name, coupon_share("c")) for name in orders], {"c": coupon})
    assert [fact.excess for fact in facts] == excess
    assert [fact.version for fact in facts] == list(range(2, 2 + len(orders)))
    assert coupons == {"c": after}


def test_a_coupon_that_nobody_knows_is_an_excess() -> None:
    facts, coupons = settle_coupons([order("a", coupon_share("scrawled"))], {})
    assert [(fact.excess, fact.version) for fact in facts] == [(True, 0)]
    assert coupons == {}
